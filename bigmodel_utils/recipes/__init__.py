"""Recipes: working scripts that are copied into a project together with the code they use."""

from ._add import AddedRecipe, Recipe, add_recipe, list_recipes
from ._changes import RecipeChanges, find_recipe_changes
from ._show import RecipeDescription, describe_recipe

__all__ = [
    "AddedRecipe",
    "Recipe",
    "RecipeChanges",
    "RecipeDescription",
    "add_recipe",
    "describe_recipe",
    "find_recipe_changes",
    "list_recipes",
]
