"""What releases say of their cost, against what their shape says."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils import costs
from bigmodel_utils._checks import InputError

NAMES = [field.name for field in dataclasses.fields(costs.CostStatement)]
TINY = costs.Architecture(
    vocabulary_size=50, num_layers=2, width=8, num_heads=2, feedforward_width=16
)


def count(name, **options):
    shape = costs.find_published_model(name).architecture
    return costs.estimate_cost_statement(shape, **options)


def test_by_hand():
    statement = costs.estimate_cost_statement(
        TINY, num_tokens=100, training_length=10, context_length=7, dtype="float32"
    )
    matrices = 2 * (4 * 8 * 8 + 3 * 8 * 16) + 50 * 8
    total = matrices + 50 * 8 + 5 * 8
    pairs = 2 * 10 * 11 // 2
    forward = 2 * 10 * matrices + 4 * pairs * 8
    assert statement.to_dict() == {
        "total_parameters": total,
        "active_parameters": total,
        "training_flops": 3 * 10 * forward,
        "serving_memory_bytes": 4 * total + 4 * 7 * 2 * (2 * 8),
    }


def test_experts_tell_total_from_active():
    statement = count(
        "DeepSeek-V3",
        num_tokens=14_800_000_000_000,
        training_length=4096,
        context_length=131_072,
    )
    assert statement.total_parameters == pytest.approx(671e9, rel=1e-3)
    assert statement.active_parameters == pytest.approx(37e9, rel=0.02)


@pytest.mark.parametrize(
    ("name", "num_tokens", "length", "flops"),
    [
        # Brown et al. (2020), table D.1.
        ("GPT-3", 300_000_000_000, 2048, 3.14e23),
        # Grattafiori et al. (2024), section 1.
        ("Llama 3 405B", 15_600_000_000_000, 8192, 3.8e25),
        # Chowdhery et al. (2022), appendix B.
        ("PaLM 540B", 780_000_000_000, 2048, 2.56e24),
    ],
)
def test_operations_that_were_published(name, num_tokens, length, flops):
    counted = count(name, num_tokens=num_tokens, training_length=length, context_length=length)
    stated = dataclasses.replace(counted, training_flops=flops)
    assert costs.measure_statement_errors(stated, counted).largest < 0.05


def test_memory_that_was_published_is_not_that_of_the_shape():
    # Gemma 3 Technical Report (2025), table 3: 54.0 GB of weights and 72.7 GB with the cache
    # of 32,768 tokens. The weights agree; the cache is about that of layers without windows.
    shape = costs.find_published_model("Gemma 3 27B").architecture
    weights = costs.count_weight_bytes(shape)
    assert weights == pytest.approx(54.0e9, rel=0.01)
    cache = costs.count_kv_cache_bytes(shape, sequence_length=32_768)
    everywhere = dataclasses.replace(shape, window=None, num_windowed_layers=0)
    unwindowed = costs.count_kv_cache_bytes(everywhere, sequence_length=32_768)
    assert cache < 0.2 * 18.7e9
    assert unwindowed == pytest.approx(18.7e9, rel=0.15)


positive = st.floats(1, 1e30)


@given(st.lists(positive, min_size=4, max_size=4), st.sampled_from(NAMES), st.floats(0.01, 3))
def test_the_number_that_is_changed_is_the_worst(values, name, factor):
    counted = costs.CostStatement(*values)
    stated = dataclasses.replace(counted, **{name: getattr(counted, name) * factor})
    report = costs.measure_statement_errors(stated, counted)
    assert report.largest == pytest.approx(abs(factor - 1))
    if abs(factor - 1) > 1e-9:
        assert report.worst == name
    assert set(report.errors) == set(NAMES)


def test_twin_errors_that_keep_their_sign_miss_the_worst():
    """Looking for the largest error instead of the largest size of one is found out."""
    counted = costs.CostStatement(1e9, 1e9, 1e20, 1e10)
    stated = costs.CostStatement(1.1e9, 1e9, 0.5e20, 1e10)
    report = costs.measure_statement_errors(stated, counted)
    assert report.worst == "training_flops"
    assert max(report.errors, key=lambda name: report.errors[name]) == "total_parameters"


@given(st.integers(1, 3), st.integers(1, 64), st.integers(1, 64))
@settings(max_examples=20)
def test_costs_grow_with_tokens_and_context(factor, num_tokens, context):
    def estimate(tokens, length):
        return costs.estimate_cost_statement(
            TINY, num_tokens=tokens, training_length=1, context_length=length
        )

    one, more = estimate(num_tokens, context), estimate(factor * num_tokens, factor * context)
    assert more.training_flops == factor * one.training_flops
    weights = costs.count_weight_bytes(TINY)
    assert more.serving_memory_bytes - weights == factor * (one.serving_memory_bytes - weights)


def test_what_is_not_stated_is_off_by_all_of_itself():
    counted = costs.CostStatement(1e9, 1e9, 1e20, 1e10)
    report = costs.measure_statement_errors(
        dataclasses.replace(counted, serving_memory_bytes=None), counted
    )
    assert (report.worst, report.largest) == ("serving_memory_bytes", 1)


@pytest.mark.parametrize("value", [None, 0])
def test_an_incomplete_count_is_refused(value):
    stated = costs.CostStatement(1e9, 1e9, 1e20, 1e10)
    counted = dataclasses.replace(stated, training_flops=value)
    with pytest.raises(InputError, match=r"`counted` must hold every number.*training_flops"):
        costs.measure_statement_errors(stated, counted)


@pytest.mark.parametrize("value", [-1, float("nan"), "671B"])
def test_a_number_that_is_none_is_refused(value):
    with pytest.raises(InputError, match="`total_parameters` must be"):
        costs.CostStatement(total_parameters=value)


def test_a_context_of_nothing_is_refused():
    with pytest.raises(InputError, match="`context_length` must be"):
        costs.estimate_cost_statement(TINY, num_tokens=1, training_length=1, context_length=0)


def test_reports_are_plain_and_readable():
    counted = costs.CostStatement(1e9, 1e9, 1e20, 2.0**30)
    report = costs.measure_statement_errors(costs.CostStatement(1.1e9), counted)
    assert json.loads(json.dumps(report.to_dict()))["worst"] == report.worst
    assert "+10.0%" in str(report)
    assert "not stated" in str(costs.CostStatement())
    assert "<td>1 GiB</td>" in counted._repr_html_()
