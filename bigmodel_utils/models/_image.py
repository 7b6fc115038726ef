"""Reference models: small, written against Keras 3, run on every backend.

The image classifier is the source article's network: two convolutions with pooling, a
dense layer, an attention layer, a softmax. As printed it cannot be built, because Keras'
attention layer takes a list of at least a query and a value. `build_image_classifier`
offers the repairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_choice, check_integer

ATTENTION_REPAIRS = ("none", "features", "spatial")


def build_printed_classifier() -> Any:
    """Builds the source article's network layer by layer as it is printed; it raises.

    Returns:
        Nothing: construction fails at the attention layer.

    Raises:
        ValueError: from Keras, since `Attention` is given one tensor and not a list
            `[query, value]`.

    Example:
        >>> build_printed_classifier()
        Traceback (most recent call last):
        ValueError: Attention layer must be called on a list of inputs...
    """
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((28, 28, 1)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Attention(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def build_image_classifier(attention: str = "spatial", *, num_classes: int = 10) -> Any:
    """Builds and compiles the source article's network with its attention layer repaired.

    The layers, their sizes and the parameter count (225,034 for ten classes) are those of
    the article whichever repair is chosen, because Keras' `Attention` has no weights.

    Args:
        attention: where the layer attends.
            `"spatial"`: over the 5 × 5 positions of the last feature map, each a vector
            of 64 channels, before flattening.
            `"features"`: over the 128 dense features, read as 8 tokens of 16 numbers.
            `"none"`: nowhere; the layer is left out.
        num_classes: number of classes, at least 2.

    Returns:
        A compiled `keras.Model` from images of shape `(batch, 28, 28, 1)` with values in
        [0, 1] to class probabilities of shape `(batch, num_classes)`. It trains on one-hot
        labels with categorical cross-entropy and Adam, as in the article. The dense layer
        is named `"hidden"`.

    Raises:
        InputError: for an unknown repair or fewer than two classes.

    Limits:
        The attention layer follows the article: no projections, no residual connection. It
        shows what the article's network does; it is not a modern attention block.

    Example:
        >>> build_image_classifier("spatial").count_params()
        225034
    """
    import keras
    from keras import layers

    check_choice("attention", attention, ATTENTION_REPAIRS)
    check_integer("num_classes", num_classes, at_least=2)
    images = keras.Input((28, 28, 1), name="images")
    flow = layers.Conv2D(32, (3, 3), activation="relu")(images)
    flow = layers.MaxPooling2D((2, 2))(flow)
    flow = layers.Conv2D(64, (3, 3), activation="relu")(flow)
    flow = layers.MaxPooling2D((2, 2))(flow)
    if attention == "spatial":
        flow = _attend(flow, (25, 64))
    flow = layers.Flatten()(flow)
    flow = layers.Dense(128, activation="relu", name="hidden")(flow)
    if attention == "features":
        flow = layers.Flatten()(_attend(flow, (8, 16)))
    # Probabilities stay in float32 under mixed precision: float16 rounds small ones to zero.
    probabilities = layers.Dense(num_classes, activation="softmax", dtype="float32")(flow)
    model = keras.Model(images, probabilities, name=f"image_classifier_{attention}")
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def build_small_image_classifier(*, num_classes: int = 10) -> Any:
    """Builds and compiles a classifier of the article's shape with a quarter of its width.

    Args:
        num_classes: number of classes, at least 2.

    Returns:
        A compiled `keras.Model` like that of `build_image_classifier("none")`: 8 and 16
        filters, 32 hidden features, a sixteenth of the parameters.

    Raises:
        InputError: for fewer than two classes.

    Example:
        >>> build_small_image_classifier().count_params()
        14410
    """
    import keras
    from keras import layers

    check_integer("num_classes", num_classes, at_least=2)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="images"),
            layers.Conv2D(8, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(16, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(num_classes, activation="softmax", dtype="float32"),
        ],
        name="small_image_classifier",
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def measure_batch_dependence(model: Any, x: Any, *, num_examples: int = 16) -> float:
    """Largest change of a prediction when an example is moved to another batch.

    Each of the first examples is predicted alone and together with the others. A model that
    treats examples independently differs by rounding only, about 1e-7 for probabilities.

    Args:
        model: a Keras model, used in inference mode.
        x: examples of shape `(num_examples, …)`.
        num_examples: how many of them to compare, at least 2.

    Returns:
        The largest absolute difference over examples and outputs, in the output's unit.

    Raises:
        InputError: if fewer than two examples are given.

    Limits:
        Finds dependence in inference mode. BatchNormalization in training mode depends on
        the batch by design and is not looked at.

    Example:
        >>> images = np.random.default_rng(0).random((4, 28, 28, 1), "float32")
        >>> measure_batch_dependence(build_image_classifier("none"), images) < 1e-5
        True
    """
    count = check_integer("num_examples", num_examples, at_least=2)
    examples = check_array("x", x)[:count]
    if len(examples) < 2:
        raise InputError("x", "must hold at least two examples", len(examples), "pass more")
    together = np.asarray(model.predict_on_batch(examples), dtype=np.float64)
    alone = [model.predict_on_batch(examples[i : i + 1])[0] for i in range(len(examples))]
    return float(np.abs(together - np.asarray(alone, dtype=np.float64)).max())


def _attend(flow: Any, shape: tuple[int, int]) -> Any:
    """Self-attention among `shape[0]` tokens of `shape[1]` numbers: query and value alike."""
    from keras import layers

    tokens = layers.Reshape(shape)(flow)
    return layers.Attention()([tokens, tokens])
