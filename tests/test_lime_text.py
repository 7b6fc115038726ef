"""LIME for texts and token ids: as `lime` on the same draws, planted words, refusals."""

import keras
import numpy as np
import pytest

from bigmodel_utils._checks import InputError
from bigmodel_utils.explanation import explain_with_lime_text, explain_with_lime_tokens
from bigmodel_utils.explanation._lime_text import _draw_masks

TEXTS = [
    "A good film, with a good end; though the middle drags -- a lot!",
    "  Bad acting and worse music: no, no, I would not see it again.",
    "one two three four five",
]
IDS = np.random.default_rng(0).integers(1, 9, (3, 8))


def count_letters(texts):
    """Three outputs, not linear in the words."""
    counts = np.array([[text.count(each) for each in "aeo"] + [len(text)] for text in texts])
    return np.tanh(counts @ np.random.default_rng(1).normal(size=(4, 3)) / 9)


def read_positions(ids):
    ids = np.asarray(ids, float)
    return np.tanh(ids @ np.random.default_rng(2).normal(size=(ids.shape[1], 2)) / 9)


def read_peer(found, targets, num_segments):
    values = np.zeros((num_segments, len(targets)))
    for place, target in enumerate(targets):
        for feature, weight in found.local_exp[target]:
            values[feature, place] = weight
    return values, np.array([found.intercept[target] for target in targets])


@pytest.mark.parametrize("mask_word", [None, "UNKNOWN"])
def test_texts_are_explained_as_by_lime(mask_word):
    peer = pytest.importorskip("lime.lime_text")
    found = explain_with_lime_text(
        count_letters, TEXTS, mask_word=mask_word, num_samples=300, seed=6
    )
    for row, text in enumerate(TEXTS):
        explainer = peer.LimeTextExplainer(
            feature_selection="none",
            bow=mask_word is None,
            mask_string=mask_word,
            random_state=6,
        )
        expected = explainer.explain_instance(text, count_letters, labels=range(3), num_samples=300)
        count = len(expected.local_exp[0])
        values, intercepts = read_peer(expected, range(3), count)
        words = expected.domain_mapper.indexed_string
        assert found.inputs[row, :count].tolist() == [words.word(i) for i in range(count)]
        assert np.abs(found.values[row, :count] - values).max() < 1e-7
        assert np.abs(found.base_values[row] - intercepts).max() < 1e-7
        assert found.diagnostics["r2"][row, -1] == pytest.approx(expected.score, abs=1e-9)
        assert (found.diagnostics["num_segments"][row] == count).all()
        assert not found.values[row, count:].any()
        assert not found.standard_errors[row, count:].any()
        assert set(found.inputs[row, count:]) <= {""}


def test_ids_are_explained_as_by_lime():
    peer = pytest.importorskip("lime.lime_text")
    found = explain_with_lime_tokens(read_positions, IDS, mask_id=0, num_samples=300, seed=2)
    for row, ids in enumerate(IDS):
        explainer = peer.LimeTextExplainer(
            feature_selection="none", bow=False, mask_string="0", random_state=2
        )
        expected = explainer.explain_instance(
            " ".join(map(str, ids)),
            lambda texts: read_positions([list(map(int, text.split())) for text in texts]),
            labels=range(2),
            num_samples=300,
        )
        values, intercepts = read_peer(expected, range(2), 8)
        assert np.abs(found.values[row] - values).max() < 1e-7
        assert np.abs(found.base_values[row] - intercepts).max() < 1e-7


def test_masks_are_drawn_without_bias():
    masks = _draw_masks(6, 20_000, seed=0)
    assert masks[0].all()
    hidden = 6 - masks[1:].sum(axis=1)
    # 1 … 6 are hidden, each number as often, and each word as often.
    assert np.allclose(np.bincount(hidden.astype(int), minlength=7)[1:] / 19_999, 1 / 6, atol=0.02)
    assert np.allclose(masks[1:].mean(axis=0), 1 - 3.5 / 6, atol=0.02)


def finds_the_word(found, word):
    best = found.values[..., 0].argmax(axis=1)
    return all(row[place] == word for row, place in zip(found.inputs, best, strict=True))


def test_the_planted_word_is_found_and_the_twin_is_not():
    texts = [f"{text} plum" for text in TEXTS]
    found = explain_with_lime_text(
        lambda batch: [[1.0 * ("plum" in text)] for text in batch], texts
    )
    assert finds_the_word(found, "plum")
    assert np.abs(found.values[..., 0].max(axis=1) - 1).max() < 0.05
    shuffled = np.random.default_rng(0).permutation(found.inputs, axis=1)
    assert not finds_the_word(type(found)(**{**vars(found), "inputs": shuffled}), "plum")


def test_a_word_that_stands_twice():
    text = ["plum and pear and plum and apple or fig"]
    seen = []

    def count_plums(batch):
        seen.extend(batch)
        return [[text.count("plum")] for text in batch]

    together = explain_with_lime_text(count_plums, text, num_samples=500)
    assert together.inputs[0].tolist() == ["plum", "and", "pear", "apple", "or", "fig"]
    assert together.values[0, 0, 0] == pytest.approx(2, abs=0.1)
    apart = explain_with_lime_text(count_plums, text, mask_word="_", num_samples=500)
    assert np.allclose(apart.values[0, [0, 4], 0], 1, atol=0.1)
    assert "_ _ _ _ _ _ _ _ _" in seen


def test_equal_texts_are_predicted_once():
    seen = []

    def predict(batch):
        seen.extend(batch)
        return count_letters(batch)

    explain_with_lime_text(predict, TEXTS[2:], num_samples=2000)
    assert len(set(seen)) == 2**5
    assert len(seen) == 2**5 + 2  # and the text itself and the empty one, to begin with


def test_padding_is_left_alone():
    padded = np.concatenate([IDS, np.zeros((3, 4), int)], axis=1)
    padded[1, 2] = 0
    found = explain_with_lime_tokens(lambda ids: read_positions(ids[:, :8]), padded, mask_id=0)
    assert not found.values[:, 8:].any()
    assert not found.values[1, 2].any()
    assert found.diagnostics["num_segments"][:, 0].tolist() == [8, 7, 8]
    plain = explain_with_lime_tokens(read_positions, IDS, mask_id=0)
    assert np.allclose(found.values[0, :8], plain.values[0], atol=1e-12)


def build_embedding_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            keras.layers.Embedding(9, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def test_a_keras_model_of_ids_is_explained():
    model = build_embedding_model()
    found = explain_with_lime_tokens(model, IDS, mask_id=0, targets=(2, 1))
    table, kernel, _ = model.get_weights()
    # Linear in the positions: each adds its vector less that of the mask, times its weights.
    steps = table[IDS] - table[0]
    expected = np.einsum("nld,ldt->nlt", steps, kernel.reshape(8, 4, 3)[..., [2, 1]])
    assert np.abs(found.values - expected).max() < 0.03 * np.abs(expected).max()
    assert found.diagnostics["r2"].min() > 0.99
    assert (found.diagnostics["stability"] > 0.9).all()


def test_seeds_repeat_and_leave_the_process_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (
        explain_with_lime_text(count_letters, TEXTS, num_samples=100, seed=seed)
        for seed in (3, 3, 4)
    )
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert first.to_dict() == second.to_dict()
    assert (other.values != first.values).any()


def refuse_nothing(texts):
    if not all(text.strip(" ,.;:!-") for text in texts):
        raise ZeroDivisionError("no words")
    return count_letters(texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": TEXTS[0]}, "Received: one text"),
        ({"texts": []}, "`texts` must be a list of texts"),
        ({"texts": [b"bytes"]}, "Received: bytes"),
        ({"texts": [TEXTS[0], "too few words"]}, "Received: 3 in row 1"),
        ({"texts": ["word word word word word"]}, "Received: 1 in row 0"),
        ({"texts": [""]}, "Received: 0 in row 0"),
        ({"num_samples": 5}, "`num_samples`"),
        ({"seed": 1.5}, "`seed`"),
        ({"targets": 3}, "`targets`"),
        ({"model": None}, "`model` must be a function"),
        ({"model": lambda texts: np.ones((len(texts), 1))}, "output 0 of row 0 is always 1"),
        ({"model": lambda texts: np.ones(len(texts))}, "must return outputs of shape"),
        ({"model": refuse_nothing}, "everything is hidden. Received: ZeroDivisionError: no words"),
    ],
)
def test_bad_texts(change, message):
    with pytest.raises(InputError, match=message):
        explain_with_lime_text(**({"model": count_letters, "texts": TEXTS} | change))


def test_a_model_that_fails_without_words_is_explained_with_a_mask_word():
    found = explain_with_lime_text(refuse_nothing, TEXTS, mask_word="word", num_samples=100)
    assert found.values.shape[0] == 3


def divide_by_shown(ids):
    with np.errstate(invalid="ignore"):
        return ids.sum(axis=1, keepdims=True) / (ids > 0).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": IDS[0]}, "`ids` must have shape"),
        ({"ids": IDS * 1.0}, "`ids` must be integers"),
        ({"ids": IDS[:, :4]}, "Received: 4 in row 0"),
        ({"ids": np.zeros((2, 9), int)}, "Received: 0 in row 0"),
        ({"mask_id": "0"}, "`mask_id`"),
        ({"model": divide_by_shown}, "everything is hidden"),
        ({"model": lambda ids: np.ones((len(ids), 1))}, "look whether the model reads"),
    ],
)
def test_bad_ids(change, message):
    with pytest.raises(InputError, match=message):
        explain_with_lime_tokens(**({"model": read_positions, "ids": IDS, "mask_id": 0} | change))
