"""The model that trains a student beside its teacher, and the loss between the two."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from ._models import copy_model

SMALLEST_PROBABILITY = 1e-30
_OUTSIDE = ("teacher", "_teacher_reader")


def compute_soft_loss(teacher_logits: Any, student_logits: Any, *, temperature: float) -> Any:
    r"""Divergence of the student's softened probabilities from the teacher's, times `T²`.

    With :math:`p = \mathrm{softmax}(z_t / T)` and :math:`q = \mathrm{softmax}(z_s / T)` it is
    :math:`T^2 \sum_i p_i \log(p_i / q_i)`, averaged over all predictions. Its gradient for one
    prediction of `N` classes is :math:`T (q - p)`, which tends to
    :math:`(z_s - z_t) / N` at a high temperature, for logits of mean zero: the factor `T²`
    keeps its size.

    Args:
        teacher_logits: shape `(…, num_classes)`.
        student_logits: the same shape.
        temperature: divides both; above 0.

    Returns:
        A float32 scalar, 0 where the two agree up to a constant, never negative but for rounding.

    Example:
        >>> logits = [[2.0, -1.0, 0.5]]
        >>> float(compute_soft_loss(logits, logits, temperature=3))
        0.0

    References:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), section 2
        and equation 4.
    """
    expected, received = (
        ops.log_softmax(ops.cast(logits, "float32") / temperature, axis=-1)
        for logits in (teacher_logits, student_logits)
    )
    divergence = ops.sum(ops.exp(expected) * (expected - received), axis=-1)
    return temperature**2 * ops.mean(divergence)


def restore_logits(outputs: Any, kind: str) -> Any:
    """Logits, up to a constant, of `"logits"` or `"probabilities"`."""
    if kind == "logits":
        return outputs
    return ops.log(ops.maximum(ops.cast(outputs, "float32"), SMALLEST_PROBABILITY))


@keras.saving.register_keras_serializable(package="bigmodel_utils")
class Distiller(keras.Model):  # type: ignore[misc]
    """A student in training beside its teacher; made by `build_distiller`.

    What it predicts is the student's. Its variables are the student's and those of the
    projections: the teacher is outside, so that no checkpoint holds it and no step moves it.

    Args:
        teacher: the model that is learned from; always run in inference mode.
        student: the model that learns; its own variables are trained.
        settings: `temperature`, `label_share`, `hints` (teacher's layer to student's) and
            `output_kinds` (of the teacher and of the student), checked before.

    Attributes:
        teacher: the teacher, as it was passed in.
        student: the student in training, not compiled; `copy_student` gives it out.
        settings: as passed in.
    """

    def __init__(
        self, teacher: Any, student: Any, *, settings: Mapping[str, Any], **options: Any
    ) -> None:
        super().__init__(**options)
        self.teacher, self.student, self.settings = teacher, student, dict(settings)
        hints = self.settings["hints"]
        self._teacher_reader = _read_layers(teacher, list(hints))
        self._student_reader = _read_layers(student, list(hints.values()))
        self.projections = [
            _make_projection(student.get_layer(ours).output, teacher.get_layer(theirs).output)
            for theirs, ours in hints.items()
        ]
        self.built = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OUTSIDE:
            object.__setattr__(self, name, value)  # seen by neither Keras nor its backend
        else:
            super().__setattr__(name, value)

    @property
    def fixed_parts(self) -> list[str]:
        """What a resumed run must find again although no variable of the run holds it."""
        digest = hashlib.sha256()
        for weights in self.teacher.get_weights():
            digest.update(weights.tobytes())
        return [f"teacher {digest.hexdigest()}", f"distillation {sorted(self.settings.items())}"]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The student's outputs; what they lack of the teacher's is added as a loss."""
        outputs, *features = _as_list(self._student_reader(inputs, training=training))
        targets, *hints = _as_list(self._teacher_reader(inputs, training=False))
        theirs, ours = self.settings["output_kinds"]
        loss = compute_soft_loss(
            ops.stop_gradient(restore_logits(targets, theirs)),
            restore_logits(outputs, ours),
            temperature=self.settings["temperature"],
        )
        for projection, feature, hint in zip(self.projections, features, hints, strict=True):
            target = ops.stop_gradient(ops.cast(hint, "float32"))
            loss = loss + ops.mean(ops.square(ops.cast(projection(feature), "float32") - target))
        self.add_loss((1 - self.settings["label_share"]) * loss)
        return outputs

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Loss of a batch; called by Keras. Examples without a label have none by labels."""
        if y is not None:
            y, is_labeled = _find_labeled(ops.convert_to_tensor(y), y_pred)
            sample_weight = is_labeled if sample_weight is None else sample_weight * is_labeled
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def copy_student(self) -> Any:
        """The student as it is now, alone: compiled as it was passed in, ready to be saved."""
        copy = copy_model(self.student, is_compiled=False)
        copy.compile_from_config({**self.get_compile_config(), "loss_weights": None})
        return copy

    def get_config(self) -> dict[str, Any]:
        """Returns what makes an equal distiller; called by Keras when it saves a model."""
        serialize = keras.saving.serialize_keras_object
        parts = {"teacher": serialize(self.teacher), "student": serialize(self.student)}
        return {**super().get_config(), **parts, "settings": self.settings}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Distiller:
        """Makes the distiller again; called by Keras when it loads a model."""
        deserialize = keras.saving.deserialize_keras_object
        parts = {name: deserialize(config[name]) for name in ("teacher", "student")}
        return cls(**{**config, **parts})


def _find_labeled(labels: Any, outputs: Any) -> tuple[Any, Any]:
    """Labels that the loss can take, and 1.0 where there was one, 0.0 where not.

    A row of zeros has no loss, but a slope: TensorFlow's assumes that labels sum to one.
    """
    if labels.shape == outputs.shape:
        return labels, ops.cast(ops.any(labels != 0, axis=-1), "float32")
    return ops.maximum(labels, 0), ops.cast(labels >= 0, "float32")


def _read_layers(model: Any, names: list[str]) -> Any:
    if not names:
        return model
    return keras.Model(
        model.inputs, [model.outputs[0], *(model.get_layer(n).output for n in names)]
    )


def _make_projection(feature: Any, hint: Any) -> Any:
    """A linear map to the width of the hint, the same at each place; nothing if it fits."""
    if feature.shape[-1] == hint.shape[-1]:
        projection = keras.layers.Identity()
    else:
        projection = keras.layers.Dense(hint.shape[-1], use_bias=False, dtype="float32")
    projection.build(feature.shape)
    return projection


def _as_list(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
