"""Exported files: executed, compared, whole or absent; every refusal says what to do."""

import keras
import numpy as np
import pytest
from keras import layers

from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import export_litert, export_onnx, load_runner
from bigmodel_utils.compression._result import compare_outputs
from bigmodel_utils.models import (
    LanguageModelSettings,
    build_image_classifier,
    build_language_model,
)

pytest.importorskip("onnxruntime", reason="needs the extra `edge`")
pytest.importorskip("ai_edge_litert", reason="needs the extra `edge`")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the converters are TensorFlow's"
)
IMAGES = np.random.default_rng(0).random((12, 28, 28, 1)).astype("float32")
TOKENS = np.random.default_rng(0).integers(0, 32, (4, 10)).astype("int32")


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    return build_image_classifier("none")


@pytest.fixture(scope="module")
def language_model():
    keras.utils.set_random_seed(0)
    settings = LanguageModelSettings(
        vocabulary_size=32,
        num_layers=2,
        width=16,
        num_heads=2,
        feedforward_width=12,
        context_length=10,
    )
    return build_language_model(settings)


@pytest.mark.parametrize(
    ("export", "precision", "ratio", "difference"),
    [
        (export_onnx, "float32", 0.9, 1e-5),
        (export_onnx, "int8", 2.5, 0.01),
        (export_onnx, "static_int8", 3.3, 0.02),
        (export_litert, "float32", 0.9, 1e-5),
        (export_litert, "float16", 1.9, 1e-3),
        (export_litert, "int8", 3.5, 0.01),
        (export_litert, "static_int8", 3.5, 0.02),
        (export_litert, "int4", 6, 0.05),
    ],
)
def test_each_precision_is_as_small_and_as_close_as_it_says(
    classifier, tmp_path, export, precision, ratio, difference
):
    suffix = ".onnx" if export is export_onnx else ".tflite"
    path = tmp_path / f"model{suffix}"
    report = export(classifier, path, examples=IMAGES, precision=precision)
    assert report.weight_bytes / path.stat().st_size > ratio
    assert report.agreement.largest_difference < difference
    assert sorted(tmp_path.iterdir()) == [path]
    # The file read again, on a batch, is the one that was compared.
    received = load_runner(path)(IMAGES)
    again = compare_outputs(classifier.predict(IMAGES, verbose=0), received)
    assert again.largest_difference == pytest.approx(report.agreement.largest_difference, abs=5e-3)


def test_quantized_files_differ_from_the_model(classifier, tmp_path):
    exact = export_onnx(classifier, tmp_path / "a.onnx", examples=IMAGES)
    rough = export_onnx(classifier, tmp_path / "b.onnx", examples=IMAGES, precision="static_int8")
    assert rough.agreement.mean_difference > 10 * exact.agreement.mean_difference


@pytest.mark.parametrize(("calibration", "outlier"), [("percentile", 1000.0), ("mse", 10.0)])
def test_a_range_that_ignores_an_outlier_is_closer_on_the_rest(
    classifier, tmp_path, calibration, outlier
):
    strange = np.concatenate([IMAGES] * 4)
    strange[0, 0, 0, 0] = outlier  # one pixel of a broken camera
    found = {}
    for name in ("minmax", calibration):
        path = tmp_path / f"{name}.onnx"
        options = {"precision": "static_int8", "calibration": name}
        export_onnx(classifier, path, examples=strange, **options)
        received = load_runner(path)(IMAGES)
        expected = classifier.predict(IMAGES, verbose=0)
        found[name] = compare_outputs(expected, received).mean_difference
    assert found[calibration] < found["minmax"] / 2


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_language_model_runs_in_both(language_model, tmp_path, precision):
    for export, name in ((export_onnx, "m.onnx"), (export_litert, "m.tflite")):
        report = export(language_model, tmp_path / name, examples=TOKENS, precision=precision)
        bound = 1e-5 if precision == "float32" else 0.1
        assert report.agreement.largest_difference < bound
    assert load_runner(tmp_path / "m.onnx")(TOKENS[:3, :7]).shape == (3, 7, 32)  # free lengths


def test_small_numbers_stay_numbers_for_the_caller(language_model, tmp_path):
    export_onnx(language_model, tmp_path / "m.onnx", examples=TOKENS)
    load_runner(tmp_path / "m.onnx")(TOKENS)
    assert np.float32(1e-38) / np.float32(16) > 0


def test_the_model_is_as_it_was(classifier, tmp_path):
    before = [w.copy() for w in classifier.get_weights()]
    export_onnx(classifier, tmp_path / "m.onnx", examples=IMAGES, precision="static_int8")
    assert all(np.array_equal(*pair) for pair in zip(before, classifier.get_weights(), strict=True))


def test_a_file_that_does_not_run_is_not_left_behind(classifier, tmp_path, monkeypatch):
    def fail(path):
        raise RuntimeError("No Op registered for Erfc")

    monkeypatch.setattr("bigmodel_utils.compression._export.load_runner", fail)
    with pytest.raises(InputError, match=r"Erfc.*GELU"):
        export_onnx(classifier, tmp_path / "model.onnx", examples=IMAGES)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_before_survives_a_failure(classifier, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_text("the file of before")

    def fail(*args, **options):
        raise InputError("model", "must run", "an error", "mend it")

    monkeypatch.setattr("bigmodel_utils.compression._onnx.compare_file", fail)
    with pytest.raises(InputError):
        export_onnx(classifier, path, examples=IMAGES)
    assert path.read_text() == "the file of before"
    assert list(tmp_path.iterdir()) == [path]


def quantized():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    model.quantize("int8", filters="dense")
    return model


def with_two_inputs():
    a, b = keras.Input((6,)), keras.Input((6,))
    return keras.Model([a, b], layers.Add()([a, b]))


@pytest.mark.parametrize("export", [export_onnx, export_litert])
@pytest.mark.parametrize(
    ("make", "options", "word"),
    [
        (quantized, {}, "quantized to int8"),
        (with_two_inputs, {}, "one input"),
        (lambda: keras.Sequential([layers.Dense(2)]), {}, "not built"),
        (None, {"examples": np.empty((0, 28, 28, 1))}, "examples"),
        (None, {"examples": np.ones((2, 5))}, "shape"),
        (None, {"precision": "int3"}, "precision"),
        (None, {"path": "model.txt"}, "must end in"),
    ],
)
def test_bad_input(classifier, tmp_path, export, make, options, word):
    model = make() if make else classifier
    examples = np.ones((2, 6), "float32") if make else IMAGES
    suffix = ".onnx" if export is export_onnx else ".tflite"
    arguments = {"path": f"model{suffix}", "examples": examples, **options}
    path = tmp_path / arguments.pop("path")
    with pytest.raises(InputError, match=word):
        export(model, path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_refused(classifier, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="takes files"):
        export_onnx(classifier, tmp_path / "file" / "model.onnx", examples=IMAGES)


@pytest.mark.parametrize("name", ["missing.onnx", "model.bin"])
def test_a_file_that_cannot_be_run_is_refused(tmp_path, name):
    (tmp_path / "model.bin").write_bytes(b"1")
    with pytest.raises(InputError, match="must be a file"):
        load_runner(tmp_path / name)
