"""The equations of the page on validation, as they stand there, for any shape and any counts."""

from statistics import NormalDist

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import notebooks

PAGE = notebooks.ROOT / "chapters" / "02_core_concepts" / "training_and_validation.ipynb"
TOLERANCE = 1e-5

few_examples = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32 - 1)


EQUATIONS = notebooks.load_definitions(PAGE, NormalDist=NormalDist, keras=keras, np=np, tf=tf)
temper, temper_keras = EQUATIONS["temper"], EQUATIONS["temper_keras"]
estimate_wrong, split_variance, combine_variance = (
    EQUATIONS[name] for name in ("estimate_wrong", "split_variance", "combine_variance")
)
stop_early, stop_keras = EQUATIONS["stop_early"], EQUATIONS["stop_keras"]


def check_temperature(equation, seed, shape, temperature):
    generator = np.random.default_rng(seed)
    # Of moderate size: where a probability rounds to one, the slope is rounding alone.
    z, labels = generator.normal(size=shape), generator.integers(shape[1], size=shape[0])
    for found, expected in zip(
        temper_keras(z, labels, temperature), equation(z, labels, temperature), strict=True
    ):
        # A slope near nought is a difference of sums that are not.
        scale = max(np.linalg.norm(expected), 0.01)
        assert np.linalg.norm(np.asarray(found, float) - expected) / scale <= TOLERANCE


shapes = st.tuples(st.integers(4, 30), st.integers(2, 12))
temperatures = st.floats(0.5, 4.0)


@few_examples
@given(seeds, shapes, temperatures)
def test_loss_and_slopes_are_those_of_keras(seed, shape, temperature):
    check_temperature(temper, seed, shape, temperature)


def forget_temperature(z, labels, temperature):
    loss, by_scores, by_temperature = temper(z, labels, temperature)
    return loss, by_scores * temperature, by_temperature


def turn_sign(z, labels, temperature):
    loss, by_scores, by_temperature = temper(z, labels, temperature)
    return loss, by_scores, -by_temperature


def multiply(z, labels, temperature):
    return temper(z, labels, 1 / temperature)


@pytest.mark.parametrize("broken", [forget_temperature, turn_sign, multiply])
def test_twin_a_broken_equation_does_not_agree(broken):
    with pytest.raises(AssertionError):
        check_temperature(broken, 0, (20, 5), 2.0)


@given(seeds, shapes, temperatures)
@settings(deadline=None)
def test_slope_by_temperature_is_that_of_finite_differences(seed, shape, temperature):
    generator = np.random.default_rng(seed)
    z, labels = generator.normal(size=shape), generator.integers(shape[1], size=shape[0])
    above, below = (temper(z, labels, temperature + step)[0] for step in (1e-5, -1e-5))
    slope = temper(z, labels, temperature)[2]
    assert slope == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-8)


def check_wrong(estimate, counts, size, seed=0):
    total = sum(counts)
    delta, apart = (counts[0] - counts[1]) / total, (counts[0] + counts[1]) / total
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(counts, size, size=20_000)
    wrong = np.mean(drawn[:, 0] < drawn[:, 1]) + np.mean(drawn[:, 0] == drawn[:, 1]) / 2
    assert estimate(delta, apart, size, total=total) == pytest.approx(wrong, abs=0.025)


@few_examples
@given(seeds, st.integers(60, 120), st.integers(30, 60), st.integers(100, 400))
def test_wrong_rankings_are_those_counted(seed, won, lost, size):
    check_wrong(estimate_wrong, [won, lost, 1_500], size, seed)


def forget_the_pairs(delta, disagreement, size, *, total):
    """As if the two models had been judged on different examples, nine in ten of them right."""
    return estimate_wrong(delta, 2 * 0.9 * 0.1 + delta**2, size, total=total)


def forget_the_world(delta, disagreement, size, *, total):
    return estimate_wrong(delta, disagreement, size)


@pytest.mark.parametrize(("broken", "size"), [(forget_the_pairs, 100), (forget_the_world, 1_400)])
def test_twin_a_formula_that_forgets_a_part_is_found_out(broken, size):
    with pytest.raises(AssertionError):
        check_wrong(broken, [60, 40, 1_500], size)


tables = st.tuples(st.integers(2, 5), st.integers(3, 12))


def check_components(combine, seed, shape):
    """Every draw of two rows and two columns, with replacement, counted one by one."""
    table = np.random.default_rng(seed).integers(-1, 2, size=shape).astype(float)
    rows = np.stack(np.meshgrid(*[range(shape[0])] * 2), -1).reshape(-1, 2)
    columns = np.stack(np.meshgrid(*[range(shape[1])] * 2), -1).reshape(-1, 2)
    means = [table[np.ix_(r, c)].mean() for r in rows for c in columns]
    assert combine(split_variance(table), 2, 2) == pytest.approx(np.var(means), abs=1e-12)


@few_examples
@given(seeds, tables)
def test_variance_of_trainings_and_images_is_exact(seed, shape):
    check_components(combine_variance, seed, shape)


def test_twin_a_variance_without_the_rest_is_found_out():
    with pytest.raises(AssertionError):
        check_components(lambda parts, m, n: parts[0] / m + parts[1] / n, 0, (3, 6))


losses = st.lists(st.integers(0, 5).map(float), min_size=2, max_size=30)


@given(losses, st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_keras_stops_as_the_rule_says(values, patience):
    assert stop_early(values, patience) == stop_keras(values, patience)


def test_twin_a_rule_that_takes_an_equal_loss_for_a_better_one_is_found_out():
    def stop_late(values, patience):
        best = 0
        for epoch, loss in enumerate(values):
            if loss <= values[best]:
                best = epoch
            if epoch - best >= patience:
                return epoch, best
        return len(values) - 1, best

    plateau = [2.0, 1.0, 1.0, 1.0, 1.0]
    assert stop_late(plateau, 2) != stop_keras(plateau, 2)
    assert stop_early(plateau, 2) == stop_keras(plateau, 2)
