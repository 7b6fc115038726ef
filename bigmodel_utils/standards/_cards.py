"""What people state about a model and its data, in the sections that others look for."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from .._checks import InputError

NOT_STATED = "Not stated."
"""What stands in a section that is empty: a reader sees the gap."""


@dataclass(frozen=True)
class _Card:
    """A document of named sections about a thing that has a name and a version."""

    name: str
    version: str
    license: str = ""

    title: ClassVar[str]
    headings: ClassVar[Mapping[str, str]]

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_text(f"{type(self).__name__}.{field.name}", getattr(self, field.name))
        for name in ("name", "version"):
            if not getattr(self, name).strip():
                raise InputError(
                    f"{type(self).__name__}.{name}", "must not be empty", "no text", "state it"
                )

    @property
    def empty_sections(self) -> tuple[str, ...]:
        """Headings of the sections in which nothing is stated."""
        return tuple(heading for heading, text in self.list_sections() if text == NOT_STATED)

    def list_sections(self) -> list[tuple[str, str]]:
        """Returns headings and texts in the order of the paper."""
        return [
            (heading, getattr(self, field).strip() or NOT_STATED)
            for field, heading in self.headings.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"# {self.title}: {self.name} {self.version}"]
        lines += [f"License: {self.license.strip() or NOT_STATED}"]
        for heading, text in self.list_sections():
            lines += [f"## {heading}", text]
        return "\n\n".join(lines) + "\n"

    def _repr_html_(self) -> str:
        return "".join(
            f"<h3>{html.escape(heading)}</h3>{_write_paragraphs(text)}"
            for heading, text in self.list_sections()
        )


@dataclass(frozen=True)
class ModelCard(_Card):
    """What a model is, what it is for, and what is known about its limits.

    Each section is plain text or Markdown; an empty one is shown as not stated.

    Attributes:
        name: of the model.
        version: of the model.
        license: SPDX expression, such as `"Apache-2.0"`, or the name of the license.
        model_details: who developed it, when, its type, and where to ask.
        intended_use: uses and users that it was made for, and those that are out of scope.
        factors: groups, instruments and environments on which its quality depends.
        metrics: what is measured and why, thresholds of decision, how variation is stated.
        evaluation_data: what it was evaluated on, and why on that.
        training_data: what it was trained on.
        quantitative_analyses: what stands beside the numbers of the release report.
        ethical_considerations: risks and harms, and what was done about them.
        caveats_and_recommendations: what is left open.

    Raises:
        InputError: if a field is no text, or name or version is empty.

    Example:
        >>> card = ModelCard("digits", "1.0", intended_use="Digits that were scanned.")
        >>> len(card.empty_sections)
        8

    References:
        Mitchell and others, Model Cards for Model Reporting, FAT* 2019, section 4.
    """

    model_details: str = ""
    intended_use: str = ""
    factors: str = ""
    metrics: str = ""
    evaluation_data: str = ""
    training_data: str = ""
    quantitative_analyses: str = ""
    ethical_considerations: str = ""
    caveats_and_recommendations: str = ""

    title: ClassVar[str] = "Model card"
    headings: ClassVar[Mapping[str, str]] = {
        "model_details": "Model details",
        "intended_use": "Intended use",
        "factors": "Factors",
        "metrics": "Metrics",
        "evaluation_data": "Evaluation data",
        "training_data": "Training data",
        "quantitative_analyses": "Quantitative analyses",
        "ethical_considerations": "Ethical considerations",
        "caveats_and_recommendations": "Caveats and recommendations",
    }


@dataclass(frozen=True)
class DataSheet(_Card):
    """Where data comes from, what is in it, and what it may be used for.

    Each section is plain text or Markdown; an empty one is shown as not stated.

    Attributes:
        name: of the data set.
        version: of the data set.
        license: SPDX expression, such as `"CC-BY-4.0"`, or the name of the license.
        motivation: why, by whom and for whom it was made.
        composition: what an instance is, how many there are, what is missing or sensitive.
        collection_process: how, from whom and when it was collected, and with what consent.
        preprocessing: cleaning and labeling, and whether the raw data is kept.
        uses: what it was used for, and what it should not be used for.
        distribution: to whom it goes and under which terms.
        maintenance: who answers for it, and how it is corrected.

    Raises:
        InputError: if a field is no text, or name or version is empty.

    Example:
        >>> DataSheet("digits", "1998").list_sections()[0]
        ('Motivation', 'Not stated.')

    References:
        Gebru and others, Datasheets for Datasets, Communications of the ACM 64 (12), 2021.
    """

    motivation: str = ""
    composition: str = ""
    collection_process: str = ""
    preprocessing: str = ""
    uses: str = ""
    distribution: str = ""
    maintenance: str = ""

    title: ClassVar[str] = "Data sheet"
    headings: ClassVar[Mapping[str, str]] = {
        "motivation": "Motivation",
        "composition": "Composition",
        "collection_process": "Collection process",
        "preprocessing": "Preprocessing, cleaning, labeling",
        "uses": "Uses",
        "distribution": "Distribution",
        "maintenance": "Maintenance",
    }


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InputError(name, "must be text", repr(value), "pass a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(
            name, "must be text that UTF-8 can write", repr(value), "decode it as it was written"
        ) from None


def _write_paragraphs(text: str) -> str:
    paragraphs = text.replace("\r\n", "\n").split("\n\n")
    return "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs)
