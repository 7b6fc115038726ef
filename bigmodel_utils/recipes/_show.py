"""What a recipe is, before it is copied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .._report import Report
from ._add import ROOT, Recipe, collect_files, find_recipe, name_stamp
from ._closure import find_requirements


@dataclass(frozen=True)
class RecipeDescription(Report):
    """A recipe, and what `add_recipe` would write.

    Attributes:
        recipe: name, title, page and summary.
        files: paths that would be written.
        requirements: what the copy needs, in pip's notation.
        optional_requirements: what parts of the copied modules can use beyond that.
        script: text of the script, as it would be written.
    """

    recipe: Recipe
    files: tuple[str, ...]
    requirements: tuple[str, ...]
    optional_requirements: tuple[str, ...]
    script: str

    def _list_rows(self) -> list[tuple[str, str]]:
        return [
            ("title", self.recipe.title),
            ("page", self.recipe.page),
            ("summary", self.recipe.summary),
            ("needs", ", ".join(self.requirements)),
            *(("can use", ", ".join(names)) for names in [self.optional_requirements] if names),
            *(("writes", path) for path in self.files),
        ]


def describe_recipe(name: str) -> RecipeDescription:
    """Describes a recipe: what it does, what it needs, and what copying it would write.

    Args:
        name: name of a recipe, see `list_recipes`.

    Returns:
        The description; nothing is written.

    Raises:
        InputError: for an unknown name.

    Limits:
        Files that are in the directory already would not be written again.

    Example:
        >>> describe_recipe("train_image_classifier").recipe.page
        'chapters/04_code/training'
    """
    return _describe_recipe(ROOT, name)


def _describe_recipe(root: Path, name: str) -> RecipeDescription:
    recipe = find_recipe(root, name)
    _, contents, libraries = collect_files(root, name)
    required, optional = find_requirements(libraries, recipe.extras)
    script = contents[f"{name}.py"].decode("utf-8")
    files = tuple(sorted([*contents, name_stamp(name)]))
    return RecipeDescription(recipe, files, required, optional, script)
