"""Loading an untrusted model: what is refused, and that nothing of it ran."""

import io
import json
import stat
import sys
import tempfile
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils import models
from bigmodel_utils._checks import InputError
from bigmodel_utils.models import _loading, load_model_safely

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
RISKY = {"marshal.loads", "pickle.find_class", "os.system", "subprocess.Popen", "socket.connect"}
WATCH = {"on": False, "seen": []}


def _hear(event, arguments):
    if not WATCH["on"] or event not in RISKY:
        return
    # An import of Python's own reads bytecode too.
    if not sys._getframe(1).f_code.co_filename.startswith("<frozen importlib"):
        WATCH["seen"].append(event)


sys.addaudithook(_hear)  # stays for the life of the process; silent unless watched


@contextmanager
def watched():
    """Yields the list of risky events that Python reports while the block runs."""
    WATCH.update(on=True, seen=[])
    try:
        yield WATCH["seen"]
    finally:
        WATCH["on"] = False


@keras.saving.register_keras_serializable(package="test_loading")
class Doubler(keras.layers.Layer):
    def call(self, x):
        return 2 * x


@keras.saving.register_keras_serializable(package="test_loading")
def halve(x):
    return x / 2


def build_small(*layers):
    return keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(2)])


def pack(parts, method=zipfile.ZIP_STORED):
    """An archive of `(name or ZipInfo, content)` pairs, as bytes."""
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name that is there twice
        for name, content in parts:
            archive.writestr(name, content)
    return packed.getvalue()


def save(model, path):
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The entries of a good archive."""
    return save(build_small(), tmp_path_factory.mktemp("good") / "model.keras")


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / "model.keras"
        path.write_bytes(content)
        return path

    return write_file


def refuses(path, message, **options):
    with watched() as events, pytest.raises(InputError, match=message) as raised:
        load_model_safely(path, **options)
    assert raised.value.name in ("path", "custom_objects")
    assert events == []


# What is loaded

SETTINGS = models.LanguageModelSettings(
    vocabulary_size=16,
    num_layers=1,
    width=8,
    num_heads=2,
    feedforward_width=12,
    context_length=5,
    activation="gelu",
)


def compile_small():
    model = build_small(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
    model.compile("adam", keras.losses.MeanSquaredError(), metrics=["mae"])
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    return model


def build_branches():
    inputs = keras.Input((3,))
    left = keras.layers.Dense(4, activation="relu", kernel_regularizer="l2")(inputs)
    return keras.Model(inputs, keras.ops.concatenate([left, inputs * 2.0], axis=-1))


GOOD = {
    "article": (models.build_image_classifier, (), np.ones((2, 28, 28, 1), "float32")),
    "recurrent": (
        lambda: models.build_lstm_classifier(9, num_classes=2),
        (models.ForgetBias,),
        np.ones((2, 4), "int32"),
    ),
    "language": (
        lambda: models.build_language_model(SETTINGS),
        (models.RotaryAttention, models.approximate_gelu),
        np.ones((2, 5), "int32"),
    ),
    "custom": (lambda: build_small(Doubler()), (Doubler,), np.ones((2, 3), "float32")),
    "compiled": (compile_small, (), np.ones((2, 3), "float32")),
    "nested": (lambda: build_small(build_small()), (), np.ones((2, 3), "float32")),
    "branches": (build_branches, (), np.ones((2, 3), "float32")),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_models_are_loaded(name, tmp_path):
    build, custom_objects, x = GOOD[name]
    model = build()
    model.save(tmp_path / "model.keras")
    with watched() as events:
        loaded = load_model_safely(tmp_path / "model.keras", custom_objects=custom_objects)
    assert events == []
    assert not loaded.compiled
    np.testing.assert_array_equal(
        np.asarray(loaded(x, training=False)), np.asarray(model(x, training=False))
    )


def test_quantized_model_is_loaded(tmp_path):
    model = build_small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the input has nothing to quantize
        model.quantize("int8")
    model.save(tmp_path / "model.keras")
    x = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)
    loaded = load_model_safely(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(loaded(x)), np.asarray(model(x)), atol=1e-6)


def test_assets_are_loaded(tmp_path):
    pytest.importorskip("tensorflow")
    lookup = keras.layers.StringLookup(vocabulary=["model", "large"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    model.save(tmp_path / "model.keras")
    loaded = load_model_safely(tmp_path / "model.keras")
    assert loaded.layers[-1].get_vocabulary() == lookup.get_vocabulary()


def test_nothing_stays_on_disk(write, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "made"))
    (tmp_path / "made").mkdir()
    load_model_safely(write(pack(parts.items())))
    refuses(write(pack(parts.items())[:-30]), "must hold a model")
    assert list((tmp_path / "made").iterdir()) == []


# Code


@pytest.fixture
def planted(tmp_path):
    """An archive whose lambda leaves a mark when it runs, and the mark."""
    mark = tmp_path / "mark"
    run = eval(f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]")
    path = tmp_path / "planted.keras"
    build_small(keras.layers.Lambda(run, output_shape=(3,))).save(path)
    mark.unlink(missing_ok=True)
    return path, mark


def test_planted_lambda_does_not_run(planted):
    path, mark = planted
    refuses(path, "must hold no code. Received: Lambda, which stores a function")
    assert not mark.exists()


def test_planted_lambda_does_not_run_where_the_process_allows_it(planted, monkeypatch):
    path, mark = planted
    keras.config.enable_unsafe_deserialization()
    try:
        refuses(path, "must hold no code")
        monkeypatch.setattr(_loading, "_CODE", {})  # Keras' own guard is still on
        refuses(path, "lambda")
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)
    assert not mark.exists()


def test_twin_unsafe_loading_runs_the_planted_lambda(planted):
    path, mark = planted
    with watched() as events:
        model = keras.saving.load_model(path, safe_mode=False)
        model(np.ones((1, 3), "float32"))
    assert mark.exists()
    assert "marshal.loads" in events


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((f"model{suffix}", "may be a pickle") for suffix in (".pkl", ".pickle", ".pt", ".npz")),
        *((f"model{suffix}", "may hold lambdas") for suffix in (".h5", ".hdf5", ".pb")),
        *((name, "must end in .keras") for name in ("model", "model.zip", "model.keras.exe")),
    ],
)
def test_other_kinds_are_refused_by_name(name, message, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(Path, "open", None)
    refuses(tmp_path / name, message)


def test_what_is_no_file_is_refused(tmp_path):
    refuses(tmp_path / "missing.keras", "must be a file")
    (tmp_path / "folder.keras").mkdir()
    refuses(tmp_path / "folder.keras", "must be a file")
    (tmp_path / "folder").mkdir()
    refuses(tmp_path / "folder", "must end in .keras")


# The configuration


def edit(parts, change):
    """The good archive with another configuration."""
    config = json.loads(parts[CONFIG])
    config = change(config) or config
    return pack((parts | {CONFIG: json.dumps(config)}).items())


def change_last(**fields):
    return lambda config: config["config"]["layers"][-1].update(fields)


def set_last(**fields):
    return lambda config: config["config"]["layers"][-1]["config"].update(fields)


def call(name, module, **more):
    return {"class_name": "function", "config": name, "module": module, **more}


REFUSED_CONFIGS = {
    "lambda": (change_last(class_name="Lambda"), "must hold no code"),
    "lambda in parts": (change_last(module="keras", class_name="layers.Lambda"), "must name"),
    "graph": (change_last(class_name="TFSMLayer"), "must hold no code. Received: TFSMLayer"),
    "bytecode": (set_last(activation={"class_name": "__lambda__", "config": {}}), "no code"),
    "type": (set_last(activation={"class_name": "__typespec__", "config": []}), "must name"),
    "system": (set_last(activation=call("system", "os")), "must name classes"),
    "download": (set_last(activation=call("get_file", "keras.utils")), "must name classes"),
    "settings": (
        set_last(activation=call("enable_unsafe_deserialization", "keras.config")),
        "must name",
    ),
    "not loaded": (change_last(module="keras.src.layers.core.dense_test"), "must name classes"),
    "other package": (change_last(module="keras_hub.layers"), "must name classes"),
    "no module": (lambda config: config["config"]["layers"][-1].pop("module") and None, "must"),
    "odd name": (change_last(class_name=["Dense"]), "must hold a model that Keras can build"),
    "unknown": (change_last(class_name="Denser"), "must hold a model that Keras can build"),
    "registered": (change_last(registered_name="test_loading>Doubler"), "must name classes"),
    "registered word": (set_last(activation="test_loading>halve"), "must name classes"),
    "registered short": (set_last(activation=call("halve", "builtins")), "must name classes"),
    "long text": (
        set_last(units={"class_name": "__numpy__", "config": {"value": [""], "dtype": "S9999999"}}),
        "must hold arrays of numbers",
    ),
    "list": (lambda config: [config], "must describe a model"),
    "no class": (lambda config: {"module": "keras"}, "must describe a model"),
    "layer": (lambda config: config["config"]["layers"][-1], "must hold a model"),
    "too large": (set_last(units=10**11), r"at most 2147483648 bytes. Received: 16000\d+ bytes of"),
    "other shape": (set_last(units=4), "must hold a model that Keras can build"),
    "negative": (set_last(units=-1), "must hold a model that Keras can build"),
}


@pytest.mark.parametrize("name", REFUSED_CONFIGS)
def test_configuration_is_refused(name, write, parts):
    change, message = REFUSED_CONFIGS[name]
    refuses(write(edit(parts, change)), message)


def test_unlisted_class_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    build_small(Doubler()).save(path)
    refuses(path, "Received: 'test_loading>Doubler'")
    refuses(path, "must name classes", custom_objects=[halve])
    refuses(path, "must be named", custom_objects=[Doubler()])
    assert load_model_safely(path, custom_objects=[Doubler]).layers[0].__class__ is Doubler


def test_twin_keras_builds_what_is_registered(tmp_path):
    build_small(Doubler()).save(tmp_path / "model.keras")
    keras.saving.load_model(tmp_path / "model.keras")


def test_operation_without_tensors_is_refused(tmp_path, write):
    """It would be computed while the model is built, at any size."""

    def call_without_tensor(config):
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "Multiply":
                layer["inbound_nodes"][0]["args"] = [1.0, 2.0]

    parts = save(build_branches(), tmp_path / "branches.keras")
    changed = edit(parts, call_without_tensor)
    assert changed != pack(parts.items())
    refuses(write(changed), "must apply each layer to tensors")


def test_local_file_is_not_read_for_a_model(write, parts, tmp_path):
    pytest.importorskip("tensorflow")
    (tmp_path / "secret.txt").write_text("secret\n")
    lookup = keras.layers.StringLookup(vocabulary=["a"])
    config = keras.saving.serialize_keras_object(keras.Sequential([lookup]))
    config["config"]["layers"][-1]["config"]["vocabulary"] = str(tmp_path / "secret.txt")
    refuses(write(pack((parts | {CONFIG: json.dumps(config)}).items())), "must hold a model")


def test_size_is_found_before_anything_is_allocated(write, parts, monkeypatch):
    monkeypatch.setattr(_loading, "_load", None)
    refuses(write(edit(parts, set_last(units=10**9))), "bytes of variables")


def test_largest_size_is_exact(tmp_path):
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(500)])
    model.save(tmp_path / "model.keras")
    num_bytes = 4 * model.count_params()
    size = (tmp_path / "model.keras").stat().st_size
    load_model_safely(tmp_path / "model.keras", max_bytes=size)
    refuses(tmp_path / "model.keras", "must have at most", max_bytes=size - 1)
    assert size > num_bytes


# The archive


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


REFUSED_ENTRIES = {
    "parent": [("../config.json", b"")],
    "parent of assets": [("assets/../../x", b"")],
    "absolute": [("/etc/x", b"")],
    "backslash": [("assets/..\\..\\x", b"")],
    "drive": [("assets/c:x", b"")],
    "unknown": [("run.py", b"")],
    "link": [(link("assets/x"), b"/etc/passwd")],
    "twice": [(CONFIG, b"{}")],
    "many": [(f"assets/{i}", b"") for i in range(_loading._MAX_ENTRIES)],
    "very many": [(f"assets/{i:0200}", b"") for i in range(20_000)],
}


@pytest.fixture
def nothing_is_read(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("an entry was read")

    monkeypatch.setattr(zipfile.ZipFile, "open", fail)


@pytest.mark.parametrize("name", REFUSED_ENTRIES)
def test_entry_is_refused_before_anything_is_read(name, write, parts, tmp_path, request):
    content = pack([*parts.items(), *REFUSED_ENTRIES[name]])
    request.getfixturevalue("nothing_is_read")
    refuses(write(content), "must")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_missing_entry_is_refused(missing, write, parts, nothing_is_read):
    refuses(
        write(bytes_without(parts, missing)), f"must hold {missing}. Received: no such entry among"
    )


def bytes_without(parts, missing):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "x") as archive:
        for name, content in parts.items():
            if name != missing:
                # `writestr` would go through `open`, which these tests forbid.
                entry = zipfile.ZipInfo(name)
                with archive._open_to_write(entry) as stream:
                    stream.write(content)
    return packed.getvalue()


def test_bomb_is_refused_before_it_expands(write, parts, request):
    zeros = bytes(200 * 2**20)
    bomb = pack([*parts.items(), ("assets/zeros", zeros)], zipfile.ZIP_DEFLATED)
    assert len(bomb) < len(zeros) / 500
    request.getfixturevalue("nothing_is_read")
    refuses(write(bomb), "must expand at most 100 times")


def test_entries_that_are_large_together_are_refused(write, parts, request):
    content = np.random.default_rng(0).bytes(2**20) * 40
    large = pack([*parts.items(), ("assets/x", content)], zipfile.ZIP_STORED)
    load_model_safely(write(large))
    squeezed = pack([*parts.items(), ("assets/x", content[: 2**20])], zipfile.ZIP_DEFLATED)
    request.getfixturevalue("nothing_is_read")
    refuses(write(squeezed), "must expand to at most", max_bytes=len(squeezed))


def test_other_compression_is_refused(write, parts, request):
    content = pack(parts.items(), zipfile.ZIP_BZIP2)
    request.getfixturevalue("nothing_is_read")
    refuses(write(content), "must be stored or deflated")


def test_deflated_model_is_loaded(write, parts):
    assert load_model_safely(write(pack(parts.items(), zipfile.ZIP_DEFLATED))).count_params() == 8


def test_large_directory_ends_early(write, parts):
    """Half a gigabyte of entries' names must not become gigabytes of objects."""
    import tracemalloc

    path = write(pack([*parts.items(), *((f"assets/{i:0999}", b"") for i in range(30_000))]))
    tracemalloc.start()
    refuses(path, "must hold a model that Keras can build")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 60e6
    assert peak < 30e6


# The weights


def weigh(change, folder):
    path = folder / "weights.h5"
    with h5py.File(path, "w") as file:
        change(file)
    return path.read_bytes()


def make_virtual(file):
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (3,))
    file.create_virtual_dataset("data", layout)


REFUSED_WEIGHTS = {
    "link to another file": (
        lambda file: file.update({"a": h5py.ExternalLink("/etc/passwd", "/")}),
        "must hold no links",
    ),
    "link": (lambda file: file.update({"a": h5py.SoftLink("/b")}), "must hold no links"),
    "external": (
        lambda file: file.create_dataset(
            "a", (3,), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        ),
        "must hold its weights itself",
    ),
    "virtual": (make_virtual, "must hold its weights itself"),
    "text": (lambda file: file.create_dataset("a", data=["x"]), "must hold numbers"),
    "shape": (
        lambda file: file.create_dataset("a", (10**12,), "f4", chunks=(1000,), compression="gzip"),
        "bytes of weights",
    ),
    "itself": (lambda file: file.update({"a": file["/"]}), "must hold fewer arrays"),
    "empty": (lambda file: None, "must hold a model that Keras can build"),
}


@pytest.mark.parametrize("name", REFUSED_WEIGHTS)
def test_weights_are_refused(name, write, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(_loading, "_MAX_ENTRIES", 100)
    change, message = REFUSED_WEIGHTS[name]
    refuses(write(pack((parts | {WEIGHTS: weigh(change, tmp_path)}).items())), message)


# Fuzzing


class Content(bytes):
    """A file's bytes, which a report of hypothesis need not spell out."""

    def __repr__(self):
        return f"<{len(self)} bytes>"


def loads_or_refuses(load, content):
    """Property: a model or one kind of error, and nothing of the file ran."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(content)
        with watched() as events, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                loaded = load(path)
            except InputError as error:
                assert error.name == "path"  # noqa: PT017
            except Exception as error:
                raise AssertionError("another error") from error
            else:
                assert isinstance(loaded, keras.Model)
        assert events == []
        assert [entry.name for entry in Path(folder).iterdir()] == ["model.keras"]


def make_flips(content):
    flips = st.lists(
        st.tuples(st.integers(0, len(content) - 1), st.integers(1, 255)), min_size=1, max_size=8
    )

    def flip(changes):
        changed = bytearray(content)
        for place, bits in changes:
            changed[place] ^= bits
        return bytes(changed)

    return flips.map(flip)


def make_zips(parts):
    names = st.sampled_from([*parts, "metadata.json", "assets/x", "../x", "x.py", "assets/"])
    contents = st.sampled_from([*parts.values(), b"", b"{}", b"[" * 5000, b"null"]) | st.binary(
        max_size=64
    )
    methods = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    return st.builds(pack, st.lists(st.tuples(names, contents), max_size=5), methods)


WORDS = st.sampled_from(
    [
        *("Lambda", "Dense", "Sequential", "function", "__lambda__", "__numpy__", "relu"),
        *("keras", "keras.layers", "builtins", "os", "eval", "test_loading>Doubler", "float32"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "config", "module", "registered_name", "dtype"]), inner
        )
    ),
    max_leaves=6,
)


def list_places(node, path=()):
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items if isinstance(node, dict | list) else ():
        if isinstance(value, dict | list):
            yield from list_places(value, (*path, key))
        else:
            yield (*path, key)


def make_configs(parts):
    places = list(list_places(json.loads(parts[CONFIG])))[1:]

    def change(edits):
        config = json.loads(parts[CONFIG])
        for place, value in edits:
            node = config
            try:
                for key in place[:-1]:
                    node = node[key]
                node[place[-1]] = value
            except (KeyError, IndexError, TypeError):
                continue  # an earlier edit has cut it off
        return pack((parts | {CONFIG: json.dumps(config)}).items())

    edits = st.lists(st.tuples(st.sampled_from(places), VALUES), min_size=1, max_size=3)
    return edits.map(change)


def make_damaged(parts, kind):
    return make_files(parts, kind).map(Content)


def make_files(parts, kind):
    content = pack(parts.items())
    match kind:
        case "flipped":
            return make_flips(content)
        case "cut":
            return st.integers(0, len(content) - 1).map(lambda length: content[:length])
        case "other archive":
            return make_zips(parts)
        case "other configuration":
            return make_configs(parts)
        case "other weights":  # with a right checksum, so that they reach the reader
            return make_flips(parts[WEIGHTS]).map(
                lambda weights: pack((parts | {WEIGHTS: weights}).items())
            )
    return st.binary(max_size=200)


KINDS = [
    *("flipped", "cut", "other archive", "other configuration", "other weights", "any bytes"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_any_file_is_loaded_or_refused(kind, parts):
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(make_damaged(parts, kind))
    def check(content):
        loads_or_refuses(load_model_safely, content)

    check()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "other weights"])
def test_any_file_twin(kind, parts):
    """Keras alone fails on such files in many ways."""

    @settings(max_examples=60, deadline=None, derandomize=True, report_multiple_bugs=False)
    @given(make_damaged(parts, kind))
    def check(content):
        loads_or_refuses(keras.saving.load_model, content)

    with pytest.raises(AssertionError):
        check()


def test_twin_unsafe_fuzzing_sees_code_run(planted):
    content = planted[0].read_bytes()
    with pytest.raises(AssertionError):
        loads_or_refuses(lambda path: keras.saving.load_model(path, safe_mode=False), content)
    loads_or_refuses(load_model_safely, content)
