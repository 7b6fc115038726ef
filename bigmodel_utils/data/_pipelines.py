"""The order of examples as a pure function of seed and epoch, so that a run can resume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer, check_same_length, import_extra


def shuffle_batches(
    num_examples: int, *, batch_size: int, seed: int, epoch: int, keep_tail: bool = True
) -> list[np.ndarray]:
    """Shuffles example indices into the batches of one epoch, a pure function of its arguments.

    A run that stopped at step `k` of an epoch goes on with `shuffle_batches(...)[k:]`: there
    is no state of a generator to save. The order is the one that sorts the raw output of
    NumPy's Philox generator, seeded with `seed` and `epoch`; NumPy keeps that output the
    same between its versions, which it does not promise for `Generator.permutation`.

    Args:
        num_examples: number of examples, at least 1.
        batch_size: examples per batch, at least 1.
        seed: seed of the run, at least 0.
        epoch: number of the epoch, from 0.
        keep_tail: keep a last batch that is smaller than the others.

    Returns:
        Index arrays `(batch_size,)` int64, the last one possibly shorter; together they hold
        each of `0 … num_examples - 1` exactly once, less the tail if it is not kept.

    Raises:
        InputError: if an argument is out of range, or no full batch would remain.

    Example:
        >>> [batch.tolist() for batch in shuffle_batches(5, batch_size=2, seed=0, epoch=0)]
        [[1, 4], [2, 0], [3]]

    References:
        NEP 19, Random number generator policy (2018), numpy.org/neps/nep-0019-rng-policy.html
    """
    check_integer("num_examples", num_examples, at_least=1)
    check_integer("batch_size", batch_size, at_least=1)
    check_integer("seed", seed, at_least=0)
    check_integer("epoch", epoch, at_least=0)
    if not keep_tail and batch_size > num_examples:
        raise InputError(
            "batch_size",
            "must be at most `num_examples` when the tail is dropped",
            f"{batch_size} for {num_examples} examples",
            "pass a smaller one or keep the tail",
        )
    # A spawn key, not [seed, epoch]: a seed of two words could otherwise meet an epoch.
    sequence = np.random.SeedSequence(seed, spawn_key=(epoch,))
    order = np.argsort(np.random.Philox(sequence).random_raw(num_examples), kind="stable")
    stop = num_examples if keep_tail else num_examples - num_examples % batch_size
    return [order[start : start + batch_size] for start in range(0, stop, batch_size)]


def make_tf_dataset(x: Any, y: Any, *, batch_size: int, seed: int, num_epochs: int = 1) -> Any:
    """Makes a `tf.data` pipeline of the same batches, in the same order, as `shuffle_batches`.

    The pipeline is one finite stream: epoch 0, then epoch 1, to the last. Iterating it again
    gives the same stream, and `dataset.skip(step)` resumes it. For Keras, pass
    `steps_per_epoch=len(dataset) // num_epochs` and `shuffle=False` to `fit`.

    *Limits*: TensorFlow only; batches are cut in Python, one at a time, from arrays that fit
    in memory.

    Args:
        x: inputs `(num_examples, …)`.
        y: targets `(num_examples, …)`.
        batch_size: examples per batch, at least 1.
        seed: seed of the run, at least 0.
        num_epochs: number of epochs in the stream, at least 1.

    Returns:
        A `tf.data.Dataset` of pairs `(x, y)` of known length.

    Raises:
        InputError: if the arrays are empty, not numeric, not finite or of unequal length, or
            a number is out of range.
        MissingExtraError: if TensorFlow is not installed.

    Example:
        >>> dataset = make_tf_dataset(np.eye(5), np.arange(5), batch_size=2, seed=0)
        >>> [labels.tolist() for _, labels in dataset.as_numpy_iterator()]
        [[1, 4], [2, 0], [3]]
    """
    x, y = check_array("x", x), check_array("y", y)
    num_examples = check_same_length(x=x, y=y)
    check_integer("num_epochs", num_epochs, at_least=1)
    num_batches = len(shuffle_batches(num_examples, batch_size=batch_size, seed=seed, epoch=0))
    tensorflow = import_extra("tensorflow", extra="tensorflow")

    def generate() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for epoch in range(num_epochs):
            for batch in shuffle_batches(
                num_examples, batch_size=batch_size, seed=seed, epoch=epoch
            ):
                yield x[batch], y[batch]

    signature = tuple(
        tensorflow.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (x, y)
    )
    dataset = tensorflow.data.Dataset.from_generator(generate, output_signature=signature)
    dataset = dataset.apply(
        tensorflow.data.experimental.assert_cardinality(num_epochs * num_batches)
    )
    return dataset.prefetch(tensorflow.data.AUTOTUNE)
