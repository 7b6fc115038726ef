"""Single weights set to nought, at once or while the model trains, and kept there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_choice, check_integer, check_real
from ._models import (
    Filters,
    check_examples,
    check_model,
    choose_layers,
    copy_model,
    has_matrix,
    matches_filters,
    to_numpy,
)
from ._result import Compressed, make_report

PATTERNS = ("unstructured", "2:4")
SCOPES = ("layer", "global")
_KERNELS = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
_DENSE_INPUTS = ("Dense", "Conv1D", "Conv2D", "Conv3D")


@dataclass(frozen=True)
class PruningSchedule:
    """How the share of zeros grows while a model trains: fast at first, then ever slower.

    At step `t` it is `s_f + (s_i - s_f) (1 - (t - t_0) / (n Δt))³`, where a step is an update
    of the weights, the first of number 0. Between two times, and after the last, it stays.

    Args:
        final_sparsity: share of zeros at the end, `s_f`, from 0 to below 1.
        num_times: how many times zeros are added after the first, `n`.
        num_steps_between: steps from one time to the next, `Δt`.
        first_step: step of the first time, `t_0`.
        initial_sparsity: share of zeros there, `s_i`.

    Raises:
        InputError: if a share lies outside [0, 1), falls, or a number is not positive.

    Example:
        >>> schedule = PruningSchedule(0.5, num_times=2, num_steps_between=10)
        >>> [schedule.get_sparsity(step) for step in (0, 9, 10, 20, 99)]
        [0.0, 0.0, 0.4375, 0.5, 0.5]

    References:
        Zhu and Gupta, To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model
        Compression (2017), equation 1.
    """

    final_sparsity: float
    num_times: int
    num_steps_between: int
    first_step: int = 0
    initial_sparsity: float = 0.0

    def __post_init__(self) -> None:
        _check_sparsity("final_sparsity", self.final_sparsity)
        _check_sparsity("initial_sparsity", self.initial_sparsity)
        check_integer("num_times", self.num_times, at_least=1)
        check_integer("num_steps_between", self.num_steps_between, at_least=1)
        check_integer("first_step", self.first_step, at_least=0)
        if self.initial_sparsity > self.final_sparsity:
            raise InputError(
                "initial_sparsity",
                f"must be at most `final_sparsity`, {self.final_sparsity}",
                self.initial_sparsity,
                "zeros are added, never taken back",
            )

    @property
    def last_step(self) -> int:
        """Step of the last time, after which the zeros stay."""
        return self.first_step + self.num_times * self.num_steps_between

    def is_due(self, step: Any) -> Any:
        """Whether zeros are added at a step, a number or a tensor."""
        since = step - self.first_step
        return (since >= 0) & (step <= self.last_step) & (since % self.num_steps_between == 0)

    def get_sparsity(self, step: int) -> float:
        """Share of zeros after the update of a step."""
        since = (step - self.first_step) // self.num_steps_between
        if since < 0:
            return 0.0
        return float(self.compute_sparsity(min(since / self.num_times, 1.0)))

    def compute_sparsity(self, progress: Any) -> Any:
        """The share for the part of the schedule that has passed, a number or a tensor."""
        change = self.initial_sparsity - self.final_sparsity
        return self.final_sparsity + change * (1 - progress) ** 3


def prune_magnitude(
    model: Any,
    examples: Any,
    *,
    sparsity: float,
    pattern: str = "unstructured",
    scope: str = "layer",
    filters: Filters = None,
) -> Compressed:
    """Sets the smallest weights of a model's kernels to nought, at once.

    Args:
        model: a functional or sequential `keras.Model`, not quantized.
        examples: inputs of shape `(num_examples, …)`, on which the two models are compared.
        sparsity: share of the weights to set to nought, from 0 to below 1; 0.5 for `"2:4"`.
        pattern: `"unstructured"`, or `"2:4"`: two of every four inputs that follow each
            other, for each output, as NVIDIA's sparse tensor cores ask.
        scope: `"layer"` ranks the weights within each kernel, `"global"` over all.
        filters: patterns of the names of layers to prune, or a function of a layer; all if
            left out.

    Returns:
        The model with zeros, of the same layers and compiled as the first, and its report;
        `left_out` names the layers with matrices that stayed, and why.

    Raises:
        InputError: if the share lies outside [0, 1) or does not fit the pattern, or no layer
            can be pruned.

    Limits:
        As many operations as before: smaller when packed, no faster unless the runtime skips
        zeros. Biases, scales and embeddings stay. Training on gives zeros up; see `hold_zeros`.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> report = prune_magnitude(model, np.ones((1, 8)), sparsity=0.75).report
        >>> report.after.num_nonzero
        8

    References:
        Han et al., Learning both Weights and Connections for Efficient Neural Networks (2015);
        Mishra et al., Accelerating Sparse Deep Neural Networks (2021), for 2:4.
    """
    share = _check_sparsity("sparsity", sparsity)
    check_choice("pattern", pattern, PATTERNS)
    check_choice("scope", scope, SCOPES)
    if pattern == "2:4" and (share, scope) != (0.5, "layer"):
        raise InputError(
            "sparsity" if share != 0.5 else "scope",
            "must fit the pattern '2:4', which is half of every four weights",
            f"sparsity={share}, scope={scope!r}",
            "pass sparsity=0.5 and leave scope out",
        )
    inputs = check_examples(examples)
    pruned = copy_model(model)
    kernels, left_out = _find_kernels(pruned, filters, pattern=pattern)
    arrays = [np.array(to_numpy(kernel)) for kernel in kernels]
    for kernel, array, mask in zip(
        kernels, arrays, _choose_masks(arrays, share, pattern=pattern, scope=scope), strict=True
    ):
        kernel.assign(array * mask)
    report = make_report(
        model,
        pruned,
        method=f"{share:.0%} zeros, {pattern}",
        examples=inputs,
        left_out=left_out,
    )
    return Compressed(pruned, report)


def prune_while_training(model: Any, schedule: PruningSchedule, *, filters: Filters = None) -> Any:
    """Makes a model that gains zeros as it trains, by a schedule.

    The model has the same layers and needs no callback: after each update its kernels are
    multiplied by masks. The masks are variables of the optimizer, so that whatever stores the
    state of the optimizer, `training.train` above all, goes on exactly where it stopped.

    Args:
        model: a compiled functional or sequential `keras.Model`, not quantized.
        schedule: when how many weights become zeros, in each kernel.
        filters: patterns of the names of layers to prune, or a function of a layer; all if
            left out.

    Returns:
        A new `keras.Model` with the same weights, compiled as the first.

    Raises:
        InputError: if the model is not compiled or no layer can be pruned.

    Limits:
        What has become zero stays zero. Steps are the optimizer's `iterations`: where it
        accumulates gradients, they are parts. `training.train` returns its best epoch, which
        may be one with fewer zeros: count them. A saved model has its zeros but not its masks;
        to train on from a file call `hold_zeros`. Averages of weights (`use_ema`) are not
        masked.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("sgd", "mse")
        >>> schedule = PruningSchedule(0.5, num_times=2, num_steps_between=1)
        >>> pruned = prune_while_training(model, schedule)
        >>> history = pruned.fit(np.ones((3, 8)), np.ones((3, 4)), batch_size=1, verbose=0)
        >>> int(np.count_nonzero(pruned.layers[0].get_weights()[0]))
        16

    References:
        Zhu and Gupta, To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model
        Compression (2017).
    """
    if not isinstance(schedule, PruningSchedule):
        raise InputError(
            "schedule", "must be a PruningSchedule", type(schedule).__name__, "make one"
        )
    return _copy_with_masks(model, schedule, filters)


def hold_zeros(model: Any, *, filters: Filters = None) -> Any:
    """Makes a model whose zeros stay zeros while it trains.

    Args:
        model: a compiled model with zeros, such as `prune_magnitude` returns.
        filters: patterns of the names of layers to hold, or a function of a layer; all if
            left out.

    Returns:
        A new `keras.Model` with the same weights, compiled as the first; see
        `prune_while_training` for how it keeps them.

    Raises:
        InputError: if the model is not compiled or has no kernels.

    Limits:
        Any zero in a kernel is held, wherever it came from.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> pruned = prune_magnitude(model, np.ones((1, 4)), sparsity=0.5).model
        >>> held = hold_zeros(pruned)
        >>> history = held.fit(np.ones((3, 4)), np.ones((3, 1)), verbose=0)
        >>> int(np.count_nonzero(held.layers[0].get_weights()[0]))
        2
    """
    return _copy_with_masks(model, None, filters)


def _copy_with_masks(model: Any, schedule: PruningSchedule | None, filters: Filters) -> Any:
    if not check_model(model).compiled:
        raise InputError(
            "model",
            "must be compiled: its optimizer keeps the masks",
            "a model that is not compiled",
            "call `model.compile` first",
        )
    pruned = copy_model(model)
    kernels, _ = _find_kernels(pruned, filters, pattern="unstructured")
    # Under mixed precision the optimizer that updates is inside one that scales the loss.
    optimizer = getattr(pruned.optimizer, "inner_optimizer", pruned.optimizer)
    pruned.optimizer.build(pruned.trainable_variables)
    for kernel in kernels:
        mask = optimizer.add_variable_from_reference(kernel, name="mask", initializer="ones")
        if schedule is None:
            mask.assign(to_numpy(kernel) != 0)
        kernel.constraint = _Mask(mask, optimizer.iterations, schedule, kernel.constraint)
    # A resumed run must have the same, by place: names count up in one process.
    places = [place for place, v in enumerate(pruned.weights) if any(v is k for k in kernels)]
    pruned.fixed_parts = (f"{schedule} of {places}",)
    return pruned


@dataclass(frozen=True)
class _Mask:
    """The constraint of a kernel: called with its value after each update."""

    mask: Any
    iterations: Any
    schedule: PruningSchedule | None
    inner: Callable[[Any], Any] | None

    def __call__(self, kernel: Any) -> Any:
        from keras import ops

        value = ops.convert_to_tensor(kernel if self.inner is None else self.inner(kernel))
        mask = ops.convert_to_tensor(self.mask)
        schedule = self.schedule
        if schedule is not None:
            # Both ways give a mask, and it is assigned outside: no state changes in a branch.
            mask = ops.cond(
                schedule.is_due(ops.convert_to_tensor(self.iterations)),
                lambda: self._shrink(value * mask, schedule),
                lambda: mask,
            )
            self.mask.assign(mask)
        return value * mask

    def _shrink(self, value: Any, schedule: PruningSchedule) -> Any:
        """The mask of the weights that stay by now; those that are zero are the smallest."""
        from keras import ops

        size = int(np.prod(value.shape))
        since = ops.cast(self.iterations - schedule.first_step, "float32")
        progress = since / (schedule.num_times * schedule.num_steps_between)
        count = ops.round(schedule.compute_sparsity(progress) * size)
        flat = ops.reshape(ops.abs(value), (-1,))
        # Ranks and not a threshold: equal weights would fall together.
        ranks = ops.argsort(ops.argsort(flat))
        stays = ranks >= ops.minimum(ops.cast(count, ranks.dtype), size - 1)
        return ops.cast(ops.reshape(stays, value.shape), value.dtype)


def _find_kernels(
    model: Any, filters: Filters, *, pattern: str
) -> tuple[list[Any], Mapping[str, str]]:
    """Kernels of the layers chosen, and the layers with matrices that stay, with reasons."""
    layers, left_out = choose_layers(
        filter(
            lambda layer: has_matrix(layer._trainable_variables),
            model._flatten_layers(include_self=False),
        ),
        filters,
        explain=lambda layer: _explain(layer, filters, pattern=pattern),
        wanted="with a kernel that can be pruned",
    )
    found = (getattr(layer, name, None) for layer in layers for name in _KERNELS)
    # One that several layers share counts once.
    return list({id(kernel): kernel for kernel in found if kernel is not None}.values()), left_out


def _explain(layer: Any, filters: Filters, *, pattern: str) -> str | None:
    """Why a layer with matrices stays as it is, or None."""
    if not matches_filters(layer, filters):
        return "the filters do not match it"
    if not any(getattr(layer, name, None) is not None for name in _KERNELS):
        return f"a {type(layer).__name__} has no kernel"
    if pattern == "2:4":
        if type(layer).__name__ not in _DENSE_INPUTS:
            return f"a {type(layer).__name__} has no axis of inputs that 2:4 is defined for"
        if layer.kernel.shape[-2] % 4:
            return f"its inputs, {layer.kernel.shape[-2]}, are no multiple of four"
    return None


def _choose_masks(
    arrays: list[np.ndarray], share: float, *, pattern: str, scope: str
) -> list[np.ndarray]:
    """Which weights stay."""
    if pattern == "2:4":
        return [_choose_two_of_four(array) for array in arrays]
    if scope == "layer":
        return [_choose_largest(array, share) for array in arrays]
    flat = _choose_largest(np.concatenate([array.ravel() for array in arrays]), share)
    ends = np.cumsum([array.size for array in arrays])[:-1]
    return [
        part.reshape(array.shape) for part, array in zip(np.split(flat, ends), arrays, strict=True)
    ]


def _choose_largest(array: np.ndarray, share: float) -> np.ndarray:
    count = min(round(share * array.size), array.size - 1)
    mask = np.ones(array.size, dtype=bool)
    mask[np.argsort(np.abs(array), axis=None, kind="stable")[:count]] = False
    return mask.reshape(array.shape)


def _choose_two_of_four(kernel: np.ndarray) -> np.ndarray:
    """Kernel `(…, num_inputs, num_outputs)`: the two largest of every four inputs."""
    *before, num_inputs, num_outputs = kernel.shape
    groups = np.abs(kernel).reshape(*before, num_inputs // 4, 4, num_outputs)
    ranks = groups.argsort(axis=-2, kind="stable").argsort(axis=-2, kind="stable")
    return np.asarray((ranks >= 2).reshape(kernel.shape))


def _check_sparsity(name: str, value: Any) -> float:
    share = check_real(name, value, at_least=0)
    if share >= 1:
        raise InputError(name, "must be below 1", share, "leave at least a part of the weights")
    return share
