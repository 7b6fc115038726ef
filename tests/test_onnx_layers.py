"""A language model written layer by layer in ONNX, run by ONNX Runtime against Keras."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from bigmodel_utils._checks import InputError
from bigmodel_utils.compression._onnx_layers import build_onnx_graph, can_write_layers
from bigmodel_utils.models import LanguageModelSettings, build_language_model

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `edge`")


def run(graph, tokens):
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: tokens})[0]


def build(seed=0, **changes):
    keras.utils.set_random_seed(seed)
    sizes = {
        "vocabulary_size": 20,
        "num_layers": 1,
        "width": 16,
        "num_heads": 2,
        "feedforward_width": 12,
        "context_length": 9,
        **changes,
    }
    model = build_language_model(LanguageModelSettings(**sizes))
    # Initial weights are so small that an error in attention would drown.
    model.set_weights([array * 8 if array.ndim > 1 else array for array in model.get_weights()])
    return model


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 99),
    num_layers=st.integers(1, 2),
    heads=st.sampled_from([(1, 1), (2, 2), (4, 2), (4, 1)]),
    activation=st.sampled_from(["swiglu", "gelu"]),
    normalization=st.sampled_from(["rms", "layer"]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9)),
)
def test_any_language_model_gives_the_same_logits(
    seed, num_layers, heads, activation, normalization, shape
):
    model = build(
        seed,
        num_layers=num_layers,
        num_heads=heads[0],
        num_key_value_heads=heads[1],
        activation=activation,
        normalization=normalization,
    )
    tokens = np.random.default_rng(seed).integers(0, 20, shape).astype("int32")
    expected = model.predict(tokens, verbose=0)
    received = run(build_onnx_graph(model), tokens)
    assert np.linalg.norm(received - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("operator", ["Attention", "RotaryEmbedding", "RMSNormalization"])
def test_a_graph_with_a_part_gone_wrong_is_noticed(operator):
    model = build()
    graph = build_onnx_graph(model)
    node = next(node for node in graph.graph.node if node.op_type == operator)
    if operator == "RotaryEmbedding":  # places of the next token
        name = next(w.name for w in graph.graph.initializer if w.name.endswith("cosine"))
        sine = next(w for w in graph.graph.initializer if w.name == name.replace("cosine", "sine"))
        node.input[1] = sine.name
    else:
        name, field, value = {
            "Attention": ("is_causal", "i", 0),
            "RMSNormalization": ("epsilon", "f", 1.0),
        }[operator]
        setattr(next(a for a in node.attribute if a.name == name), field, value)
    tokens = np.arange(9, dtype="int32")[None]
    expected = model.predict(tokens, verbose=0)
    assert np.linalg.norm(run(graph, tokens) - expected) > 1e-3 * np.linalg.norm(expected)


def test_attention_is_one_operator_and_the_file_is_standard():
    graph = build_onnx_graph(build(num_layers=2))
    assert {node.domain for node in graph.graph.node} == {""}
    assert [node.op_type for node in graph.graph.node].count("Attention") == 2


@pytest.mark.parametrize(
    ("layer", "word"),
    [(layers.Dense(3, activation="tanh", name="odd"), "tanh"), (layers.Lambda(abs), "Lambda")],
)
def test_what_is_not_known_is_named(layer, word):
    tokens = keras.Input((None,), dtype="int32")
    model = keras.Model(tokens, layer(layers.Embedding(5, 3)(tokens)))
    assert not can_write_layers(model)
    with pytest.raises(InputError, match=word):
        build_onnx_graph(model)
