"""What compression gains: speed, size and what it costs, beside what the tools give alone.

The classifier is judged out of fold on every digit: trained, compressed and fine-tuned without
the fifth it is asked about, and the exported file is what answers. The language model is judged
by the exported file on held-out windows. Times are of one thread, all variants in turns; a
ratio is the time of the same model as a float32 ``tf.function`` over the variant's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from bigmodel_utils import artifacts, compression, data, evaluation, hardware, models, training
from bigmodel_utils.benchmark import Interval, bootstrap_interval

RESULTS = Path(__file__).parent / "results"
NUM_FOLDS = 5
NUM_EPOCHS = 15
SHARE = 0.5
WAYS = {
    "LiteRT": (compression.export_litert, ".tflite", ("int8", "static_int8", "int4")),
    "ONNX Runtime": (compression.export_onnx, ".onnx", ("int8", "static_int8")),
}
PRECISIONS = ("float32", "int8", "static_int8", "int4")
Predict = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Prints every table and writes them to one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--windows", type=int, default=64, help="test windows of the NLL")
    parser.add_argument("--only", choices=("cnn", "language_model"))
    parser.add_argument("--tfmot-python", help="a Python with tf-keras and tfmot")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    name = hardware.detect_devices()[-1].name
    slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    path = RESULTS / f"compression-{slug}.json"
    # A part that is not measured this time stays as it was.
    report: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    report |= {
        "cpu_features": hardware.list_cpu_features(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
    }
    if options.only != "language_model":
        report["cnn"] = measure_cnn(options.rounds)
        report["tfmot"] = measure_tfmot(options.tfmot_python)
    if options.only != "cnn":
        report["language_model"] = measure_language_model(options.rounds, options.windows)
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}")


def measure_cnn(num_rounds: int) -> dict[str, Any]:
    """The article's network: out of fold on all digits, then timed."""
    digits = data.load_digits()
    folds = list(
        data.split_by_hash(
            digits.keys, {f"fold {index}": 1 / NUM_FOLDS for index in range(NUM_FOLDS)}
        ).values()
    )
    correct: dict[str, np.ndarray] = {}
    for index, fold in enumerate(folds):
        named, fit = train_fold(digits, folds, index)
        for variant, predict in make_files(named, fit[:200]):
            right = predict(digits.x[fold]).argmax(axis=-1) == digits.y[fold]
            correct.setdefault(variant, np.zeros(len(digits.y), dtype=bool))[fold] = right
        print(f"  fold {index + 1} of {NUM_FOLDS}", flush=True)
    # The last fold's models, beside what Keras alone makes of the first.
    named["Keras int8"] = quantize(named["whole"])
    examples = fit[:200]
    table = compression.measure_runtimes(
        named, examples, precisions=PRECISIONS, batch_sizes=(1, 32), num_rounds=num_rounds
    )
    print(f"\nclassifier of {named['whole'].count_params():,} parameters\n{table}\n")
    judged = {
        variant: evaluation.compare_accuracy(right, correct["whole, Keras"])
        for variant, right in correct.items()
    }
    print("accuracy out of fold, and its change [95 %, paired]")
    for variant, right in correct.items():
        print(f"  {variant:<34}{right.mean():.2%}   {judged[variant].difference:+.2%}")
    found = {
        "times": table.to_dict(),
        "accuracy": {variant: float(right.mean()) for variant, right in correct.items()},
        "change": {variant: comparison.to_dict() for variant, comparison in judged.items()},
    }
    # A difference is the variant's accuracy minus the network's: its lower end is what is lost.
    allowed = {variant for variant, each in judged.items() if each.difference.low >= -0.01}
    found["targets"] = print_targets(table, allowed, {"whole": "single", "half": "stacked"})
    return found


def train_fold(
    digits: Any, folds: list[np.ndarray], index: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Trains the network without a fold, and cuts half of its units and fine-tunes it."""
    held = (index + 1) % NUM_FOLDS
    rows = np.concatenate([fold for place, fold in enumerate(folds) if place not in (index, held)])
    labels = np.eye(10, dtype="float32")[digits.y]
    sides = (digits.x[rows], labels[rows]), (digits.x[folds[held]], labels[folds[held]])
    settings = training.TrainingSettings(
        NUM_EPOCHS, seed=index, precision="float32", monitor="loss", compile_mode="xla"
    )
    run = partial(training.train, validation_data=sides[1], settings=settings)
    whole = run(lambda: models.build_image_classifier("none"), sides[0]).model
    cut = compression.prune_units(whole, sides[0][0][:64], share=SHARE).model
    half = run(lambda: compression.build_distiller(whole, cut, temperature=4.0), sides[0]).model
    return {"whole": whole, "half": half.copy_student()}, sides[0][0]


def make_files(named: dict[str, Any], examples: np.ndarray) -> Iterator[tuple[str, Predict]]:
    """Every model as Keras runs it and as every file of integers answers."""
    for name, model in named.items():
        yield f"{name}, Keras", partial(model.predict, verbose=0)
        for runtime, (export, suffix, precisions) in WAYS.items():
            for precision in precisions:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / f"model{suffix}"
                    try:
                        export(model, path, examples=examples, precision=precision)
                    except ValueError as error:
                        print(f"  {name}, {runtime}, {precision}: {error}")
                        continue
                    run = compression.load_runner(path)
                    yield f"{name}, {runtime}, {precision}", partial(answer, run)


def answer(run: Predict, inputs: np.ndarray) -> np.ndarray:
    """Outputs of a file, one example at a time."""
    return np.concatenate([run(inputs[row : row + 1]) for row in range(len(inputs))])


def quantize(model: Any) -> Any:
    """What Keras' own `quantize` makes of a model."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.quantize("int8", filters=[layer.name for layer in copy.layers if is_product(layer)])
    return copy


def is_product(layer: Any) -> bool:
    """Whether Keras quantizes a layer."""
    return type(layer).__name__ in ("Dense", "EinsumDense", "Embedding", "ReversibleEmbedding")


def print_targets(
    table: compression.RuntimeTable, allowed: set[str], kinds: dict[str, str]
) -> dict[str, Any]:
    """Best variant of each model at batch 1 whose loss is allowed, and its ratios."""
    rows = [row for row in table.to_dict()["rows"] if row["batch_size"] == 1 and row["speedup"]]
    whole = next(iter(kinds))
    plain = ("as it is", "float32")
    floats = [row for row in rows if row["model"] == whole and row["precision"] in plain]
    best_float = min(floats, key=lambda row: row["p50_seconds"])
    found: dict[str, Any] = {"best float32": name_variant(best_float)}
    print(f"\nbest float32: {name_variant(best_float)}, {best_float['speedup']['value']:.2f}")
    for model, kind in kinds.items():
        fit = [
            row
            for row in rows
            if row["model"] == model
            and row["precision"] not in plain
            and name_variant(row) in allowed
        ]
        if not fit:
            print(f"{kind}: none within the loss that is allowed")
            continue
        best = min(fit, key=lambda row: row["p50_seconds"])
        speedup = Interval(**best["speedup"])
        found[kind] = {
            "variant": name_variant(best),
            "speedup": best["speedup"],
            "lower_quartile": best["speedup_lower_quartile"],
            "over_best_float32": best_float["p50_seconds"] / best["p50_seconds"],
            "times_smaller": rows[0]["file_bytes"] / best["file_bytes"],
        }
        print(
            f"{kind}: {name_variant(best)}: {speedup:.2f}, lower quartile "
            f"{best['speedup_lower_quartile']:.2f}; {found[kind]['over_best_float32']:.2f} over "
            f"the best float32; {found[kind]['times_smaller']:.1f} times smaller"
        )
    return found


def name_variant(row: dict[str, Any]) -> str:
    """Name of a row as the accuracies and losses have it."""
    return f"{row['model']}, {row['runtime']}, {row['precision']}"


def measure_language_model(num_rounds: int, num_windows: int) -> dict[str, Any]:
    """The reference language model and its student at 1 × 128 tokens."""
    reference = artifacts.load_reference_model("language_model")
    windows = artifacts.load_corpus_windows(reference.tokenizer, ["test"])["test"]
    tokens, targets = (part[:num_windows] for part in windows)
    student = load_student()
    named = {"whole": reference.model} | ({"student": student} if student else {})
    losses: dict[str, np.ndarray] = {}
    for variant, predict in make_files(named, tokens[:16]):
        losses[variant] = measure_losses(predict(tokens), targets)
    timed = {**named, "Keras int8": quantize(reference.model)}
    table = compression.measure_runtimes(
        timed, tokens[:16], precisions=PRECISIONS, num_rounds=num_rounds
    )
    print(f"\nlanguage model of {reference.model.count_params():,} parameters\n{table}\n")
    base = losses["whole, Keras"]
    increases = {variant: compare_losses(each, base) for variant, each in losses.items()}
    print("nats per token, and increase [95 %, paired over windows]")
    for variant, increase in increases.items():
        print(f"  {variant:<34}{losses[variant].mean():.4f}   {increase:+.2%}")
    single = {v for v, each in increases.items() if v.startswith("whole") and each.high <= 0.005}
    stacked = {v for v, each in increases.items() if v.startswith("student") and each.high <= 0.03}
    kinds = {"whole": "single"} | ({"student": "stacked"} if student else {})
    return {
        "times": table.to_dict(),
        "nll": {variant: float(each.mean()) for variant, each in losses.items()},
        "increase": {variant: each.to_dict() for variant, each in increases.items()},
        "targets": print_targets(table, single | stacked, kinds),
    }


def load_student() -> Any | None:
    """The cut and distilled language model, where there is one."""
    if "language_model_student" not in artifacts.list_reference_models():
        return None
    try:
        return artifacts.load_reference_model("language_model_student").model
    except (ValueError, OSError) as error:
        print(f"student: {error}")
        return None


def measure_losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Nats per token of every window."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    picked = np.take_along_axis(shifted, targets[..., None].astype(int), axis=-1)[..., 0]
    losses: np.ndarray = (np.log(np.exp(shifted).sum(axis=-1)) - picked).mean(axis=-1)
    return losses


def compare_losses(losses: np.ndarray, base: np.ndarray) -> Interval:
    """Increase of the mean loss as a share of the base's."""
    difference = bootstrap_interval(losses - base)
    scale = base.mean()
    return Interval(difference.value / scale, difference.low / scale, difference.high / scale)


def measure_tfmot(python: str | None) -> dict[str, Any]:
    """Magnitude pruning by tensorflow-model-optimization, in an environment of its own."""
    if python is None or not Path(python).is_file():
        print("\ntf-keras with tensorflow-model-optimization: not installed")
        return {"why_not": "not installed"}
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, {"training": 0.8, "test": 0.2})
    with tempfile.TemporaryDirectory() as folder:
        packed = {
            f"{part}_{side}": getattr(digits, part)[rows]
            for part in "xy"
            for side, rows in sides.items()
        }
        np.savez(Path(folder) / "digits.npz", **packed)
        script = Path(__file__).with_name("_tfmot_peer.py")
        done = subprocess.run(
            [python, str(script), folder],
            capture_output=True,
            text=True,
            env=os.environ | {"TF_USE_LEGACY_KERAS": "1"},
            check=False,
        )
        if done.returncode:
            print(f"\ntf-keras with tensorflow-model-optimization: {done.stderr[-300:]}")
            return {"why_not": done.stderr[-300:]}
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"\ntf-keras with tensorflow-model-optimization: {found}")
    return found


if __name__ == "__main__":
    main()
