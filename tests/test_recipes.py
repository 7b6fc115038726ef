"""Copying recipes: the right files, nothing overwritten, and a copy that stands alone."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bigmodel_utils
from bigmodel_utils._checks import InputError
from bigmodel_utils.recipes import add_recipe, list_recipes
from bigmodel_utils.recipes._add import _MODULE_NAME, COPY, _add_recipe, _list_recipes
from bigmodel_utils.recipes._closure import find_closure, find_requirements

ROOT = Path(bigmodel_utils.__file__).parent
RECIPES = [recipe.name for recipe in list_recipes()]

FAKE_PACKAGE = {
    "LICENSE": "Do as you like.\n",
    "__init__.py": "from . import unused\n",
    "_checks.py": "def check(value):\n    return value\n",
    "arithmetic.py": '''"""Arithmetic, as in `bigmodel_utils.arithmetic.double`."""
import math
import numpy as np
from ._checks import check

def double(value):
    """Doubles.

    >>> from bigmodel_utils.arithmetic import double
    >>> from bigmodel_utils.words import shout
    >>> shout(str(double(2)))
    '4!'
    """
    from .deep import factor
    return factor * check(value)

def plot():
    """Fix: pip install "bigmodel_utils[explain]"."""
    import_extra("matplotlib.pyplot", extra="explain")
''',
    "words.py": "def shout(word):\n    return word + '!'\n",
    "constants.py": "TWO = 2\n",
    "deep/__init__.py": "from ._inner import factor\n",
    "deep/_inner.py": """import tomllib
from importlib import resources
from .. import constants
_text = resources.files(__package__).joinpath("numbers.toml").read_text(encoding="utf-8")
factor = constants.TWO * tomllib.loads(_text)["one"]
""",
    "deep/numbers.toml": "one = 1\n",
    "deep/others.toml": "two = 2\n",
    "deep/unused.py": "import sklearn\nNAME = 'others.toml'\n",
    "unused.py": "import rich\n",
    "extra.py": "import bigmodel_utils.deep\nfrom bigmodel_utils.deep._inner import factor\n",
    "recipes/__init__.py": "raise RuntimeError('not part of a recipe')\n",
    "recipes/double/recipe.toml": 'title = "D"\npage = "p"\nsummary = "s"\nextras = ["explain"]\n',
    "recipes/double/script.py": '''"""Doubles."""
from bigmodel_utils import arithmetic

def main():
    return arithmetic.double(21)

if __name__ == "__main__":
    print(main())
''',
    "recipes/double/test_script.py": '''"""Tests it."""
import pytest
from bigmodel_utils.recipes.double import script

def test_double():
    assert script.main() == 42
''',
    "recipes/more/recipe.toml": 'title = "M"\npage = "p"\nsummary = "s"\n',
    "recipes/more/script.py": "from bigmodel_utils import arithmetic, extra\n",
    "recipes/more/test_script.py": "from bigmodel_utils.recipes.more import script\n",
}
SHARED = [
    "__init__.py",
    "_checks.py",
    "arithmetic.py",
    "constants.py",
    "deep/__init__.py",
    "deep/_inner.py",
    "deep/numbers.toml",
    "words.py",
]
COPIED = sorted(
    [f"{COPY}/{file}" for file in (*SHARED, "LICENSE")]
    + ["double.py", "double.provenance.json", "test_double.py"]
)


def write_tree(directory, files):
    for path, text in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text, encoding="utf-8")
    return directory


def read_tree(directory):
    """Every file below a directory with its bytes, and every directory with `None`."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("source") / "bigmodel_utils", FAKE_PACKAGE)


@pytest.fixture(scope="session")
def run_outside(tmp_path_factory):
    """Runs Python where every library is importable except this one.

    Site-packages is an ordinary path there, so the link of an editable install is not read.
    """
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def run(*arguments, cwd):
        variables = dict(os.environ, PYTHONPATH=sysconfig.get_path("purelib"))
        command = [python, *arguments]
        return subprocess.run(
            command, check=False, cwd=cwd, env=variables, capture_output=True, text=True
        )

    probe = run("-c", "import bigmodel_utils", cwd=home)
    assert "No module named 'bigmodel_utils'" in probe.stderr, "install the package editable"
    return run


# The closure


def test_closure_of_a_known_tree(root):
    script = FAKE_PACKAGE["recipes/double/script.py"]
    closure = find_closure(root, script)
    assert list(closure.files) == SHARED
    assert closure.libraries == {"numpy", "matplotlib"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os", []),
        ("import bigmodel_utils.deep.unused", ["deep/others.toml", "deep/unused.py"]),
        (
            "def f():\n    from bigmodel_utils.deep import unused",
            ["deep/others.toml", "deep/unused.py"],
        ),
        ("from bigmodel_utils.deep import factor as f", []),
        ("from bigmodel_utils import deep as d", []),
    ],
)
def test_closure_of_one_import(root, source, expected):
    files = set(find_closure(root, source).files)
    package = {"__init__.py", "constants.py", "deep/__init__.py", "deep/_inner.py"}
    package.add("deep/numbers.toml")
    assert files == (package if "deep" in source else set()) | set(expected)


@pytest.mark.parametrize(
    "source",
    [
        "from bigmodel_utils import missing",
        "from bigmodel_utils import __version__",
        "from bigmodel_utils import *",
        "import bigmodel_utils.missing.part",
    ],
)
def test_import_of_what_is_no_module_is_refused(root, source):
    with pytest.raises(InputError, match="Received: an import of bigmodel_utils"):
        find_closure(root, source)


def test_leftover_directory_does_not_hide_a_module(tmp_path):
    tree = {"__init__.py": "", "words.py": "", "words/__pycache__/words.pyc": ""}
    root = write_tree(tmp_path, tree)
    files = find_closure(root, "from bigmodel_utils.words import shout").files
    assert files == ("__init__.py", "words.py")


def list_loaded(root, source):
    """Independent of the static closure: files that Python loads when it runs the source."""
    code = (
        f"exec({source!r}, {{'__name__': 'recipe'}})\n"
        "import sys\n"
        "print(*(m.__file__ for n, m in list(sys.modules.items()) "
        "if n.split('.')[0] == 'bigmodel_utils' and m.__file__), sep='\\n')"
    )
    command = [sys.executable, "-c", code]  # finds the package in the working directory first
    result = subprocess.run(command, check=False, cwd=root.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    files = map(Path, result.stdout.splitlines())
    return {file.relative_to(root).as_posix() for file in files}


def test_closure_holds_all_that_runs(root):
    script = FAKE_PACKAGE["recipes/double/script.py"] + "\nmain()\n"
    # The package's own `__init__`, which drags in `unused`, is not copied.
    loaded = list_loaded(root, script) - {"unused.py"}
    assert loaded <= set(SHARED)
    # words is needed by an example only, numbers is no module
    assert loaded == set(SHARED) - {"words.py", "deep/numbers.toml"}


def test_a_table_is_copied_with_the_module_that_names_it(tmp_path):
    tree = {
        "__init__.py": "",
        "reader.py": "from .sub import table\n",
        "sub/__init__.py": "",
        "sub/table.py": "NAME = 'wanted.toml'\nTITLE = 'see other.toml'\n",
        "sub/wanted.toml": "",
        "sub/other.toml": "",
        "wanted.toml": "not beside the module\n",
    }
    root = write_tree(tmp_path, tree)
    files = find_closure(root, "from bigmodel_utils import reader").files
    assert files == (
        "__init__.py",
        "reader.py",
        "sub/__init__.py",
        "sub/table.py",
        "sub/wanted.toml",
    )


def test_twin_a_copy_without_its_table_does_not_run(root, tmp_path, run_outside):
    _add_recipe(root, "double", tmp_path)
    (tmp_path / COPY / "deep" / "numbers.toml").unlink()
    script = run_outside("double.py", cwd=tmp_path)
    assert "numbers.toml" in script.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_closure_of_each_recipe_holds_all_that_it_loads(name):
    source = (ROOT / "recipes" / name / "script.py").read_text(encoding="utf-8")
    loaded = list_loaded(ROOT, source)
    assert len(loaded) > 1
    assert loaded <= set(find_closure(ROOT, source).files)


def list_modules(root):
    """Modules that a recipe may use: all but those at the top."""
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    top = ("__init__", "__main__", "book", "cli", "doctor", "recipes/")
    return sorted(path for path in paths if not path.startswith(top))


@pytest.mark.parametrize("path", list_modules(ROOT))
def test_renamed_module_no_longer_imports_this_package(path):
    text = _MODULE_NAME.sub(COPY, (ROOT / path).read_text(encoding="utf-8"))
    ast.parse(text)
    assert not re.search(r"(from|import) +bigmodel_utils", text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from bigmodel_utils import data", "from bigmodel_recipe import data"),
        ("from bigmodel_utils.data import x", "from bigmodel_recipe.data import x"),
        ("import bigmodel_utils.data as d", "import bigmodel_recipe.data as d"),
        ("import bigmodel_utils", "import bigmodel_recipe"),
        ("see `bigmodel_utils.data.split`", "see `bigmodel_recipe.data.split`"),
        ('pip install "bigmodel_utils[data]"', 'pip install "bigmodel_utils[data]"'),
        ("my_bigmodel_utils.data", "my_bigmodel_utils.data"),
        ("import bigmodel_utils_extra", "import bigmodel_utils_extra"),
        ("works with bigmodel_utils.", "works with bigmodel_utils."),
    ],
)
def test_renaming(before, after):
    assert _MODULE_NAME.sub(COPY, before) == after


# Requirements


def test_requirements_of_known_libraries():
    required, optional = find_requirements(
        frozenset({"keras", "sklearn", "pynvml", "not_known"}), ("data",)
    )
    assert [line.split(">")[0].split("<")[0] for line in required] == [
        "keras",
        "not-known",
        "scikit-learn",
    ]
    assert [line.split(">")[0] for line in optional] == ["nvidia-ml-py"]


@pytest.mark.parametrize("path", list_modules(ROOT))
def test_every_library_has_a_range(path):
    """What a module imports is declared in the package's metadata."""
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    closure = find_closure(ROOT, f"import bigmodel_utils.{module}")
    assert path in closure.files
    for requirement in sum(find_requirements(closure.libraries, ()), ()):
        assert ">" in requirement, f"{path} imports {requirement}, which no extra brings"


# Adding


def test_copied_files(root, tmp_path):
    added = _add_recipe(root, "double", tmp_path / "new" / "project")
    assert list(added.files) == COPIED
    written = read_tree(tmp_path / "new" / "project")
    assert sorted(path for path, content in written.items() if content is not None) == COPIED
    assert written[f"{COPY}/deep/_inner.py"].decode() == FAKE_PACKAGE["deep/_inner.py"]
    assert written[f"{COPY}/LICENSE"].decode() == FAKE_PACKAGE["LICENSE"]
    assert written["double.py"].decode() == FAKE_PACKAGE["recipes/double/script.py"].replace(
        "bigmodel_utils", COPY
    )
    assert b"import double as script" in written["test_double.py"]
    assert b'pip install "bigmodel_utils[explain]"' in written[f"{COPY}/arithmetic.py"]
    ast.parse(written[f"{COPY}/__init__.py"])
    assert written[f"{COPY}/__init__.py"].count(b"\n") == 1
    assert json.loads(json.dumps(added.to_dict()))["name"] == "double"


def test_provenance(root, tmp_path):
    added = _add_recipe(root, "double", tmp_path)
    provenance = json.loads((tmp_path / "double.provenance.json").read_text(encoding="utf-8"))
    assert provenance["recipe"] == _list_recipes(root)[0].to_dict() | {"extras": ["explain"]}
    assert provenance["version"] == bigmodel_utils.__version__
    assert abs((date.fromisoformat(provenance["date"]) - datetime.now(UTC).date()).days) <= 1
    assert [line.split("<")[0].split(">")[0] for line in added.requirements] == [
        "matplotlib",
        "numpy",
    ]
    assert provenance["requirements"] == list(added.requirements)
    assert [line.split(">")[0] for line in provenance["optional_requirements"]] == ["pytest"]
    assert [entry["path"] for entry in provenance["files"]] == [
        path for path in COPIED if path != "double.provenance.json"
    ]
    for entry in provenance["files"]:
        content = (tmp_path / entry["path"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        if entry["path"] == f"{COPY}/__init__.py":
            assert entry["origin"] is entry["origin_sha256"] is None
            continue
        origin = (root.parent / entry["origin"]).read_bytes()
        assert entry["origin_sha256"] == hashlib.sha256(origin).hexdigest()


def test_unknown_recipe(root, tmp_path):
    with pytest.raises(InputError, match=r"`name` .* Received: 'nosuch'. Fix: choose from double"):
        _add_recipe(root, "nosuch", tmp_path / "project")
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize("below", ["", "project", "project/deeper"])
def test_directory_that_is_a_file(root, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="`directory` must be a directory"):
        _add_recipe(root, "double", tmp_path / "file" / below)
    assert read_tree(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("taken", [*COPIED, COPY])
def test_nothing_is_overwritten(root, tmp_path, taken):
    before = read_tree(write_tree(tmp_path, {taken: "mine"}))
    with pytest.raises(InputError, match="must not hold files that would be overwritten") as raised:
        _add_recipe(root, "double", tmp_path)
    assert f"Received: {taken} in " in str(raised.value)
    assert read_tree(tmp_path) == before


def test_dangling_link_is_not_followed(root, tmp_path):
    (tmp_path / "double.py").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"double\.py"):
        _add_recipe(root, "double", tmp_path)
    assert not (tmp_path / "nowhere").exists()


def test_second_recipe_shares_modules(root, tmp_path):
    _add_recipe(root, "double", tmp_path)
    first = read_tree(tmp_path)
    added = _add_recipe(root, "more", tmp_path)
    assert added.files == (
        f"{COPY}/extra.py",
        "more.provenance.json",
        "more.py",
        "test_more.py",
    )
    second = read_tree(tmp_path)
    assert {path: second[path] for path in first} == first


def test_second_recipe_of_another_version_is_refused(root, tmp_path):
    _add_recipe(root, "double", tmp_path)
    (tmp_path / COPY / "constants.py").write_text("TWO = 3\n")
    before = read_tree(tmp_path)
    with pytest.raises(InputError, match=r"Received: bigmodel_recipe/constants\.py in "):
        _add_recipe(root, "more", tmp_path)
    assert read_tree(tmp_path) == before


def test_same_recipe_twice_is_refused(root, tmp_path):
    _add_recipe(root, "double", tmp_path)
    with pytest.raises(InputError, match=r"double\.py"):
        _add_recipe(root, "double", tmp_path)


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("allowed", range(len(COPIED)))
def test_interrupted_copy_leaves_nothing(root, tmp_path, monkeypatch, existing, allowed):
    directory = tmp_path / "project"
    if existing:
        write_tree(directory, {"mine.txt": "mine", f"{COPY}/mine.txt": "mine"})
    before = read_tree(tmp_path)
    replace, calls = Path.replace, []

    def fail_late(path, target):
        calls.append(target)
        if len(calls) > allowed:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_late)
    with pytest.raises(KeyboardInterrupt):
        _add_recipe(root, "double", directory)
    assert len(calls) == allowed + 1
    assert read_tree(tmp_path) == before


def adds_all_or_nothing(root, taken, add):
    """Property: either every file is there and the others untouched, or nothing changed."""
    with tempfile.TemporaryDirectory() as name:
        directory = write_tree(Path(name), dict.fromkeys(taken, "mine"))
        before = read_tree(directory)
        try:
            add(root, "double", directory)
        except InputError:
            assert read_tree(directory) == before
            assert set(taken) & set(COPIED)
        else:
            after = read_tree(directory)
            assert {path: after[path] for path in before} == before
            assert set(COPIED) <= set(after)


some_files = st.sets(st.sampled_from([*COPIED, "mine.txt", f"{COPY}/mine.txt"]), max_size=3)


@settings(max_examples=30, deadline=None)
@given(taken=some_files)
def test_adds_all_or_nothing(root, taken):
    adds_all_or_nothing(root, taken, _add_recipe)


def test_all_or_nothing_twin(root):
    """A copier that writes the first file before it looks at the rest is found out."""

    def hasty(root, name, directory):
        (directory / COPY).mkdir(exist_ok=True)
        return _add_recipe(root, name, directory)

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(taken=some_files)
    def check(taken):
        adds_all_or_nothing(root, taken, hasty)

    with pytest.raises(AssertionError):
        check()


# The copy stands alone


def test_copy_of_a_small_tree_runs_without_the_package(root, tmp_path, run_outside):
    _add_recipe(root, "double", tmp_path)
    script = run_outside("double.py", cwd=tmp_path)
    assert script.stdout == "42\n", script.stderr
    tests = run_outside("-m", "pytest", "-q", "--doctest-modules", ".", cwd=tmp_path)
    assert "2 passed" in tests.stdout, tests.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_runs_without_the_package(name, tmp_path, run_outside):
    add_recipe(name, tmp_path)
    script = run_outside(f"{name}.py", cwd=tmp_path)
    assert script.returncode == 0, script.stderr
    assert script.stdout
    tests = run_outside("-m", "pytest", "-q", f"test_{name}.py", cwd=tmp_path)
    assert tests.returncode == 0, tests.stdout
    flags = "doctest_optionflags=ELLIPSIS NORMALIZE_WHITESPACE"
    options = ("-q", "--doctest-modules", "-o", flags, COPY)
    examples = run_outside("-m", "pytest", *options, cwd=tmp_path)
    assert examples.returncode == 0, examples.stdout


# What ships


@pytest.mark.parametrize("recipe", list_recipes(), ids=RECIPES)
def test_recipe_is_described(recipe):
    for text in (recipe.title, recipe.page, recipe.summary):
        assert isinstance(text, str)
        assert text.strip()
    assert not recipe.title.endswith(".")
    assert len(recipe.title) <= 72


def test_licence_of_the_copy_is_that_of_the_code():
    """The repository's licence may say more (on prose), but it holds the code's licence."""
    code = (ROOT / "LICENSE").read_text(encoding="utf-8").split()
    repository = (ROOT.parent / "LICENSE").read_text(encoding="utf-8").split()
    assert " ".join(code) in " ".join(repository)
