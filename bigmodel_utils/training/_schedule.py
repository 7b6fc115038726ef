"""A learning-rate schedule that counts updates where gradients are accumulated."""

from __future__ import annotations

from typing import Any

import keras

from .._checks import InputError, check_integer


@keras.saving.register_keras_serializable(package="bigmodel_utils")
class UpdateSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Any Keras schedule, counted in updates of the weights and not in parts of a batch.

    An optimizer with `gradient_accumulation_steps` hands its schedule the number of parts seen
    so far, so that warm-up and decay are over that many times too early. This passes on the
    number of updates.

    Args:
        schedule: schedule whose step is an update.
        num_parts: the optimizer's `gradient_accumulation_steps`.

    Raises:
        InputError: if `schedule` is no Keras schedule or `num_parts` is not positive.

    Limits:
        Needed where the optimizer itself accumulates. A loop that adds up gradients and then
        calls the optimizer once counts updates already.

    Example:
        >>> halving = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
        >>> slow = UpdateSchedule(halving, 4)
        >>> [float(slow(part)) for part in (0, 3, 4, 8)]
        [1.0, 1.0, 0.5, 0.25]

    References:
        Keras 3.15.1, keras/src/optimizers/base_optimizer.py, `gradient_accumulation_steps`.
    """

    def __init__(self, schedule: Any, num_parts: int) -> None:
        super().__init__()
        if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            raise InputError(
                "schedule",
                "must be a keras.optimizers.schedules.LearningRateSchedule",
                type(schedule).__name__,
                "pass a fixed rate to the optimizer as it is",
            )
        self.schedule = schedule
        self.num_parts = check_integer("num_parts", num_parts, at_least=1)

    def __call__(self, step: Any) -> Any:
        """Returns the rate for the part of number `step`, from 0."""
        return self.schedule(keras.ops.floor_divide(step, self.num_parts))

    def get_config(self) -> dict[str, Any]:
        """Returns what makes an equal schedule; called by Keras when it saves a model."""
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "num_parts": self.num_parts}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> UpdateSchedule:
        """Makes an equal schedule from `get_config`."""
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["num_parts"])
