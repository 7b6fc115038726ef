"""One clear list of everything that is wrong with a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .._checks import InputError, check_same_length, import_extra
from .._report import Table, render_html, render_text

# Offending values that a report quotes.
_NUM_QUOTED = 3


@dataclass(frozen=True)
class SchemaProblem:
    """One requirement that a column does not meet.

    Attributes:
        column: the column; `None` where the requirement is on the whole table.
        requirement: what was required, in pandera's words: `"in_range(0, 120)"`.
        num_failures: values that fail; 1 where the column itself is the failure.
        examples: the first few of them, as text.
        rows: the rows they stand in, as the table's index names them; empty where the
            failure is not in a row.
    """

    column: str | None
    requirement: str
    num_failures: int
    examples: tuple[str, ...]
    rows: tuple[Any, ...]


@dataclass(frozen=True)
class SchemaReport:
    """What a table breaks of its schema.

    Attributes:
        problems: one entry per column and requirement, those of the whole table first, then in
            the order of its columns; none if all is well.
        num_rows: rows of the table.
    """

    problems: tuple[SchemaProblem, ...]
    num_rows: int

    @property
    def is_valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain dictionaries and lists; rows as text."""
        problems = [
            asdict(problem) | {"rows": [str(row) for row in problem.rows]}
            for problem in self.problems
        ]
        return {"is_valid": self.is_valid, "num_rows": self.num_rows, "problems": problems}

    def __str__(self) -> str:
        return "no problem" if self.is_valid else render_text(*self._make_table())

    def _repr_html_(self) -> str:
        return "<p>no problem</p>" if self.is_valid else render_html(*self._make_table())

    def _make_table(self) -> Table:
        rows = [
            (
                problem.column or "(table)",
                problem.requirement,
                str(problem.num_failures),
                ", ".join(problem.examples),
            )
            for problem in self.problems
        ]
        return ("Column", "Required", "Failures", "For example"), rows


def check_schema(table: Any, schema: Any) -> SchemaReport:
    """Checks a table against a pandera schema and lists all problems, not only the first.

    Args:
        table: a `pandas.DataFrame`, or a mapping from column names to arrays of shape
            `(num_rows,)`.
        schema: a `pandera.pandas.DataFrameSchema`, or a class derived from
            `pandera.pandas.DataFrameModel`.

    Returns:
        The report. The table is not changed.

    Raises:
        InputError: if columns have unequal lengths, or `schema` is no schema or one that
            drops invalid rows without a word.
        MissingExtraError: if pandera is not installed.

    Limits:
        Says what was required, not what is right: values that are plausible and wrong pass.
        A column of the wrong type is reported as that; its other requirements may then fail
        for that reason alone.

    Example:
        >>> import pandera.pandas as pa
        >>> schema = pa.DataFrameSchema({"age": pa.Column(int, pa.Check.in_range(0, 120))})
        >>> report = check_schema({"age": [31, 200, -3]}, schema)
        >>> report.is_valid, report.problems[0].examples, report.problems[0].rows
        (False, ('200', '-3'), (1, 2))

    References:
        Bantilan, pandera: Statistical Data Validation of Pandas Dataframes, Proceedings of
        the 19th Python in Science Conference, 2020.
    """
    pandera = import_extra("pandera.pandas", extra="data")
    frame = _make_frame(table)
    # A class of rules makes its schema itself.
    rules: Any = schema.to_schema() if hasattr(schema, "to_schema") else schema
    if not isinstance(rules, pandera.DataFrameSchema):
        raise InputError(
            "schema",
            "must be a pandera DataFrameSchema or DataFrameModel",
            type(schema).__name__,
            "build one with `pandera.pandas.DataFrameSchema`",
        )
    if rules.drop_invalid_rows:
        raise InputError(
            "schema",
            "must not drop the rows that it should report",
            "drop_invalid_rows=True",
            "leave that setting out",
        )
    try:
        rules.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        return SchemaReport(_list_problems(errors.failure_cases, frame), len(frame))
    return SchemaReport((), len(frame))


def _make_frame(table: Any) -> Any:
    pandas = import_extra("pandas", extra="data")
    if isinstance(table, pandas.DataFrame):
        return table
    if not isinstance(table, Mapping) or not table:
        raise InputError(
            "table",
            "must be a DataFrame or a mapping of columns",
            repr(table)[:60],
            "pass {name: values}",
        )
    for name, values in table.items():
        if not hasattr(values, "__len__") or isinstance(values, str):
            raise InputError(
                f"table[{name!r}]", "must be a column", repr(values)[:60], "pass an array"
            )
    check_same_length(**{f"table[{name!r}]": values for name, values in table.items()})
    return pandas.DataFrame(dict(table))


def _list_problems(failures: Any, frame: Any) -> tuple[SchemaProblem, ...]:
    """Groups pandera's table of single failures, which comes in no fixed order."""
    is_missing = import_extra("pandas", extra="data").isna  # None, or NaN beside numbers
    places = {row: place for place, row in reversed(list(enumerate(frame.index)))}
    columns = {str(column): place for place, column in enumerate(frame.columns)}
    grouped: dict[tuple[str | None, str], list[tuple[Any, str]]] = {}
    for failure in failures.to_dict("records"):
        of_table = failure["schema_context"] == "DataFrameSchema"
        column = None if of_table else str(failure["column"])
        row = None if is_missing(failure["index"]) else failure["index"]
        cases = grouped.setdefault((column, str(failure["check"])), [])
        cases.append((row, str(failure["failure_case"])))
    problems = []
    for (column, requirement), cases in grouped.items():
        cases.sort(key=lambda case: (places.get(case[0], -1), case[1]))
        problems.append(
            SchemaProblem(
                column=column,
                requirement=requirement,
                num_failures=len(cases),
                examples=tuple(value for _, value in cases[:_NUM_QUOTED]),
                rows=tuple(row for row, _ in cases if row is not None),
            )
        )
    problems.sort(key=lambda p: (columns.get(p.column or "", -1), p.column or "", p.requirement))
    return tuple(problems)
