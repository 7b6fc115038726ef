"""Cooperative games: which coalitions to ask about, and the Shapley values that follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from .._checks import check_array, check_integer

MAX_PLAYERS = 16  # 65,536 coalitions


def solve_game(game: Callable[[np.ndarray], Any], num_players: int) -> np.ndarray:
    """Shapley values by asking about every coalition: exact, and the measure of all others.

    A player's value is what it adds to a coalition, averaged over all orders of arrival.

    Args:
        game: takes coalitions `(num_coalitions, num_players)`, `True` for who is there, and
            returns what each is worth, `(num_coalitions,)` or `(num_coalitions, num_outputs)`.
        num_players: from 1 to 16.

    Returns:
        The values `(num_players,)` or `(num_players, num_outputs)`, as the game returns.

    Raises:
        InputError: if there are too many players, or the game's worths are not finite or not
            one for each coalition.

    Limits:
        Twice the coalitions for each player more.

    Example:
        >>> # The airport: who needs the longest runway pays for its length.
        >>> costs = np.array([1.0, 3.0])
        >>> solve_game(lambda there: (there * costs).max(axis=1), 2).tolist()
        [0.5, 2.5]

    References:
        L. S. Shapley, A Value for n-Person Games, Contributions to the Theory of Games II,
        1953. S. C. Littlechild, G. Owen, A Simple Expression for the Shapley Value in a
        Special Case, Management Science 20, 1973.
    """
    count = check_integer("num_players", num_players, at_least=1, at_most=MAX_PLAYERS)
    numbers = np.arange(2**count)
    there = (numbers[:, None] >> np.arange(count)) & 1 == 1
    worths = check_array("game", game(there)).astype(np.float64)
    check_array("game", worths, shape=(len(there), *[None] * (worths.ndim > 1)))
    sizes = there.sum(axis=1)
    # Probability that exactly these came before the player.
    chances = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    values = np.empty((count, *worths.shape[1:]))
    for player in range(count):
        before = numbers[~there[:, player]]
        gains = worths[before | (1 << player)] - worths[before]
        values[player] = np.tensordot(chances[sizes[before]], gains, axes=1)
    return values


@dataclass(frozen=True)
class PairPlan:
    """Coalitions to ask about, each with its complement.

    The kernel gives a size the same weight as its complement's, so a pair is known by its
    smaller half. Sizes that the budget covers are listed whole, smallest first; the others are
    drawn.

    Attributes:
        listed: coalitions listed, `(num_listed, num_players)`.
        weights: the kernel's weight of each listed pair, `(num_listed,)`.
        sizes: sizes left to draw, and in `chances` how often each is drawn.
        chances: probabilities that sum to 1, or none.
        weight_left: the kernel's weight of all pairs of these sizes together.
    """

    listed: np.ndarray
    weights: np.ndarray
    sizes: np.ndarray
    chances: np.ndarray
    weight_left: float

    @property
    def is_exact(self) -> bool:
        """Whether no coalition is left to chance."""
        return len(self.sizes) == 0

    def draw(self, num_pairs: int, numbers: np.random.Generator) -> np.ndarray:
        """Coalitions `(num_pairs, num_players)`, independent of each other."""
        num_players = self.listed.shape[1]
        sizes = numbers.choice(self.sizes, size=num_pairs, p=self.chances)
        ranks = numbers.random((num_pairs, num_players)).argsort(axis=1).argsort(axis=1)
        return np.asarray(ranks < sizes[:, None])


def plan_pairs(num_players: int, *, num_pairs: int) -> PairPlan:
    """Lists the sizes that as many draws would cover, and leaves the others to be drawn.

    References:
        S. Lundberg, S.-I. Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS,
        2017.
    """
    sizes = np.arange(1, num_players // 2 + 1)
    shares = 1 / (sizes * (num_players - sizes))
    shares = np.where(2 * sizes == num_players, shares / 2, shares)
    shares = shares / max(shares.sum(), 1e-300)
    counts = [_count_pairs(num_players, size) for size in sizes.tolist()]
    listed, weights, first = [np.zeros((0, num_players), dtype=bool)], [np.zeros(0)], 0
    left = num_pairs
    for size, share, count in zip(sizes.tolist(), shares.tolist(), counts, strict=True):
        expected = left * share / shares[first:].sum()
        # The smallest size is listed in any case: it alone leaves no player without a say.
        if count > left or (size > 1 and count > expected and left < sum(counts[first:])):
            break
        listed.append(_list_pairs(num_players, size))
        weights.append(np.full(count, share / count))
        left, first = left - count, first + 1
    rest = shares[first:].sum()
    return PairPlan(
        np.concatenate(listed),
        np.concatenate(weights),
        sizes[first:],
        shares[first:] / rest if first < len(sizes) else shares[first:],
        float(rest),
    )


def _count_pairs(num_players: int, size: int) -> int:
    count = math.comb(num_players, size)
    return count // 2 if 2 * size == num_players else count


def _list_pairs(num_players: int, size: int) -> np.ndarray:
    # Coalitions of half the players come in their own complements' order: the first half.
    chosen = np.array(list(combinations(range(num_players), size)))
    chosen = chosen[: _count_pairs(num_players, size)]
    there = np.zeros((len(chosen), num_players), dtype=bool)
    np.put_along_axis(there, chosen, True, axis=1)
    return there


def fit_pairs(
    there: np.ndarray,
    gains: np.ndarray,
    *,
    weights: np.ndarray,
    totals: np.ndarray,
    num_drawn: int,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Values that explain best what each coalition is worth above its complement.

    With :math:`s = \pm 1` for who is there and who is not, the weighted squares of
    :math:`v(S) - v(\bar S) - s^\top \varphi` are least under :math:`\sum \varphi = v(N) -
    v(\emptyset)`. This is KernelSHAP's problem: given the constraint, what a pair is worth
    together does not depend on :math:`\varphi`. The constraint is eliminated by writing
    :math:`\varphi` as the mean plus a part orthogonal to it.

    Args:
        there: coalitions `(num_pairs, num_players)`; those drawn come last.
        gains: `(num_pairs, num_problems)`, one column for each row and output explained.
        weights: of each pair.
        totals: what all players share out, `(num_problems,)`.
        num_drawn: how many of the pairs were drawn.

    Returns:
        Values and their standard errors, each `(num_players, num_problems)`. The errors are
        those of the jackknife to first order: a pair's pull on the values, divided by its
        leverage's complement.
    """
    num_players = there.shape[1]
    signs = np.where(there, 1.0, -1.0)
    mean = totals / num_players
    basis = _build_basis(num_players)
    design = signs @ basis
    rest = gains - signs.sum(axis=1)[:, None] * mean
    pull = np.linalg.solve(design.T @ (weights[:, None] * design), design.T * weights)
    fitted = pull @ rest
    values = mean + basis @ fitted
    if num_drawn < 2:
        return values, np.zeros_like(values)
    drawn = slice(len(there) - num_drawn, None)
    leverages = np.einsum("pk,kp->p", design[drawn], pull[:, drawn])
    errors = (rest[drawn] - design[drawn] @ fitted) / np.maximum(1 - leverages, 0.05)[:, None]
    # Centered, since the listed pairs have a pull of their own, which is no chance.
    influence = basis @ pull[:, drawn]
    squares = influence**2 @ errors**2 - (influence @ errors) ** 2 / num_drawn
    return values, np.sqrt(np.maximum(squares, 0) * num_drawn / (num_drawn - 1))


def _build_basis(num_players: int) -> np.ndarray:
    """Orthonormal columns `(num_players, num_players - 1)`, each of which sums to nought."""
    places = np.arange(1, num_players)
    columns = np.triu(np.ones((num_players, num_players)))[:, :-1]
    columns[places, places - 1] = -places
    return np.asarray(columns / np.sqrt(places * (places + 1)))
