"""A recurrent classifier of token sequences that does not see padding."""

from __future__ import annotations

from typing import Any

from .._checks import check_integer


def build_lstm_classifier(
    vocabulary_size: int, *, num_classes: int, width: int = 64, embedding_width: int = 32
) -> Any:
    """Builds and compiles a classifier of token sequences around one LSTM.

    Token 0 is padding. It is masked: the LSTM passes over it, before, after or amid a text,
    so texts of different lengths share a batch and are classified as if each stood alone.

    Args:
        vocabulary_size: number of different tokens, padding included, at least 2.
        num_classes: number of classes, at least 2.
        width: numbers in the state of the LSTM.
        embedding_width: numbers per token.

    Returns:
        A compiled `keras.Model` from int32 tokens of shape `(batch, time)` to class
        probabilities of shape `(batch, num_classes)`. It trains on class numbers of shape
        `(batch,)` with categorical cross-entropy and Adam. The layers are named
        `"embedding"`, `"lstm"` and `"probabilities"`.

    Raises:
        InputError: if a number is too small.

    Limits:
        One direction, one layer: a baseline, not the best that recurrent networks do. A text
        of nothing but padding gets the prediction of the initial state.

    Example:
        >>> build_lstm_classifier(100, num_classes=2, width=8, embedding_width=4).count_params()
        834

    References:
        Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 9 (1997);
        with the forget gate of Gers, Schmidhuber and Cummins, Learning to Forget, Neural
        Computation 12 (2000).
    """
    import keras
    from keras import layers

    check_integer("vocabulary_size", vocabulary_size, at_least=2)
    check_integer("num_classes", num_classes, at_least=2)
    check_integer("width", width, at_least=1)
    check_integer("embedding_width", embedding_width, at_least=1)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    embedding = layers.Embedding(vocabulary_size, embedding_width, mask_zero=True, name="embedding")
    state = layers.LSTM(width, name="lstm")(embedding(tokens))
    # Probabilities stay in float32 under mixed precision: float16 rounds small ones to zero.
    probabilities = layers.Dense(
        num_classes, activation="softmax", dtype="float32", name="probabilities"
    )(state)
    model = keras.Model(tokens, probabilities, name="lstm_classifier")
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
