"""Estimates what a model costs to train and to serve, from its shape.

Put the shape of your model into `SHAPE`, or name a published one with `--model`. Prices, power
and utilization are yours to state: the defaults are examples with a date, not advice.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from bigmodel_utils import costs, hardware

SHAPE = costs.Architecture(
    vocabulary_size=128_256,
    num_layers=32,
    width=4096,
    num_heads=32,
    num_key_value_heads=8,
    feedforward_width=14_336,
)


def estimate_training(shape: costs.Architecture, options: argparse.Namespace) -> Any:
    """Takes operations over the share of the peak that such devices reach."""
    flops = costs.estimate_training_flops(
        shape,
        num_tokens=options.tokens,
        sequence_length=options.length,
        attention_pairs="seen",
    )
    cluster = costs.Cluster(options.device, utilization=options.utilization)
    rate = cluster.get_peak_flops("bfloat16") * options.utilization * options.devices
    prices = costs.Prices(options.price, options.watts, options.overhead)
    return costs.estimate_training_cost(
        flops.model_flops / rate, num_devices=options.devices, prices=prices
    )


def estimate_serving(shape: costs.Architecture, options: argparse.Namespace) -> dict[str, Any]:
    """Takes the fewest devices, a power of two, that hold the weights and all caches."""
    cache = costs.count_kv_cache_bytes(
        shape, sequence_length=options.context, batch_size=options.batch
    )
    held = costs.count_weight_bytes(shape) + cache
    num_devices = 1
    while num_devices * options.device.memory_bytes < held:
        num_devices *= 2
    step = costs.estimate_token_time(
        shape,
        context_length=options.context,
        cluster=costs.Cluster(options.device, utilization=options.utilization),
        batch_size=options.batch,
        num_devices=num_devices,
    )
    seconds = 1e6 / step.tokens_per_second
    return {
        "memory_bytes": held,
        "cache_bytes": cache,
        "num_devices": num_devices,
        "tokens_per_second": step.tokens_per_second,
        "bound": step.bound,
        "money_per_million_tokens": num_devices * options.price * seconds / 3600,
    }


def find_device(name: str) -> hardware.DeviceSpec:
    """Finds the published rates of a device whose memory is known."""
    spec = hardware.find_device_spec(name)
    if spec is None or spec.memory_bytes is None:
        known = ", ".join(spec.name for spec in hardware.DEVICE_SPECS)
        raise argparse.ArgumentTypeError(f"{name} is not known; choose from {known}")
    return spec


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads what is stated by the caller."""
    parser = argparse.ArgumentParser(description="Estimate what a model costs.")
    parser.add_argument("--model", choices=sorted(costs.PUBLISHED_MODELS), help="default: SHAPE")
    parser.add_argument("--device", type=find_device, default="NVIDIA H100 SXM")
    parser.add_argument("--devices", type=int, default=1000, help="that train together")
    parser.add_argument("--tokens", type=int, default=15_000_000_000_000)
    parser.add_argument("--length", type=int, default=8192, help="tokens of a sequence in training")
    parser.add_argument("--context", type=int, default=8192, help="tokens of a text that is served")
    parser.add_argument("--batch", type=int, default=64, help="texts that are served side by side")
    parser.add_argument("--utilization", type=float, default=0.4, help="share of the peak")
    parser.add_argument("--price", type=float, default=2.0, help="money per device and hour")
    parser.add_argument("--watts", type=float, default=700.0, help="per device")
    parser.add_argument("--overhead", type=float, default=1.1, help="of the building's power")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints both bills and the statement; returns them as plain dictionaries."""
    options = parse(arguments)
    shape = costs.find_published_model(options.model).architecture if options.model else SHAPE
    statement = costs.estimate_cost_statement(
        shape,
        num_tokens=options.tokens,
        training_length=options.length,
        context_length=options.context,
    )
    training, serving = estimate_training(shape, options), estimate_serving(shape, options)
    print(f"the release states\n{statement}\n")
    print(f"training on {options.devices} × {options.device.name}")
    print(f"days                {training.hours / 24:.1f}")
    print(f"device hours        {training.device_hours:,.0f}")
    print(f"money               {training.money:,.0f}")
    print(f"energy              {training.kilowatt_hours:,.0f} kWh\n")
    print(f"serving {options.batch} texts of {options.context} tokens")
    print(f"devices             {serving['num_devices']}")
    print(f"cache               {serving['cache_bytes'] / serving['memory_bytes']:.0%} of memory")
    print(f"tokens per second   {serving['tokens_per_second']:.0f}, bound by {serving['bound']}")
    print(f"per million tokens  {serving['money_per_million_tokens']:.2f}")
    return {
        "statement": statement.to_dict(),
        "training": training.to_dict(),
        "serving": serving,
    }


if __name__ == "__main__":
    main()
