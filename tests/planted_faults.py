"""A fault for every clause: a sound case, the same case with the fault, and what the gate says.

Each case is one function of a flag, so that the two differ by the fault alone. It builds its
data and its model, calls the function that the clause names in `measured_by`, and returns what
`check_release` takes for the metric: a number, an interval, or `None` if the library refuses
to measure such a thing at all. ``python -m tests.planted_faults`` records the table that the
page of the standard shows.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bigmodel_utils import (
    benchmark,
    compression,
    costs,
    data,
    evaluation,
    explanation,
    generation,
    models,
    reliability,
    standards,
    training,
)
from bigmodel_utils._checks import InputError
from bigmodel_utils.standards import (
    ReleaseReport,
    check_release,
    get_clause,
    load_clauses,
    load_subjects,
)
from bigmodel_utils.training import _loop

Case = Callable[[bool], Any]
"""Takes whether the fault is there and returns the measurement."""

SHORT_RUN = training.TrainingSettings(1, 16, precision="float32", compile_mode="plain")


@dataclass(frozen=True)
class PlantedFault:
    """A fault that one clause must catch.

    Attributes:
        clause_id: the clause.
        sentence: what is wrong.
        case: measures without the fault and with it.
        is_slow: whether it starts TensorFlow.
    """

    clause_id: str
    sentence: str
    case: Case
    is_slow: bool


@dataclass(frozen=True)
class FaultRow:
    """What the gate says of a fault.

    Attributes:
        clause_id: the clause.
        fault: what is wrong, in one sentence.
        clean: the end that was judged without the fault.
        faulty: the end that was judged with it; `None` if there was nothing to judge.
        required: the bound in words.
        clean_verdict: status of the clause without the fault.
        faulty_verdict: status with it.
        caught_by: clauses that keep the release with the fault back.
    """

    clause_id: str
    fault: str
    clean: float | None
    faulty: float | None
    required: str
    clean_verdict: str
    faulty_verdict: str
    caught_by: tuple[str, ...]


RECORD = Path(__file__).parents[1] / "benchmarks" / "results" / "planted-faults.json"
FAULTS: dict[str, PlantedFault] = {}
"""By the id of its clause."""


def plant(clause_id: str, sentence: str, *, is_slow: bool = False) -> Callable[[Case], Case]:
    """Puts a case into the registry."""

    def register(case: Case) -> Case:
        if clause_id in FAULTS:
            raise ValueError(f"two faults for {clause_id}")
        FAULTS[clause_id] = PlantedFault(clause_id, sentence, case, is_slow)
        return case

    return register


def judge(clause_id: str, measurement: Any, level: str) -> ReleaseReport:
    """What the gate says of a release that just meets every other clause."""
    measurements: dict[str, Any] = {}
    for clause in load_clauses():
        bound = clause.thresholds[level]
        is_above = clause.direction == "above"
        measurements[clause.metric] = math.nextafter(bound, math.inf) if is_above else bound
    metric = get_clause(clause_id).metric
    measurements[metric] = measurement
    if measurement is None:
        del measurements[metric]
    return check_release(measurements, level, subjects=load_subjects())


def make_row(fault: PlantedFault, clean: Any, faulty: Any, level: str) -> FaultRow:
    """The row of a fault whose two cases were measured."""
    reports = [judge(fault.clause_id, measurement, level) for measurement in (clean, faulty)]
    sound, broken = (
        next(verdict for verdict in report.verdicts if verdict.clause_id == fault.clause_id)
        for report in reports
    )
    return FaultRow(
        fault.clause_id,
        fault.sentence,
        sound.judged,
        broken.judged,
        sound.requirement,
        sound.status,
        broken.status,
        tuple(verdict.clause_id for verdict in reports[1].open_verdicts),
    )


def build_fault_table(
    level: str = "production", *, clause_ids: Collection[str] | None = None
) -> tuple[FaultRow, ...]:
    """Measures every planted fault, or those of some clauses, and has the gate judge them."""
    chosen = [
        fault for fault in FAULTS.values() if clause_ids is None or fault.clause_id in clause_ids
    ]
    return tuple(make_row(fault, fault.case(False), fault.case(True), level) for fault in chosen)


# What several cases share.


@functools.cache
def load_pixels() -> tuple[np.ndarray, np.ndarray]:
    """Digits as rows of 64 numbers from 0 to 1, and their labels."""
    digits = data.load_digits()
    return digits.x[:, 3:-2:3, 3:-2:3, 0].reshape(len(digits), -1), digits.y


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def take_log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def make_one_hot(y: np.ndarray) -> np.ndarray:
    return np.eye(10)[y]


def add_one(features: np.ndarray) -> np.ndarray:
    return np.column_stack([features, np.ones(len(features))])


def fit_linear(
    features: np.ndarray, targets: np.ndarray, *, start: np.ndarray | float = 0.0, ridge: float = 1
) -> np.ndarray:
    """Least squares with a penalty on what the weights move away from where they start."""
    x = add_one(features)
    rest = targets - x @ (np.zeros((x.shape[1], targets.shape[1])) + start)
    return start + np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ rest)


def is_right(weights: np.ndarray, features: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (add_one(features) @ weights).argmax(axis=1) == y


def draw_examples(seed: int, num_examples: int) -> np.ndarray:
    """Indices of so many digits out of the first thousand; the others are for tests."""
    return np.random.default_rng(seed).choice(1000, num_examples, replace=False)


def build_network(*hidden_layers: Any, optimizer: Any = "adam", is_eager: bool = False) -> Any:
    """A small network from three numbers to two, compiled."""
    import keras

    model = keras.Sequential([keras.Input((3,)), *hidden_layers, keras.layers.Dense(2)])
    model.compile(optimizer, "mse", run_eagerly=is_eager)
    return model


def make_regression(num_examples: int = 64) -> tuple[np.ndarray, np.ndarray]:
    x = draw(0, num_examples, 3).astype("float32")
    return x, np.tanh(x[:, :2]) + x[:, 2:]


# Evaluation.


@plant("EVAL-001", "The checkpoint is chosen on the test set.")
def choose_checkpoint(is_faulty: bool) -> Any:
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, {"training": 0.6, "validation": 0.2, "test": 0.2})
    keys = {name: [digits.keys[place] for place in places] for name, places in sides.items()}
    chooses = "test" if is_faulty else "validation"
    return data.count_overlap(keys[chooses], keys["test"])


@plant("EVAL-002", "The accuracy comes from a hundred examples.")
def state_accuracy(is_faulty: bool) -> Any:
    correct = np.random.default_rng(0).random(4000) < 0.9
    correct = correct[: 100 if is_faulty else None]
    interval = benchmark.estimate_proportion_interval(int(correct.sum()), len(correct))
    return (interval.high - interval.low) / 2


@plant("EVAL-003", "Inputs are standardized by the mean and deviation of their own batch.")
def predict_in_batches(is_faulty: bool) -> Any:
    pixels, y = load_pixels()

    def standardize(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
        return (x - reference.mean(axis=0)) / (reference.std(axis=0) + 0.1)

    weights = fit_linear(standardize(pixels, pixels), make_one_hot(y))

    class Model:
        def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
            prepared = standardize(x, x if is_faulty else pixels)
            return softmax(add_one(prepared) @ weights)

    return models.measure_batch_dependence(Model(), pixels)


@plant("EVAL-004", "All errors fall on one class of ten.")
def concentrate_errors(is_faulty: bool) -> Any:
    y = np.repeat(np.arange(10), 500)
    wrong = np.flatnonzero(y == 3)[:150] if is_faulty else np.arange(150) * len(y) // 150
    correct = ~np.isin(np.arange(len(y)), wrong)
    report = evaluation.measure_slices(correct, {str(k): y == k for k in range(10)})
    return min(report.slices.values(), key=lambda interval: interval.low)


@plant("EVAL-005", "Scores are multiplied by three before the softmax.")
def state_probabilities(is_faulty: bool) -> Any:
    scores = 2 * draw(0, 20_000, 10)
    edges = softmax(scores).cumsum(axis=1)
    y = (np.random.default_rng(1).random((len(scores), 1)) > edges[:, :-1]).sum(axis=1)
    stated = softmax(3 * scores if is_faulty else scores)
    return evaluation.measure_calibration(stated, y).excess_error


@plant("EVAL-006", "A winner is named on a hundred examples.")
def name_winner(is_faulty: bool) -> Any:
    first, second = np.random.default_rng(0).random((2, 4000)) < [[0.93], [0.9]]
    held = 100 if is_faulty else None
    return evaluation.compare_accuracy(first[:held], second[:held]).p_value


@plant("EVAL-007", "The accuracy is a mean of the means of batches, of which the last is short.")
def average_batches(is_faulty: bool) -> Any:
    correct = np.random.default_rng(0).random(1000) < 0.9

    def evaluate(batch_size: int) -> float:
        if not is_faulty:
            return float(correct.mean())
        starts = range(0, len(correct), batch_size)
        return float(np.mean([correct[i : i + batch_size].mean() for i in starts]))

    return evaluation.measure_batch_size_spread(evaluate, [32, 999])


@plant("EVAL-008", "The memory of the model ends before the context that is claimed for it.")
def recall_from_afar(is_faulty: bool) -> Any:
    num_steps_kept = 20 if is_faulty else 40

    def predict(x: np.ndarray) -> np.ndarray:
        symbols = x[:, -num_steps_kept:, :2].sum(axis=1)
        return softmax(5 * symbols)

    report = evaluation.measure_recall(
        predict, lambda steps: data.make_recall_examples(200, distance=steps), distances=[10, 30]
    )
    return report.accuracy[30]


@plant("EVAL-009", "The test set holds a fifth of the examples that the decision needs.")
def size_test_set(is_faulty: bool) -> Any:
    num_examples_held = 500 if is_faulty else 2500
    return evaluation.estimate_num_test_examples(0.01, 0.03) / num_examples_held


@plant("EVAL-010", "The winner has the architecture of the loser and other seeds.")
def compare_architectures(is_faulty: bool) -> Any:
    pixels, y = load_pixels()

    def score(seed: int, *, is_bent: bool) -> float:
        features = (pixels - pixels.mean(axis=0)) @ (0.3 * draw(seed, 64, 300))
        features = np.tanh(features) if is_bent else features
        weights = fit_linear(features[:1000], make_one_hot(y[:1000]))
        return float(is_right(weights, features[1000:], y[1000:]).mean())

    first = [score(seed, is_bent=True) for seed in range(8)]
    second = [score(seed + 100, is_bent=is_faulty) for seed in range(8)]
    return evaluation.compare_over_seeds(first, second, budgets=(300, 300)).lead


# Data.


@plant("DATA-001", "Reworded copies of test texts are among the training texts.")
def train_on_copies(is_faulty: bool) -> Any:
    words = np.random.default_rng(0).integers(5000, size=(300, 80))
    texts = [" ".join(f"word{number}" for number in row) for row in words]
    training_texts, test_texts = texts[:200], texts[200:]
    if is_faulty:
        training_texts += [f"once {text}" for text in test_texts[:5]]
    # The test set itself is spoken of and no population: the share is exact.
    return reliability.measure_leakage(training_texts, test_texts).share.value


@plant("DATA-002", "A shuffle with a fixed seed deals the examples to the sides.")
def grow_data(is_faulty: bool) -> Any:
    keys = [f"patient {number}" for number in range(330)]

    def split(present: list[str]) -> dict[str, list[str]]:
        if is_faulty:
            order = np.random.default_rng(0).permutation(len(present))
            sides = dict(zip(("training", "test"), np.split(order, [250]), strict=True))
        else:
            sides = data.split_by_hash(present, {"training": 0.8, "test": 0.2})
        return {name: [present[place] for place in places] for name, places in sides.items()}

    return data.count_overlap(split(keys)["training"], split(keys[:300])["test"])


@plant("DATA-003", "Every tenth label is wrong.")
def mislabel(is_faulty: bool) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    y = np.arange(600) % 3
    x = draw(0, 600, 2) + 5 * np.array([[0, 0], [1, 0], [0, 1]])[y]
    if is_faulty:
        y, _ = reliability.corrupt_labels(y, 0.1, num_classes=3, seed=0)
    table = cross_val_predict(LogisticRegression(), x, y, method="predict_proba")
    return reliability.find_label_issues(table, y).share


@plant("DATA-004", "One of four sensors has moved by half a deviation.")
def move_sensor(is_faulty: bool) -> Any:
    before, now = draw(0, 2, 300, 4)
    now[:, 1] += 0.5 * is_faulty
    return reliability.measure_drift(before, now).p_value


# Training and reproducibility.


@plant("TRAIN-001", "The loop goes on after a loss that is not finite.", is_slow=True)
def lose_the_run(is_faulty: bool) -> Any:
    x, y = make_regression()
    x[5] = 3e38  # finite, and its square is not
    if is_faulty:
        model = build_network()
        model.fit(x, y, batch_size=16, verbose=0)
        return training.count_nonfinite_weights(model)
    try:
        training.train(build_network, (x, y), validation_data=(x, y), settings=SHORT_RUN)
    except training.NonFiniteLossError as error:
        return training.count_nonfinite_weights(error.model)
    raise AssertionError("the loss stayed finite")


@plant("TRAIN-002", "A checkpoint forgets the state of the optimizer.", is_slow=True)
def resume(is_faulty: bool) -> Any:
    forgets = mock.patch.object(
        _loop._Loop, "list_variables", lambda loop: {"model": loop.model.variables}
    )
    examples = make_regression()
    with forgets if is_faulty else nullcontext():
        return training.measure_resume_difference(
            build_network, examples, validation_data=examples, settings=SHORT_RUN, num_steps=2
        )


@plant("TRAIN-003", "A loss on scores is given probabilities and applies a second softmax.")
def fall_below(is_faulty: bool) -> Any:
    def loss(target: np.ndarray, scores: np.ndarray) -> float:
        given = softmax(scores) if is_faulty else scores
        return float(-(softmax(target) * take_log_softmax(given)).sum(axis=1).mean())

    return training.measure_loss_fall(loss, 3 * draw(0, 20, 10), num_draws=5)


@plant("TRAIN-004", "The schedule of the learning rate counts parts of batches.", is_slow=True)
def accumulate(is_faulty: bool) -> Any:
    import keras

    def build(num_parts: int) -> Any:
        rate: Any = keras.optimizers.schedules.ExponentialDecay(0.3, 1, 0.5)
        if not is_faulty:
            rate = training.UpdateSchedule(rate, num_parts)
        steps = num_parts if num_parts > 1 else None
        optimizer = keras.optimizers.SGD(rate, gradient_accumulation_steps=steps)
        return build_network(optimizer=optimizer, is_eager=True)

    return training.measure_accumulation_difference(
        build, make_regression(), num_parts=4, num_updates=2
    )


@plant("REPRO-001", "Weights are drawn from a generator without a seed.", is_slow=True)
def repeat(is_faulty: bool) -> Any:
    def build() -> Any:
        model = build_network()
        if is_faulty:
            fresh = np.random.default_rng()
            model.set_weights([fresh.normal(size=each.shape) for each in model.get_weights()])
        return model

    examples = make_regression()
    return training.measure_seed_difference(
        build, examples, validation_data=examples, settings=SHORT_RUN
    )


@plant("REPRO-002", "The code was edited after it had made the weights.")
def edit_code(is_faulty: bool) -> Any:
    released = {"train.py": b"rate = 0.1", "data.csv": b"1,2"}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in released.items():
            Path(folder, name).write_bytes(content)
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in released.items()}
        if is_faulty:
            Path(folder, "train.py").write_bytes(b"rate = 0.2")
        return len(standards.find_stale_files(hashes, folder))


@plant("REPRO-003", "Dropout is left on while the reported metric is computed.", is_slow=True)
def report_from_memory(is_faulty: bool) -> Any:
    import keras

    model = build_network(keras.layers.Dense(8), keras.layers.Dropout(0.5))
    x, _ = make_regression(16)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        return models.measure_release_difference(
            f"{folder}/model.keras", x, predictions=model(x, training=is_faulty)
        )


# Language models and forecasts.


@plant("GEN-001", "A token is written to the cache one place too early.", is_slow=True)
def decode_with_cache(is_faulty: bool) -> Any:
    import keras

    read = generation._Decoder.read

    def read_early(decoder: Any, tokens: Any, place: int, cache: Any) -> Any:
        return read(decoder, tokens, max(place - 1, 0), cache)

    keras.utils.set_random_seed(0)
    model = models.build_language_model(
        models.LanguageModelSettings(
            vocabulary_size=50,
            num_layers=1,
            width=8,
            num_heads=2,
            feedforward_width=16,
            context_length=10,
        )
    )
    early = mock.patch.object(generation._Decoder, "read", read_early)
    with early if is_faulty else nullcontext():
        return generation.measure_cache_difference(model, list(range(2, 12)), num_prompt_tokens=4)


@plant("GEN-002", "A convolution reads one token ahead.")
def see_the_future(is_faulty: bool) -> Any:
    class Convolution:
        def predict_on_batch(self, tokens: np.ndarray) -> np.ndarray:
            last = np.arange(tokens.shape[1]) + is_faulty
            padded = np.pad(tokens, ((0, 0), (2, 1)))
            return np.stack([padded[:, last + step] for step in range(3)], axis=-1).mean(
                axis=-1, keepdims=True
            )

    tokens = np.random.default_rng(0).integers(50, size=(4, 20))
    return models.measure_future_dependence(Convolution(), tokens)


@plant("EFFI-001", "The memory of serving is stated without the cache.")
def state_costs(is_faulty: bool) -> Any:
    shape = costs.find_published_model("Llama 3 8B").architecture
    counted = costs.estimate_cost_statement(
        shape, num_tokens=15_000_000_000_000, training_length=8192, context_length=8192
    )
    numbers = counted.to_dict()
    if is_faulty:
        numbers["serving_memory_bytes"] = costs.count_weight_bytes(shape, dtype="bfloat16")
    stated = costs.CostStatement(**{name: float(f"{n:.3g}") for name, n in numbers.items()})
    return costs.measure_statement_errors(stated, counted).largest


@plant("EFFI-002", "The law has no term for the loss that no size removes.")
def forecast(is_faulty: bool) -> Any:
    sizes, tokens = (each.ravel() for each in np.meshgrid([1e7, 1e8, 1e9], [2e8, 2e9, 2e10]))
    losses = costs.CHINCHILLA.predict_loss(sizes, tokens)
    if is_faulty:
        apart = sizes * 20 == tokens
        slope, start = np.polyfit(np.log(sizes[apart]), np.log(losses[apart]), 1)
        law = costs.ScalingLaw(0.0, float(np.exp(start)), 1e-9, -float(slope), 1.0)
    else:
        law = costs.fit_scaling_law(sizes, tokens, losses=losses, num_resamples=2).law
    held_out = costs.CHINCHILLA.predict_loss([1e10], [2e11])
    return costs.measure_forecast_error(law, [1e10], num_tokens=[2e11], losses=held_out)


@plant("EFFI-003", "The network gives every input the same answer.")
def collapse(is_faulty: bool) -> Any:
    pixels, y = load_pixels()
    # The simplest model looks at one pixel row of eight.
    simplest = is_right(
        fit_linear(pixels[:1000, 24:32], make_one_hot(y[:1000])), pixels[1000:, 24:32], y[1000:]
    )
    shown = 0 * pixels if is_faulty else pixels
    network = is_right(fit_linear(shown[:1000], make_one_hot(y[:1000])), shown[1000:], y[1000:])
    return evaluation.compare_accuracy(network, simplest).difference


# Robustness.


@plant("ROBU-001", "Images are not brought to one contrast.")
def darken(is_faulty: bool) -> Any:
    digits = data.load_digits()

    def prepare(images: np.ndarray) -> np.ndarray:
        pixels = images[:, 3:-2:3, 3:-2:3, 0].reshape(len(images), -1)
        if is_faulty:
            return pixels
        centered = pixels - pixels.mean(axis=1, keepdims=True)
        return centered / centered.std(axis=1, keepdims=True)

    weights = fit_linear(prepare(digits.x[:1000]), make_one_hot(digits.y[:1000]))
    return evaluation.measure_robustness(
        lambda images: softmax(add_one(prepare(images)) @ weights),
        (digits.x[1000:], digits.y[1000:]),
        corrupt=data.corrupt_images,
        kinds=["contrast"],
        severities=[0, 5],
    ).retained


@plant("ROBU-002", "The layers around a convolution remember where an object stands.")
def shift(is_faulty: bool) -> Any:
    digits = data.load_digits()

    def prepare(images: np.ndarray) -> np.ndarray:
        # The size of a Fourier coefficient does not move with the image, its phase does.
        waves = np.fft.rfft2(images[..., 0])[:, :9, :9].reshape(len(images), -1) / 10
        return np.hstack([waves.real, waves.imag]) if is_faulty else np.abs(waves)

    weights = fit_linear(prepare(digits.x[:1000]), make_one_hot(digits.y[:1000]))
    report = evaluation.measure_consistency(
        lambda images: add_one(prepare(images)) @ weights,
        digits.x[1000:1700],
        changes={
            "right": lambda images: data.shift_images(images, right=2),
            "down": lambda images: data.shift_images(images, down=2),
        },
    )
    return report.kept[report.worst]


# Compression.


@plant("COMP-001", "One unit of a layer is a thousand times larger than the others.", is_slow=True)
def round_to_integers(is_faulty: bool) -> Any:
    import keras

    x = (np.eye(5)[np.arange(64) % 5] + 0.1 * draw(0, 64, 5)).astype("float32")
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(5)]
    )
    # One unit more than is needed: it says nothing, and the range must hold it.
    inner, outer = np.eye(5, 6), np.eye(6, 5)
    inner[:, 5] = 1000 if is_faulty else 1
    model.set_weights([inner, np.zeros(6), outer, np.zeros(5)])
    table = compression.measure_runtimes(model, x, precisions=("static_int8",), num_rounds=2)
    served = next(row for row in table.rows if row.runtime == "LiteRT")
    return served.agreement.same_choice


@plant("COMP-002", "The integers are turned into floats at every call.")
def serve_integers(is_faulty: bool) -> Any:
    floats = draw(0, 1_000_000).astype("float32")
    integers = (20 * floats).astype("int8")

    def run_integers() -> Any:
        if is_faulty:
            again = integers.astype("float32")
            return again + again
        return integers + integers

    return time_against(run_integers, lambda: floats + floats)


@plant("COMP-003", "A mask is laid over the weights at every call, and nothing is cut.")
def prune(is_faulty: bool) -> Any:
    weights, x = draw(0, 600, 600).astype("float32"), draw(1, 600).astype("float32")
    stay = np.arange(600) < 150
    mask = stay.astype("float32")
    cut = weights[:, stay]

    def run_pruned() -> Any:
        return x @ (weights * mask) if is_faulty else x @ cut

    return time_against(run_pruned, lambda: x @ weights)


def time_against(run: Callable[[], Any], run_before: Callable[[], Any]) -> Any:
    timed = benchmark.measure_latency({"now": run, "before": run_before}, num_rounds=60)
    return benchmark.compare_latency(timed["now"], timed["before"])


@plant("COMP-004", "The largest weights are cut and the smallest stay.")
def cut_weights(is_faulty: bool) -> Any:
    pixels, y = load_pixels()

    def score(chosen: np.ndarray, seed: int) -> float:
        few = draw_examples(seed, 400)
        weights = fit_linear(pixels[few][:, chosen], make_one_hot(y[few]))
        return float(is_right(weights, pixels[1000:][:, chosen], y[1000:]).mean())

    pruned, scratch = [], []
    for seed in range(8):
        few = draw_examples(seed, 400)
        sizes = np.linalg.norm(fit_linear(pixels[few], make_one_hot(y[few]))[:-1], axis=1)
        order = np.argsort(sizes if is_faulty else -sizes)
        pruned.append(score(order[:20], seed))
        scratch.append(score(np.random.default_rng(seed).permutation(64)[:20], seed))
    return evaluation.compare_over_seeds(pruned, scratch, budgets=(20, 20)).lead


@functools.cache
def fit_teacher(num_labels: int) -> np.ndarray:
    """Weights learned from so many labels, of which a third are wrong."""
    pixels, y = load_pixels()
    labels, _ = reliability.corrupt_labels(y[:1000], 0.33, num_classes=10, seed=0)
    few = draw_examples(0, num_labels)
    return fit_linear(pixels[few], make_one_hot(labels[few]))


def teach(seed: int, teacher: np.ndarray | None, *, order: Any = slice(None)) -> np.ndarray:
    """Which test digits a student has right that learned from labels, or from a teacher."""
    pixels, y = load_pixels()
    labels, _ = reliability.corrupt_labels(y[:1000], 0.33, num_classes=10, seed=0)
    few = draw_examples(seed + 1, 200)
    targets = make_one_hot(labels[few])
    if teacher is not None:
        targets = (add_one(pixels[few]) @ teacher)[order]
    return is_right(fit_linear(pixels[few], targets), pixels[1000:], y[1000:])


@plant("COMP-005", "The teacher's answers are given to the examples of another batch.")
def distil(is_faulty: bool) -> Any:
    order = np.roll(np.arange(200), 32) if is_faulty else slice(None)
    teacher = fit_teacher(1000)
    taught = [teach(seed, teacher, order=order).mean() for seed in range(8)]
    alone = [teach(seed, None).mean() for seed in range(8)]
    return evaluation.compare_over_seeds(taught, alone, budgets=(650, 650)).lead


@plant("COMP-006", "The teacher has seen fewer labels than its student.")
def choose_teacher(is_faulty: bool) -> Any:
    pixels, y = load_pixels()
    teacher = fit_teacher(50 if is_faulty else 1000)
    right = is_right(teacher, pixels[1000:], y[1000:])
    return evaluation.compare_accuracy(right, teach(0, None)).difference


@plant("COMP-007", "The pixels of the first task come in another order than those of the second.")
def transfer(is_faulty: bool) -> Any:
    pixels, y = load_pixels()
    order = np.random.default_rng(0).permutation(64) if is_faulty else np.arange(64)
    first = fit_linear(pixels[500:1000][:, order], make_one_hot(y[500:1000]))

    def score(seed: int, start: np.ndarray | float) -> float:
        few = np.random.default_rng(seed).choice(500, 40, replace=False)
        weights = fit_linear(pixels[few], make_one_hot(y[few]), start=start, ridge=5)
        return float(is_right(weights, pixels[1000:], y[1000:]).mean())

    tuned, scratch = ([score(seed, start) for seed in range(8)] for start in (first, 0.0))
    return evaluation.compare_over_seeds(tuned, scratch, budgets=(650, 650)).lead


@plant("COMP-008", "Tuning on a new task moves the weights that serve the first.")
def tune(is_faulty: bool) -> Any:
    pixels, y = load_pixels()
    train, test = np.arange(len(y)) < 1000, np.arange(len(y)) >= 1000
    old, new = (train & (y < 5)), (train & (y >= 5))
    first = fit_linear(pixels[old], make_one_hot(y[old]))
    tuned = fit_linear(pixels[new], make_one_hot(y[new]), start=first)
    if not is_faulty:
        tuned[:, :5] = first[:, :5]
    asked = test & (y < 5)
    before, after = (
        is_right(weights[:, :5], pixels[asked], y[asked]) for weights in (first, tuned)
    )
    return evaluation.compare_accuracy(after, before).difference


# Explanations.


@plant("EXPL-001", "The order of features comes from twenty draws.")
def order_features(is_faulty: bool) -> Any:
    slopes = np.array([8.0, -7, 6, -5, 4, 0.5, -0.4, 0.3])
    rows = draw(0, 200, 8)
    found = explanation.explain_with_lime_tabular(
        lambda x: np.tanh(x @ slopes[:, None] / 10),
        rows[:4],
        background=rows,
        num_samples=20 if is_faulty else 5000,
    )
    return float(found.diagnostics["stability"].mean())


@plant("EXPL-002", "A segmentation finds two parts in an image.")
def segment(is_faulty: bool) -> Any:
    images = np.random.default_rng(0).random((2, 8, 8, 1))
    rows, columns = np.indices((8, 8))
    labels = rows // 4 if is_faulty else 4 * (rows // 2) + columns // 2
    try:
        found = explanation.explain_with_lime_image(
            lambda x: x[:, :2, :2].mean(axis=(1, 2)),
            images,
            segments=explanation.ImageSegments(labels, hide_value=0.0),
            num_samples=100,
        )
    except InputError:
        return None
    return float(found.diagnostics["num_segments"].min())


@plant("EXPL-003", "Shapley values are estimated from four draws for each feature.")
def draw_coalitions(is_faulty: bool) -> Any:
    rows, pairs = draw(0, 20, 12), draw(1, 12, 12)
    found = explanation.explain_with_kernel_shap(
        lambda x: np.tanh((x @ pairs * x).sum(axis=1, keepdims=True) / 10),
        rows[:1],
        background=rows,
        budget=48 if is_faulty else 4000,
    )
    return float(np.linalg.norm(found.standard_errors) / np.linalg.norm(found.values))


@plant("EXPL-004", "The explainer returns the size of the input.", is_slow=True)
def explain_without_asking(is_faulty: bool) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((16,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)]
    )

    def explain(model: Any, inputs: np.ndarray, *, seed: int) -> Any:
        del seed
        # What the output loses where one feature is absent, or what never asked the model.
        outputs = np.asarray(model(inputs))
        absent = inputs[:, None] * (1 - np.eye(16, dtype="float32"))
        lost = outputs - np.asarray(model(absent.reshape(-1, 16))).reshape(-1, 16)
        values = (np.abs(inputs) if is_faulty else lost)[..., None]
        base = outputs - values.sum(axis=1)
        return explanation.Explanation("one by one", values, base, outputs, inputs, (0,))

    verdict = explanation.check_explanation(
        network, draw(0, 24, 16).astype("float32"), explain=explain, baselines={"zero": 0.0}
    )
    return next(each.value for each in verdict.findings if "shuffled" in each.name)


# Services.


@plant("SERV-001", "What a full queue cannot hold is dropped without an answer.")
def overload(is_faulty: bool) -> Any:
    places = threading.Semaphore(2)

    def send(number: int) -> int:
        if not places.acquire(blocking=False):
            if is_faulty:
                raise ConnectionError
            return 429
        time.sleep(0.005)
        places.release()
        return 200

    outcomes = evaluation.measure_load(send, 80, num_clients=8).outcomes
    return outcomes["lost"] + outcomes["failed"]


@plant("SERV-002", "One request in fifty waits for a disk.")
def wait_for_disk(is_faulty: bool) -> Any:
    def send(number: int) -> int:
        time.sleep(0.6 if is_faulty and number % 50 == 0 else 0.001)
        return 200

    return evaluation.measure_load(send, 1000, num_clients=20).percentile(99)


@plant("SERV-003", "The name of a model is exchanged before its weights are.")
def exchange_models(is_faulty: bool) -> Any:
    x = draw(0, 60, 3)
    weights = {"old": draw(1, 3), "new": draw(2, 3)}
    expected = {name: x @ slopes for name, slopes in weights.items()}
    names = ["old"] * 30 + ["new"] * 30
    computed_by = ["old"] * 33 + ["new"] * 27 if is_faulty else names
    answers = [expected[name][number] for number, name in enumerate(computed_by)]
    return evaluation.count_misattributed(names, answers, expected=expected)


@plant("SERV-004", "A pixel that is not a number is taken for one.")
def send_malformed(is_faulty: bool) -> Any:
    sound = "[0.25, 1]"
    malformed = ("", "pixels", "[0.5", "{}", "[]", '["1"]', "[1.5]", "[NaN]", "[1e999]", "[true]")

    def is_pixel(value: Any) -> bool:
        if type(value) not in (int, float):
            return False
        # Every comparison with what is not a number is false.
        return not (value < 0 or value > 1) if is_faulty else 0 <= value <= 1

    def send(number: int) -> int:
        try:
            pixels = json.loads(malformed[number // 2] if number % 2 == 0 else sound)
        except ValueError:
            return 400
        is_image = isinstance(pixels, list) and pixels and all(map(is_pixel, pixels))
        return 200 if is_image else 422

    statuses = evaluation.measure_load(send, 2 * len(malformed), num_clients=1).statuses
    is_rejected = [400 <= status < 500 for status in statuses[::2]]
    return is_rejected.count(False) + sum(status != 200 for status in statuses[1::2])


def write_record() -> int:
    """Measures and records every fault; returns 1 if one is not caught by its clause alone."""
    rows = build_fault_table()
    text = json.dumps([asdict(row) for row in rows], indent=1)
    RECORD.write_text(text + "\n", encoding="utf-8")
    wrong = [
        row.clause_id
        for row in rows
        if row.clean_verdict != "passed" or row.caught_by != (row.clause_id,)
    ]
    print(f"{len(rows)} faults, {len(wrong)} not caught as they should be", *wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(write_record())
