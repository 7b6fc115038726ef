"""Scaling laws: predict a loss, split a budget, fit the law to one's own runs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer, check_real, check_same_length
from .._report import Report, format_count
from ..benchmark import Interval
from ._solver import minimise_huber

_PARAMETERS = ("irreducible_loss", "model_factor", "data_factor", "model_exponent", "data_exponent")


@dataclass(frozen=True)
class ScalingLaw:
    r"""The loss of a language model as a function of its size and its data.

    With `N` parameters and `D` tokens, :math:`L(N, D) = E + A / N^\alpha + B / D^\beta`.

    Attributes:
        irreducible_loss: `E`, in nats per token: the entropy of the text itself.
        model_factor: `A`.
        data_factor: `B`.
        model_exponent: :math:`\alpha`.
        data_exponent: :math:`\beta`.
        source: where the numbers come from.

    Raises:
        InputError: if a factor or an exponent is not positive.

    Limits:
        Holds for one kind of architecture, tokens and data, trained in one epoch with a
        schedule that ends with the data. A loss is comparable only with the same tokens.

    Example:
        >>> f"{CHINCHILLA.predict_loss(70e9, 1.4e12):.2f}"
        '1.92'

    References:
        Hoffmann et al., Training Compute-Optimal Large Language Models (2022), equation 2.
    """

    irreducible_loss: float
    model_factor: float
    data_factor: float
    model_exponent: float
    data_exponent: float
    source: str = "stated by the caller"

    def __post_init__(self) -> None:
        check_real("irreducible_loss", self.irreducible_loss, at_least=0)
        for name in _PARAMETERS[1:]:
            check_real(name, getattr(self, name), at_least=1e-9)

    def predict_loss(self, num_parameters: Any, num_tokens: Any) -> Any:
        """Loss in nats per token; takes numbers or arrays that broadcast."""
        return (
            self.irreducible_loss
            + self.model_factor * np.asarray(num_parameters, float) ** -self.model_exponent
            + self.data_factor * np.asarray(num_tokens, float) ** -self.data_exponent
        )

    @property
    def size_exponent(self) -> float:
        r"""How the best size grows with operations: :math:`N \propto C^a`."""
        return self.data_exponent / (self.model_exponent + self.data_exponent)


CHINCHILLA = ScalingLaw(
    irreducible_loss=1.6934,
    model_factor=406.401,
    data_factor=410.7228,
    model_exponent=0.33917084,
    data_exponent=0.2849083,
    source=(
        "Hoffmann et al., Training Compute-Optimal Large Language Models (2022), approach 3, "
        "https://arxiv.org/abs/2203.15556, with the digits of the paper's source that its "
        "equation 10 rounds away; a later look at its own data fits another law, see "
        "CHINCHILLA_REFITTED"
    ),
)
"""The law as its authors published it."""

CHINCHILLA_REFITTED = ScalingLaw(
    irreducible_loss=1.8172,
    model_factor=482.01,
    data_factor=2085.43,
    model_exponent=0.3478,
    data_exponent=0.3658,
    source=(
        "Besiroglu et al. (Epoch AI), Chinchilla Scaling: A replication attempt (2024), "
        "https://arxiv.org/abs/2404.10102, fitted to the runs read off the first paper's "
        "figure 4; it agrees with that paper's other two approaches, the first fit does not"
    ),
)
"""The law that the same runs give when the fit converges."""


@dataclass(frozen=True)
class Allocation(Report):
    """A size and an amount of data for a budget of operations.

    Attributes:
        num_parameters: of the model.
        num_tokens: to train on.
        loss: that the law predicts.
        flops: the budget.
    """

    num_parameters: float
    num_tokens: float
    loss: float
    flops: float

    def _list_rows(self) -> list[tuple[str, str]]:
        return [
            ("operations", format_count(self.flops)),
            ("parameters", format_count(self.num_parameters)),
            ("tokens", format_count(self.num_tokens)),
            ("tokens per parameter", f"{self.num_tokens / self.num_parameters:.1f}"),
            ("predicted loss", f"{self.loss:.3f}"),
        ]


def find_compute_optimal(flops: float, *, law: ScalingLaw = CHINCHILLA_REFITTED) -> Allocation:
    r"""Finds the size and the data that reach the lowest loss for a budget of operations.

    Under :math:`C = 6ND` the law is least at :math:`N = G (C/6)^a`,
    :math:`D = G^{-1} (C/6)^{1-a}`, with :math:`a = \beta/(\alpha+\beta)` and
    :math:`G = (\alpha A / \beta B)^{1/(\alpha+\beta)}`.

    Args:
        flops: operations of training.
        law: the law; the refitted one by default.

    Returns:
        The allocation.

    Raises:
        InputError: if the budget is not positive.

    Limits:
        Optimal for training alone: a model that will be used a lot should be smaller and see
        more tokens. The optimum is flat: half or twice the size costs a few thousandths of
        the loss. Where data is scarce, the law does not know that.

    Example:
        >>> best = find_compute_optimal(5.76e23)  # the budget of Gopher and Chinchilla
        >>> f"{best.num_tokens / best.num_parameters:.0f} tokens per parameter"
        '18 tokens per parameter'

    References:
        Hoffmann et al., Training Compute-Optimal Large Language Models (2022), equation 4.
    """
    budget = check_real("flops", flops, at_least=1) / 6
    factor = (law.model_exponent * law.model_factor) / (law.data_exponent * law.data_factor)
    scale = factor ** (1 / (law.model_exponent + law.data_exponent))
    size = scale * budget**law.size_exponent
    tokens = budget / size
    return Allocation(size, tokens, float(law.predict_loss(size, tokens)), 6 * budget)


@dataclass(frozen=True)
class ScalingFit(Report):
    """A law fitted to runs, with the interval of each of its numbers.

    Attributes:
        law: the fit to all runs.
        intervals: of the law's numbers and of `size_exponent`, by name.
        error: root mean square of the relative errors of the losses.
        num_runs: runs that were fitted.
        resampled: the fits to the runs drawn with replacement.
        residuals: logarithm of each run's loss less that of the law's.
    """

    law: ScalingLaw
    intervals: dict[str, Interval]
    error: float
    num_runs: int
    resampled: tuple[ScalingLaw, ...] = field(repr=False)
    residuals: tuple[float, ...] = field(repr=False)

    def predict_loss(
        self, num_parameters: float, num_tokens: float, *, confidence: float = 0.95
    ) -> Interval:
        """Predicts the loss of one more run, and the interval in which it should fall.

        Every resampled law is set off by every residual, so the interval holds both what the
        fit does not know of the law and how runs differ among themselves.

        Args:
            num_parameters: of the run.
            num_tokens: of the run.
            confidence: probability mass of the interval, in (0, 1).

        Returns:
            The law's value with the interval, in nats per token.

        Raises:
            InputError: if a number is not positive.

        Limits:
            A bend of the true curve outside the fitted runs is not in the interval: test a
            forecast on a larger run that was held out.

        Example:
            >>> sizes, tokens = np.repeat([1e6, 1e7, 1e8], 3), np.tile([1e8, 1e9, 1e10], 3)
            >>> noise = np.exp(np.random.default_rng(0).normal(scale=0.002, size=9))
            >>> losses = CHINCHILLA.predict_loss(sizes, tokens) * noise
            >>> fit = fit_scaling_law(sizes, tokens, losses=losses, num_resamples=50)
            >>> held_out = CHINCHILLA.predict_loss(1e9, 1e10)
            >>> predicted = fit.predict_loss(1e9, 1e10)
            >>> bool(predicted.low < held_out < predicted.high)
            True

        References:
            Davison and Hinkley, Bootstrap Methods and their Application (1997), section 6.3.3,
            for the interval of a new observation.
        """
        check_real("num_parameters", num_parameters, at_least=1)
        check_real("num_tokens", num_tokens, at_least=1)
        check_real("confidence", confidence, at_least=0.001, at_most=0.999)
        laws = [law.predict_loss(num_parameters, num_tokens) for law in self.resampled]
        # A fit takes up part of the noise: five numbers of as many degrees of freedom.
        spread = math.sqrt(self.num_runs / (self.num_runs - len(_PARAMETERS)))
        runs = np.outer(laws, np.exp(spread * np.asarray(self.residuals)))
        tail = (1 - confidence) / 2
        low, high = np.quantile(runs, [tail, 1 - tail])
        value = float(self.law.predict_loss(num_parameters, num_tokens))
        return Interval(value, float(low), float(high), confidence)

    def to_dict(self) -> dict[str, Any]:
        """Returns all but the resampled fits as a plain dictionary."""
        return {name: value for name, value in asdict(self).items() if name != "resampled"}

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = [(name.replace("_", " "), f"{part:.4g}") for name, part in self.intervals.items()]
        return [*rows, ("relative error", f"{self.error:.2%}"), ("runs", str(self.num_runs))]


def fit_scaling_law(
    num_parameters: Any,
    num_tokens: Any,
    *,
    losses: Any,
    num_resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> ScalingFit:
    r"""Fits :math:`L = E + A/N^\alpha + B/D^\beta` to runs, with bootstrap intervals.

    Minimises the Huber loss, which bends at 0.001, of the differences of the logarithms of
    measured and predicted losses, from many starts; then again for runs drawn with
    replacement.

    Args:
        num_parameters: of each run, shape `(num_runs,)`.
        num_tokens: of each run, shape `(num_runs,)`.
        losses: final loss of each run in nats per token, shape `(num_runs,)`.
        num_resamples: fits of the bootstrap.
        confidence: probability mass of the intervals, in (0, 1).
        seed: seed of the resampling.

    Returns:
        The law, an interval for each number, and how well it fits.

    Raises:
        InputError: if there are fewer than eight runs, a number is not positive, or sizes or
            amounts of data are all alike.

    Limits:
        Sizes and data must vary apart from each other, by a factor of ten and more, or the
        numbers cannot be told apart: the intervals show it. A term that is less than a
        hundredth of the loss everywhere may not be found. Intervals tell of noise between
        runs, not of a law that is wrong beyond them; those of ten runs are too narrow.

    Example:
        >>> grid = np.meshgrid([1e7, 1e8, 1e9], [1e9, 1e10, 1e11])
        >>> sizes, tokens = grid[0].ravel(), grid[1].ravel()
        >>> losses = CHINCHILLA.predict_loss(sizes, tokens)
        >>> fit = fit_scaling_law(sizes, tokens, losses=losses, num_resamples=20)
        >>> f"{fit.law.model_exponent:.4f} {fit.law.data_exponent:.4f}"
        '0.3392 0.2849'

    References:
        Hoffmann et al. (2022), section 3.3 and appendix D.2; Besiroglu et al., Chinchilla
        Scaling: A replication attempt (2024), for the bootstrap and for what a fit that stops
        too early does.
    """
    runs = {"num_parameters": num_parameters, "num_tokens": num_tokens, "losses": losses}
    arrays = {name: _check_positive(name, value) for name, value in runs.items()}
    count = check_same_length(**arrays)
    if count < 8:
        raise InputError("losses", "must come from at least eight runs", count, "train more")
    check_integer("num_resamples", num_resamples, at_least=2)
    check_real("confidence", confidence, at_least=0.001, at_most=0.999)
    for name in ("num_parameters", "num_tokens"):
        if len(np.unique(arrays[name])) < 3:
            raise InputError(name, "must take three values or more", "fewer", "vary it")
    size, data, loss = (np.log(array) for array in arrays.values())
    logs = (size, data, loss)

    whole = minimise_huber(logs, np.ones((1, count)))
    counts = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=num_resamples
    )
    samples = minimise_huber(logs, counts.astype(float), start=whole[0])
    law = _make_law(whole[0], f"fitted to {count} runs")
    laws = [_make_law(sample, "resampled") for sample in samples]
    intervals = {}
    tail = (1 - confidence) / 2
    for name in (*_PARAMETERS, "size_exponent"):
        low, high = np.quantile([getattr(one, name) for one in laws], [tail, 1 - tail])
        intervals[name] = Interval(getattr(law, name), float(low), float(high), confidence)
    predicted = law.predict_loss(arrays["num_parameters"], arrays["num_tokens"])
    error = math.sqrt(float(np.mean((predicted / arrays["losses"] - 1) ** 2)))
    residuals = tuple(float(value) for value in loss - np.log(predicted))
    return ScalingFit(law, intervals, error, count, tuple(laws), residuals)


def measure_forecast_error(
    law: ScalingLaw, num_parameters: Any, *, num_tokens: Any, losses: Any
) -> float:
    r"""Measures by how much a law misses runs that it was not fitted to.

    Args:
        law: fitted to other runs.
        num_parameters: of each held-out run, shape `(num_runs,)`.
        num_tokens: of each held-out run, shape `(num_runs,)`.
        losses: final loss of each held-out run in nats per token, shape `(num_runs,)`.

    Returns:
        The largest :math:`|\hat L / L - 1|` over the runs, a fraction of the loss.

    Raises:
        InputError: if a number is not positive, or lengths differ.

    Limits:
        Speaks of the step from the fitted runs to these. The next step of the same factor
        may miss by more. A loss that falls by a few per cent from one size to the next is
        easy to predict to a few per cent: set the error beside that fall.

    Example:
        >>> losses = CHINCHILLA.predict_loss([1e9, 2e9], [2e10, 4e10]) * [1.01, 0.98]
        >>> error = measure_forecast_error(
        ...     CHINCHILLA, [1e9, 2e9], num_tokens=[2e10, 4e10], losses=losses
        ... )
        >>> f"{error:.4f}"
        '0.0204'
    """
    runs = {"num_parameters": num_parameters, "num_tokens": num_tokens, "losses": losses}
    arrays = {name: _check_positive(name, value) for name, value in runs.items()}
    check_same_length(**arrays)
    predicted = law.predict_loss(arrays["num_parameters"], arrays["num_tokens"])
    return float(np.max(np.abs(predicted / arrays["losses"] - 1)))


def _check_positive(name: str, value: Any) -> np.ndarray:
    array = check_array(name, value, shape=(None,)).astype(float)
    if (array <= 0).any():
        first = int(np.argmin(array))
        raise InputError(
            name, "must be positive", f"{array[first]:g} at index {first}", "drop the run"
        )
    return array


def _make_law(values: np.ndarray, source: str) -> ScalingLaw:
    """From the logarithms of the factors and of `E`, and the exponents."""
    model, data, floor, model_exponent, data_exponent = (float(value) for value in values)
    return ScalingLaw(
        irreducible_loss=math.exp(floor),
        model_factor=math.exp(model),
        data_factor=math.exp(data),
        model_exponent=max(model_exponent, 1e-9),
        data_exponent=max(data_exponent, 1e-9),
        source=source,
    )
