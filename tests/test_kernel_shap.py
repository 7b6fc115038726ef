"""Paired KernelSHAP against closed forms, brute force and shap; its errors against the truth."""

# ruff: noqa: NPY002 - the process-wide generator is what must be left alone
import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils._checks import InputError
from bigmodel_utils.explanation import (
    GroupedBackground,
    SamplingBudget,
    explain_tokens_with_shapley,
    explain_with_kernel_shap,
    solve_game,
)

NUMBERS = np.random.default_rng(0)
ROWS, BACKGROUND = NUMBERS.normal(size=(3, 8)), NUMBERS.normal(size=(20, 8))
FIRST, SECOND = NUMBERS.normal(size=(14, 20)) / 2, NUMBERS.normal(size=(20, 2))


def run_network(x):
    return np.tanh(x @ FIRST[: x.shape[1]]) @ SECOND


def solve_rows(model, rows, background):
    """Brute force: for each row and output the game that the explainer estimates."""
    solved = []
    for row in rows:

        def game(there, row=row):
            mixed = np.where(there[:, None], row, background)
            return np.stack([model(each).mean(axis=0) for each in mixed])

        solved.append(solve_game(game, rows.shape[1]))
    return np.stack(solved)


# Games whose values are known


def test_gloves():
    """Two left gloves and a right one; a pair is worth 1: Shapley's 1/6, 1/6, 2/3."""
    gloves = solve_game(lambda there: there[:, 2] & there[:, :2].any(axis=1), 3)
    assert gloves == pytest.approx([1 / 6, 1 / 6, 2 / 3], abs=1e-12)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=7))
@settings(max_examples=40, deadline=None)
def test_airport(costs):
    """Littlechild and Owen: each stretch of the runway is shared by those who need it."""
    costs = np.sort(np.array(costs))
    stretches = np.diff(costs, prepend=0) / np.arange(len(costs), 0, -1)
    found = solve_game(lambda there: (there * costs).max(axis=1), len(costs))
    assert found == pytest.approx(np.cumsum(stretches), abs=1e-9)


def test_game_equals_all_orders_of_arrival():
    worth = NUMBERS.normal(size=(32, 2))
    found = solve_game(lambda there: worth[there @ (1 << np.arange(5))], 5)
    known = np.zeros((5, 2))
    for order in permutations(range(5)):
        before = 0
        for player in order:
            known[player] += worth[before | 1 << player] - worth[before]
            before |= 1 << player
    assert found == pytest.approx(known / math.factorial(5), abs=1e-12)


def test_twin_values_of_equal_weights_fail_the_gloves():
    """Banzhaf's index weighs all coalitions alike: additive or not, it is another value."""
    banzhaf = np.array([1 / 4, 1 / 4, 3 / 4])
    assert banzhaf / banzhaf.sum() != pytest.approx([1 / 6, 1 / 6, 2 / 3], abs=1e-2)


# Closed forms


def test_linear_and_product():
    weights = NUMBERS.normal(size=8)
    found = explain_with_kernel_shap(
        lambda x: (x @ weights + x[:, 0] * x[:, 1])[:, None], ROWS, background=np.zeros((1, 8))
    )
    known = ROWS * weights
    known[:, :2] += ROWS[:, :1] * ROWS[:, 1:2] / 2
    assert found.values[..., 0] == pytest.approx(known, abs=1e-9)
    assert found.standard_errors is None


def test_linear_is_exact_from_few_draws():
    weights = NUMBERS.normal(size=14)
    rows, background = NUMBERS.normal(size=(2, 14)), NUMBERS.normal(size=(9, 14))
    found = explain_with_kernel_shap(
        lambda x: x @ weights[:, None], rows, background=background, budget=60
    )
    assert found.values[..., 0] == pytest.approx((rows - background.mean(axis=0)) * weights)
    assert found.standard_errors.max() < 1e-12


def test_maximum_of_two():
    found = explain_with_kernel_shap(
        lambda x: x.max(axis=1, keepdims=True), np.array([[3.0, 1.0]]), background=np.zeros((1, 2))
    )
    assert found.values[0, :, 0] == pytest.approx([2.5, 0.5], abs=1e-12)


def test_network_equals_brute_force():
    found = explain_with_kernel_shap(run_network, ROWS, background=BACKGROUND, budget=256)
    known = solve_rows(run_network, ROWS, BACKGROUND)
    assert found.values == pytest.approx(known, abs=1e-9)
    assert found.additivity_errors.max() < 1e-9
    assert np.roll(found.values, 1, axis=1) != pytest.approx(known, abs=1e-2)  # additive, and wrong


@pytest.mark.parametrize("num_features", [1, 2, 3, 5, 6, 9])
def test_all_coalitions_of_any_number_of_features(num_features):
    rows, background = ROWS[:1, :1] * np.ones((1, num_features)), np.zeros((1, num_features))
    found = explain_with_kernel_shap(run_network, rows, background=background)
    assert found.values == pytest.approx(solve_rows(run_network, rows, background), abs=1e-9)


def test_equals_the_kernel_explainer_of_shap():
    shap = pytest.importorskip("shap")
    state = np.random.get_state()
    explainer = shap.KernelExplainer(run_network, BACKGROUND)
    theirs = explainer.shap_values(ROWS, nsamples=2**8, l1_reg=False, silent=True)
    np.random.set_state(state)
    found = explain_with_kernel_shap(run_network, ROWS, background=BACKGROUND, budget=256)
    assert found.values == pytest.approx(theirs, abs=1e-7)


# Draws


def draw_many(num_seeds, *, budget):
    rows, background = NUMBERS.normal(size=(1, 12)), NUMBERS.normal(size=(8, 12))
    known = solve_rows(run_network, rows, background)
    found = [
        explain_with_kernel_shap(run_network, rows, background=background, budget=budget, seed=seed)
        for seed in range(num_seeds)
    ]
    return known, found


def measure_coverage(known, found, *, scale=1.0):
    inside = [np.abs(f.values - known) <= 1.96 * scale * f.standard_errors for f in found]
    return np.mean(inside)


def test_standard_errors_cover_the_truth():
    known, found = draw_many(60, budget=200)
    assert 0.91 < measure_coverage(known, found) < 0.99
    assert measure_coverage(known, found, scale=0.5) < 0.85  # the twin: half as wide
    assert max(each.additivity_errors.max() for each in found) < 1e-9


def test_more_draws_err_less():
    errors = []
    for budget in (100, 1600):
        known, found = draw_many(10, budget=budget)
        errors.append(np.mean([np.abs(each.values - known).mean() for each in found]))
    assert errors[1] < errors[0] / 2.5


def test_tolerance_stops_early():
    rows, background = NUMBERS.normal(size=(2, 14)), NUMBERS.normal(size=(5, 14))
    whole = explain_with_kernel_shap(run_network, rows, background=background, budget=4000)
    tolerance = 2 * whole.standard_errors.max()
    budget = SamplingBudget(4000, tolerance=tolerance)
    found = explain_with_kernel_shap(run_network, rows, background=background, budget=budget)
    assert found.standard_errors.max() <= tolerance
    assert found.diagnostics["num_evaluations"].max() < 3000
    never = SamplingBudget(400, tolerance=0.0)
    found = explain_with_kernel_shap(run_network, rows, background=background, budget=never)
    assert found.diagnostics["num_evaluations"].max() == 400


def test_seed_decides_and_the_process_is_left_alone():
    rows, background = NUMBERS.normal(size=(1, 14)), np.zeros((1, 14))
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    one, same, other = (
        explain_with_kernel_shap(run_network, rows, background=background, budget=100, seed=seed)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(np.random.get_state()[1], state)
    assert np.array_equal(one.values, same.values)
    assert not np.array_equal(one.values, other.values)


# Groups, images, tokens


def test_groups_are_players():
    groups = np.array([0, 0, 1, 1, 1, 2, 2, 2])
    found = explain_with_kernel_shap(
        run_network, ROWS, background=GroupedBackground(BACKGROUND, groups)
    )

    def game(there):
        mixed = np.where(there[:, groups][:, None], ROWS[1], BACKGROUND)
        return np.stack([run_network(each).mean(axis=0) for each in mixed])

    assert found.values.shape == (3, 3, 2)
    assert found.values[1] == pytest.approx(solve_game(game, 3), abs=1e-9)


def test_patches_of_an_image_find_the_one_that_counts():
    patches = np.arange(16).reshape(4, 4)[np.arange(16) // 4][:, np.arange(16) // 4][..., None]
    images = NUMBERS.random((2, 16, 16, 1))
    found = explain_with_kernel_shap(
        lambda x: x[:, 4:8, 8:12].mean(axis=(1, 2)),
        images,
        background=GroupedBackground(np.zeros((1, 16, 16, 1)), patches),
        budget=200,
    )
    assert np.abs(found.values[..., 0]).argmax(axis=1).tolist() == [6, 6]


def test_pixels_keep_their_place():
    images = NUMBERS.random((2, 2, 3, 1))
    found = explain_with_kernel_shap(
        lambda x: x[:, 1, 2], images, background=np.zeros((1, 2, 3, 1))
    )
    assert found.values.shape == (2, 2, 3, 1, 1)
    assert found.values[:, 1, 2, 0, 0] == pytest.approx(images[:, 1, 2, 0])


def test_tokens_of_a_model_that_copies_one():
    """The last token points at the one that comes next; without a pointer nothing does."""
    ids = NUMBERS.permuted(np.tile(np.arange(1, 11), (6, 1)), axis=1)
    sources = NUMBERS.integers(9, size=6)
    ids[:, 9] = 30 + sources

    def copy(x):
        token = x[np.arange(len(x)), np.maximum(x[:, 9] - 30, 0)]
        return 5 * np.eye(60)[token] * (x[:, 9:] >= 30)

    found = explain_tokens_with_shapley(copy, ids, mask_id=0, budget=1024)
    answers = ids[np.arange(6), sources]
    hits = [
        found.values[row, :9, found.find_target(answer)].argmax() == source
        for row, (answer, source) in enumerate(zip(answers, sources, strict=True))
    ]
    assert np.mean(hits) == 1
    shuffled = np.roll(found.values, 1, axis=1)  # the twin
    assert shuffled[0, :9, found.find_target(answers[0])].argmax() != sources[0]
    assert found.targets == tuple(np.unique(answers))


def test_keras_model():
    import keras

    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(2)]
    )
    known = solve_rows(lambda x: np.asarray(keras.ops.convert_to_numpy(model(x))), ROWS, BACKGROUND)
    found = explain_with_kernel_shap(model, ROWS, background=BACKGROUND)
    assert found.values == pytest.approx(known, abs=1e-5)


def test_constant_model_gets_zeros():
    found = explain_with_kernel_shap(lambda x: np.ones((len(x), 1)), ROWS, background=BACKGROUND)
    assert np.abs(found.values).max() < 1e-12


# Bad input


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"inputs": np.full((1, 8), np.nan)}, "inputs"),
        ({"inputs": ROWS[0]}, "inputs"),
        ({"background": BACKGROUND[:, :5]}, "background"),
        ({"background": np.zeros((1001, 8))}, "background"),
        ({"background": GroupedBackground(BACKGROUND, np.array([0, 2] * 4))}, "groups"),
        ({"background": GroupedBackground(BACKGROUND, np.zeros(5, int))}, "groups"),
        ({"budget": 31}, "budget"),
        ({"budget": SamplingBudget(100, tolerance=-1.0)}, "tolerance"),
        ({"targets": 2}, "targets"),
        ({"model": lambda x: np.ones((len(x), 1 + len(x) % 2))}, "model"),
        ({"model": lambda x: np.full((len(x), 1), np.inf)}, "model"),
        ({"model": 3}, "model"),
    ],
)
def test_bad_input(change, name):
    options = {"model": run_network, "inputs": ROWS, "background": BACKGROUND} | change
    with pytest.raises(InputError) as error:
        explain_with_kernel_shap(options.pop("model"), options.pop("inputs"), **options)
    assert error.value.name == name


def test_bad_ids_and_games():
    with pytest.raises(InputError, match="ids"):
        explain_tokens_with_shapley(run_network, np.ones((1, 3)), mask_id=0)
    with pytest.raises(InputError, match="num_players"):
        solve_game(lambda there: there[:, 0], 17)
    with pytest.raises(InputError, match="game"):
        solve_game(lambda there: there[:3, 0], 3)
