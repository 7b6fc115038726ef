"""Recipes: working scripts that are copied into a project together with the code they use."""

from ._add import AddedRecipe, Recipe, add_recipe, list_recipes

__all__ = ["AddedRecipe", "Recipe", "add_recipe", "list_recipes"]
