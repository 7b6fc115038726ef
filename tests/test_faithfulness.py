"""Faithfulness, stability and the verdict, on models whose true explanation is known."""

from functools import partial

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_utils._checks import InputError
from bigmodel_utils.explanation import (
    Explanation,
    check_explanation,
    compare_explanations,
    explain_with_integrated_gradients,
    measure_faithfulness,
    measure_infidelity,
    measure_stability,
    randomize_weights,
)

WEIGHTS = np.array([4.0, -3, 2, -1, 0.5, 0])


def model(x):
    return x @ WEIGHTS[:, None]


def draw_inputs(num_rows=12, *, seed=0):
    return np.random.default_rng(seed).normal(size=(num_rows, len(WEIGHTS))) + 1


def explain_truly(x, values=None):
    values = x * WEIGHTS if values is None else values
    outputs = x @ WEIGHTS[:, None]
    return Explanation("known", values[..., None], np.zeros_like(outputs), outputs, x, (0,))


def test_the_known_explanation_leads_both_controls_on_each_baseline():
    x = draw_inputs()
    found = measure_faithfulness(model, explain_truly(x), baselines={"zero": 0.0, "minus": -1.0})
    assert len(found.rows) == 6
    assert found.find_row("zero").lead.value == 0
    assert found.find_row("zero", "random").lead.low > 0
    assert found.find_row("zero", "input alone").lead.low > 0
    # The values are exact for zero alone, so for another baseline they may lose.
    assert found.least_lead <= found.find_row("zero", "random").lead.low
    assert "input alone" in str(found)
    assert "<table>" in found._repr_html_()


def test_random_values_lead_nothing():
    x = draw_inputs(40)
    values = np.random.default_rng(1).normal(size=x.shape)
    found = measure_faithfulness(model, explain_truly(x, values), baselines={"zero": 0.0})
    assert found.find_row("zero", "random").lead.low < 0
    assert found.least_lead < 0


def test_areas_are_those_of_taking_one_feature_after_another():
    x = draw_inputs(2)
    found = measure_faithfulness(
        model, explain_truly(x), baselines={"zero": 0.0}, num_steps=len(WEIGHTS)
    )
    deletion, insertion = [], []
    for row in x:
        gone, outputs, back = row.copy(), [row @ WEIGHTS], [0.0]
        kept = np.zeros_like(row)
        for place in np.argsort(-row * WEIGHTS, kind="stable"):
            gone[place], kept[place] = 0, row[place]
            outputs.append(gone @ WEIGHTS)
            back.append(kept @ WEIGHTS)
        deletion.append(np.trapezoid(outputs) / len(WEIGHTS))
        insertion.append(np.trapezoid(back) / len(WEIGHTS))
    row = found.find_row("zero")
    assert row.deletion == pytest.approx(np.mean(deletion))
    assert row.insertion == pytest.approx(np.mean(insertion))


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_infidelity_of_the_truth_is_zero_in_any_unit(seed, scale):
    x = draw_inputs(3, seed=seed)
    truth = measure_infidelity(model, explain_truly(x, scale * x * WEIGHTS))
    assert truth.max() < 1e-9


@given(st.integers(0, 1000))
def test_the_twin_with_values_in_another_order_is_unfaithful(seed):
    x = draw_inputs(3, seed=seed)
    wrong = explain_truly(x, np.roll(x * WEIGHTS, 1, axis=1))
    assert measure_infidelity(model, wrong).min() > 0.01


def test_correlation_equals_the_closed_form_of_ranks_without_ties():
    draws = np.random.default_rng(0)
    x = draw_inputs(5)
    pair = [explain_truly(x, draws.normal(size=x.shape)) for _ in range(2)]
    ranks = [each.values[..., 0].argsort(axis=1).argsort(axis=1) for each in pair]
    n = x.shape[1]
    expected = 1 - 6 * ((ranks[0] - ranks[1]) ** 2).sum(axis=1) / (n * (n**2 - 1))
    found = compare_explanations(*pair)
    assert found.correlations == pytest.approx(expected)
    assert "signed" in str(found)


def test_a_common_background_of_zeros_decides_the_test():
    # Two maps without anything in common but where they are zero.
    draws = np.random.default_rng(0)
    shape = (20, 100)
    x = np.zeros(shape)
    x[:, :30] = 1
    maps = []
    for _ in range(2):
        values = np.where(x > 0, draws.normal(size=shape), 0)
        maps.append(
            Explanation("map", values[..., None], np.zeros((20, 1)), np.zeros((20, 1)), x, (0,))
        )
    everywhere = compare_explanations(*maps, metric="absolute").correlations.mean()
    inside = compare_explanations(*maps, metric="absolute", features=x > 0).correlations.mean()
    assert everywhere > 0.5
    assert abs(inside) < 0.15


def build_model(seed=0):
    keras.utils.set_random_seed(seed)
    network = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)]
    )
    kernel, bias, out, shift = network.get_weights()
    network.set_weights([kernel * np.linspace(0, 2, 6)[:, None], bias, out, shift])
    return network


def explain_by_absence(model, inputs, *, seed):
    """What the output loses without one feature after the other: adds up by construction."""
    from bigmodel_utils.explanation import build_predict_fn

    predict = build_predict_fn(model)
    x, values = inputs.copy(), []
    before = predict(x)
    for place in range(x.shape[1]):
        x = x.copy()
        x[:, place] = 0
        after = predict(x)
        values.append(before - after)
        before = after
    values = np.stack(values, axis=1)
    return Explanation("absence", values, before, predict(inputs), inputs, (0,))


def explain_the_input(model, inputs, *, seed):
    """The twin: never asks the model what matters."""
    true = explain_by_absence(model, inputs, seed=seed)
    values = np.abs(inputs)[..., None]
    return Explanation("input", values, true.base_values, true.outputs, inputs, (0,))


def explain_by_chance(model, inputs, *, seed):
    values = np.random.default_rng(seed).normal(size=(*inputs.shape, 1))
    true = explain_by_absence(model, inputs, seed=seed)
    return Explanation("chance", values, true.base_values, true.outputs, inputs, (0,))


def test_the_verdict_passes_an_explainer_that_asks_and_fails_those_that_do_not():
    network = build_model()
    x = draw_inputs(24).astype("float32")
    options = {"baselines": {"zero": 0.0}}
    honest = check_explanation(network, x, explain=explain_by_absence, **options)
    assert honest.passed, str(honest)
    assert honest.reasons == ()
    copied = check_explanation(network, x, explain=explain_the_input, **options)
    failed = {finding.name for finding in copied.findings if not finding.passed}
    assert "another with shuffled weights" in failed
    assert "adds up to the output" in failed
    chance = check_explanation(network, x, explain=explain_by_chance, **options)
    assert not chance.findings[0].passed
    assert not chance.findings[1].passed
    assert "draws" in chance.reasons[0]
    assert chance.to_dict()["passed"] is False


def test_bounds_can_be_moved():
    network, x = build_model(), draw_inputs(8).astype("float32")
    strict = check_explanation(
        network, x, explain=explain_by_absence, baselines={"zero": 0.0},
        bounds={"randomization": -1},
    )  # fmt: skip
    assert [finding.passed for finding in strict.findings] == [True, True, False, True]
    with pytest.raises(InputError, match="bounds"):
        check_explanation(
            network, x, explain=explain_by_absence, baselines={"zero": 0.0}, bounds={"luck": 1}
        )


def test_shuffled_weights_are_the_same_numbers_and_the_model_is_as_it_was():
    network = build_model()
    before = network.get_weights()
    other = randomize_weights(network)
    for old, new, still in zip(before, other.get_weights(), network.get_weights(), strict=True):
        assert np.array_equal(np.sort(old.ravel()), np.sort(new.ravel()))
        assert np.array_equal(old, still)
    assert not np.array_equal(before[0], other.get_weights()[0])


def test_noise_on_the_inputs_moves_an_explanation_that_is_fixed_otherwise():
    network, x = build_model(), draw_inputs(8)
    still = measure_stability(network, x, explain=explain_by_absence)
    assert still.correlations == pytest.approx(np.ones(8))
    moved = measure_stability(network, x, explain=explain_by_absence, noise=0.5)
    assert moved.correlations.mean() < 0.99


def test_an_explainer_without_draws_needs_no_seed():
    network, x = build_model(), draw_inputs(12).astype("float32")
    explain = partial(explain_with_integrated_gradients, num_steps=16, targets=0)
    still = measure_stability(network, x, explain=explain)
    assert still.correlations == pytest.approx(np.ones(12))
    moved = measure_stability(network, x, explain=explain, noise=0.5)
    assert moved.correlations.mean() < 0.99
    verdict = check_explanation(network, x, explain=explain, baselines={"zero": 0.0})
    assert verdict.findings[0].passed
    assert verdict.findings[3].passed
    drawn = iter(range(10))  # the twin: draws that no seed holds are still seen
    loose = lambda model, inputs: explain_by_chance(model, inputs, seed=next(drawn))  # noqa: E731
    assert measure_stability(network, x, explain=loose).correlations.mean() < 0.5


def test_a_seed_reaches_an_explainer_that_takes_anything():
    seen = []

    def explain(model, inputs, **options):
        seen.append(options["seed"])
        return explain_by_chance(model, inputs, **options)

    measure_stability(build_model(), draw_inputs(3), explain=explain)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda x: measure_faithfulness(model, explain_truly(x[:1]), baselines={"a": 0}), "expl"),
        (lambda x: measure_faithfulness(model, explain_truly(x), baselines={}), "baselines"),
        (
            lambda x: measure_faithfulness(
                model, explain_truly(x), baselines={"wide": np.zeros(7)}
            ),
            "baselines",
        ),
        (
            lambda x: measure_infidelity(lambda x: np.ones((len(x), 1)), explain_truly(x)),
            "model",
        ),
        (
            lambda x: compare_explanations(explain_truly(x), explain_truly(x[:3])),
            "second",
        ),
        (
            lambda x: compare_explanations(
                explain_truly(x), explain_truly(x), features=np.arange(6) < 2
            ),
            "features",
        ),
        (
            lambda x: compare_explanations(explain_truly(x), explain_truly(x), metric="size"),
            "metric",
        ),
        (lambda x: measure_stability(model, x, explain=None, num_seeds=1), "num_seeds"),
    ],
)
def test_bad_input_is_named(change, name):
    with pytest.raises(InputError, match=name):
        change(draw_inputs())


def test_values_of_another_shape_than_the_inputs_are_refused():
    x = draw_inputs()
    grouped = Explanation(
        "grouped", np.zeros((12, 3, 1)), np.zeros((12, 1)), np.zeros((12, 1)), x, (0,)
    )
    with pytest.raises(InputError, match="paint"):
        measure_faithfulness(model, grouped, baselines={"zero": 0.0})
