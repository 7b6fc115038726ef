"""What the book adds to Sphinx: badges, the standard, the recipes, and assets of its own.

Loaded by name from ``_config.yml``. It reads clauses and recipes through the library, whose
loaders need no TensorFlow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import book_assets
from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.domains.std import StandardDomain
from sphinx.roles import XRefRole
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from bigmodel_utils.recipes import Recipe, list_recipes
from bigmodel_utils.standards import LEVELS, Clause, load_clauses, load_subjects

LOGGER = logging.getLogger(__name__)
FAULTS = Path(__file__).resolve().parent.parent / "benchmarks/results/planted-faults.json"
COLAB = "https://colab.research.google.com"
_KEYWORD = re.compile(r"\b(?:MUST NOT|MUST|SHOULD NOT|SHOULD|MAY)\b")


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers everything with Sphinx."""
    app.add_crossref_type("clause-entry", "clause", objname="clause")
    # The role again, now warning of an id that no clause has.
    role = XRefRole(innernodeclass=nodes.inline, warn_dangling=True)
    app.add_role_to_domain("std", "clause", role, override=True)
    app.add_directive("clauses", ClausesDirective)
    app.add_directive("crosswalk", CrosswalkDirective)
    app.add_directive("planted-faults", PlantedFaultsDirective)
    app.add_directive("recipes", RecipesDirective)
    # Jupyter Book sets this for an extension that this book leaves out.
    app.add_config_value("comments_config", {}, "html")
    app.connect("config-inited", show_repository)
    app.connect("doctree-read", add_badge)
    app.connect("html-page-context", mend_citations)
    # After the theme, which writes its style of code only then.
    app.connect("build-finished", book_assets.finish_assets, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def show_repository(app: Sphinx, config: Config) -> None:  # noqa: ARG001
    """Turns on what needs the repository's public address, if `_config.yml` states it."""
    options = config.html_theme_options
    if not options.get("repository_url"):
        return
    options |= {"use_repository_button": True, "use_issues_button": True}
    options["launch_buttons"] = {**options.get("launch_buttons", {}), "colab_url": COLAB}


def mend_citations(
    app: Sphinx,  # noqa: ARG001
    page: str,  # noqa: ARG001
    template: str,  # noqa: ARG001
    context: dict[str, Any],
    doctree: nodes.document | None,  # noqa: ARG001
) -> None:
    """Drops roles that Docutils gives to bibliographies and that break the rules of ARIA.

    A list may hold list items only, but an entry holds links back to where it is cited.
    """
    if "body" in context:
        body = context["body"].replace(
            ' role="list" class="citation-list"', ' class="citation-list"'
        )
        context["body"] = body.replace(' role="doc-biblioentry"', "")


class _MarkdownDirective(SphinxDirective):
    """A directive whose result is Markdown, headings included."""

    def markdown(self) -> Iterator[str]:
        """Yields the lines that stand in the directive's place."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Renders the lines where the directive stands."""
        root = nodes.Element()
        lines = StringList(list(self.markdown()), source=self.env.docname)
        self.state.nested_parse(lines, 0, root, match_titles=True)
        return list(root.children)


class ClausesDirective(_MarkdownDirective):
    """All clauses of the standard, by family; the role `clause` links to them."""

    def markdown(self) -> Iterator[str]:
        """Yields a section for each family and, in it, one for each clause."""
        standard = self.env.get_domain("std")
        assert isinstance(standard, StandardDomain)  # noqa: S101  (for the type checker)
        clauses = load_clauses()
        for family in dict.fromkeys(clause.family for clause in clauses):
            yield from ("", f"## {family.capitalize()}", "")
            for clause in clauses:
                if clause.family == family:
                    standard.note_object("clause-entry", clause.id, clause.id.lower())
                    yield from write_clause(clause)


class CrosswalkDirective(_MarkdownDirective):
    """What the clauses answer in other standards, read from those standards."""

    def markdown(self) -> Iterator[str]:
        """Yields a table with a row for each place in another standard."""
        answers: dict[str, list[str]] = {}
        for clause in load_clauses():
            for mapping in clause.mappings:
                answers.setdefault(mapping, []).append(f"{{clause}}`{clause.id}`")
        yield from ("| Asked for by | maps to |", "|---|---|")
        # Numbers in the order of numbers: 2.5 before 2.11.
        for mapping in sorted(answers, key=lambda name: re.sub(r"\d+", _pad, name)):
            yield f"| {mapping} | {', '.join(answers[mapping])} |"


def _pad(number: re.Match[str]) -> str:
    return number[0].zfill(4)


class PlantedFaultsDirective(_MarkdownDirective):
    """For each clause a fault that was planted, and what the clause's metric said."""

    def markdown(self) -> Iterator[str]:
        """Yields a table with a row for each clause."""
        self.env.note_dependency(str(FAULTS))
        yield from (
            "| Clause | planted fault | without it | with it | bound |",
            "|---|---|---|---|---|",
        )
        for row in json.loads(FAULTS.read_text(encoding="utf-8")):
            without, with_it = (
                "not measured" if row[case] is None else f"{row[case]:.3g}"
                for case in ("clean", "faulty")
            )
            yield (
                f"| {{clause}}`{row['clause_id']}` | {row['fault']} | {without} | {with_it} "
                f"| {row['required']} |"
            )


class RecipesDirective(_MarkdownDirective):
    """All recipes and the command that copies each."""

    def markdown(self) -> Iterator[str]:
        """Yields a section for each recipe."""
        for recipe in list_recipes():
            yield from write_recipe(recipe)


def write_clause(clause: Clause) -> Iterator[str]:
    """Yields one clause as Markdown."""
    requirement = _KEYWORD.sub(lambda match: f"**{match[0]}**", clause.requirement)
    yield from (f"({clause.id.lower()})=", f"### {clause.id}", "")
    yield from ("```{container} bm-requirement", requirement, "```", "")
    yield from (clause.rationale, f"See {{doc}}`/{clause.page}`.", "")
    yield f"| `{clause.metric}` in {clause.unit} | {' | '.join(map(str.capitalize, LEVELS))} |"
    yield "|---" * (len(LEVELS) + 1) + "|"
    bounds = " | ".join(f"{clause.thresholds[level]:g}" for level in LEVELS)
    yield from (f"| {clause.direction.replace('_', ' ')} | {bounds} |", "")
    yield from (f"Applies to\n: {load_subjects().get(clause.applies_to, 'Every release.')}", "")
    yield from (f"Measured by\n: {{func}}`{clause.measured_by}`", "")
    yield from (f"Bounds\n: {clause.threshold_source}", "")
    if clause.mappings:
        yield from (f"Maps to\n: {'; '.join(clause.mappings)}", "")
    yield from (f"Since\n: version {clause.since}", "")


def write_recipe(recipe: Recipe) -> Iterator[str]:
    """Yields one recipe as Markdown."""
    yield from (f"({recipe.name.replace('_', '-')})=", f"## {recipe.title}", "")
    yield from (recipe.summary, f"Explained in {{doc}}`/{recipe.page}`.", "")
    yield from ("```bash", f"bigmodel recipe add {recipe.name} my_project", "```", "")


def add_badge(app: Sphinx, doctree: nodes.document) -> None:
    """Puts under the title of a notebook's page how it last ran and the clauses it earns."""
    page = app.env.docname
    source = Path(app.env.doc2path(page))
    if source.suffix != ".ipynb":
        return
    record_path = source.with_suffix(".run.json")
    app.env.note_dependency(str(record_path))
    if not record_path.exists():
        fix = f"make execute PAGE={page}"
        LOGGER.warning("%s must exist. Fix: %s", record_path.name, fix, location=page)
        return
    record = json.loads(record_path.read_text(encoding="utf-8"))
    rows = [_make_list([[nodes.Text(fact)] for fact in describe_run(record)])]
    clauses = [[_make_reference(c.id, page)] for c in load_clauses() if c.page == page]
    if clauses:
        rows.append(_make_list([[nodes.Text("Clauses")], *clauses]))
    title = next(doctree.findall(nodes.title))
    title.parent.insert(1, nodes.container("", *rows, classes=["bm-badge"]))


def describe_run(record: dict[str, Any]) -> list[str]:
    """Returns the facts of a run record for its badge, shortest form first."""
    machine = record["machine"]
    processor = re.sub(r"\((?:R|TM)\)|\bCPU\b|\bProcessor\b|@.*", "", machine["cpu"])
    cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''}"
    day = date.fromisoformat(record["date"])
    return [
        f"Tier {record['tier']}",
        f"{record['seconds']:.0f} s",
        f"{record['peak_memory_bytes'] / 1e9:.1f} GB peak",
        f"{' '.join(processor.split())}, {cores}",
        f"{day.day} {day:%B %Y}",
        f"lock {record['lock_sha256'][:8]}",
    ]


def _make_list(items: list[list[nodes.Node]]) -> nodes.bullet_list:
    entries = [nodes.list_item("", nodes.paragraph("", "", *item)) for item in items]
    return nodes.bullet_list("", *entries)


def _make_reference(clause_id: str, page: str) -> addnodes.pending_xref:
    text = nodes.inline("", clause_id)
    options = {"refdomain": "std", "reftype": "clause", "reftarget": clause_id}
    return addnodes.pending_xref("", text, refdoc=page, refwarn=True, refexplicit=False, **options)
