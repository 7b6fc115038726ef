"""The rules of the house, read from the source: who imports whom, sizes, documentation.

Each rule is a function from a module's name and source to the faults it finds. Every rule
has a twin that plants a fault and sees it found.
"""

import ast
import sys
from pathlib import Path

import pytest

import bigmodel_utils

ROOT = Path(bigmodel_utils.__file__).parent

# Which parts of the package a part may import. Top parts may import any and are imported by
# none but each other.
ARROWS = {
    "_checks": set(),
    "_report": set(),
    "hardware": {"_checks"},
    "benchmark": {"_checks"},
    "costs": {"_checks", "_report", "hardware", "benchmark"},
    "evaluation": {"_checks", "benchmark"},
    "data": {"_checks"},
    "reliability": {"_checks", "_report", "data", "benchmark"},
    "models": {"_checks", "hardware", "costs"},
    "generation": {"_checks", "hardware", "costs", "models"},
    "training": {"_checks", "hardware", "data", "models", "benchmark"},
    "compression": {
        *("_checks", "_report", "hardware", "costs", "benchmark"),
        *("models", "generation", "training"),
    },
    "explanation": {"_checks", "_report", "benchmark"},
    "artifacts": {"_checks", "data", "models", "training", "compression"},
    "standards": {"_checks", "_report"},
}
TOP = {"__main__", "audit", "book", "cli", "doctor", "recipes"}
# What else than the standard library a part may load when it is imported.
AT_IMPORT = {part: {"numpy", "keras"} for part in ("models", "training", "compression")}
AT_IMPORT |= {part: set() for part in ("standards", "__main__", "recipes", "__init__")}
AT_IMPORT["cli"] = {"typer"}

MAX_LINES = 400
MAX_BODY_LINES = 60
MAX_PARAMETERS = 6
MAX_POSITIONAL = 2
# Methods that Keras calls with a signature of its own.
KERAS_HOOKS = {"compute_loss"}


def get_part(name):
    """`compression` of `compression._pruning`: the box that the arrows join."""
    return name.split(".")[0]


def list_siblings(name, source, *, is_package=False):
    """Parts of the package that a module imports, at any depth."""
    siblings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = ["bigmodel_utils", *name.split(".")] if node.level else []
            parts = parts[: len(parts) - node.level + is_package]
            module = ".".join([*parts, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        siblings |= {n.split(".")[1] for n in names if n.startswith("bigmodel_utils.")}
    return siblings - {get_part(name), "__version__"}


def find_wrong_arrows(name, source, *, is_package=False):
    part = get_part(name)
    siblings = list_siblings(name, source, is_package=is_package)
    if part in TOP:
        return []
    if part == "__init__":
        return [f"__init__ imports {sibling}" for sibling in siblings]
    if part not in ARROWS:
        return [f"{part} has no place among the arrows"]
    return [f"{part} imports {sibling}" for sibling in sorted(siblings - ARROWS[part])]


def find_imports_at_load(tree):
    """Import statements that run when the module is imported, also inside `if` and `try`."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def find_heavy_imports(name, source):
    allowed = AT_IMPORT.get(get_part(name), {"numpy"}) | {"bigmodel_utils"}
    faults = []
    for node in find_imports_at_load(ast.parse(source)):
        if isinstance(node, ast.Import):
            libraries = {alias.name.split(".")[0] for alias in node.names}
        else:
            libraries = {(node.module or "").split(".")[0]} if node.level == 0 else set()
        faults += [
            f"{name} loads {library}"
            for library in sorted(libraries - allowed - sys.stdlib_module_names)
        ]
    return faults


def find_long_parts(name, source):
    faults = []
    if len(source.splitlines()) > MAX_LINES:
        faults.append(f"{name} is longer than {MAX_LINES} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and node.end_lineno - body[0].lineno + 1 > MAX_BODY_LINES:
                faults.append(f"{name}.{node.name} is longer than {MAX_BODY_LINES} lines")
    return faults


def list_public(tree, prefix=""):
    """Public functions, classes and the public methods of these."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from list_public(node, f"{node.name}.")


def find_undocumented(name, source):
    tree = ast.parse(source)
    faults = [] if ast.get_docstring(tree) else [f"{name} has no docstring"]
    faults += [
        f"{name}.{path} has no docstring"
        for path, node in list_public(tree)
        if not ast.get_docstring(node)
    ]
    return faults


def find_crowded_signatures(name, source):
    faults = []
    for path, node in list_public(ast.parse(source)):
        if isinstance(node, ast.ClassDef) or path.split(".")[-1] in KERAS_HOOKS:
            continue
        arguments = node.args
        positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        positional = [a for a in positional if a not in ("self", "cls")]
        if len(positional) > MAX_POSITIONAL:
            faults.append(f"{name}.{path} takes {len(positional)} positional arguments")
        if len(positional) + len(arguments.kwonlyargs) > MAX_PARAMETERS:
            faults.append(f"{name}.{path} takes too many arguments")
    return faults


def list_modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__" and len(parts) > 1
        name = ".".join(parts[:-1] if is_package else parts)
        yield pytest.param(name, path.read_text(encoding="utf-8"), is_package, id=name)


every_module = pytest.mark.parametrize(("name", "source", "is_package"), list(list_modules()))


def test_modules_are_found():
    names = {module.id for module in list_modules()}
    assert {"__init__", "_checks", "cli", "standards", "standards._clauses"} <= names


@every_module
def test_arrows(name, source, is_package):
    assert find_wrong_arrows(name, source, is_package=is_package) == []


@every_module
def test_imports_at_load(name, source, is_package):
    if not name.endswith(("script", "test_script")):  # a recipe is a program, not the library
        assert find_heavy_imports(name, source) == []


@every_module
def test_lengths(name, source, is_package):
    assert find_long_parts(name, source) == []


@every_module
def test_documentation(name, source, is_package):
    if not name.endswith(".test_script"):
        assert find_undocumented(name, source) == []


@every_module
def test_signatures(name, source, is_package):
    if name != "_checks":  # internal, and called on every line of a function's beginning
        assert find_crowded_signatures(name, source) == []


# Twins: the same rules on sources with a planted fault.


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("_checks", "from .hardware import x", "_checks imports hardware"),
        ("data", "from . import training", "data imports training"),
        ("data", "def f():\n    from .training import train", "data imports training"),
        ("data", "import bigmodel_utils.training as t", "data imports training"),
        ("data", "from bigmodel_utils import training", "data imports training"),
        ("data", "from bigmodel_utils.training import train", "data imports training"),
        ("training", "from .cli import main", "training imports cli"),
        ("training", "from . import recipes, book", "training imports book"),
        ("models", "from .recipes import add_recipe", "models imports recipes"),
        ("standards._clauses", "from ..hardware import x", "standards imports hardware"),
        ("standards._clauses", "from .. import data", "standards imports data"),
        ("benchmark", "from .standards import load_clauses", "benchmark imports standards"),
        ("__init__", "from . import data", "__init__ imports data"),
        ("brand_new", "", "brand_new has no place among the arrows"),
    ],
)
def test_wrong_arrow_is_found(name, source, fault):
    assert fault in find_wrong_arrows(name, source)


def test_wrong_arrow_of_a_package_is_found():
    faults = find_wrong_arrows("standards", "from ..data import x", is_package=True)
    assert faults == ["standards imports data"]
    assert find_wrong_arrows("standards", "from ._clauses import x", is_package=True) == []


def test_no_arrow_leads_to_the_top_or_around():
    assert not any(allowed & TOP for allowed in ARROWS.values())
    assert not any("standards" in allowed for allowed in ARROWS.values())
    reached = {}
    for part, allowed in ARROWS.items():  # listed so that every arrow points up
        assert allowed <= reached.keys(), part
        reached[part] = allowed


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("data", "import sklearn.datasets", "data loads sklearn"),
        ("data", "import keras", "data loads keras"),
        ("models", "import tensorflow as tf", "models loads tensorflow"),
        ("hardware", "try:\n    import pynvml\nexcept ImportError: pass", "hardware loads pynvml"),
        ("hardware", "if True:\n    from rich import print", "hardware loads rich"),
        ("data", "class Lazy:\n    import pandas", "data loads pandas"),
        ("standards._clauses", "import numpy as np", "standards._clauses loads numpy"),
        ("cli", "from rich.console import Console", "cli loads rich"),
    ],
)
def test_heavy_import_is_found(name, source, fault):
    assert find_heavy_imports(name, source) == [fault]


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import sklearn",
        "if TYPE_CHECKING:\n    import keras",
        "import numpy as np, json",
        "from ._checks import InputError",
    ],
)
def test_light_import_is_allowed(source):
    assert find_heavy_imports("data", source) == []


def test_long_module_is_found():
    assert find_long_parts("data", "x = 1\n" * MAX_LINES) == []
    assert find_long_parts("data", "x = 1\n" * (MAX_LINES + 1))


def test_long_body_is_found():
    docstring = '    """Long\n' + "\n" * 99 + '    """\n'
    body = "    x = 1\n" * MAX_BODY_LINES
    assert find_long_parts("data", f"def f():\n{docstring}{body}") == []
    faults = find_long_parts("data", f"def f():\n{docstring}{body}    x = 1\n")
    assert faults == [f"data.f is longer than {MAX_BODY_LINES} lines"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("x = 1", "data has no docstring"),
        ('"""Data."""\ndef load(): pass', "data.load has no docstring"),
        ('"""Data."""\nasync def load(): pass', "data.load has no docstring"),
        ('"""Data."""\nclass Table: pass', "data.Table has no docstring"),
        (
            '"""Data."""\nclass Table:\n    """T."""\n    def rows(self): pass',
            "data.Table.rows has no docstring",
        ),
    ],
)
def test_missing_documentation_is_found(source, fault):
    assert find_undocumented("data", source) == [fault]


def test_private_parts_need_no_documentation():
    source = '"""Data."""\ndef _f(): pass\nclass _C:\n    def g(self): pass'
    assert find_undocumented("data", source) == []


@pytest.mark.parametrize(
    ("signature", "fault"),
    [
        ("a, b, c", "data.f takes 3 positional arguments"),
        ("a, b, *, c, d, e, g, h", "data.f takes too many arguments"),
    ],
)
def test_crowded_signature_is_found(signature, fault):
    assert find_crowded_signatures("data", f"def f({signature}): pass") == [fault]


def test_good_signature_is_allowed():
    source = "def f(a, b, *, c, d, e, g): pass\nclass T:\n    def m(self, a, b): pass"
    assert find_crowded_signatures("data", source) == []
