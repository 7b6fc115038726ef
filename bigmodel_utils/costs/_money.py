"""Money, energy and storage, from prices and rates that the caller states."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._checks import check_integer, check_real
from .._report import Report, format_bytes, format_count, format_seconds
from ._architecture import Architecture
from ._memory import count_checkpoint_bytes
from ._plan import TrainingPlan


@dataclass(frozen=True)
class Prices:
    """What a device costs and draws; nothing is assumed.

    Attributes:
        per_device_hour: money for one device and hour, in any currency.
        watts_per_device: what one device draws, with its share of the machine around it.
        power_overhead: energy of the building over that of its machines ("PUE").
        grams_per_kilowatt_hour: of carbon dioxide, where the electricity comes from.

    Raises:
        InputError: if a number is negative, or the overhead below 1.
    """

    per_device_hour: float
    watts_per_device: float
    power_overhead: float = 1.0
    grams_per_kilowatt_hour: float = 0.0

    def __post_init__(self) -> None:
        check_real("per_device_hour", self.per_device_hour, at_least=0)
        check_real("watts_per_device", self.watts_per_device, at_least=0)
        check_real("power_overhead", self.power_overhead, at_least=1)
        check_real("grams_per_kilowatt_hour", self.grams_per_kilowatt_hour, at_least=0)


@dataclass(frozen=True)
class TrainingCost(Report):
    """What a run of training takes.

    Attributes:
        hours: from begin to end.
        device_hours: of all devices.
        money: in the currency of the prices.
        kilowatt_hours: energy, with the building's.
        carbon_dioxide_kilograms: that making the energy gives off.
    """

    hours: float
    device_hours: float
    money: float
    kilowatt_hours: float
    carbon_dioxide_kilograms: float

    def _list_rows(self) -> list[tuple[str, str]]:
        return [
            ("duration", format_seconds(3600 * self.hours)),
            ("device hours", format_count(self.device_hours)),
            ("money", format_count(self.money)),
            ("energy", f"{format_count(self.kilowatt_hours)} kWh"),
            ("carbon dioxide", f"{format_count(self.carbon_dioxide_kilograms)} kg"),
        ]


def estimate_training_cost(
    seconds: float, *, num_devices: int, prices: Prices, lost_share: float = 0.0
) -> TrainingCost:
    """Estimates what a run takes in hours, money, energy and carbon dioxide.

    Args:
        seconds: of all steps together.
        num_devices: devices that are held for as long.
        prices: stated by the caller.
        lost_share: share of the whole time that is lost to failures, checkpoints, restarts,
            from 0 to below 1; `estimate_storage` gives one part of it.

    Returns:
        The cost.

    Raises:
        InputError: if a number is out of its range.

    Limits:
        One run: no experiments before it, no evaluation, no storage, no people. Making the
        devices is not counted.

    Example:
        >>> prices = Prices(per_device_hour=2.0, watts_per_device=700, power_overhead=1.1)
        >>> estimate_training_cost(3600, num_devices=8, prices=prices).money
        16.0

    References:
        Patterson et al., Carbon Emissions and Large Neural Network Training (2021), section
        2.5.
    """
    busy = check_real("seconds", seconds, at_least=0)
    count = check_integer("num_devices", num_devices, at_least=1)
    lost = check_real("lost_share", lost_share, at_least=0, at_most=0.999)
    hours = busy / 3600 / (1 - lost)
    device_hours = count * hours
    energy = device_hours * prices.watts_per_device / 1000 * prices.power_overhead
    return TrainingCost(
        hours=hours,
        device_hours=device_hours,
        money=device_hours * prices.per_device_hour,
        kilowatt_hours=energy,
        carbon_dioxide_kilograms=energy * prices.grams_per_kilowatt_hour / 1000,
    )


@dataclass(frozen=True)
class StorageReport(Report):
    """What training asks of storage.

    Attributes:
        data_bytes: tokens as integers of the fewest bytes that hold the vocabulary.
        data_bytes_per_second: that training reads.
        checkpoint_bytes: one checkpoint.
        write_seconds: of one checkpoint.
        interval_seconds: between checkpoints, so that least time is lost.
        lost_share: share of the time that goes into writing, and into repeating what was done
            between the last checkpoint and a failure.
    """

    data_bytes: int
    data_bytes_per_second: float
    checkpoint_bytes: int
    write_seconds: float
    interval_seconds: float
    lost_share: float

    def _list_rows(self) -> list[tuple[str, str]]:
        return [
            ("data", format_bytes(self.data_bytes)),
            ("reading data", f"{format_bytes(self.data_bytes_per_second)} per second"),
            ("checkpoint", format_bytes(self.checkpoint_bytes)),
            ("writing it", format_seconds(self.write_seconds)),
            ("best interval", format_seconds(self.interval_seconds)),
            ("time lost", f"{self.lost_share:.2%}"),
        ]


def estimate_storage(
    architecture: Architecture,
    plan: TrainingPlan,
    *,
    num_tokens: int,
    step_seconds: float,
    write_bytes_per_second: float,
    mean_seconds_between_failures: float,
) -> StorageReport:
    r"""Estimates bytes and bandwidth of data and checkpoints, and how often to write one.

    Writing for :math:`\delta` seconds every :math:`\tau` seconds loses :math:`\delta/\tau` of
    the time; a failure every `M` seconds loses half an interval, :math:`\tau/2M`. Together
    they are least at :math:`\tau = \sqrt{2\delta M}`. With `n` devices that each fail every
    `M_1` seconds, :math:`M = M_1/n`.

    Args:
        architecture: the shape.
        plan: batch, optimizer, formats.
        num_tokens: tokens of the data.
        step_seconds: time of a step, as `estimate_step_time` gives it.
        write_bytes_per_second: of all devices together.
        mean_seconds_between_failures: of the whole machine, that stop training.

    Returns:
        The report.

    Raises:
        InputError: if a number is out of its range.

    Limits:
        Training waits while a checkpoint is written; one that is copied aside first costs
        less. The time to notice a failure and to start again is not in it. Data are tokens:
        the text they were made from takes about four bytes each.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ... )
        >>> report = estimate_storage(
        ...     shape,
        ...     TrainingPlan(batch_size=2, sequence_length=10),
        ...     num_tokens=1000,
        ...     step_seconds=1.0,
        ...     write_bytes_per_second=17568.0,
        ...     mean_seconds_between_failures=5000.0,
        ... )
        >>> report.data_bytes, report.write_seconds, report.interval_seconds
        (2000, 1.0, 100.0)

    References:
        Young, A First Order Approximation to the Optimum Checkpoint Interval, Communications
        of the ACM 17 (1974), with its next order in Daly, Future Generation Computer Systems
        22 (2006).
    """
    count = check_integer("num_tokens", num_tokens, at_least=1)
    step = check_real("step_seconds", step_seconds, at_least=1e-9)
    speed = check_real("write_bytes_per_second", write_bytes_per_second, at_least=1e-9)
    failures = check_real(
        "mean_seconds_between_failures", mean_seconds_between_failures, at_least=1e-9
    )
    per_token = 2 if architecture.vocabulary_size <= 2**16 else 4
    checkpoint = count_checkpoint_bytes(architecture, plan)
    write = checkpoint / speed
    interval = math.sqrt(2 * write * failures)
    return StorageReport(
        data_bytes=per_token * count,
        data_bytes_per_second=per_token * plan.num_tokens / step,
        checkpoint_bytes=checkpoint,
        write_seconds=write,
        interval_seconds=interval,
        lost_share=min(1.0, write / interval + interval / (2 * failures)),
    )
