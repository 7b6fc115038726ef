"""The command line: what it prints, how it exits, and what it does not load."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

import bigmodel_utils
from bigmodel_utils import recipes
from bigmodel_utils.cli import USER_ERROR, main


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
def fake_machine(monkeypatch):
    from bigmodel_utils import hardware

    monkeypatch.setattr(hardware, "inspect_machine", FakeReport)


def test_doctor_prints_the_report(fake_machine, capsys):
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "two cores\n"


def test_doctor_prints_json(fake_machine, capsys):
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"cores": 2, "name": "Zürich"}


def test_messages_return_after_the_report(fake_machine, capfd, monkeypatch):
    def inspect_noisily():
        os.write(2, b"native noise\n")
        return FakeReport()

    monkeypatch.setattr("bigmodel_utils.hardware.inspect_machine", inspect_noisily)
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


@pytest.mark.parametrize("arguments", [[], ["recipe"], ["recipe", "add", "one"], ["nosuch"]])
def test_incomplete_command_shows_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: bigmodel")


def test_version():
    result = run("--version")
    assert result.returncode == 0
    assert result.stdout.split() == ["bigmodel_utils", bigmodel_utils.__version__]


def test_exit_status_reaches_the_shell(tmp_path):
    result = run("recipe", "add", "nosuch", str(tmp_path))
    assert result.returncode == USER_ERROR
    assert "Traceback" not in result.stderr


def test_help_loads_nothing_heavy():
    started = time.perf_counter()
    code = (
        "import sys; from bigmodel_utils.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('loaded', *(n for n in ('numpy', 'rich', 'keras', 'tensorflow') "
        "if n in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.splitlines()[-1] == b"loaded"
    assert time.perf_counter() - started < 5  # a busy machine included
