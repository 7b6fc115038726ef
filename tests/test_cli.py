"""The command line: what it prints, how it exits, and what it does not load."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

import bigmodel_utils
from bigmodel_utils import cli, recipes
from bigmodel_utils.cli import UPSTREAM_MOVED, USER_ERROR, main


def run(*arguments, **variables):
    command = [sys.executable, "-m", "bigmodel_utils", *arguments]
    environment = dict(os.environ, **variables)
    return subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, encoding="utf-8"
    )


@dataclass
class FakeReport:
    """Stands in for the report of a machine; rich prints it, JSON holds it."""

    def to_dict(self):
        return {"cores": 2, "name": "Zürich"}

    def __rich__(self):
        return "two cores"


@pytest.fixture
def fake_report(monkeypatch):
    """The calls of the function behind `doctor`, which returns at once."""
    calls = []

    def inspect(**options):
        calls.append(options)
        return FakeReport()

    monkeypatch.setattr("bigmodel_utils.doctor.inspect_readiness", inspect)
    return calls


def test_doctor_prints_the_report(fake_report, capsys):
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "two cores\n"


def test_doctor_prints_json(fake_report, capsys):
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"cores": 2, "name": "Zürich"}


def test_doctor_uses_the_network_only_if_asked_to(fake_report):
    assert main(["doctor"]) == main(["doctor", "--check-mirror"]) == 0
    assert fake_report == [{"asks_mirror": False}, {"asks_mirror": True}]


def test_messages_return_after_the_report(capfd, monkeypatch):
    def inspect_noisily(**options):
        os.write(2, b"native noise\n")
        return FakeReport()

    monkeypatch.setattr("bigmodel_utils.doctor.inspect_readiness", inspect_noisily)
    assert main(["doctor"]) == 0
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_doctor_needs_no_gpu(option):
    result = run("doctor", *option, CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert result.stderr == ""  # no alarm from native code that looks for a driver
    if option:
        json.loads(result.stdout)


def test_recipe_list(capsys):
    assert main(["recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [r.name for r in recipes.list_recipes()]
    assert all(r.title in line for r, line in zip(recipes.list_recipes(), lines, strict=True))


def test_recipe_add_says_what_to_do_next(tmp_path, capsys):
    name = recipes.list_recipes()[0].name
    assert main(["recipe", "add", name, str(tmp_path / "project")]) == 0
    *wrote, needs, run_line = capsys.readouterr().out.splitlines()
    assert {line.removeprefix("wrote ") for line in wrote} == {
        str(path) for path in (tmp_path / "project").rglob("*") if path.is_file()
    }
    assert needs.startswith('needs: pip install "keras')
    assert run_line == f"run:   python {tmp_path / 'project' / name}.py"


@pytest.mark.parametrize(
    ("name", "directory", "message"),
    [
        ("nosuch", "project", "`name` must be a recipe. Received: 'nosuch'. Fix: choose from "),
        (None, "file", "`directory` must be a directory. Received: "),
    ],
)
def test_user_error_is_one_line_and_exits_2(tmp_path, capsys, name, directory, message):
    (tmp_path / "file").write_text("mine")
    name = name or recipes.list_recipes()[0].name
    assert main(["recipe", "add", name, str(tmp_path / directory)]) == USER_ERROR == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"bigmodel: {message}")
    assert printed.err.count("\n") == 1


def test_system_error_is_one_line(tmp_path, capsys, monkeypatch):
    def refuse(name, directory):
        raise PermissionError(13, "Permission denied", str(directory))

    monkeypatch.setattr(recipes, "add_recipe", refuse)
    assert main(["recipe", "add", "any", str(tmp_path)]) == USER_ERROR
    assert capsys.readouterr().err.startswith("bigmodel: [Errno 13] Permission denied")


def test_fault_of_the_library_keeps_its_traceback(monkeypatch):
    def fail(name, directory):
        raise ValueError("a bug")

    monkeypatch.setattr(recipes, "add_recipe", fail)
    with pytest.raises(ValueError, match="a bug"):
        main(["recipe", "add", "any", "where"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command. See: bigmodel --help"),
        (["recipe"], "Missing command. See: bigmodel recipe --help"),
        (["recipe", "add", "one"], "Missing argument 'DIR'. See: bigmodel recipe add --help"),
        (["nosuch"], "No such command 'nosuch'. See: bigmodel --help"),
        (["doctor", "--nosuch"], "No such option: --nosuch See: bigmodel doctor --help"),
    ],
)
def test_incomplete_command_is_one_line(arguments, message, capsys):
    assert main(arguments) == USER_ERROR
    assert capsys.readouterr().err == f"bigmodel: {message}\n"


@pytest.mark.parametrize("arguments", [[], ["doctor"], ["recipe"], ["recipe", "diff"]])
def test_help_names_the_command(arguments, capsys):
    assert main([*arguments, "--help"]) == 0
    assert " ".join(["Usage: bigmodel", *arguments]) in capsys.readouterr().out


def test_version():
    result = run("--version")
    assert result.returncode == 0
    assert result.stdout.split() == ["bigmodel_utils", bigmodel_utils.__version__]


def test_exit_status_reaches_the_shell(tmp_path):
    result = run("recipe", "add", "nosuch", str(tmp_path))
    assert result.returncode == USER_ERROR
    assert "Traceback" not in result.stderr


def test_help_loads_nothing_heavy():
    """Only what renders it: neither numbers, nor a backend, nor any part of this package."""
    started = time.perf_counter()
    code = (
        "import sys; from bigmodel_utils.cli import main; main(['--help'])\n"
        "print('loaded', *sorted(n for n in sys.modules if n in ('numpy', 'keras', 'tensorflow') "
        "or n.startswith('bigmodel_utils.')))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.splitlines()[-1] == b"loaded bigmodel_utils.cli"
    assert time.perf_counter() - started < 5  # a busy machine included


def test_import_leaves_tracebacks_as_they_are():
    code = "import sys; from bigmodel_utils.cli import main; main(['recipe', 'list']); "
    code += "assert sys.excepthook is sys.__excepthook__, sys.excepthook"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# Showing a recipe and what has changed


@pytest.fixture
def terminal(monkeypatch, capsys):
    """Makes what is printed go to a terminal that knows colors."""
    from rich.console import Console

    monkeypatch.setattr(
        cli, "_build_console", lambda: Console(force_terminal=True, color_system="standard")
    )


def test_recipe_show_is_plain_in_a_pipe():
    name = recipes.list_recipes()[0].name
    result = run("recipe", "show", name)
    assert result.returncode == 0
    assert result.stdout.endswith(recipes.describe_recipe(name).script)
    assert "\x1b" not in result.stdout


def test_recipe_show_has_colors_on_a_terminal(terminal, capsys):
    assert main(["recipe", "show", recipes.list_recipes()[0].name]) == 0
    printed = capsys.readouterr().out
    assert "\x1b[" in printed.partition("writes")[2]
    assert recipes.list_recipes()[0].title in printed


@pytest.mark.parametrize("name", [recipe.name for recipe in recipes.list_recipes()[:3]])
def test_long_lines_are_whole_on_a_narrow_terminal(name, monkeypatch, capsys):
    from rich.console import Console

    monkeypatch.setattr(
        cli, "_build_console", lambda: Console(force_terminal=True, no_color=True, width=40)
    )
    assert main(["recipe", "show", name]) == 0
    printed = "".join(re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).split())
    script = "".join(recipes.describe_recipe(name).script.split())
    assert printed.endswith(script)


def test_recipe_diff_of_a_fresh_copy(tmp_path, capsys):
    name = recipes.list_recipes()[0].name
    recipes.add_recipe(name, tmp_path)
    assert main(["recipe", "diff", name, str(tmp_path)]) == 0
    assert "up to date: nothing to take over\n" in capsys.readouterr().out
    (tmp_path / f"{name}.py").write_text("print('mine')\n")
    assert main(["recipe", "diff", name, str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"changed by you  {name}.py\n" in printed
    assert "-print('mine')\n" in printed


def test_recipe_diff_tells_the_shell_that_upstream_moved(tmp_path):
    name = recipes.list_recipes()[0].name
    recipes.add_recipe(name, tmp_path)
    stamp = tmp_path / f"{name}.provenance.json"
    entries = json.loads(stamp.read_text(encoding="utf-8"))
    for entry in entries["files"]:
        if entry["path"] == f"{name}.py":  # as if the recipe had been another when it was copied
            entry["sha256"] = hashlib.sha256(b"old\n").hexdigest()
    stamp.write_text(json.dumps(entries), encoding="utf-8")
    (tmp_path / f"{name}.py").write_text("old\n")
    result = run("recipe", "diff", name, str(tmp_path))
    assert result.returncode == UPSTREAM_MOVED == 1, result.stderr
    assert f"changed upstream  {name}.py\n" in result.stdout
    assert "\n-old\n" in result.stdout
    assert "up to date" not in result.stdout


def test_recipe_diff_of_no_copy(tmp_path, capsys):
    name = recipes.list_recipes()[0].name
    assert main(["recipe", "diff", name, str(tmp_path)]) == USER_ERROR
    assert main(["recipe", "diff", "nosuch", str(tmp_path)]) == USER_ERROR
    assert capsys.readouterr().err.count("\n") == 2


def test_reproduce_wants_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "chapters/04_code/training"]) == USER_ERROR
    assert "must be a checkout of the book" in capsys.readouterr().err
