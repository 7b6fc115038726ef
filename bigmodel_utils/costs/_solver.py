"""The fit of a scaling law: many robust nonlinear regressions, side by side in NumPy."""

from __future__ import annotations

import numpy as np

_BEND = 1e-3  # where the Huber loss goes from square to straight, in the logarithm of a loss
_EXPONENTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
_MAX_STEPS = 1000
_TOLERANCE = 1e-10  # of the objective in one step, at which a fit is done


Logs = tuple[np.ndarray, np.ndarray, np.ndarray]


def minimise_huber(
    logs: Logs, counts: np.ndarray, *, start: np.ndarray | None = None
) -> np.ndarray:
    r"""Fits :math:`\log L = \mathrm{LSE}(a - \alpha \log N, b - \beta \log D, e)`.

    Args:
        logs: logarithms of the numbers of parameters, of the numbers of tokens, and of the
            losses, each `(num_runs,)`.
        counts: how often each run counts in each fit, `(num_fits, num_runs)`.
        start: a good guess to try beside the usual starts, `(5,)`.

    Returns:
        The values :math:`a, b, e, \alpha, \beta` of each fit, `(num_fits, 5)`.
    """
    starts = _make_starts(*logs)
    if start is not None:  # resamples: the fit to all runs, and one other
        starts = np.vstack([start, starts[:1]])
    num_fits, num_starts = len(counts), len(starts)
    values = np.tile(starts, (num_fits, 1))
    weights = np.repeat(counts, num_starts, axis=0)
    values, objective = _descend(values, weights, logs)
    best = objective.reshape(num_fits, num_starts).argmin(axis=1)
    chosen: np.ndarray = values.reshape(num_fits, num_starts, 5)[np.arange(num_fits), best]
    return chosen


def _make_starts(size: np.ndarray, data: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """With the exponents given the law is linear in the rest: solved for a grid of exponents."""
    floor = np.exp(loss.min())
    starts = []
    for model_exponent in _EXPONENTS:
        for data_exponent in _EXPONENTS:
            columns = (np.exp(-model_exponent * size), np.exp(-data_exponent * data))
            # Columns of like size: the factors differ from the losses by many powers of ten.
            scale = [column.max() for column in columns]
            table = np.stack([columns[0] / scale[0], columns[1] / scale[1], np.ones_like(size)], 1)
            solution = np.linalg.lstsq(table, np.exp(loss), rcond=None)[0]
            model, tokens, rest = np.maximum(solution, 0.02 * floor)
            error = np.square(np.log(table @ [model, tokens, rest]) - loss).sum()
            logs = np.log([model / scale[0], tokens / scale[1], rest])
            starts.append((error, [*logs, model_exponent, data_exponent]))
    starts.sort(key=lambda pair: pair[0])
    return np.array([values for _, values in starts])


def _descend(values: np.ndarray, weights: np.ndarray, logs: Logs) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg's and Marquardt's steps on the reweighted squares, each fit with its damping."""
    damping = np.full(len(values), 1e-3)
    objective = _sum_huber(_linearise(values, logs)[0], weights)
    values, open_fits = values.copy(), np.arange(len(values))
    for _ in range(_MAX_STEPS):
        tried, new_objective = _step(
            values[open_fits], weights[open_fits], damping[open_fits], logs
        )
        old_objective = objective[open_fits]
        is_better = new_objective < old_objective
        better = open_fits[is_better]
        values[better], objective[better] = tried[is_better], new_objective[is_better]
        damping[open_fits] *= np.where(is_better, 1 / 3, 4)
        gain = old_objective - new_objective
        settled = np.where(is_better, gain <= _TOLERANCE * old_objective, damping[open_fits] > 1e8)
        open_fits = open_fits[~settled]
        if not len(open_fits):
            break
    return values, objective


def _step(
    values: np.ndarray,
    weights: np.ndarray,
    damping: np.ndarray,
    logs: Logs,
) -> tuple[np.ndarray, np.ndarray]:
    """One damped step of each fit, and the objective there."""
    residuals, slopes = _linearise(values, logs)
    robust = weights * np.minimum(1, _BEND / np.maximum(np.abs(residuals), 1e-300))
    weighted = robust[:, :, None] * slopes
    normal = np.swapaxes(weighted, 1, 2) @ slopes
    gradient = np.swapaxes(weighted, 1, 2) @ residuals[:, :, None]
    diagonal = np.einsum("fpp->fp", normal) * damping[:, None] + 1e-14
    steps = np.linalg.solve(normal + diagonal[:, :, None] * np.eye(5), gradient)[:, :, 0]
    tried = values - np.clip(steps, -2, 2)
    return tried, _sum_huber(_linearise(tried, logs)[0], weights)


def _linearise(values: np.ndarray, logs: Logs) -> tuple[np.ndarray, np.ndarray]:
    """Differences of the logarithms, `(fits, runs)`, and their slopes, `(fits, runs, 5)`."""
    size, data, loss = logs
    model = values[:, 0:1] - values[:, 3:4] * size
    tokens = values[:, 1:2] - values[:, 4:5] * data
    floor = np.broadcast_to(values[:, 2:3], model.shape)
    terms = np.stack([model, tokens, floor], axis=2)
    largest = terms.max(axis=2, keepdims=True)
    powers = np.exp(terms - largest)
    sums = powers.sum(axis=2, keepdims=True)
    shares = powers / sums
    predicted = largest[:, :, 0] + np.log(sums[:, :, 0])
    exponents = (-shares[:, :, 0] * size, -shares[:, :, 1] * data)
    return predicted - loss, np.concatenate([shares, np.stack(exponents, axis=2)], axis=2)


def _sum_huber(residuals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    distance = np.abs(residuals)
    square, straight = 0.5 * residuals**2, _BEND * (distance - 0.5 * _BEND)
    total: np.ndarray = (weights * np.where(distance <= _BEND, square, straight)).sum(axis=1)
    return total
