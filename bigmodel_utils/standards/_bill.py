"""The bill of materials: what a release is made of, in CycloneDX."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime, time
from importlib import metadata
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from .._checks import import_extra
from ._cards import DataSheet, ModelCard, _Card
from ._digests import ReleasedFile, write_json
from ._release import ReleaseReport

_MODEL, _DATA = "model", "data"
# Stands for a serial number while the content, which decides the number, is not complete.
_NO_SERIAL_NUMBER = UUID(int=0)


def read_environment() -> dict[str, Any]:
    """Reads which Python runs here, on what, with which libraries: no names, no times.

    Returns:
        Plain values, ready for JSON; `libraries` holds versions by normalized name.

    References:
        Python Packaging User Guide, Names and normalization.
    """
    libraries: dict[str, str] = {}
    for distribution in metadata.distributions():
        if distribution.metadata["Name"] is not None:  # leftovers of a broken installation
            name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
            # The first one on the path is the one that an import finds.
            libraries.setdefault(name, distribution.version)
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libraries": dict(sorted(libraries.items())),
    }


def build_bill(
    report: ReleaseReport,
    *,
    model_card: ModelCard,
    data_sheet: DataSheet,
    released: Mapping[str, ReleasedFile],
    libraries: Mapping[str, str],
) -> dict[str, Any]:
    """Lists the model, its data, its other files and the libraries around it.

    Args:
        report: the gate's verdict; its day is that of the bill, its measurements stand in it.
        model_card: names the model.
        data_sheet: names the data.
        released: by role; `"weights"` is the model, `"data"` the data set.
        libraries: versions by name.

    Returns:
        A CycloneDX 1.6 document as plain values. The same arguments give the same document:
        its serial number comes from its content.

    Raises:
        MissingExtraError: without the library of CycloneDX.

    Limits:
        The libraries are those of the environment, needed or not, as it names them. The hash
        of a folder is that of its listing, which a property says.

    References:
        Ecma International, CycloneDX Bill of Materials Specification, ECMA-424, 1st edition,
        2024.
    """
    bom = import_extra("cyclonedx.model.bom", extra="evidence")
    output = import_extra("cyclonedx.output.json", extra="evidence")
    model = _build_described("machine-learning-model", _MODEL, model_card, released.get("weights"))
    parts = [_build_described("data", _DATA, data_sheet, released.get("data"))]
    parts += [
        _build_file(role, file)
        for role, file in released.items()
        if role not in ("weights", "data")
    ]
    parts += [_build_library(name, version) for name, version in libraries.items()]
    day = datetime.combine(report.checked_on, time(), tzinfo=UTC)
    bill = bom.Bom(
        components=parts,
        metadata=bom.BomMetaData(component=model, timestamp=day),
        serial_number=_NO_SERIAL_NUMBER,
    )
    bill.register_dependency(model, parts)
    document: dict[str, Any] = json.loads(output.JsonV1Dot6(bill).output_as_string())
    # The library has no classes for a model card yet; the schema of CycloneDX has.
    document["metadata"]["component"]["modelCard"] = _write_model_card(report, model_card)
    document["serialNumber"] = uuid5(NAMESPACE_OID, write_json(document).decode()).urn
    return document


def _build_described(kind: str, reference: str, card: _Card, file: ReleasedFile | None) -> Any:
    """A component that a card describes."""
    licensing = import_extra("cyclonedx.model.license", extra="evidence")
    spdx = import_extra("cyclonedx.spdx", extra="evidence")
    license_text = card.license.strip()
    licenses = []
    # The empty text counts as an expression, too.
    if license_text and spdx.is_expression(license_text):
        licenses.append(licensing.LicenseExpression(license_text))
    elif license_text:
        licenses.append(licensing.DisjunctiveLicense(name=license_text))
    return _build_component(
        kind, reference, file, name=card.name, version=card.version, licenses=licenses
    )


def _build_file(role: str, file: ReleasedFile) -> Any:
    return _build_component("file", f"file:{role}", file, name=file.name, description=role)


def _build_library(name: str, version: str) -> Any:
    # The class comes from where a component takes it: the extra names no other library for it.
    component = import_extra("cyclonedx.model.component", extra="evidence")
    package = component.PackageURL("pypi", None, name, version)
    return _build_component(
        "library", package.to_string(), None, name=name, version=version, purl=package
    )


def _build_component(kind: str, reference: str, file: ReleasedFile | None, **about: Any) -> Any:
    model = import_extra("cyclonedx.model", extra="evidence")
    component = import_extra("cyclonedx.model.component", extra="evidence")
    if file is not None:
        digest = model.HashType(alg=model.HashAlgorithm.SHA_256, content=file.sha256)
        of = "listing of the folder" if file.is_folder else "file"
        about["hashes"] = [digest]
        about["properties"] = [
            model.Property(name="bigmodel_utils:sha256_of", value=of),
            model.Property(name="bigmodel_utils:size_bytes", value=str(file.size_bytes)),
        ]
    return component.Component(type=component.ComponentType(kind), bom_ref=reference, **about)


def _write_model_card(report: ReleaseReport, card: ModelCard) -> dict[str, Any]:
    """The card in the fields that CycloneDX has for it; an empty section is left out."""
    metrics = [
        _write_metric(verdict.metric, verdict.measurement.to_dict())
        for verdict in report.verdicts
        if verdict.measurement is not None
    ]
    considerations: dict[str, Any] = {
        "useCases": [card.intended_use],
        "technicalLimitations": [card.caveats_and_recommendations],
    }
    stated = {name: texts for name, texts in considerations.items() if texts[0].strip()}
    if card.ethical_considerations.strip():
        stated["ethicalConsiderations"] = [{"name": card.ethical_considerations}]
    return {
        "modelParameters": {"datasets": [{"ref": _DATA}]},
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": stated,
    }


def _write_metric(name: str, measurement: Mapping[str, Any]) -> dict[str, Any]:
    metric: dict[str, Any] = {"type": name, "value": str(measurement["value"])}
    ends = {"lowerBound": measurement["low"], "upperBound": measurement["high"]}
    interval = {bound: str(end) for bound, end in ends.items() if end is not None}
    return metric | ({"confidenceInterval": interval} if interval else {})
