"""Distillation: a student learns what a teacher says of the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._checks import InputError, check_choice, check_real
from ._distiller import Distiller
from ._models import check_model, copy_model

OUTPUT_KINDS = ("logits", "probabilities")


def build_distiller(
    teacher: Any,
    student: Any,
    *,
    temperature: float = 2.0,
    label_share: float = 0.5,
    hints: Mapping[str, str] | None = None,
    output_kind: str = "auto",
) -> Distiller:
    r"""Builds and compiles a model that trains a student on labels and on its teacher.

    The loss is :math:`\lambda L_y + (1 - \lambda)(L_T + \sum_h L_h)`: the student's own loss
    on the labels, the divergence from the teacher (`compute_soft_loss`), and for each hint the
    mean square between the teacher's features and the student's, these mapped linearly to the
    teacher's width where the widths differ. What regularizes the student is added whole. The
    result goes into `training.train` as it is, and what was trained comes out by
    `run.model.copy_student()`. The checkpoints hold the student and the projections, not the
    teacher; to go on from them with another teacher is refused.

    Args:
        teacher: a trained `keras.Model`, also quantized; functional if there are hints. It is
            run in inference mode and not changed.
        student: a compiled functional or sequential model with outputs of the same shape. It
            is copied, and stays as it was.
        temperature: `T`, above 0.
        label_share: :math:`\lambda`, from 0 for a teacher alone to 1 for labels alone.
        hints: name of a teacher's layer to that of the student's layer that imitates it; their
            outputs differ in the last axis at most.
        output_kind: `"logits"` or `"probabilities"`, what both models give; `"auto"` finds it
            for each by its last activation. `distiller.settings["output_kinds"]` says what was
            found, teacher first.

    Returns:
        The distiller, with the student's optimizer, loss and metrics.

    Raises:
        InputError: if shapes or names do not fit, the student is not compiled, or the kind of
            an output cannot be found.

    Limits:
        Validation loss is that of the mixture: monitor a metric to choose by labels alone. An
        example without a label has a row of zeros where labels are one-hot, or the label -1
        where they are integers; the loss by labels is its sum over those there are, divided by
        the size of the batch.

    Example:
        >>> import keras
        >>> def build(width):
        ...     layers = [keras.Input((4,)), keras.layers.Dense(width), keras.layers.Dense(3)]
        ...     model = keras.Sequential(layers)
        ...     model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        ...     return model
        >>> distiller = build_distiller(build(8), build(2))
        >>> distiller.count_params() == distiller.student.count_params() == 19
        True

    References:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015); Romero et
        al., FitNets: Hints for Thin Deep Nets (2015), equation 3, for hints.
    """
    check_real("label_share", label_share, at_least=0, at_most=1)
    if check_real("temperature", temperature, at_least=0) == 0:
        raise InputError("temperature", "must be above 0", temperature, "pass 1 or more")
    check_model(student)
    if not student.compiled:
        raise InputError("student", "must be compiled", "no loss", "call `student.compile` first")
    _check_teacher(teacher, student)
    check_choice("output_kind", output_kind, ("auto", *OUTPUT_KINDS))
    kinds = [
        find_output_kind(model) if output_kind == "auto" else output_kind
        for model in (teacher, student)
    ]
    pairs = dict(hints or {})
    _check_hints(teacher, student, pairs)
    settings = {
        "temperature": float(temperature),
        "label_share": float(label_share),
        "hints": pairs,
        "output_kinds": kinds,
    }
    distiller = Distiller(teacher, copy_model(student, is_compiled=False), settings=settings)
    config = {**student.get_compile_config(), "loss_weights": float(label_share)}
    distiller.compile_from_config(config)
    return distiller


def find_output_kind(model: Any) -> str:
    """Finds by its last activation whether a model gives logits or probabilities.

    Args:
        model: a functional or sequential `keras.Model`.

    Returns:
        `"logits"` after a linear layer, `"probabilities"` after a softmax.

    Raises:
        InputError: after anything else.

    Example:
        >>> from bigmodel_utils.models import build_small_image_classifier
        >>> find_output_kind(build_small_image_classifier())
        'probabilities'
    """
    import keras

    layer = model
    while isinstance(layer, keras.Model):
        outputs = getattr(layer, "outputs", None)
        layer = outputs[0]._keras_history.operation if outputs else None
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    if activation == "softmax" or isinstance(layer, keras.layers.Softmax):
        return "probabilities"
    if activation == "linear":
        return "logits"
    raise InputError(
        "output_kind",
        'must be stated where the last layer is neither linear nor a softmax ("auto" looks there)',
        f"{activation or type(layer).__name__} at the end of {model.name!r}",
        'pass "logits" or "probabilities"',
    )


def _check_teacher(teacher: Any, student: Any) -> None:
    import keras

    if not isinstance(teacher, keras.Model) or not teacher.built:
        raise InputError(
            "teacher",
            "must be a keras.Model that was built",
            type(teacher).__name__,
            "call it once on examples, or load its weights",
        )
    for side in ("inputs", "outputs"):
        tensors = getattr(teacher, side, None)
        if not tensors:
            continue
        theirs, ours = (
            [tuple(t.shape) for t in each] for each in (tensors, getattr(student, side))
        )
        if len(theirs) != len(ours) or not all(map(_fit, theirs, ours)):
            raise InputError(
                "student",
                f"must have the teacher's {side}, of shape {theirs}",
                ours,
                "build it for the same task",
            )
    if len(student.outputs) != 1:
        raise InputError(
            "student", "must have one output", len(student.outputs), "distill one output at a time"
        )


def _check_hints(teacher: Any, student: Any, hints: Mapping[str, str]) -> None:
    for pair in hints.items():
        shapes = []
        for role, model, name in zip(("teacher", "student"), (teacher, student), pair, strict=True):
            names = [layer.name for layer in getattr(model, "layers", [])]
            if name not in names or not getattr(model, "inputs", None):
                raise InputError(
                    "hints",
                    f"must name layers of the {role}, a functional model",
                    repr(name),
                    f"choose from {', '.join(names)}",
                )
            shapes.append(tuple(model.get_layer(name).output.shape))
        if len(shapes[0]) != len(shapes[1]) or not _fit(shapes[0][:-1], shapes[1][:-1]):
            raise InputError(
                "hints",
                "must pair outputs that differ in the last axis at most",
                f"{pair[0]!r} {shapes[0]} and {pair[1]!r} {shapes[1]}",
                "choose layers of the same resolution",
            )


def _fit(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    return len(one) == len(other) and all(
        a == b or a is None or b is None for a, b in zip(one, other, strict=True)
    )
