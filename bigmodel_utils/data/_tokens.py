"""Texts as tokens: a byte-level tokenizer, and windows to train a language model on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .._checks import InputError, check_integer, import_extra

END_OF_DOCUMENT = "<end of document>"
"""How the end token looks in decoded text. Its spaces keep any text from encoding to it: in
the byte-level alphabet a space is another character."""

END_TOKEN = 0
"""Number of the end token in every tokenizer of `train_tokenizer`."""

SMALLEST_VOCABULARY = 257
"""All bytes and the end token."""


def train_tokenizer(texts: Iterable[str], *, vocabulary_size: int) -> Any:
    """Trains a byte-pair encoding on texts, beginning from the 256 bytes.

    No text is outside its reach and none is changed: decoding what was encoded gives the same
    text. Words are split off first, as in GPT-2, so no token spans two words.

    Args:
        texts: the training side only; a tokenizer fitted to held-out texts flatters a model's
            loss on them.
        vocabulary_size: number of tokens, at least 257: the bytes, the end token and what is
            learned.

    Returns:
        A `tokenizers.Tokenizer`. ``tokenizer.encode(text).ids`` and ``tokenizer.decode(ids)``
        convert, ``tokenizer.save(path)`` writes one JSON file. Equal texts in any order give
        equal tokenizers. Token 0, `END_TOKEN`, ends a document; no text encodes to it.

    Raises:
        InputError: if `vocabulary_size` is too small, or larger than what the texts can fill.
        MissingExtraError: if `tokenizers` is not installed.

    Limits:
        Only whole texts decode exactly: a character of several bytes may be several tokens,
        of which one alone decodes to a replacement character. A loss per token depends on the
        tokenizer: compare losses per byte.

    Example:
        >>> tokenizer = train_tokenizer(["low lower lowest"] * 2, vocabulary_size=260)
        >>> tokenizer.encode("lowly").tokens
        ['low', 'l', 'y']

    References:
        Sennrich, Haddow and Birch, Neural Machine Translation of Rare Words with Subword Units
        (2016); Radford et al., Language Models are Unsupervised Multitask Learners (2019),
        section 2.2, for bytes.
    """
    size = check_integer("vocabulary_size", vocabulary_size, at_least=SMALLEST_VOCABULARY)
    if isinstance(texts, str):
        raise InputError("texts", "must be several strings", "a single string", "pass a list")
    tokenizers = import_extra("tokenizers", extra="data")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < size:
        raise InputError(
            "vocabulary_size",
            "must not exceed what the texts can fill",
            f"{size}, with texts for {tokenizer.get_vocab_size()}",
            "pass more texts or a smaller vocabulary",
        )
    # Kept in the vocabulary but no longer looked for in texts: a document that quotes the
    # marker must not end there.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def pack_tokens(
    documents: Iterable[Sequence[int] | np.ndarray], *, length: int, end_token: int = END_TOKEN
) -> tuple[np.ndarray, np.ndarray]:
    """Packs documents into windows of equal length, each with its targets one token ahead.

    The documents are joined, each followed by the end token, and the stream is cut. Every
    token but the first is a target exactly once; only a tail shorter than a window is dropped.

    Split before packing, by document, or a document would lie on both sides:

        >>> from bigmodel_utils.data import split_by_hash
        >>> texts = ["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"]
        >>> sides = split_by_hash(texts, {"train": 0.75, "test": 0.25})
        >>> tokenizer = train_tokenizer([texts[i] for i in sides["train"]], vocabulary_size=257)
        >>> encoded = [tokenizer.encode(text).ids for text in texts]
        >>> train, test = (
        ...     pack_tokens([encoded[i] for i in sides[name]], length=4) for name in sides
        ... )
        >>> tokenizer.decode(test[0][0])
        'ij<end of document>o'

    Args:
        documents: token numbers of each document; one may be empty.
        length: tokens per window, at least 1: the context length of the model.
        end_token: what follows each document.

    Returns:
        Inputs and targets, int32, each of shape `(num_windows, length)`, as a model of
        `bigmodel_utils.models.build_language_model` takes them.

    Raises:
        InputError: if the documents do not fill one window, or a token is negative or no
            integer.

    Limits:
        A token also sees those of the document before it in its window; attention is not cut
        at the end token.

    Example:
        >>> inputs, targets = pack_tokens([[5, 6, 7], [8, 9]], length=3)
        >>> inputs.tolist(), targets.tolist()
        ([[5, 6, 7], [0, 8, 9]], [[6, 7, 0], [8, 9, 0]])
    """
    check_integer("length", length, at_least=1)
    check_integer("end_token", end_token, at_least=0)
    pieces: list[Any] = []
    for index, document in enumerate(documents):
        pieces += [_check_tokens(f"documents[{index}]", document), [end_token]]
    stream = np.concatenate(pieces).astype(np.int32) if pieces else np.empty(0, np.int32)
    num_windows = (len(stream) - 1) // length
    if num_windows < 1:
        raise InputError(
            "documents",
            f"must fill a window of {length} tokens and its last target",
            f"{len(stream)} tokens, end tokens included",
            "pass more documents or a smaller `length`",
        )
    end = num_windows * length
    shape = (num_windows, length)
    return stream[:end].reshape(shape), stream[1 : end + 1].reshape(shape)


def _check_tokens(name: str, document: Sequence[int] | np.ndarray) -> np.ndarray:
    tokens = np.asarray(document)
    if tokens.size == 0:
        return np.empty(0, np.int32)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or tokens.min() < 0:
        raise InputError(
            name,
            "must be a sequence of token numbers",
            f"{tokens.dtype} of shape {tokens.shape}, such as {tokens.flat[0]!r}",
            "pass `tokenizer.encode(text).ids`",
        )
    return tokens
