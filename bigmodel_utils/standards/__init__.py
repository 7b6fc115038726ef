"""The release standard as data: each clause says what is required and how it is measured."""

from ._clauses import LEVELS, Clause, get_clause, load_clauses

__all__ = ["LEVELS", "Clause", "get_clause", "load_clauses"]
