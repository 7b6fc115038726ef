"""Holding a model file against the release standard: what `bigmodel audit` does."""

from ._arrays import ARRAYS, load_arrays
from ._audit import Audit, audit_model, write_audit_evidence
from ._declaration import Declaration, load_declaration
from ._measures import list_measures
from ._model import AuditedModel, load_audited_model

__all__ = [
    "ARRAYS",
    "Audit",
    "AuditedModel",
    "Declaration",
    "audit_model",
    "list_measures",
    "load_arrays",
    "load_audited_model",
    "load_declaration",
    "write_audit_evidence",
]
