"""The schema of `evidence.json`; it lies in every bundle, so that this explains itself."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ._cards import DataSheet, ModelCard
from ._clauses import LEVELS, Clause
from ._release import _SETTLED_STATUSES, OPEN_STATUSES

SCHEMA_VERSION = 1
"""Grows when a reader of `evidence.json` must change."""

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_DAY = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
# JSON has no word for what is not finite; the gate writes it as text.
_NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}


def build_schema() -> dict[str, Any]:
    """Builds the schema of `evidence.json`.

    Returns:
        A JSON schema as plain values; a field that it does not name is refused.

    References:
        JSON Schema, draft 2020-12.
    """
    content = {
        "schema_version": {"const": SCHEMA_VERSION},
        "report": _describe_report(),
        "clauses": _describe_list(_describe_clause()),
        "model_card": _describe({field.name: _TEXT for field in fields(ModelCard)}),
        "data_sheet": _describe({field.name: _TEXT for field in fields(DataSheet)}),
        "released": _describe_table(_describe_released()) | {"required": ["weights"]},
        "figures": _describe_list(_TEXT),
        "environment": _describe(
            dict.fromkeys(("python", "implementation", "system", "machine"), _TEXT)
            | {"libraries": _describe_table(_TEXT)}
        ),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Evidence for the release of a model",
        **_describe(content),
    }


def _describe_report() -> dict[str, Any]:
    measurement = _describe(
        {"value": _NUMBER, "low": _or_null(_NUMBER), "high": _or_null(_NUMBER)}
        | {"measured_on": _or_null(_DAY)}
    )
    verdict = {
        "clause_id": _TEXT,
        "metric": _TEXT,
        "status": {"enum": [*OPEN_STATUSES, *_SETTLED_STATUSES]},
        "judged": _or_null({"type": "number"}),
        "requirement": _TEXT,
        "reason": _TEXT,
        "measurement": _or_null(measurement),
    }
    waiver = {"clause_id": _TEXT, "reason": _TEXT, "owner": _TEXT, "expires": _DAY}
    return _describe(
        {
            "level": {"enum": list(LEVELS)},
            "subjects": _describe_list(_TEXT),
            "checked_on": _DAY,
            "passed": {"type": "boolean"},
            "verdicts": _describe_list(_describe(verdict)),
            "waivers": _describe_list(_describe(waiver)),
        }
    )


def _describe_clause() -> dict[str, Any]:
    special = {
        "direction": {"enum": ["at_most", "at_least", "above"]},
        "thresholds": _describe({level: {"type": "number"} for level in LEVELS}),
        "mappings": _describe_list(_TEXT),
    }
    return _describe({field.name: special.get(field.name, _TEXT) for field in fields(Clause)})


def _describe_released() -> dict[str, Any]:
    return _describe(
        {"name": _TEXT, "sha256": _SHA256, "size_bytes": _COUNT, "num_files": _COUNT}
        | {"is_folder": {"type": "boolean"}}
    )


def _describe(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with exactly these fields."""
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _describe_table(values: dict[str, Any]) -> dict[str, Any]:
    """An object with any keys."""
    return {"type": "object", "additionalProperties": values}


def _describe_list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}
