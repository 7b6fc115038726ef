"""The standard library as a corpus: against the modules themselves, and on planted trees."""

import importlib
import inspect
import json
import sysconfig
import warnings
from pathlib import Path

import pytest

from bigmodel_utils._checks import InputError
from bigmodel_utils.data import (
    Corpus,
    DataUnavailableError,
    Document,
    _corpus,
    load_standard_library,
    split_by_hash,
)

ROOT = Path(sysconfig.get_path("stdlib"))


@pytest.fixture(scope="module")
def source():
    return load_standard_library("source")


@pytest.fixture(scope="module")
def docstrings():
    return load_standard_library("docstrings")


def plant(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def test_source_is_the_file(source):
    texts = {document.path: document.text for document in source.documents}
    for name in ("argparse.py", "json/decoder.py", "encodings/cp1252.py"):
        assert texts[name] == (ROOT / name).read_text(encoding="utf-8")
    assert 5e6 < source.num_bytes < 50e6


def test_docstrings_are_what_inspect_reads(docstrings):
    """An independent reader: import the module and ask `inspect`."""
    texts = {document.path: document.text for document in docstrings.documents}
    for path in (
        "textwrap.py",
        "textwrap.py::dedent",
        "json/decoder.py::JSONDecoder",
        "json/decoder.py::JSONDecoder.decode",
        "argparse.py::ArgumentParser",
    ):
        file, _, qualified_name = path.partition("::")
        found = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        for name in filter(None, qualified_name.split(".")):
            found = getattr(found, name)
        assert texts[path] == inspect.getdoc(found)
    assert len(docstrings) > 5000


@pytest.mark.parametrize("kind", ["source", "docstrings"])
def test_corpus_is_in_order_without_blanks_or_repeated_paths(kind, request):
    corpus = request.getfixturevalue(kind)
    paths = [document.path for document in corpus.documents]
    assert len(set(paths)) == len(paths)
    assert all(document.text.strip() for document in corpus.documents)
    files = list(dict.fromkeys(path.split("::")[0] for path in paths))
    assert files == sorted(files, key=lambda path: path.split("/"))
    for part in ("test/", "tests/", "idlelib", "site-packages", "_sysconfigdata", "lib2to3"):
        assert not any(path.startswith(part) or f"/{part}" in path for path in paths)
    assert {"json", "argparse", "encodings", "asyncio"} <= {d.family for d in corpus.documents}


def test_report_names_licence_and_holds_no_text_or_local_path(source):
    report = source.to_dict()
    assert report["licence"].startswith("PSF License Agreement (")
    assert report["num_documents"] == len(source) == len(source.keys)
    assert str(ROOT) not in json.dumps(report)
    assert len(json.dumps(report)) < 2000


def test_same_library_gives_the_same_corpus(source):
    assert load_standard_library().sha256 == source.sha256


def test_hash_covers_paths_texts_and_order():
    def hash_of(*documents):
        return Corpus("source", documents, (), "3", "none").sha256

    one, other = Document("a.py", "a = 1"), Document("b.py", "b = 1")
    variants = [
        hash_of(one, other),
        hash_of(other, one),
        hash_of(one),
        hash_of(one, Document("c.py", "b = 1")),
        hash_of(one, Document("b.py", "b = 2")),
    ]
    assert len(set(variants)) == len(variants)


def test_unreadable_files_are_counted_by_name(tmp_path):
    root = plant(
        tmp_path,
        {
            "good.py": '"""Good."""\n',
            "latin.py": '# -*- coding: latin-1 -*-\n"""Café."""\n'.encode("latin-1"),
            "bytes.py": b'"""Caf\xe9, undeclared."""\n',
            "cookie.py": "# -*- coding: unheard-of -*-\n",
            "syntax.py": '"""Unfinished.""" (\n',
            "null.py": b'"""Null."""\0\n',
            "blank.py": " \n",
        },
    )
    documents, skipped = _corpus._read_library(root, "source")
    assert skipped == ("bytes.py", "cookie.py")
    assert [document.path for document in documents] == [
        "good.py",
        "latin.py",
        "null.py",
        "syntax.py",
    ]
    documents, skipped = _corpus._read_library(root, "docstrings")
    assert skipped == ("bytes.py", "cookie.py", "null.py", "syntax.py")
    assert [document.text for document in documents] == ["Good.", "Café."]


def test_what_is_not_the_library_is_left_out(tmp_path):
    unwanted = (
        "site-packages/a.py",
        "pkg/test/a.py",
        "pkg/__pycache__/a.py",
        "ensurepip/_bundled/a.py",
        "config-3-x/python-config.py",
        "_sysconfigdata__x.py",
        "readme.txt",
    )
    root = plant(tmp_path, dict.fromkeys((*unwanted, "pkg/kept.py", "test.py"), "x = 1\n"))
    documents, _ = _corpus._read_library(root, "source")
    assert [document.path for document in documents] == ["pkg/kept.py", "test.py"]


def test_docstrings_of_every_scope_with_distinct_paths(tmp_path):
    text = (
        'class A:\n    """A."""\n'
        '    @property\n    def value(self):\n        """Get."""\n'
        '    @value.setter\n    def value(self, new):\n        """Set."""\n'
        "if True:\n    async def run():\n"
        '        """Run.\n\n        Example::\n\n            Indented.\n        """\n'
        '        def inner():\n            """Inner."""\n'
        "def silent():\n    return 1\n"
    )
    documents, _ = _corpus._read_library(plant(tmp_path, {"m.py": text}), "docstrings")
    assert [(document.path, document.text) for document in documents] == [
        ("m.py::A", "A."),
        ("m.py::A.value", "Get."),
        ("m.py::A.value#2", "Set."),
        ("m.py::run", "Run.\n\nExample::\n\n    Indented."),
        ("m.py::run.inner", "Inner."),
    ]


def test_result_does_not_depend_on_warning_filters(tmp_path):
    root = plant(tmp_path, {"odd.py": '"""Odd."""\npattern = "\\d"\n'})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        documents, skipped = _corpus._read_library(root, "docstrings")
    assert (len(documents), skipped) == (1, ())


def test_keys_put_equal_texts_on_one_side(source):
    sides = split_by_hash(source.keys, {"train": 0.9, "test": 0.1})
    train, test = ({source.keys[i] for i in sides[name]} for name in ("train", "test"))
    assert not train & test
    assert len(train | test) < len(source)  # the library does hold exact duplicates


def test_library_without_source_and_unknown_kind(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="`kind` must be one of 'source', 'docstrings'"):
        load_standard_library("comments")
    monkeypatch.setattr(_corpus.sysconfig, "get_path", lambda _: str(tmp_path / "none"))
    with pytest.raises(DataUnavailableError, match="the standard library"):
        load_standard_library()
