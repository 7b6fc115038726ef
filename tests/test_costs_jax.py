"""Costs against what XLA compiles: operations, and the memory of a training step.

Two independent counters: one reads the text of the program that XLA is given, the other walks
the traced program, whose loops have a length.
"""

import dataclasses
import math
import re

import keras
import numpy as np
import pytest

from bigmodel_utils import costs, models

if keras.backend.backend() != "jax":
    pytest.skip("reads what JAX compiles: part `jax` of the suite", allow_module_level=True)

import jax
import jax.numpy as jnp

SETTINGS = models.LanguageModelSettings(
    vocabulary_size=61,
    num_layers=2,
    width=32,
    num_heads=4,
    feedforward_width=40,
    context_length=12,
)
LANGUAGE_MODELS = {
    "plain": SETTINGS,
    "shared heads": dataclasses.replace(SETTINGS, num_key_value_heads=2),
    "one key head": dataclasses.replace(SETTINGS, num_key_value_heads=1),
    "gelu, layer": dataclasses.replace(SETTINGS, activation="gelu", normalization="layer"),
}
# Wide enough that products outweigh all else.
WIDE = models.LanguageModelSettings(
    vocabulary_size=1024,
    num_layers=2,
    width=256,
    num_heads=4,
    feedforward_width=704,
    context_length=512,
)

DEFINITION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = \w+\[([\d,]*)\]")
DOT = re.compile(r" dot\(%?([\w.\-]+), .*lhs_contracting_dims=\{([\d,]*)\}")
CONVOLUTION = re.compile(r" convolution\(%?[\w.\-]+, %?([\w.\-]+)\).*dim_labels=\w+_(\w+)->")


def read_numbers(text):
    return [int(number) for number in text.split(",") if number]


def count_text_flops(text):
    """Operations of the products and convolutions in the text of a program of XLA's."""
    shapes, flops = {}, 0
    for line in text.splitlines():
        if not (definition := DEFINITION.match(line)):
            continue
        shape = read_numbers(definition[2])
        shapes[definition[1]] = shape
        if dot := DOT.search(line):
            left = shapes[dot[1]]
            flops += 2 * math.prod(shape) * math.prod(left[i] for i in read_numbers(dot[2]))
        elif convolution := CONVOLUTION.search(line):
            kernel = shapes[convolution[1]]
            flops += 2 * math.prod(shape) * math.prod(kernel) // kernel[convolution[2].index("o")]
    return flops


def count_traced_flops(program):
    """Operations of the products in a traced program, loops times their length."""
    flops = 0
    for equation in program.eqns:
        repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for parameter in equation.params.values():
            for part in parameter if isinstance(parameter, tuple | list) else [parameter]:
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    flops += repeats * count_traced_flops(inner)
        if equation.primitive.name == "dot_general":
            left = equation.invars[0].aval.shape
            summed = equation.params["dimension_numbers"][0][0]
            output = equation.outvars[0].aval.shape
            flops += 2 * math.prod(output) * math.prod(left[i] for i in summed)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            filters = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            flops += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // filters
    return flops


def make_forward(model):
    """The forward pass as a function of the weights, with the weights."""
    frozen = [variable.value for variable in model.non_trainable_variables]
    weights = [variable.value for variable in model.trainable_variables]

    def forward(weights, x):
        return model.stateless_call(weights, frozen, x, training=False)[0]

    return forward, weights


def lower(model, x):
    forward, weights = make_forward(model)
    return jax.jit(forward).lower(weights, x)


@pytest.mark.parametrize("settings", LANGUAGE_MODELS.values(), ids=LANGUAGE_MODELS)
def test_products_are_those_of_the_program(settings):
    model = models.build_language_model(settings)
    lowered = lower(model, jnp.zeros((3, 12), "int32"))
    shape = costs.Architecture.from_settings(settings)
    flops = costs.estimate_forward_flops(shape, sequence_length=12, batch_size=3)
    given, compiled = lowered.compiler_ir("hlo").as_hlo_text(), lowered.compile().as_text()
    assert count_text_flops(given) == flops.matrix_products
    assert count_text_flops(compiled) == flops.matrix_products
    assert costs.estimate_flops(model, batch_size=3, length=12).total == flops.matrix_products


def test_twin_a_program_with_a_product_more_is_noticed():
    model = models.build_language_model(SETTINGS)
    forward, weights = make_forward(model)
    lowered = jax.jit(lambda w, x: forward(w, x) @ jnp.ones((61, 2))).lower(
        weights, jnp.zeros((3, 12), "int32")
    )
    walked = costs.estimate_flops(model, batch_size=3, length=12).total
    assert count_text_flops(lowered.compiler_ir("hlo").as_hlo_text()) == (
        walked + 2 * 3 * 12 * 61 * 2
    )


@pytest.mark.parametrize("attention", models.ATTENTION_REPAIRS)
def test_convolutions_are_those_of_the_program(attention):
    model = models.build_image_classifier(attention)
    text = lower(model, jnp.zeros((2, 28, 28, 1))).compiler_ir("hlo").as_hlo_text()
    assert costs.estimate_flops(model, batch_size=2).total == count_text_flops(text)


def test_recurrent_products_are_those_of_the_traced_program():
    model = models.build_lstm_classifier(100, num_classes=3)
    forward, weights = make_forward(model)
    program = jax.make_jaxpr(forward)(weights, jnp.ones((2, 9), "int32"))
    walked = costs.estimate_flops(model, batch_size=2, length=9)
    assert walked.total == count_traced_flops(program.jaxpr)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_backward_products_are_twice_the_forward_ones(name):
    settings = LANGUAGE_MODELS[name]
    model = models.build_language_model(settings)
    forward, weights = make_forward(model)
    program = jax.make_jaxpr(jax.grad(lambda w, x: forward(w, x).sum()))(
        weights, jnp.zeros((2, 12), "int32")
    )
    shape = costs.Architecture.from_settings(settings)
    flops = costs.estimate_training_flops(shape, num_tokens=24, sequence_length=12)
    assert count_traced_flops(program.jaxpr) == flops.model_flops


@pytest.mark.parametrize(
    "changes",
    [{}, {"activation": "gelu", "normalization": "layer"}, {"num_key_value_heads": 2}],
    ids=["plain", "gelu, layer", "shared heads"],
)
def test_all_operations_are_within_a_twentieth_of_what_xla_counts(changes):
    settings = dataclasses.replace(WIDE, **changes)
    model = models.build_language_model(settings)
    counted = lower(model, jnp.zeros((2, 256), "int32")).cost_analysis()["flops"]
    shape = costs.Architecture.from_settings(settings)
    flops = costs.estimate_forward_flops(shape, sequence_length=256, batch_size=2)
    assert flops.total == pytest.approx(counted, rel=0.05)
    assert 0.9 * flops.total != pytest.approx(counted, rel=0.05)  # twin


# Memory of a step: forward and backward, whose results are the gradients. What XLA sets aside
# for itself are the activations.


def analyse_memory(apply, model, weights, *, batch_size, length):
    def compute_loss(weights, x, y):
        return model.loss(y, apply(weights, x))

    tokens = jnp.zeros((batch_size, length), "int32")
    step = jax.jit(jax.value_and_grad(compute_loss))
    analysis = step.lower(weights, tokens, tokens).compile().memory_analysis()
    overhead = 8 * (len(jax.tree.leaves(weights)) + 1) + 4  # the table of results, and the loss
    return {
        "weights": analysis.argument_size_in_bytes - 2 * tokens.size * 4,
        "gradients": analysis.output_size_in_bytes - overhead,
        "activations": analysis.temp_size_in_bytes,
    }


def loop_over_blocks(model, num_layers, *, is_recomputed):
    """The forward pass as a loop over its blocks, and the weights with those of blocks stacked.

    A loop, because XLA on the CPU would otherwise merge what is computed a second time with
    the first.
    """
    first = model.get_layer("block_0_feedforward_residual").output
    last = model.get_layer(f"block_{num_layers - 1}_feedforward_residual").output
    block = keras.Model(model.get_layer("embedding").output, first)
    head = keras.Model(last, model.output)
    embedding, *parts, norm = [variable.value for variable in model.trainable_variables]
    each = len(parts) // num_layers
    stacked = [jnp.stack(parts[place::each]) for place in range(each)]

    def run_block(state, weights):
        return block.stateless_call(weights, [], state, training=True)[0], None

    def forward(weights, x):
        embedding, stacked, norm = weights
        body = jax.checkpoint(run_block) if is_recomputed else run_block
        state, _ = jax.lax.scan(body, embedding[x], stacked)
        own = [norm if len(v.shape) == 1 else embedding for v in head.trainable_variables]
        return head.stateless_call(own, [], state, training=True)[0]

    return forward, (embedding, stacked, norm)


# None of these was looked at when the arrays that a block keeps were listed.
HELD_OUT = {
    "narrow": ({"width": 192, "feedforward_width": 480, "num_layers": 3}, 6, 192),
    "many heads": ({"num_heads": 16}, 4, 320),
    "shared heads": ({"num_heads": 8, "num_key_value_heads": 2}, 12, 128),
    "gelu": ({"activation": "gelu", "feedforward_width": 1024}, 5, 256),
    "layer": ({"normalization": "layer", "num_layers": 5}, 3, 384),
    "large vocabulary": ({"vocabulary_size": 6000}, 8, 160),
    "long": ({"num_layers": 1}, 2, 512),
}


@pytest.mark.parametrize(("changes", "batch_size", "length"), HELD_OUT.values(), ids=HELD_OUT)
def test_memory_is_what_xla_sets_aside(changes, batch_size, length):
    settings = dataclasses.replace(WIDE, **changes)
    model = models.build_language_model(settings)
    forward, weights = make_forward(model)
    analysed = analyse_memory(forward, model, weights, batch_size=batch_size, length=length)
    memory = costs.estimate_memory(
        costs.Architecture.from_settings(settings),
        costs.TrainingPlan(batch_size=batch_size, sequence_length=length),
    )
    assert memory.weights == analysed["weights"]
    assert memory.gradients == analysed["gradients"]
    assert memory.activations == pytest.approx(analysed["activations"], rel=0.25)


@pytest.mark.parametrize("num_layers", [4, 12])
def test_recomputation_keeps_what_xla_keeps(num_layers):
    settings = dataclasses.replace(WIDE, num_layers=num_layers)
    model = models.build_language_model(settings)
    forward, weights = loop_over_blocks(model, num_layers, is_recomputed=True)
    analysed = analyse_memory(forward, model, weights, batch_size=8, length=256)
    full, none = (
        costs.estimate_memory(
            costs.Architecture.from_settings(settings),
            costs.TrainingPlan(batch_size=8, sequence_length=256, recomputation=recomputation),
        ).activations
        for recomputation in ("full", "none")
    )
    assert full == pytest.approx(analysed["activations"], rel=0.25)
    assert none > 1.5 * analysed["activations"]  # twin


@pytest.mark.parametrize("is_recomputed", [False, True])
def test_a_loop_over_blocks_computes_the_same(is_recomputed):
    model = models.build_language_model(WIDE)
    forward, weights = loop_over_blocks(model, WIDE.num_layers, is_recomputed=is_recomputed)
    own_forward, own_weights = make_forward(model)
    tokens = jnp.arange(20).reshape(2, 10)
    np.testing.assert_allclose(
        forward(weights, tokens), own_forward(own_weights, tokens), rtol=1e-5, atol=1e-5
    )
