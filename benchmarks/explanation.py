"""What an explanation costs beside what `lime` takes for the same coefficients.

Each peer is fed a compiled function, so that the engines are compared; "as documented" it calls
`Model.predict`, which is what people write. All arms take the same draws, and the largest
difference of their coefficients is printed. The floor is the time of the forward passes alone.
Times are medians of arms in turns; a ratio above 1 says how many times faster the library is.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import keras
import lime.lime_image
import numpy as np
import tensorflow as tf
from keras import layers
from lime.lime_tabular import LimeTabularExplainer
from lime.lime_text import LimeTextExplainer
from sklearn.feature_extraction.text import HashingVectorizer

from bigmodel_utils import benchmark, data, explanation, hardware

RESULTS = Path(__file__).parent / "results"
OWN, FLOOR = "bigmodel_utils", "forward passes"
Arms = dict[str, Callable[[], Any]]


def main() -> None:
    """Prints the ratios of every kind and writes them to one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--documented", action="store_true", help="time `Model.predict` too")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    # Its progress bar is no part of its engine.
    lime.lime_image.tqdm = lambda rows: rows
    keras.utils.set_random_seed(0)
    device = hardware.detect_devices()[-1]
    report: dict[str, Any] = {
        "device": device.name,
        "cpu_features": hardware.list_cpu_features(),
        "versions": {name: version(name) for name in ("keras", "tensorflow", "lime", "numpy")},
        "rounds": options.rounds,
    }
    kinds = {
        "image": time_images(documented=options.documented),
        "tabular, 20 rows": time_tables(20),
        "tabular, 1 row": time_tables(1),
        **{f"text, {count} words": time_texts(count) for count in (10, 25, 60)},
    }
    for name, (arms, difference) in kinds.items():
        report[name] = {"largest_difference": difference, **compare(name, arms, options.rounds)}
        print(f"  largest difference of a coefficient: {difference:.1e}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    slug = "".join(c if c.isalnum() else "-" for c in device.name.lower()).strip("-")
    path = RESULTS / f"explanation-{slug}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}")


def compare(name: str, arms: Arms, num_rounds: int) -> dict[str, Any]:
    """Times the arms in turns; the ratio of each to the library's own."""
    slow = {arm: run for arm, run in arms.items() if "documented" in arm}
    fast = {arm: run for arm, run in arms.items() if arm not in slow}
    measured = benchmark.measure_latency(fast, num_warmup=1, num_rounds=num_rounds)
    found: dict[str, Any] = {}
    print(f"{name}, over the time of {OWN} [95 %]")
    for arm, latency in measured.items():
        ratio = benchmark.compare_latency(latency, measured[OWN])
        found[arm] = {"seconds": float(np.median(latency.seconds)), "ratio": ratio.to_dict()}
        print(f"  {arm:<28}{found[arm]['seconds']:8.4f} s   {ratio:.2f}")
    for arm, run in slow.items():
        again = benchmark.measure_latency({arm: run, OWN: arms[OWN]}, num_warmup=0, num_rounds=2)
        ratio = benchmark.compare_latency(again[arm], again[OWN])
        seconds = float(np.median(again[arm].seconds))
        found[arm] = {"seconds": seconds, "ratio": ratio.to_dict()}
        print(f"  {arm:<28}{seconds:8.4f} s   {ratio:.1f}")
    return found


def read_peer(found: Any, targets: range, count: int) -> np.ndarray:
    """Coefficients `(num_features, num_targets)` of an explanation by `lime`."""
    return np.array([[dict(found.local_exp[t])[k] for t in targets] for k in range(count)])


def time_images(*, documented: bool) -> tuple[Arms, float]:
    """A digit of 28 × 28 in 49 squares, 1,000 masks, ten outputs."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    images = data.load_digits().x[:1]
    grid = explanation.make_grid_segments((28, 28), 4, hide_value=0.0)
    predict = explanation.build_predict_fn(model)

    def run_peer(function: Callable[[np.ndarray], np.ndarray], batch_size: int = 10) -> Any:
        peer = lime.lime_image.LimeImageExplainer(feature_selection="none", random_state=0)
        return peer.explain_instance(
            images[0],
            function,
            top_labels=10,
            hide_color=0,
            num_samples=1000,
            batch_size=batch_size,
            segmentation_fn=lambda _: grid.labels,
            random_seed=0,
        )

    def run_own() -> explanation.Explanation:
        return explanation.explain_with_lime_image(predict, images, segments=grid)

    difference = np.abs(run_own().values[0] - read_peer(run_peer(predict), range(10), 49)).max()
    batch = np.repeat(images, 1000, axis=0)
    arms: Arms = {
        "lime": lambda: run_peer(predict),
        "lime, batches of 256": lambda: run_peer(predict, 256),
        OWN: run_own,
        FLOOR: lambda: predict(batch),
    }
    if documented:
        arms["lime, as documented"] = lambda: run_peer(lambda x: model.predict(x, verbose=0))
    return arms, float(difference)


def time_tables(num_rows: int) -> tuple[Arms, float]:
    """Tumors of 30 features, 5,000 draws, one output; the peer's explainer is built once."""
    table = data.load_breast_cancer().x
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    model = keras.Sequential(
        [
            keras.Input((30,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(2, activation="softmax"),
        ]
    )
    predict = explanation.build_predict_fn(model)
    peer = LimeTabularExplainer(table, feature_selection="none", random_state=0)

    def run_peer() -> list[Any]:
        return [
            peer.explain_instance(row, predict, labels=(1,), num_features=30, num_samples=5000)
            for row in table[:num_rows]
        ]

    def run_own() -> explanation.Explanation:
        rows = table[:num_rows]
        return explanation.explain_with_lime_tabular(predict, rows, background=table, targets=1)

    # The first row of a fresh explainer has the library's draws.
    expected = read_peer(run_peer()[0], range(1, 2), 30)
    difference = np.abs(run_own().values[0] - expected).max()
    batch = np.repeat(table[:1], 4999 + num_rows, axis=0)
    arms = {"lime": run_peer, OWN: run_own, FLOOR: lambda: predict(batch)}
    return arms, float(difference)


def time_texts(num_words: int) -> tuple[Arms, float]:
    """The beginning of a docstring, 5,000 draws, hashed words into a small network."""
    words = " ".join((argparse.__doc__ or "").split()).split(" ")
    text = " ".join(words[:num_words])
    hashing = HashingVectorizer(n_features=512, norm=None, alternate_sign=False)
    model = keras.Sequential(
        [
            keras.Input((512,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(2, activation="softmax"),
        ]
    )
    compiled = explanation.build_predict_fn(model)

    def predict(texts: list[str]) -> np.ndarray:
        return compiled(hashing.transform(texts).toarray())

    def run_peer() -> Any:
        peer = LimeTextExplainer(feature_selection="none", random_state=0)
        return peer.explain_instance(
            text, predict, labels=(1,), num_features=num_words, num_samples=5000
        )

    def run_own() -> explanation.Explanation:
        return explanation.explain_with_lime_text(predict, [text], targets=1)

    values = run_own().values[0]
    difference = np.abs(values - read_peer(run_peer(), range(1, 2), len(values))).max()
    arms = {"lime": run_peer, OWN: run_own, FLOOR: lambda: predict([text] * 5000)}
    return arms, float(difference)


if __name__ == "__main__":
    main()
