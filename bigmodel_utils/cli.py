"""The command ``bigmodel``: what this machine can do, and recipes for your project."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from . import __version__

_DESCRIPTION = "What this machine can do, and recipes for your project."
USER_ERROR = 2
"""Exit status when the user can mend what went wrong; argparse uses the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: words after the program's name; those of the process if left out.

    Returns:
        Exit status: 0, or 2 if the arguments cannot be used.

    Example:
        >>> main(["recipe", "list"])  # doctest: +ELLIPSIS
        accumulate_gradients...
        0
    """
    parsed = _build_parser().parse_args(arguments)
    # Commands import what they need only when they run, so that --help answers at once.
    try:
        if parsed.command == "doctor":
            _print_machine(as_json=parsed.json)
        elif parsed.action == "list":
            _print_recipes()
        else:
            _add_recipe(parsed.name, parsed.directory)
    except (ValueError, ImportError, OSError) as error:
        if not _is_for_user(error):
            raise
        print("bigmodel:", " ".join(str(error).split()), file=sys.stderr)  # noqa: T201
        return USER_ERROR
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bigmodel", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"bigmodel_utils {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="show devices, memory, versions and what fits")
    doctor.add_argument("--json", action="store_true", help="print JSON")

    recipe = commands.add_parser("recipe", help="copy a working script into your project")
    actions = recipe.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="show the recipes")
    add = actions.add_parser("add", help="copy a recipe with the modules it uses")
    add.add_argument("name", metavar="NAME", help="a name that `recipe list` shows")
    add.add_argument("directory", metavar="DIR", help="where to put it; made if missing")
    return parser


def _print_machine(*, as_json: bool) -> None:
    from .hardware import inspect_machine

    with _mute_native_messages():
        report = inspect_machine()
    if as_json:
        print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))  # noqa: T201
        return
    from rich.console import Console

    Console().print(report)


def _print_recipes() -> None:
    from .recipes import list_recipes

    recipes = list_recipes()
    width = max(len(recipe.name) for recipe in recipes)
    for recipe in recipes:
        print(f"{recipe.name:<{width}}  {recipe.title}")  # noqa: T201


def _add_recipe(name: str, directory: str) -> None:
    from .recipes import add_recipe

    added = add_recipe(name, directory)
    lines = [f"wrote {added.directory / path}" for path in added.files]
    quoted = " ".join(f'"{requirement}"' for requirement in added.requirements)
    lines += [f"needs: pip install {quoted}", f"run:   python {added.directory / name}.py"]
    print("\n".join(lines))  # noqa: T201


@contextmanager
def _mute_native_messages() -> Iterator[None]:
    """Drops what a backend's native code writes to stderr while it looks for devices.

    On a machine without a GPU it reads like a failure, and the report says it better. The
    file descriptor is redirected since the messages do not pass through `sys.stderr`.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _is_for_user(error: Exception) -> bool:
    from ._checks import InputError, MissingExtraError

    return isinstance(error, InputError | MissingExtraError | OSError)
