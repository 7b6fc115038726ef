"""What a copied recipe lacks and what its reader changed, against trees made for it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils._checks import InputError
from bigmodel_utils.recipes import add_recipe, describe_recipe, find_recipe_changes, list_recipes
from bigmodel_utils.recipes._add import COPY, _add_recipe, collect_files
from bigmodel_utils.recipes._changes import _find_recipe_changes
from bigmodel_utils.recipes._show import _describe_recipe

TREE = {
    "LICENSE": "Do as you like.\n",
    "__init__.py": "",
    "first.py": "from .second import two\n\nONE = 1\n",
    "second.py": "two = 2\n",
    "third.py": "three = 3\n",
    "recipes/count/recipe.toml": 'title = "Count"\npage = "p"\nsummary = "Counts."\n',
    "recipes/count/script.py": "from bigmodel_utils import first\n\nprint(first.ONE)\n",
    "recipes/count/test_script.py": "from bigmodel_utils.recipes.count import script\n",
}
PATHS = ["count.py", "test_count.py", f"{COPY}/first.py", f"{COPY}/second.py"]


def write_tree(directory, files):
    for path, text in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text, encoding="utf-8")
    return directory


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "source" / "bigmodel_utils", TREE)


@pytest.fixture
def copy(root, tmp_path):
    _add_recipe(root, "count", tmp_path / "copy")
    return tmp_path / "copy"


def find(root, copy):
    return _find_recipe_changes(root, "count", copy)


def test_fresh_copy_is_up_to_date(root, copy):
    changes = find(root, copy)
    assert changes.is_up_to_date
    assert (changes.upstream, changes.own, changes.difference) == ({}, {}, "")
    assert "up to date: nothing to take over" in str(changes)
    assert json.loads(json.dumps(changes.to_dict()))["directory"] == str(copy)


def test_fix_upstream(root, copy):
    write_tree(root, {"second.py": "two = 2.0\n"})
    changes = find(root, copy)
    assert changes.upstream == {f"{COPY}/second.py": "changed"}
    assert changes.own == {}
    assert not changes.is_up_to_date
    assert changes.difference == (
        f"--- yours/{COPY}/second.py\n+++ upstream/{COPY}/second.py\n"
        "@@ -1 +1 @@\n-two = 2\n+two = 2.0\n"
    )
    assert "up to date" not in str(changes)


def test_change_by_the_reader(root, copy):
    (copy / "count.py").write_text("print('mine')\n")
    changes = find(root, copy)
    assert changes.is_up_to_date
    assert changes.own == {"count.py": "changed"}
    assert "-print('mine')\n" in changes.difference
    assert "changed by you" in str(changes)
    assert "up to date" in str(changes)


def test_change_by_both(root, copy):
    write_tree(root, {"second.py": "two = 2.0\n"})
    (copy / COPY / "second.py").write_text("two = 3\n")
    changes = find(root, copy)
    assert changes.upstream == changes.own == {f"{COPY}/second.py": "changed"}
    assert "-two = 3\n+two = 2.0\n" in changes.difference


def test_fix_that_was_taken_over(root, copy):
    write_tree(root, {"second.py": "two = 2.0\n"})
    (copy / COPY / "second.py").write_text("two = 2.0\n")
    changes = find(root, copy)
    assert (changes.upstream, changes.own) == ({}, {})


def test_new_module_upstream(root, copy):
    write_tree(root, {"second.py": "from .third import three\ntwo = three - 1\n"})
    changes = find(root, copy)
    assert changes.upstream == {f"{COPY}/second.py": "changed", f"{COPY}/third.py": "new"}
    assert f"--- /dev/null\n+++ upstream/{COPY}/third.py\n" in changes.difference


def test_module_that_is_no_longer_used(root, copy):
    write_tree(root, {"first.py": "ONE = 1\n"})
    assert find(root, copy).upstream == {
        f"{COPY}/first.py": "changed",
        f"{COPY}/second.py": "no longer used",
    }


def test_file_that_the_reader_deleted(root, copy):
    (copy / "test_count.py").unlink()
    changes = find(root, copy)
    assert changes.own == {"test_count.py": "deleted"}
    assert changes.is_up_to_date


def test_ends_of_lines_do_not_count(root, copy):
    for path in PATHS:
        (copy / path).write_bytes((copy / path).read_bytes().replace(b"\n", b"\r\n"))
    changes = find(root, copy)
    assert (changes.upstream, changes.own, changes.difference) == ({}, {}, "")


def test_odd_bytes_are_shown(root, copy):
    (copy / "count.py").write_bytes(b"\xff = 1")
    difference = find(root, copy).difference
    assert "-\ufffd = 1\n\\ No newline at end of file\n" in difference


def test_another_file_of_the_reader_is_none_of_it(root, copy):
    (copy / "mine.py").write_text("x = 1\n")
    assert find(root, copy).own == {}


@pytest.mark.skipif(shutil.which("patch") is None, reason="the program patch is not installed")
def test_difference_takes_everything_over(root, copy):
    write_tree(
        root,
        {"second.py": "from .third import three\ntwo = 2.0\n", "first.py": TREE["first.py"] + "#"},
    )
    (copy / "count.py").write_text("no newline")
    changes = find(root, copy)
    subprocess.run(
        ["patch", "-p1"], cwd=copy, check=True, input=changes.difference.encode(), stdout=-3
    )
    assert find(root, copy).difference == ""
    for path, content in collect_files(root, "count")[1].items():
        assert (copy / path).read_bytes() == content


# Bad input


def test_unknown_recipe(root, copy):
    with pytest.raises(InputError, match="`name` must be a recipe"):
        _find_recipe_changes(root, "nosuch", copy)


def test_directory_without_a_stamp(root, tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"must hold count\.provenance\.json, which"):
            _find_recipe_changes(root, "count", directory)


DAMAGES = {
    "no JSON": lambda stamp: "{",
    "a list": lambda stamp: [stamp],
    "deep": lambda stamp: "[" * 100_000,
    "no files": lambda stamp: {k: v for k, v in stamp.items() if k != "files"},
    "no version": lambda stamp: stamp | {"version": None},
    "another recipe": lambda stamp: stamp | {"recipe": {"name": "other"}},
    "no recipe": lambda stamp: stamp | {"recipe": []},
    "files of another kind": lambda stamp: stamp | {"files": [1]},
    "no hash": lambda stamp: stamp | {"files": [{"path": "a", "sha256": None}]},
    "outside": lambda stamp: stamp | {"files": [{"path": "../a", "sha256": ""}]},
    "absolute": lambda stamp: stamp | {"files": [{"path": "/etc/passwd", "sha256": ""}]},
    "no path": lambda stamp: stamp | {"files": [{"path": "", "sha256": ""}]},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_stamp(damage, root, copy):
    path = copy / "count.provenance.json"
    damaged = DAMAGES[damage](json.loads(path.read_text(encoding="utf-8")))
    path.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    with pytest.raises(InputError, match=r"as `add_recipe` wrote it"):
        find(root, copy)


def test_stamp_that_is_no_text(root, copy):
    (copy / "count.provenance.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="damaged"):
        find(root, copy)


# Property: of each file, three texts are compared.

some_text = st.sampled_from([None, "a = 1\n", "a = 2\n", "b = 3"])
some_texts = st.fixed_dictionaries(dict.fromkeys(PATHS, some_text))


def tells_who_changed_what(root, copy, search, upstream, own):
    """Property: against a comparison of the texts themselves, not of hashes."""
    copied = {path: (copy / path).read_text() for path in PATHS}
    source = {
        "count.py": "recipes/count/script.py",
        "test_count.py": "recipes/count/test_script.py",
        **{f"{COPY}/{name}.py": f"{name}.py" for name in ("first", "second")},
    }
    try:
        for path, text in upstream.items():
            if text is not None:
                imports = TREE[source[path]] if path != f"{COPY}/second.py" else ""
                (root / source[path]).write_text(imports + text)
        for path, text in own.items():
            if text is not None:
                (copy / path).write_text(copied[path] + text)
        today = {path: text.decode() for path, text in collect_files(root, "count")[1].items()}
        changes = search(root, copy)
        for path in PATHS:
            mine = (copy / path).read_text()
            is_moved = today[path] not in (copied[path], mine)
            is_mine = mine not in (copied[path], today[path])
            assert (path in changes.upstream) == is_moved, path
            assert (path in changes.own) == is_mine, path
            assert (f"+++ upstream/{path}\n" in changes.difference) == (mine != today[path]), path
    finally:
        write_tree(root, TREE)
        for path, text in copied.items():
            (copy / path).write_text(text)


def test_tells_who_changed_what(root, copy):
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(some_texts, some_texts)
    def check(upstream, own):
        tells_who_changed_what(root, copy, find, upstream, own)

    check()


def test_twin_who_forgets_what_was_copied_is_found_out(root, copy):
    """Without the hashes of the stamp, nobody knows which side moved."""

    def forgetful(root, copy):
        untouched = copy.parent / "untouched"
        shutil.rmtree(untouched, ignore_errors=True)
        shutil.copytree(copy, untouched)
        stored = json.loads((copy / "count.provenance.json").read_text())
        for entry in stored["files"]:
            entry["sha256"] = "0" * 64
        (untouched / "count.provenance.json").write_text(json.dumps(stored))
        return find(root, untouched)

    @settings(max_examples=60, deadline=None, derandomize=True, report_multiple_bugs=False)
    @given(some_texts, some_texts)
    def check(upstream, own):
        tells_who_changed_what(root, copy, forgetful, upstream, own)

    with pytest.raises(AssertionError):
        check()


# Showing


def test_description(root, tmp_path):
    description = _describe_recipe(root, "count")
    added = _add_recipe(root, "count", tmp_path / "copy")
    assert description.files == added.files
    assert description.requirements == added.requirements
    assert description.optional_requirements == added.optional_requirements
    assert description.script == (tmp_path / "copy" / "count.py").read_text(encoding="utf-8")
    assert description.recipe.title == "Count"
    assert "summary" in str(description)
    assert json.loads(json.dumps(description.to_dict()))["recipe"]["name"] == "count"
    assert "<table>" in description._repr_html_()


def test_description_of_an_unknown_recipe(root):
    with pytest.raises(InputError, match="choose from count"):
        _describe_recipe(root, "nosuch")


@pytest.mark.parametrize("name", [recipe.name for recipe in list_recipes()])
def test_every_recipe_is_described_and_up_to_date(name, tmp_path):
    description = describe_recipe(name)
    assert f"{name}.py" in description.files
    compile(description.script, name, "exec")
    add_recipe(name, tmp_path)
    assert find_recipe_changes(name, Path(tmp_path)).is_up_to_date
