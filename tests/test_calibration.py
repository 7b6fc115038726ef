"""Integer grids and their ranges: closed forms, published optima, brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import _calibration, find_clipping_range, round_to_grid

GAUSSIAN = stats.norm.ppf((np.arange(40_000) + 0.5) / 40_000)
"""Quantiles, so that nothing is left to chance."""

RANGES = st.tuples(st.floats(-50, -0.01), st.floats(0.01, 50), st.integers(2, 10))


def check_half_a_step(low, high, num_bits, round_values):
    scale = (high - low) / (2**num_bits - 1)
    # The ends move with the rounded zero point: keep half a step away from them.
    values = np.linspace(low + scale / 2, high - scale / 2, 257)
    rounded = round_values(values, low=low, high=high, num_bits=num_bits)
    assert np.abs(rounded - values).max() <= scale / 2 * (1 + 1e-9)
    assert round_values(np.zeros(1), low=low, high=high, num_bits=num_bits)[0] == 0
    assert len(np.unique(np.rint(rounded / scale))) <= 2**num_bits


@given(RANGES)
def test_an_error_is_at_most_half_a_step(drawn):
    check_half_a_step(*drawn, round_to_grid)


def test_that_cutting_instead_of_rounding_would_be_seen():
    def cut(values, *, low, high, num_bits):
        scale = (high - low) / (2**num_bits - 1)
        return np.floor(values / scale) * scale

    with pytest.raises(AssertionError):
        check_half_a_step(-1.0, 2.0, 4, cut)


def test_a_bit_is_worth_six_decibels():
    values = np.random.default_rng(0).uniform(-1, 1, 100_000)

    def measure_ratio(num_bits):
        error = round_to_grid(values, low=-1, high=1, num_bits=num_bits) - values
        return 10 * np.log10(np.mean(values**2) / np.mean(error**2))

    # 20 log10(2) = 6.02 decibels; the step is 2 / (2^b - 1), hence the small difference.
    assert measure_ratio(9) - measure_ratio(8) == pytest.approx(20 * np.log10(511 / 255), abs=0.05)


def test_the_range_of_a_gaussian_is_the_published_one():
    # Max (1960), table II: 16 equally spaced levels, step 0.3352, mean squared error 0.01154.
    low, high = find_clipping_range(GAUSSIAN, method="mse", num_bits=4)
    assert (high - low) / 15 == pytest.approx(0.3352, rel=0.06)
    error = np.mean((round_to_grid(GAUSSIAN, low=low, high=high, num_bits=4) - GAUSSIAN) ** 2)
    assert error == pytest.approx(0.01154, rel=0.05)


def integrate_error(step, smallest, largest):
    """Mean squared error of a standard Gaussian on the grid of integers times a step."""
    levels = np.arange(smallest, largest + 1) * step
    edges = np.concatenate([[-10], (levels[1:] + levels[:-1]) / 2, [10]])
    return sum(
        integrate.quad(lambda x, level=level: (x - level) ** 2 * stats.norm.pdf(x), *ends)[0]
        for level, ends in zip(levels, itertools.pairwise(edges), strict=True)
    )


@pytest.mark.parametrize("num_bits", [3, 4])
def test_the_error_is_that_of_the_integral(num_bits):
    half = 2 ** (num_bits - 1)
    best = min(integrate_error(step, -half, half - 1) for step in np.linspace(0.3, 0.65, 36))
    low, high = find_clipping_range(GAUSSIAN, method="mse", num_bits=num_bits)
    found = np.mean(
        (round_to_grid(GAUSSIAN, low=low, high=high, num_bits=num_bits) - GAUSSIAN) ** 2
    )
    assert found == pytest.approx(best, rel=0.03)


def check_against_brute_force(values, find):
    low, high = min(values.min(), 0), max(values.max(), 0)

    def measure_error(ends):
        rounded = round_to_grid(values, low=ends[0], high=ends[1], num_bits=3)
        return np.mean((rounded - values) ** 2)

    best = min(measure_error((f * low, f * high)) for f in np.linspace(0.02, 1, 500))
    assert measure_error(find(values)) <= 1.1 * best + 1e-12


@given(st.integers(0, 10_000), st.floats(1.5, 4))
@settings(max_examples=15)
def test_no_factor_is_much_better(seed, freedom):
    values = np.random.default_rng(seed).standard_t(freedom, 500)
    check_against_brute_force(values, lambda x: find_clipping_range(x, method="mse", num_bits=3))


def test_that_keeping_the_whole_range_would_be_seen():
    with pytest.raises(AssertionError):
        check_against_brute_force(GAUSSIAN, find_clipping_range)


def test_a_percentile_leaves_the_share_that_was_asked_for():
    low, high = find_clipping_range(GAUSSIAN, method="percentile", share=0.99)
    assert np.mean((low <= GAUSSIAN) & (high >= GAUSSIAN)) == pytest.approx(0.99, abs=1e-4)
    assert high == pytest.approx(stats.norm.ppf(0.995), rel=0.03)


@pytest.mark.parametrize("method", _calibration.CLIPPING_METHODS)
@pytest.mark.parametrize("values", [[1.0, 3.0], [-4.0, -2.0], [-1.0, 2.0]])
def test_nought_is_always_inside(method, values):
    low, high = find_clipping_range(values, method=method)
    assert low <= 0 <= high


@pytest.mark.parametrize(
    ("values", "options", "name"),
    [
        ([], {}, "values"),
        ([0.0, 0.0], {}, "values"),
        ([1.0, np.nan], {}, "values"),
        ([1.0], {"method": "entropy"}, "method"),
        ([1.0], {"num_bits": 1}, "num_bits"),
        ([1.0], {"method": "percentile", "share": 1.5}, "share"),
    ],
)
def test_bad_input_is_refused_by_name(values, options, name):
    with pytest.raises(InputError, match=name):
        find_clipping_range(values, **options)


@pytest.mark.parametrize("ends", [(0.5, 1.0), (0.0, 0.0)])
def test_a_range_without_nought_is_refused(ends):
    with pytest.raises(InputError, match="low and high"):
        round_to_grid([1.0], low=ends[0], high=ends[1], num_bits=8)
