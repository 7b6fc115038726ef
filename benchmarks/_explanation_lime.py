"""LIME beside `lime`: the same model, the same draws, the same coefficients."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import keras
import lime.lime_image
import numpy as np
from _explanation_arms import FLOOR, OWN, Arms
from keras import layers
from lime.lime_tabular import LimeTabularExplainer
from lime.lime_text import LimeTextExplainer
from sklearn.feature_extraction.text import HashingVectorizer

from bigmodel_utils import data, explanation

# Its progress bar is no part of its engine.
lime.lime_image.tqdm = lambda rows: rows


def build_image_network(activation: str = "softmax") -> Any:
    """A small convolutional network for digits of 28 × 28."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation=activation),
        ]
    )


def build_table_network(num_features: int = 30) -> Any:
    """A small network for rows of a table."""
    return keras.Sequential(
        [
            keras.Input((num_features,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(2, activation="softmax"),
        ]
    )


def load_table() -> np.ndarray:
    """The tumors, each feature in its own standard deviations."""
    table = data.load_breast_cancer().x
    return np.asarray((table - table.mean(axis=0)) / table.std(axis=0))


def make_text(num_words: int) -> str:
    """The beginning of a docstring, over again where it is too short."""
    words = " ".join((argparse.__doc__ or "").split()).split(" ")
    # A word that comes again is another feature only if it is spelled otherwise.
    return " ".join(f"{words[i % len(words)]}{i // len(words) or ''}" for i in range(num_words))


def build_text_predict() -> Callable[[list[str]], np.ndarray]:
    """Hashed words into a small network."""
    hashing = HashingVectorizer(n_features=512, norm=None, alternate_sign=False)
    model = keras.Sequential(
        [
            keras.Input((512,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(2, activation="softmax"),
        ]
    )
    compiled = explanation.build_predict_fn(model)
    return lambda texts: compiled(hashing.transform(texts).toarray())


def read_peer(found: Any, targets: range, count: int) -> np.ndarray:
    """Coefficients `(num_features, num_targets)` of an explanation by `lime`."""
    return np.array([[dict(found.local_exp[t])[k] for t in targets] for k in range(count)])


def time_images() -> tuple[Arms, float]:
    """A digit of 28 × 28 in 49 squares, 1,000 masks, ten outputs."""
    model = build_image_network()
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
        "lime, as documented": lambda: run_peer(lambda x: model.predict(x, verbose=0)),
    }
    return arms, float(difference)


def time_tables(num_rows: int) -> tuple[Arms, float]:
    """Tumors of 30 features, 5,000 draws, one output; the peer's explainer is built once."""
    table, model = load_table(), build_table_network()
    predict = explanation.build_predict_fn(model)
    peer = LimeTabularExplainer(table, feature_selection="none", random_state=0)

    def run_peer(function: Callable[[np.ndarray], np.ndarray]) -> list[Any]:
        return [
            peer.explain_instance(row, function, labels=(1,), num_features=30, num_samples=5000)
            for row in table[:num_rows]
        ]

    def run_own() -> explanation.Explanation:
        rows = table[:num_rows]
        return explanation.explain_with_lime_tabular(predict, rows, background=table, targets=1)

    # The first row of a fresh explainer has the library's draws.
    expected = read_peer(run_peer(predict)[0], range(1, 2), 30)
    difference = np.abs(run_own().values[0] - expected).max()
    batch = np.repeat(table[:1], 4999 + num_rows, axis=0)
    arms = {
        "lime": lambda: run_peer(predict),
        OWN: run_own,
        FLOOR: lambda: predict(batch),
        "lime, as documented": lambda: run_peer(lambda x: model.predict(x, verbose=0)),
    }
    return arms, float(difference)


def time_texts(num_words: int) -> tuple[Arms, float]:
    """The beginning of a docstring, 5,000 draws, hashed words into a small network."""
    text, predict = make_text(num_words), build_text_predict()

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
