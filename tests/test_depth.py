"""Residual branches left out: closed forms, the transformer, what is refused."""

import keras
import numpy as np
import pytest
from keras import layers

from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import prune_branches
from bigmodel_utils.models import LanguageModelSettings, build_language_model

SETTINGS = LanguageModelSettings(
    vocabulary_size=32,
    num_layers=3,
    width=16,
    num_heads=2,
    feedforward_width=12,
    context_length=10,
)
TOKENS = np.random.default_rng(0).integers(0, 32, (4, 10)).astype("int32")
BLOCK = ("block_1_attention_residual", "block_1_feedforward_residual")


def test_a_branch_that_adds_nothing_may_go():
    model = build_language_model(SETTINGS)
    for name in ("block_1_attention_output", "block_1_feedforward_down"):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.zeros(kernel.shape))
    smaller = prune_branches(model, TOKENS, residuals=BLOCK)
    assert smaller.report.agreement.largest_difference < 1e-6


def test_a_branch_that_adds_something_is_missed():
    smaller = prune_branches(build_language_model(SETTINGS), TOKENS, residuals=BLOCK)
    assert smaller.report.agreement.largest_difference > 1e-3


def test_what_is_left_is_the_model_of_that_depth():
    model = build_language_model(SETTINGS)
    before = [array.copy() for array in model.get_weights()]
    smaller = prune_branches(model, TOKENS, residuals=BLOCK)
    shallow = build_language_model(LanguageModelSettings(**{**SETTINGS.to_dict(), "num_layers": 2}))
    assert smaller.model.count_params() == shallow.count_params()
    assert smaller.report.after.num_flops < smaller.report.before.num_flops
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    loss = smaller.model.train_on_batch(TOKENS, TOKENS)
    assert np.isfinite(loss)


def test_it_is_saved_and_loaded(tmp_path):
    smaller = prune_branches(build_language_model(SETTINGS), TOKENS, residuals=BLOCK).model
    smaller.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected, received = (model.predict(TOKENS, verbose=0) for model in (smaller, loaded))
    assert np.array_equal(expected, received)


def build_two_towers():
    x = keras.Input((3,), name="x")
    first, second = (layers.Dense(3, name=name)(x) for name in ("first", "second"))
    return keras.Model(x, layers.Add(name="sum")([first, second]))


@pytest.mark.parametrize(
    ("name", "received"),
    [("sum", "neither comes from the other"), ("first", "Dense"), ("none", "no such layer")],
)
def test_what_is_no_residual_is_refused(name, received):
    with pytest.raises(InputError, match=received):
        prune_branches(build_two_towers(), np.ones((1, 3)), residuals=[name])
