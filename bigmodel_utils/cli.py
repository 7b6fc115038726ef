"""The command ``bigmodel``: this machine, a model against the standard, and recipes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from . import __version__

USER_ERROR = 2
"""Exit status when the user can mend what went wrong."""
UPSTREAM_MOVED = 1
"""Exit status of `recipe diff` when there is something to take over."""

# Commands import what they need only when they run, so that --help answers at once.
app = typer.Typer(
    help="What this machine can do, whether a model may be released, and recipes.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes = typer.Typer(help="Copy a working script into your project, and keep up with it.")
app.add_typer(recipes, name="recipe")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `recipe list` shows.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: words after the program's name; those of the process if left out.

    Returns:
        Exit status: 0, 2 if the arguments cannot be used, or 1 if `audit` lets a model not
        pass, `reproduce` finds a check that does not hold, or `recipe diff` has found
        something to take over.

    Example:
        >>> main(["recipe", "list"])  # doctest: +ELLIPSIS
        accumulate_gradients...
        0
    """
    command = typer.main.get_command(app)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return command.main(words, prog_name="bigmodel", standalone_mode=False) or 0
    except Exception as error:
        message = _find_message(error)
        if message is None:
            raise
        print("bigmodel:", " ".join(message.split()), file=sys.stderr)  # noqa: T201
        return USER_ERROR


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print("bigmodel_utils", __version__)  # noqa: T201
        raise typer.Exit


@app.callback()
def _take_options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command("doctor")
def _show_readiness(
    as_json: AsJson = False,
    asks_mirror: Annotated[
        bool, typer.Option("--check-mirror", help="Ask the mirror of the data sets, 5 s at most.")
    ] = False,
) -> None:
    """Show devices, memory, versions, what fits, and what is not installed."""
    from .doctor import inspect_readiness

    with _mute_native_messages():
        report = inspect_readiness(asks_mirror=asks_mirror)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))  # noqa: T201
    else:
        _build_console().print(report)


@app.command("audit")
def _audit_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .keras, .onnx or .tflite file.")],
    data: Annotated[
        str,
        typer.Option("--data", metavar="FILE", help="Arrays of numpy.savez: x_test, y_test, ..."),
    ],
    level: Annotated[
        str, typer.Option("--level", help="development, production or critical.")
    ] = "production",
    subjects: Annotated[
        list[str] | None, typer.Option("--subject", help="A kind of release; may be repeated.")
    ] = None,
    declaration: Annotated[
        str | None,
        typer.Option("--declaration", metavar="FILE", help="What no file can show, as TOML."),
    ] = None,
    directory: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Where the evidence goes.")
    ] = None,
) -> int:
    """Measure a model file, hold it against the standard, and keep the evidence.

    Ends with 0 if the model passes and with 1 if it does not.
    """
    from dataclasses import replace

    with _mute_native_messages():
        from .audit import Declaration, audit_model, load_declaration, write_audit_evidence

    declared = load_declaration(declaration) if declaration else Declaration()
    declared = replace(declared, subjects=(*declared.subjects, *(subjects or ())))
    if directory:
        declared.check_cards()
    audit = audit_model(
        model,
        data,
        level=level,
        declaration=declared,
        progress=lambda metric: print("measuring", metric, file=sys.stderr),  # noqa: T201
    )
    print(audit)  # noqa: T201
    if directory:
        bundle = write_audit_evidence(
            directory, audit, model=model, data=data, declaration=declared
        )
        print(f"\n{bundle}")  # noqa: T201
    return audit.report.exit_status


@app.command("reproduce")
def _reproduce_page(
    page: Annotated[str, typer.Argument(metavar="PAGE", help="Such as chapters/04_code/training.")],
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Where the comparison goes.")
    ] = None,
) -> int:
    """Run a page of the book here, and compare what its checks see with its record.

    Ends with 1 if a check does not hold. Wants a checkout of the book as working directory.
    """
    import subprocess
    from pathlib import Path

    from ._checks import InputError

    if not Path("tools", "reproduce.py").is_file():
        raise InputError(
            "the working directory",
            "must be a checkout of the book",
            Path.cwd(),
            "clone the book, `make book`, and ask again from its root",
        )
    words = [sys.executable, "-m", "tools.reproduce", page, *(["--out", out] if out else [])]
    return subprocess.run(words, check=False).returncode


@recipes.command("list")
def _list_recipes() -> None:
    """Name the recipes."""
    from .recipes import list_recipes

    listed = list_recipes()
    width = max(len(recipe.name) for recipe in listed)
    for recipe in listed:
        print(f"{recipe.name:<{width}}  {recipe.title}")  # noqa: T201


@recipes.command("show")
def _show_recipe(name: Name) -> None:
    """Show what a recipe does and needs, what it would write, and its script."""
    from .recipes import describe_recipe

    description = describe_recipe(name)
    _print_with_code(description, description.script, "python")


@recipes.command("add")
def _add_recipe(
    name: Name,
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="Where to put it; made if missing.")
    ],
) -> None:
    """Copy a recipe with the modules it uses."""
    from .recipes import add_recipe

    added = add_recipe(name, directory)
    lines = [f"wrote {added.directory / path}" for path in added.files]
    quoted = " ".join(f'"{requirement}"' for requirement in added.requirements)
    lines += [f"needs: pip install {quoted}", f"run:   python {added.directory / name}.py"]
    print("\n".join(lines))  # noqa: T201


@recipes.command("diff")
def _compare_recipe(
    name: Name,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where the copy is.")],
) -> int:
    """Show what has changed since a recipe was copied, here and in the copy.

    Ends with 0 if there is nothing to take over, with 1 if there is.
    """
    from .recipes import find_recipe_changes

    changes = find_recipe_changes(name, directory)
    _print_with_code(changes, changes.difference, "diff")
    return 0 if changes.is_up_to_date else UPSTREAM_MOVED


def _print_with_code(report: Any, code: str, language: str) -> None:
    """Prints a report and a text: in colors on a terminal, as it is into a file."""
    console = _build_console()
    if not console.is_terminal:
        print(f"{report}\n\n{code}".rstrip())  # noqa: T201
        return
    from rich.syntax import Syntax
    from rich.text import Text

    console.print(Text(str(report)))
    if code:
        console.print()
        # Without wrapping, what does not fit is cut off.
        syntax = Syntax(
            code, language, theme="ansi_dark", background_color="default", word_wrap=True
        )
        console.print(syntax)


def _build_console() -> Any:
    from rich.console import Console

    return Console()


@contextmanager
def _mute_native_messages() -> Iterator[None]:
    """Drops what a backend's native code writes to stderr while it starts.

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


def _find_message(error: Exception) -> str | None:
    """What to tell the user; `None` for a fault of the program."""
    from ._checks import InputError, MissingExtraError

    # What a typing error raises has no name of its own in typer, but one of its kind has.
    usage_error: Any = typer.BadParameter.__base__
    if isinstance(error, usage_error):
        path = error.ctx.command_path if error.ctx else "bigmodel"
        return f"{error.format_message()} See: {path} --help"
    return str(error) if isinstance(error, InputError | MissingExtraError | OSError) else None
