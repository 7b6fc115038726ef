"""What every kind of LIME shares: the weighted linear fit, its errors, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._checks import InputError, check_integer
from ._result import Explanation

MIN_SEGMENTS = 5
NUM_HALVINGS = 10  # stability is a mean over these; more of them change its second digit
KERNEL_WIDTH = 0.25  # of the cosine distance between what is shown and all


@dataclass(frozen=True)
class Surrogates:
    """Linear fits to a model's outputs around some rows, on draws that the rows share.

    Attributes:
        coefficients: `(num_rows, num_features, num_targets)`.
        standard_errors: of the coefficients over other draws, of the same shape.
        intercepts: `(num_rows, num_targets)`.
        r2: weighted share of the variance that the fit explains, `(num_rows, num_targets)`.
        stability: agreement of the largest coefficients, `(num_rows, num_targets)`.
        num_segments: features that were hidden and shown.
    """

    coefficients: np.ndarray
    standard_errors: np.ndarray
    intercepts: np.ndarray
    r2: np.ndarray
    stability: np.ndarray
    num_segments: int

    def spread(self, places: np.ndarray, width: int) -> Surrogates:
        """Puts the features at `places` of a row of `width`; elsewhere is nought."""

        def put(values: np.ndarray) -> np.ndarray:
            wide = np.zeros((len(values), width, values.shape[2]))
            wide[:, places] = values
            return wide

        return replace(
            self,
            coefficients=put(self.coefficients),
            standard_errors=put(self.standard_errors),
        )


def fit_surrogates(
    masks: np.ndarray,
    outputs: np.ndarray,
    *,
    weights: np.ndarray,
    ridge: float = 1.0,
    seed: int = 0,
) -> Surrogates:
    r"""Fits all rows and targets that share one matrix of masks by one weighted ridge.

    With masks $x_i$ and outputs $y_i$ less their weighted means, $\beta = \sum_i a_i y_i$ where
    $a_i = (\sum_j w_j x_j x_j^\top + \lambda I)^{-1} w_i x_i$. Each draw enters as $a_i e_i$,
    its residual over one minus its leverage; the sum of their squares is the variance of
    $\beta$ over other draws, whether the model is linear or not. Half of the draws moves
    $\beta$ by $\pm\sum_i s_i a_i e_i$ with $s_i = \pm 1$: no refit is needed.

    Args:
        masks: `(num_draws, num_segments)`, 1 where the segment is as in the row.
        outputs: `(num_draws, num_rows, num_targets)`.
        weights: `(num_draws,)`, positive.
        ridge: the penalty $\lambda$; LIME takes 1.
        seed: of the halvings.

    Returns:
        The fits. `stability` is the mean Jaccard index of the largest coefficients (five, or
        half of them where there are fewer than ten) on two halves of the draws, over
        `NUM_HALVINGS` halvings. Two seeds agree at least as well, for they have twice the draws.

    Limits:
        The penalty shrinks coefficients towards nought; standard errors do not see that. With
        few draws for each coefficient they are somewhat too large.

    Example:
        >>> masks = np.random.default_rng(0).integers(0, 2, (50, 3))
        >>> fit = fit_surrogates(masks, (masks @ [1, 2, 3])[:, None, None],
        ...                      weights=np.ones(50), ridge=0)
        >>> fit.coefficients[0, :, 0].round(6).tolist()
        [1.0, 2.0, 3.0]

    References:
        M. T. Ribeiro, S. Singh, C. Guestrin, "Why Should I Trust You?", KDD, 2016.
        J. G. MacKinnon, H. White, "Some Heteroskedasticity-Consistent Covariance Matrix
        Estimators with Improved Finite Sample Properties", Journal of Econometrics 29, 1985.
    """
    num_draws, num_rows, num_targets = outputs.shape
    shares = weights / weights.sum()
    mask_means = shares @ masks
    x = masks - mask_means
    y = outputs.reshape(num_draws, -1)
    y_means = shares @ y
    y = y - y_means
    weighted = x * weights[:, None]
    gram = x.T @ weighted + ridge * np.eye(x.shape[1])
    pulls = weighted @ np.linalg.inv(gram)  # row i is what draw i adds to the coefficients
    beta = pulls.T @ y
    residuals = y - x @ beta
    leverages = np.einsum("ij,ij->i", x, pulls) + shares
    errors = residuals / (1 - leverages)[:, None]

    stability = _measure_stability(beta, pulls, errors=errors, seed=seed)

    def by_row(columns: np.ndarray) -> np.ndarray:
        return np.moveaxis(columns.reshape(-1, num_rows, num_targets), 0, 1)

    return Surrogates(
        coefficients=by_row(beta),
        standard_errors=by_row(np.sqrt((pulls**2).T @ errors**2)),
        intercepts=(y_means - mask_means @ beta).reshape(num_rows, num_targets),
        r2=(1 - shares @ residuals**2 / (shares @ y**2)).reshape(num_rows, num_targets),
        stability=stability.reshape(num_rows, num_targets),
        num_segments=x.shape[1],
    )


def _measure_stability(
    beta: np.ndarray, pulls: np.ndarray, *, errors: np.ndarray, seed: int
) -> np.ndarray:
    size = min(MIN_SEGMENTS, (len(beta) + 1) // 2)
    generator = np.random.default_rng(seed)
    total = np.zeros(beta.shape[1])
    for _ in range(NUM_HALVINGS):
        signs = generator.integers(0, 2, (len(errors), 1)) * 2.0 - 1
        step = pulls.T @ (signs * errors)
        common = (_find_largest(beta + step, size) & _find_largest(beta - step, size)).sum(axis=0)
        total += common / (2 * size - common)
    return total / NUM_HALVINGS


def _find_largest(beta: np.ndarray, size: int) -> np.ndarray:
    """True at the `size` largest of each column by magnitude."""
    places = np.argsort(-np.abs(beta), axis=0, kind="stable")[:size]
    chosen = np.zeros(beta.shape, dtype=bool)
    np.put_along_axis(chosen, places, True, axis=0)
    return chosen


def weigh_masks(masks: np.ndarray) -> np.ndarray:
    """LIME's kernel of images and texts: of the cosine distance to the mask that shows all."""
    distances = 1 - np.sqrt(masks.mean(axis=1))
    return np.asarray(np.exp(-(distances**2) / (2 * KERNEL_WIDTH**2)))


def check_varied(outputs: np.ndarray, targets: Sequence[int], *, fix: str) -> None:
    """Refuses an output that is the same whatever is hidden; `outputs` as `fit_surrogates`.

    Raises:
        InputError: naming the first row and target.
    """
    spans = np.ptp(outputs, axis=0)
    constant = np.argwhere(spans <= 1e-12 * np.abs(outputs).max(axis=0))
    if len(constant):
        row, place = constant[0]
        raise InputError(
            "model",
            "must answer perturbed inputs differently",
            f"output {targets[place]} of row {row} is always {outputs[0, row, place]:.6g}",
            fix,
        )


def check_num_segments(name: str, count: int, *, row: int, fix: str) -> None:
    """Refuses what has too few parts for a linear fit to say anything.

    Raises:
        InputError: with the row.
    """
    if count < MIN_SEGMENTS:
        raise InputError(
            name, f"must have at least {MIN_SEGMENTS} parts to hide", f"{count} in row {row}", fix
        )


def check_num_samples(num_samples: int, *, num_segments: int) -> int:
    """Returns the number of draws, at least twice that of the coefficients."""
    return check_integer("num_samples", num_samples, at_least=2 * (num_segments + 1))


def make_state(seed: int) -> np.random.RandomState:
    """Returns the generator that `lime` draws with, apart from the process's own."""
    return np.random.RandomState(check_integer("seed", seed, at_least=0, at_most=2**32 - 1))


def make_explanation(
    method: str,
    surrogates: Sequence[Surrogates],
    *,
    inputs: np.ndarray,
    outputs: np.ndarray,
    targets: tuple[int, ...],
) -> Explanation:
    """Joins fits of rows, one after the other, into the report."""

    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(each, name) for each in surrogates])

    counts = [np.full(each.r2.shape, each.num_segments) for each in surrogates]
    return Explanation(
        method=method,
        values=join("coefficients"),
        base_values=join("intercepts"),
        outputs=outputs,
        inputs=inputs,
        targets=targets,
        standard_errors=join("standard_errors"),
        diagnostics={
            "r2": join("r2"),
            "num_segments": np.concatenate(counts),
            "stability": join("stability"),
        },
    )
