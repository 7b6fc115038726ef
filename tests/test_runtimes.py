"""Every way to run a model: rows that are complete, agree, or say why they are empty."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers

from bigmodel_utils._checks import InputError
from bigmodel_utils.benchmark import Interval
from bigmodel_utils.compression import RuntimeRow, RuntimeTable, measure_runtimes
from bigmodel_utils.compression._result import Agreement

pytest.importorskip("onnxruntime", reason="needs the extra `edge`")
pytest.importorskip("ai_edge_litert", reason="needs the extra `edge`")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the converters are TensorFlow's"
)
EXAMPLES = np.random.default_rng(0).normal(size=(9, 8, 8, 1)).astype("float32")


def build(filters=4):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(filters, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(16),
        ]
    )


@pytest.fixture(scope="module")
def table():
    models = {"whole": build(), "half": build(2)}
    return measure_runtimes(models, EXAMPLES, batch_sizes=(1, 4), num_rounds=5)


def test_every_way_has_a_row_with_times_and_agreement(table):
    assert len(table.rows) == 2 * 2 * (2 + 3 + 3)  # models, batch sizes, ways
    assert all(row.why_not is None and row.p50_seconds > 0 for row in table.rows)
    assert table.rows[0].speedup.value == 1
    floats = [row for row in table.rows if row.precision in ("as it is", "float32")]
    whole = [row for row in floats if row.model == "whole"]
    assert max(row.agreement.largest_difference for row in whole) < 1e-5


def test_agreement_is_with_the_first_model(table):
    other = [row for row in table.rows if row.model == "half"]
    assert min(row.agreement.mean_difference for row in other) > 1e-2


def test_ranges_come_from_the_calibration_where_it_is_given():
    """Ranges of inputs a hundredth as large cut off what the examples reach."""

    def find_errors(calibration):
        found = measure_runtimes(
            build(), EXAMPLES, precisions=("static_int8",), num_rounds=2, calibration=calibration
        )
        rows = [row for row in found.rows if row.precision == "static_int8"]
        return np.array([row.agreement.mean_difference for row in rows])

    alike, cut_off = find_errors(EXAMPLES[:4]), find_errors(EXAMPLES / 100)
    assert len(alike) == 2
    assert (cut_off > 5 * alike).all()


def test_integers_are_smaller(table):
    rows = [row for row in table.rows if (row.model, row.runtime) == ("whole", "LiteRT")]
    sizes = {row.precision: row.file_bytes for row in rows}
    assert sizes["int8"] < sizes["float32"]


def test_the_table_shows_itself_and_goes_through_json(table):
    assert json.loads(json.dumps(table.to_dict()))["num_rounds"] == 5
    text, page = str(table), table._repr_html_()
    assert "fastest on this machine" in text
    assert "CPU: " in text
    assert "<table>" in page
    assert page.count("<tr>") == 1 + len(table.rows)


def test_what_cannot_be_exported_has_a_row_that_says_why():
    model = build()
    model.quantize("int8", filters="dense")
    models = {"float": build(), "quantized": model}
    table = measure_runtimes(models, EXAMPLES, precisions=("float32",), num_rounds=3)
    empty = [row for row in table.rows if row.why_not]
    assert [row.runtime for row in empty] == ["LiteRT", "ONNX Runtime"]
    assert all(row.model == "quantized" and "int8" in row.why_not for row in empty)
    assert all(row.p50_seconds is None and row.agreement is None for row in empty)
    assert "quantized to int8" in str(table)


def test_a_runtime_that_is_not_there_has_a_row_that_says_so(monkeypatch):
    from bigmodel_utils._checks import MissingExtraError

    def fail(*args, **options):
        raise MissingExtraError("install the extra `edge`")

    from bigmodel_utils.compression import _runtimes

    monkeypatch.setitem(_runtimes._EXPORTS, "LiteRT", (fail, ("float32",), ".tflite"))
    table = measure_runtimes(build(), EXAMPLES, precisions=("float32",), num_rounds=2)
    assert [row.why_not for row in table.rows if row.runtime == "LiteRT"] == [
        "install the extra `edge`"
    ]


def test_a_runtime_that_fails_at_a_batch_size_has_a_row_that_says_so(monkeypatch):
    from bigmodel_utils.compression import _runtimes

    def load(path):
        def run(x):
            raise RuntimeError("one example at a time")

        return run

    monkeypatch.setattr(_runtimes, "load_runner", load)
    table = measure_runtimes(build(), EXAMPLES, precisions=("float32",), num_rounds=2)
    assert [row.why_not for row in table.rows] == [
        *(None, None),
        *["RuntimeError: one example at a time"] * 2,
    ]


def make_row(speed, same, **changes):
    agreement = Agreement(0.1, 0.1, same, 100)
    row = RuntimeRow("model", "LiteRT", f"{speed}", 1, 10, 1.0, 1.0)
    interval = Interval(speed, speed, speed)
    return dataclasses.replace(row, speedup=interval, agreement=agreement, **changes)


def test_the_winner_agrees():
    rows = (make_row(1, 1.0), make_row(9, 0.5), make_row(5, 0.97), make_row(20, 1.0, batch_size=8))
    table = RuntimeTable(rows, None, 1, 1)
    assert table.find_winner().speedup.value == 5
    assert table.find_winner(least_agreement=0.5).speedup.value == 9
    assert table.find_winner(batch_size=8).speedup.value == 20
    assert "not known" in str(table)
    for options in ({"batch_size": 3}, {"least_agreement": 2}):
        with pytest.raises(InputError):
            table.find_winner(**options)


def test_the_models_are_as_they_were():
    model = build()
    before = [w.copy() for w in model.get_weights()]
    measure_runtimes(model, EXAMPLES, precisions=("static_int8",), num_rounds=2)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("models", "options", "word"),
    [
        ({}, {}, "models"),
        (None, {"precisions": ("int3",)}, "precisions"),
        (None, {"batch_sizes": (0,)}, "batch_sizes"),
        (None, {"num_rounds": 0}, "num_rounds"),
    ],
)
def test_bad_input(models, options, word):
    with pytest.raises(InputError, match=word):
        measure_runtimes(build() if models is None else models, EXAMPLES, **options)
