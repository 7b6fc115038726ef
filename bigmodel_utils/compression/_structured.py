"""Whole units cut from a network, which is then rebuilt smaller: faster on any hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_choice, check_real
from ._channels import ChannelMap, Cut, Labels, map_channels
from ._importance import RANKINGS, measure_importance
from ._models import check_examples, check_model, compile_alike
from ._result import Compressed, make_report


@dataclass(frozen=True)
class UnitGroup:
    """Units that are ranked against each other: those that the same layers make.

    Attributes:
        layers: the layers that make the units, in the order of the graph.
        units: labels of the units, shape `(num_units,)`.
    """

    layers: tuple[str, ...]
    units: np.ndarray


def list_prunable_units(model: Any) -> dict[str, int]:
    """Says what `prune_units` can cut: units by the layer that makes them.

    A unit is a channel of a convolution, a number of a dense layer, or an attention head with
    its queries, key and value; where layers are added up, their units are cut as one and stand
    under the first of them.

    Args:
        model: a functional or sequential `keras.Model`, not quantized.

    Returns:
        Name of a layer to the number of its units.

    Raises:
        InputError: if the model is no such model.

    Example:
        >>> import keras
        >>> layers = [keras.Input((8,)), keras.layers.Dense(4, name="hidden")]
        >>> list_prunable_units(keras.Sequential([*layers, keras.layers.Dense(2)]))
        {'hidden': 4}
    """
    groups = _list_groups(map_channels(check_model(model)))
    return {group.layers[0]: len(group.units) for group in groups}


def prune_units(
    model: Any,
    examples: Any,
    *,
    share: float | Mapping[str, float],
    ranking: str = "norm",
    targets: Any = None,
) -> Compressed:
    """Cuts the least important units and rebuilds the network without them.

    Units are ranked within their layer. The graph may branch: what is added up is cut alike,
    what is concatenated, flattened or convolved channel by channel is followed through.

    Args:
        model: a functional or sequential `keras.Model`, not quantized.
        examples: inputs of shape `(num_examples, …)`, on which the two models are compared
            and, for `"taylor"`, the loss is taken.
        share: share of the units to cut, from 0 to below 1, in every layer that can be cut or
            by the layers' names (see `list_prunable_units`). One unit always stays.
        ranking: `"norm"`, the norm of the weights that make the unit; `"batch_norm"`, the
            scale that `BatchNormalization` gives it; `"taylor"`, the change of the loss without
            it, to first order.
        targets: for `"taylor"`, the targets of the examples.

    Returns:
        The smaller model, compiled as the first, and its report; `left_out` names the layers
        whose units had to stay, and why.

    Raises:
        InputError: if a share lies outside [0, 1), a layer named cannot be cut, nothing can,
            or the ranking does not fit the model.

    Limits:
        The model is worse until it has been trained again. Layers that normalize all channels
        together, such as `LayerNormalization`, hold the channels they see: the residual stream
        of a transformer stays as wide as it is. Not known and therefore held: recurrent and
        `MultiHeadAttention` layers, grouped convolutions, nested models.

    Example:
        >>> import keras
        >>> layers = [keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)]
        >>> model = keras.Sequential(layers)
        >>> prune_units(model, np.ones((1, 8)), share=0.5).model.count_params()
        24

    References:
        Li et al., Pruning Filters for Efficient ConvNets (2017), for norms; Liu et al.,
        Learning Efficient Convolutional Networks through Network Slimming (2017), for scales;
        Molchanov et al., Importance Estimation for Neural Network Pruning (2019), equation 8,
        for the loss; Fang et al., DepGraph: Towards Any Structural Pruning (2023), for groups.
    """
    check_choice("ranking", ranking, RANKINGS)
    check_model(model)
    inputs = check_examples(examples)
    channels = map_channels(model)
    groups = _list_groups(channels)
    shares = _resolve_shares(share, groups, channels)
    importance = measure_importance(model, channels, ranking=ranking, data=(inputs, targets))
    removed: set[int] = set()
    for group in groups:
        removed |= _choose(group, shares.get(group.layers[0], 0.0), importance)
    smaller = _rebuild(model, channels, removed)
    report = make_report(
        model,
        smaller,
        method=f"units cut by {ranking}",
        examples=inputs,
        left_out=_explain_held(channels),
    )
    return Compressed(smaller, report)


def _list_groups(channels: ChannelMap) -> list[UnitGroup]:
    """Units that are not held, grouped by the layers that make them."""
    makers: dict[int, list[str]] = {}
    for name in channels.producers:
        for root in np.unique(channels.find_all(channels.uses[name][1])).tolist():
            if root not in channels.held:
                makers.setdefault(root, []).append(name)
    groups: list[tuple[set[str], list[int]]] = []
    for root, names in makers.items():
        layers, units = set(names), [root]
        apart = []
        for group in groups:
            if layers & group[0]:
                layers |= group[0]
                units += group[1]
            else:
                apart.append(group)
        groups = [*apart, (layers, units)]
    order = {name: index for index, name in enumerate(channels.producers)}
    sorted_groups = [
        UnitGroup(tuple(sorted(layers, key=order.__getitem__)), np.array(sorted(units)))
        for layers, units in groups
    ]
    return sorted(sorted_groups, key=lambda group: order[group.layers[0]])


def _resolve_shares(
    share: float | Mapping[str, float], groups: list[UnitGroup], channels: ChannelMap
) -> dict[str, float]:
    """Share by the first layer of each group."""
    first = {name: group.layers[0] for group in groups for name in group.layers}
    if not groups:
        reasons = "; ".join(sorted(set(_explain_held(channels).values())))
        raise InputError(
            "model", "must have units that can be cut", reasons or "no layer", "see `Limits`"
        )
    if not isinstance(share, Mapping):
        return dict.fromkeys(first.values(), _check_share("share", share))
    shares = {}
    for name, value in share.items():
        if name not in first:
            held = _explain_held(channels).get(name, "no such layer makes units")
            known = ", ".join(group.layers[0] for group in groups)
            raise InputError(
                "share",
                f"must name layers whose units can be cut: {known}",
                f"{name!r}: {held}",
                "see `list_prunable_units(model)`",
            )
        shares[first[name]] = _check_share(f"share[{name!r}]", value)
    return shares


def _check_share(name: str, value: Any) -> float:
    share = check_real(name, value, at_least=0)
    if share >= 1:
        raise InputError(name, "must be below 1", share, "leave at least a part of the units")
    return share


def _choose(group: UnitGroup, share: float, importance: Mapping[int, float]) -> set[int]:
    """The least important units of a group; at least one stays."""
    count = min(round(share * len(group.units)), len(group.units) - 1)
    ranked = sorted(group.units.tolist(), key=lambda unit: importance[unit])
    return set(ranked[:count])


def _rebuild(model: Any, channels: ChannelMap, removed: set[int]) -> Any:
    import keras

    def keep(labels: Labels) -> np.ndarray:
        return np.flatnonzero([root not in removed for root in channels.find_all(labels).tolist()])

    def shrink(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in channels.uses:
            inputs, output = channels.uses[layer.name]
            _shrink_config(layer, config, len(keep(inputs[0])), len(keep(output)))
        return layer.__class__.from_config(config)

    is_functional = not isinstance(model, keras.Sequential)
    # Without its compilation, which is copied at the end and with a clearer error.
    walked = keras.Model(model.input, model.output, name=model.name) if is_functional else model
    smaller = keras.models.clone_model(walked, clone_function=shrink)
    for layer in filter(lambda layer: layer.weights, model.layers):
        cuts = channels.cuts.get(layer.name, [{}] * len(layer.weights))
        weights = zip(layer.get_weights(), cuts, strict=True)
        smaller.get_layer(layer.name).set_weights([_take(w, cut, keep) for w, cut in weights])
    compile_alike(smaller, model)
    return smaller


def _take(weight: np.ndarray, cut: Cut, keep: Any) -> np.ndarray:
    for axis, labels in cut.items():
        weight = np.take(weight, keep(labels), axis=axis)
    return weight


def _shrink_config(layer: Any, config: dict[str, Any], num_inputs: int, num_outputs: int) -> None:
    """Writes the new width into the configuration of a layer that states it."""
    kind = type(layer).__name__
    if kind == "Dense":
        config["units"] = num_outputs
    elif "filters" in config:
        config["filters"] = num_outputs
    elif kind == "Reshape":
        config["target_shape"] = (*config["target_shape"][:-1], num_outputs)
    elif kind == "RotaryAttention":
        heads = num_outputs // layer.head_width
        config["num_heads"] = heads
        config["num_key_value_heads"] = (num_inputs // layer.head_width - heads) // 2


def _explain_held(channels: ChannelMap) -> dict[str, str]:
    """Layers that make units of which all must stay, and why."""
    explained = {}
    for name in channels.producers:
        roots = channels.find_all(channels.uses[name][1]).tolist()
        if all(root in channels.held for root in roots):
            explained[name] = channels.held[roots[0]]
    return explained
