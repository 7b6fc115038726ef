"""Counters of a service, and the text format in which a monitor reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Histogram:
    """How many values were at most each bound, their number and their sum."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    number: int = 0

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.bounds)

    def add(self, value: float) -> None:
        """Counts a value."""
        self.number += 1
        self.total += value
        for index, bound in enumerate(self.bounds):
            self.counts[index] += value <= bound

    def list_lines(self, name: str) -> Iterator[str]:
        """The histogram in the text format; buckets hold all that is smaller, too."""
        yield f"# TYPE {name} histogram"
        for bound, count in zip(self.bounds, self.counts, strict=True):
            yield f'{name}_bucket{{le="{bound}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self.number}'
        yield f"{name}_sum {self.total}"
        yield f"{name}_count {self.number}"


@dataclass
class Metrics:
    """What a service counts. Its own paths alone are labels: a stranger cannot add any."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    swaps: Counter[str] = field(default_factory=Counter)
    request_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batch_size: Histogram = field(default_factory=lambda: Histogram(SIZES))

    def write(self, gauges: Mapping[str, float], model: Mapping[str, str]) -> str:
        """Everything counted, as text.

        Args:
            gauges: what is read at this moment, by name.
            model: labels of the model that serves.
        """
        lines = ["# TYPE service_requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'service_requests_total{{path="{path}",status="{status}"}} {count}')
        lines.append("# TYPE service_swaps_total counter")
        for kind, count in sorted(self.swaps.items()):
            lines.append(f'service_swaps_total{{kind="{kind}"}} {count}')
        lines += self.request_seconds.list_lines("service_request_seconds")
        lines += self.batch_size.list_lines("service_batch_size")
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        labels = ",".join(f'{name}="{value}"' for name, value in model.items())
        lines += ["# TYPE service_model_info gauge", f"service_model_info{{{labels}}} 1"]
        return "\n".join(lines) + "\n"
