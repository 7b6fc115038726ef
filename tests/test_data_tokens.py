"""Tokenizers that lose nothing and depend on nothing else; windows that lose only the tail."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_utils._checks import InputError, MissingExtraError
from bigmodel_utils.data import END_OF_DOCUMENT, END_TOKEN, pack_tokens, train_tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "def quick(fox):\n    return [brown for brown in fox]\n",
    "Größe, naïve café; 東京の天気は晴れ 🙂🙂",
] * 3
TOKENIZER = train_tokenizer(TEXTS, vocabulary_size=300)

document_lists = st.lists(st.lists(st.integers(1, 300), max_size=9), min_size=1, max_size=9)


@given(st.text())
def test_any_text_comes_back(text):
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids) == text
    assert END_TOKEN not in ids


@pytest.mark.parametrize("text", ["", "  a   b\t\n", "\x00", "e\u0301 é", END_OF_DOCUMENT, "🙂"])
def test_odd_texts_come_back(text):
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids) == text
    assert END_TOKEN not in ids


def test_a_tokenizer_with_the_marker_as_a_special_token_fails_the_same():
    """The twin: what the library's trainer gives before the marker is hidden from texts."""
    content = json.loads(TOKENIZER.to_str())
    content["added_tokens"] = [
        {
            "id": END_TOKEN,
            "content": END_OF_DOCUMENT,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ]
    naive = type(TOKENIZER).from_str(json.dumps(content))
    ids = naive.encode(END_OF_DOCUMENT).ids
    assert ids == [END_TOKEN]
    assert naive.decode(ids) != END_OF_DOCUMENT


def test_vocabulary_has_the_end_the_bytes_and_what_was_learned():
    assert TOKENIZER.get_vocab_size() == 300
    assert TOKENIZER.id_to_token(END_TOKEN) == END_OF_DOCUMENT
    single = [token for token in TOKENIZER.get_vocab() if len(token) == 1]
    assert len(single) == 256
    assert TOKENIZER.decode([END_TOKEN]) == END_OF_DOCUMENT


def test_merges_are_those_of_counting_by_hand():
    """Pairs of "low low lower": l-o and o-w tie at three, l-o is first by number, then lo-w."""
    tokenizer = train_tokenizer(["low low lower"], vocabulary_size=259)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    assert merges == [["l", "o"], ["lo", "w"]]


def test_order_of_texts_and_run_do_not_matter():
    assert train_tokenizer(TEXTS[::-1], vocabulary_size=300).to_str() == TOKENIZER.to_str()
    other = train_tokenizer([*TEXTS, "quixotic quizzes" * 9], vocabulary_size=300)
    assert other.to_str() != TOKENIZER.to_str()
    code = (
        "from bigmodel_utils.data import train_tokenizer\n"
        f"print(train_tokenizer({TEXTS!a}, vocabulary_size=300).to_str())"
    )
    for threads in ("1", "4"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
            timeout=60,
            env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONIOENCODING": "utf-8"},
        )
        assert done.stdout.strip() == TOKENIZER.to_str()


def test_tokenizer_survives_saving(tmp_path):
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    again = type(TOKENIZER).from_file(str(tmp_path / "tokenizer.json"))
    text = f"{TEXTS[2]} {END_OF_DOCUMENT}"
    assert again.encode(text).ids == TOKENIZER.encode(text).ids
    assert again.to_str() == TOKENIZER.to_str()


def test_windows_by_hand():
    inputs, targets = pack_tokens([[1, 2], [], [3], [4, 5, 6]], length=2, end_token=9)
    # The stream: 1 2 9 9 3 9 4 5 6 9
    assert inputs.tolist() == [[1, 2], [9, 9], [3, 9], [4, 5]]
    assert targets.tolist() == [[2, 9], [9, 3], [9, 4], [5, 6]]
    assert inputs.dtype == targets.dtype == np.int32


def check_nothing_is_lost_but_the_tail(pack, documents, length):
    stream = [token for document in documents for token in [*document, END_TOKEN]]
    inputs, targets = pack(documents, length=length)
    assert inputs.shape == targets.shape
    assert inputs.shape[1] == length
    assert inputs.ravel().tolist() == stream[: inputs.size]
    assert targets.ravel().tolist() == stream[1 : inputs.size + 1]
    assert 0 <= len(stream) - 1 - inputs.size < length


def is_enough(documents, length):
    return sum(len(document) + 1 for document in documents) > length


@given(document_lists, st.integers(1, 12))
def test_nothing_is_lost_but_the_tail(documents, length):
    if is_enough(documents, length):
        check_nothing_is_lost_but_the_tail(pack_tokens, documents, length)
    else:
        with pytest.raises(InputError, match="`documents` must fill a window"):
            pack_tokens(documents, length=length)


def pack_without_ends(documents, *, length):
    stream = np.concatenate(documents)
    num_windows = (len(stream) - 1) // length
    inputs = stream[: num_windows * length].reshape(num_windows, length)
    return inputs, stream[1 : num_windows * length + 1].reshape(num_windows, length)


def pack_by_document(documents, *, length):
    """Drops a tail of every document, as a pipeline does that windows texts one by one."""
    pairs = [pack_tokens([d], length=length) for d in documents if len(d) >= length]
    inputs, targets = zip(*pairs, strict=True)
    return np.concatenate(inputs), np.concatenate(targets)


def pack_unshifted(documents, *, length):
    inputs, _ = pack_tokens(documents, length=length)
    return inputs, inputs


@pytest.mark.parametrize("pack", [pack_without_ends, pack_by_document, pack_unshifted])
def test_broken_packings_fail_the_same_property(pack):
    documents = [[5, 6, 7, 8, 5], [6, 8, 9, 9], [1, 2, 3, 4]]
    check_nothing_is_lost_but_the_tail(pack_tokens, documents, 3)
    with pytest.raises(AssertionError):
        check_nothing_is_lost_but_the_tail(pack, documents, 3)


def test_encoded_documents_come_back_from_the_windows():
    inputs, targets = pack_tokens([TOKENIZER.encode(text).ids for text in TEXTS], length=1)
    stream = [int(inputs[0, 0]), *targets.ravel().tolist()]
    assert TOKENIZER.decode(stream) == "".join(text + END_OF_DOCUMENT for text in TEXTS)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: train_tokenizer(TEXTS, vocabulary_size=256), "vocabulary_size"),
        (lambda: train_tokenizer(["abc"], vocabulary_size=300), "vocabulary_size"),
        (lambda: train_tokenizer([], vocabulary_size=300), "vocabulary_size"),
        (lambda: train_tokenizer("abc", vocabulary_size=300), "texts"),
        (lambda: pack_tokens([[1, 2]], length=0), "length"),
        (lambda: pack_tokens([[1, 2]], length=3), "documents"),
        (lambda: pack_tokens([], length=3), "documents"),
        (lambda: pack_tokens([[1, 2]], length=2, end_token=-1), "end_token"),
        (lambda: pack_tokens([[1, 2], [3, -4]], length=2), r"documents\[1\]"),
        (lambda: pack_tokens([[1.0, 2.0]], length=2), r"documents\[0\]"),
        (lambda: pack_tokens(["text"], length=2), r"documents\[0\]"),
        (lambda: pack_tokens([[[1, 2], [3, 4]]], length=2), r"documents\[0\]"),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        call()


def test_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"bigmodel_utils\[data\]"):
        train_tokenizer(TEXTS, vocabulary_size=300)
