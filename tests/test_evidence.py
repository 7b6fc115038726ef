"""The evidence bundle: the same bytes for the same inputs, and nobody changes one unseen."""

import datetime
import hashlib
import html.parser
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigmodel_utils._checks import InputError
from bigmodel_utils.standards import Measurement, Waiver, check_release
from bigmodel_utils.standards._cards import DataSheet, ModelCard
from bigmodel_utils.standards._digests import hash_released, list_entries, write_json
from bigmodel_utils.standards._evidence import MANIFEST, write_evidence
from bigmodel_utils.standards._evidence_page import EvidencePage
from bigmodel_utils.standards._schema import build_schema
from bigmodel_utils.standards._signing import SIGNATURE, sign_evidence, verify_evidence

DAY = datetime.date(2026, 1, 31)
CARD = ModelCard(
    "digits",
    "1.2",
    "Apache-2.0",
    intended_use="Digits that were scanned.\n\nNot photographs.",
    ethical_considerations="A wrong dose harms: <script>alert(1)</script> & more at http://a.b",
)
SHEET = DataSheet("scans", "1998", "terms of the clinic", motivation="Reading forms.")
# One pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)
TAMPERED = ("evidence.json", "evidence.html", "model_card.md", "bill_of_materials.cdx.json")


def make_report():
    return check_release(
        {
            "selection_overlap": 0,
            "interval_half_width": Measurement(0.018, 0.016, 0.021, DAY),
            "recall": (0.7, 0.99),
            "label_issue_share": float("nan"),
        },
        "production",
        subjects=["classifier"],
        checked_on=DAY,
        waivers=[Waiver("EVAL-003", "one example at a time", "owner of the service", DAY)],
    )


def make_release(folder):
    """Files as a project would release them."""
    (folder / "code").mkdir(parents=True)
    (folder / "model.keras").write_bytes(bytes(range(256)))
    (folder / "code" / "train.py").write_text("x = 1\n")
    (folder / "code" / "serve.py").write_text("y = 2\n")
    (folder / "roc_curve.png").write_bytes(PNG)
    return {"weights": folder / "model.keras", "code": folder / "code"}


def write_bundle(folder, **changes):
    files = make_release(folder)
    arguments = {
        "model_card": CARD,
        "data_sheet": SHEET,
        "files": files,
        "figures": [folder / "roc_curve.png"],
    }
    return write_evidence(folder / "evidence", make_report(), **(arguments | changes))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("release"))


@pytest.fixture
def copy(bundle, tmp_path):
    """A bundle that a test may spoil."""
    return Path(shutil.copytree(bundle.directory, tmp_path / "evidence"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Files with a private key and its public half, and the public half of another."""
    folder = tmp_path_factory.mktemp("keys")
    own, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    write_private_key(folder / "private.pem", own)
    write_public_key(folder / "public.pem", own)
    write_public_key(folder / "other.pem", other)
    return folder


def write_private_key(path, key, password=None):
    encryption = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password.encode())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    path.write_bytes(pem)


def write_public_key(path, key):
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    path.write_bytes(pem)


def read_files(folder):
    return {path: (Path(folder) / path).read_bytes() for path in list_entries(Path(folder))}


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def rewrite_manifest(folder):
    """What an attacker does who has read how a bundle is made."""
    files = {
        path: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for path, content in read_files(folder).items()
        if path not in (MANIFEST, SIGNATURE)
    }
    (folder / MANIFEST).write_bytes(write_json({"manifest_version": 1, "files": files}))


def trust_manifest(folder):
    """Twin of `verify_evidence`: takes the manifest at its word."""
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    return verify_evidence(folder, digest=digest)


# What is written.


def test_bundle_holds_what_it_says(bundle):
    contents = read_files(bundle.directory)
    assert sorted(contents) == [
        "bill_of_materials.cdx.json",
        "data_sheet.md",
        "evidence.html",
        "evidence.json",
        "evidence.schema.json",
        "figures/roc_curve.png",
        "manifest.json",
        "model_card.md",
    ]
    assert bundle.files == {path: len(content) for path, content in contents.items()}
    assert bundle.digest == hashlib.sha256(contents[MANIFEST]).hexdigest()
    assert contents["figures/roc_curve.png"] == PNG
    assert "256 B" not in str(bundle)
    assert bundle.digest in str(bundle)


def test_evidence_says_what_was_measured_and_released(bundle):
    evidence = json.loads(Path(bundle.directory, "evidence.json").read_bytes())
    assert evidence["report"] == json.loads(json.dumps(make_report().to_dict()))
    ids = [verdict["clause_id"] for verdict in evidence["report"]["verdicts"]]
    assert [clause["id"] for clause in evidence["clauses"]] == ids
    weights = evidence["released"]["weights"]
    assert weights["sha256"] == hashlib.sha256(bytes(range(256))).hexdigest()
    assert (weights["name"], weights["size_bytes"]) == ("model.keras", 256)
    assert evidence["model_card"]["intended_use"] == CARD.intended_use
    assert evidence["environment"]["libraries"]["numpy"]


def test_evidence_follows_its_schema(bundle):
    schema = json.loads(Path(bundle.directory, "evidence.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    evidence = json.loads(Path(bundle.directory, "evidence.json").read_bytes())
    jsonschema.validate(evidence, schema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda evidence: evidence.pop("model_card"),
        lambda evidence: evidence.update(note="x"),
        lambda evidence: evidence["released"].pop("weights"),
        lambda evidence: evidence["released"]["code"].update(sha256="0" * 63),
        lambda evidence: evidence["report"].update(level="lenient"),
        lambda evidence: evidence["report"]["verdicts"][0].update(status="fine"),
        lambda evidence: evidence["report"].update(checked_on="today"),
    ],
)
def test_schema_refuses(bundle, spoil):
    evidence = json.loads(Path(bundle.directory, "evidence.json").read_bytes())
    spoil(evidence)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(evidence, build_schema())


SECOND_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_evidence import write_bundle
print(write_bundle(Path({folder!r})).digest)
"""


def test_same_inputs_same_bytes(bundle, tmp_path):
    folder = tmp_path / "deep" / "elsewhere"
    assert read_files(write_bundle(folder).directory) == read_files(bundle.directory)


@pytest.mark.parametrize("seed", ["1", "4242"])
def test_same_bytes_in_another_process(bundle, tmp_path, seed):
    script = SECOND_PROCESS.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "r"))
    environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": "Pacific/Kiritimati"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == bundle.digest


def test_order_of_roles_changes_nothing(bundle, tmp_path):
    files = make_release(tmp_path)
    turned = write_evidence(
        tmp_path / "evidence",
        make_report(),
        model_card=CARD,
        data_sheet=SHEET,
        files=dict(reversed(files.items())),
        figures=[tmp_path / "roc_curve.png"],
    )
    assert turned.digest == bundle.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"model_card": replace(CARD, factors="Pens.")},
        {"data_sheet": replace(SHEET, uses="None.")},
        {"figures": []},
    ],
)
def test_other_inputs_other_digest(bundle, tmp_path, changes):
    assert write_bundle(tmp_path / "other", **changes).digest != bundle.digest


def test_json_does_not_depend_on_order_and_refuses_nan():
    assert write_json({"b": 1, "a": "é"}) == write_json({"a": "é", "b": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")})


# The bill of materials.


def read_bill(folder):
    return json.loads(Path(folder, "bill_of_materials.cdx.json").read_bytes())


def find_bill_error(bill):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))


def test_bill_is_valid(bundle):
    assert find_bill_error(read_bill(bundle.directory)) is None


def test_validator_finds_a_spoiled_bill(bundle):
    bill = read_bill(bundle.directory)
    bill["metadata"]["component"]["modelCard"]["factors"] = "Pens."
    assert find_bill_error(bill) is not None


def test_bill_names_model_data_code_and_libraries(bundle):
    bill = read_bill(bundle.directory)
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model",
        "digits",
        "1.2",
    )
    digest = hashlib.sha256(bytes(range(256))).hexdigest()
    assert model["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    parts = {part["bom-ref"]: part for part in bill["components"]}
    assert parts["data"]["type"] == "data"
    assert parts["data"]["licenses"] == [{"license": {"name": "terms of the clinic"}}]
    assert parts["file:code"]["properties"][0]["value"] == "listing of the folder"
    import numpy

    library = parts[f"pkg:pypi/numpy@{numpy.__version__}"]
    assert library["purl"] == library["bom-ref"]
    edges = {edge["ref"]: edge.get("dependsOn", []) for edge in bill["dependencies"]}
    assert set(edges["model"]) == parts.keys()
    assert bill["metadata"]["timestamp"].startswith("2026-01-31T00:00:00")


def test_bill_carries_measurements_with_intervals(bundle):
    card = read_bill(bundle.directory)["metadata"]["component"]["modelCard"]
    metrics = {
        metric["type"]: metric for metric in card["quantitativeAnalysis"]["performanceMetrics"]
    }
    assert metrics["interval_half_width"] == {
        "type": "interval_half_width",
        "value": "0.018",
        "confidenceInterval": {"lowerBound": "0.016", "upperBound": "0.021"},
    }
    assert "confidenceInterval" not in metrics["selection_overlap"]
    assert metrics["label_issue_share"]["value"] == "nan"
    assert card["modelParameters"]["datasets"] == [{"ref": "data"}]


def test_serial_number_follows_the_content(bundle, tmp_path):
    other = write_bundle(tmp_path / "other", model_card=replace(CARD, version="1.3"))
    assert read_bill(other.directory)["serialNumber"] != read_bill(bundle.directory)["serialNumber"]


def test_bill_without_optional_fields_is_valid(tmp_path):
    bare = write_bundle(
        tmp_path / "bare",
        model_card=ModelCard("m", "1"),
        data_sheet=DataSheet("d", "1"),
        figures=[],
    )
    bill = read_bill(bare.directory)
    assert find_bill_error(bill) is None
    assert "licenses" not in bill["metadata"]["component"]
    assert bill["metadata"]["component"]["modelCard"]["considerations"] == {}


# The page and the cards.


class Reader(html.parser.HTMLParser):
    """Collects what a browser would fetch or run, and what it would show."""

    def __init__(self):
        super().__init__()
        self.sources, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [
            value
            for name, value in attrs
            if name in ("src", "href", "srcset", "action", "data", "poster", "background")
            or name.startswith("on")
        ]

    def handle_data(self, data):
        self.text.append(data)


def read_page(text):
    reader = Reader()
    reader.feed(text)
    return reader


def find_requests(text):
    reader = read_page(text)
    outside = [source for source in reader.sources if not source.startswith("data:image/png")]
    outside += [tag for tag in reader.tags if tag in ("script", "link", "iframe", "object")]
    style = text[text.index("<style>") : text.rindex("</style>")]
    return outside + [word for word in ("url(", "@import") if word in style]


def test_page_fetches_and_runs_nothing(bundle):
    page = Path(bundle.directory, "evidence.html").read_text(encoding="utf-8")
    assert find_requests(page) == []
    assert read_page(page).sources  # the figure
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    "planted",
    [
        '<img src="https://example.org/x.png">',
        "<script>1</script>",
        '<link rel="stylesheet" href="x.css">',
        '<p onclick="x()">',
        "<style>p { background: url(x.png); }</style>",
    ],
)
def test_request_is_found(bundle, planted):
    page = Path(bundle.directory, "evidence.html").read_text(encoding="utf-8")
    assert find_requests(page.replace("<style>", f"{planted}<style>", 1))


def test_page_shows_what_an_auditor_asks_for(bundle):
    page = Path(bundle.directory, "evidence.html").read_text(encoding="utf-8")
    text = " ".join(read_page(page).text)
    for shown in (
        "Not passed at level production on 2026-01-31",
        "0.018 fraction, 0.016 to 0.021, on 2026-01-31",
        "nan fraction",
        "owner of the service",
        hashlib.sha256(bytes(range(256))).hexdigest(),
        "<script>alert(1)</script> & more at http://a.b",
        "7 of 9 sections are not stated",
        "roc curve",
    ):
        assert shown in text, shown


def test_page_of_a_release_that_passed():
    report = make_report()
    passed = tuple(replace(verdict, status="passed") for verdict in report.verdicts)
    page = EvidencePage(
        replace(report, verdicts=passed),
        CARD,
        SHEET,
        {},
        {},
        {"python": "3", "implementation": "P", "system": "S", "machine": "m", "libraries": {}},
    ).write()
    assert "✓ Passed at level production" in page
    assert "Open:" not in page
    assert "Not applicable" not in page
    assert "Figures" not in page


def test_empty_sections_show_as_gaps():
    card = ModelCard("m", "1")
    assert str(card).count("Not stated.") == 10  # nine sections and the license
    assert len(card.empty_sections) == 9
    assert card._repr_html_().count("<h3>") == 9
    assert "## Preprocessing, cleaning, labeling" in str(DataSheet("d", "1"))
    assert "A & B" in str(replace(card, factors="A & B"))
    assert "<p>A &amp; B</p>" in replace(card, factors="A & B")._repr_html_()


@pytest.mark.parametrize("changes", [{"name": " "}, {"version": ""}, {"uses": None}, {"uses": 3}])
def test_bad_card_is_refused(changes):
    with pytest.raises(InputError, match=f"DataSheet.{next(iter(changes))}"):
        DataSheet(**({"name": "d", "version": "1"} | changes))


def test_text_that_cannot_be_written_is_refused():
    with pytest.raises(InputError, match="UTF-8"):
        ModelCard("m\udc80", "1")


# Nothing half-written.


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": {"weights": "no-such-file"}},
        {"files": {"code": "."}},
        {"figures": ["no-such.png"]},
        {"figures": [__file__]},
        {"model_card": SHEET},
        {"data_sheet": None},
    ],
)
def test_bad_input_leaves_nothing(tmp_path, changes):
    with pytest.raises(InputError):
        write_bundle(tmp_path, **changes)
    assert list_names(tmp_path) == ["code", "model.keras", "roc_curve.png"]


def test_bad_report_is_refused(tmp_path):
    with pytest.raises(InputError, match="ReleaseReport"):
        write_evidence(
            tmp_path / "e",
            {"passed": True},
            model_card=CARD,
            data_sheet=SHEET,
            files=make_release(tmp_path),
        )


def test_two_figures_of_one_name_are_refused(tmp_path):
    other = tmp_path / "other" / "ROC_curve.png"
    other.parent.mkdir()
    other.write_bytes(PNG)
    with pytest.raises(InputError, match="names of their own"):
        write_bundle(tmp_path / "r", figures=[tmp_path / "r" / "roc_curve.png", other])


def test_taken_directory_stays_as_it_is(tmp_path):
    taken = tmp_path / "evidence"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="new or empty"):
        write_bundle(tmp_path)
    assert read_files(taken) == {"notes.txt": b"mine"}


def test_file_in_the_place_is_refused(tmp_path):
    (tmp_path / "evidence").write_text("mine")
    with pytest.raises(InputError, match="new or empty"):
        write_bundle(tmp_path)


def test_empty_directory_is_taken_over(bundle, tmp_path):
    (tmp_path / "evidence").mkdir()
    assert write_bundle(tmp_path).digest == bundle.digest


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def fail(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "evidence").mkdir()
    with pytest.raises(InputError, match="No space left"):
        write_bundle(tmp_path)
    assert list_names(tmp_path) == ["code", "evidence", "model.keras", "roc_curve.png"]
    assert list_names(tmp_path / "evidence") == []


# Hashes of what is released.


def test_folder_hash_is_that_of_sha256sum(tmp_path):
    for name in ("b.py", "a b.py", "deep/é.py", "deep-.py", "Z.py"):
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    command = (
        "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
    )
    done = subprocess.run(
        command, shell=True, cwd=tmp_path / "code", capture_output=True, text=True, check=True
    )
    released = hash_released("code", tmp_path / "code")
    assert released.sha256 == done.stdout.split()[0]
    assert released.num_files == 5


def test_cache_of_python_is_no_part_of_the_code(tmp_path):
    files = make_release(tmp_path)
    before = hash_released("code", files["code"])
    (files["code"] / "__pycache__").mkdir()
    (files["code"] / "__pycache__" / "train.pyc").write_bytes(b"x")
    assert hash_released("code", files["code"]) == before
    (files["code"] / "more.py").touch()
    assert hash_released("code", files["code"]) != before


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda folder: (folder / "link").symlink_to("train.py"), "hold files only"),
        (lambda folder: (folder / "link").symlink_to(folder.parent), "hold files only"),
        (lambda folder: os.mkfifo(folder / "pipe"), "hold files only"),
        (lambda folder: (folder / "a\nb").touch(), "printable"),
        (lambda folder: (folder / "a\\b").touch(), "printable"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "hold a file"),
    ],
)
def test_folder_that_cannot_be_listed_is_refused(tmp_path, plant, message):
    files = make_release(tmp_path)
    plant(files["code"])
    with pytest.raises(InputError, match=message):
        hash_released("code", files["code"])


# Verification.


def test_untouched_bundle_passes(bundle, tmp_path):
    files = make_release(tmp_path)
    report = verify_evidence(bundle.directory, digest=bundle.digest, files=files)
    assert report.passed
    assert report.exit_status == 0
    assert "intact" in str(report)
    assert "NOT" not in str(report)
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True


def test_a_manifest_cannot_vouch_for_itself(bundle, keys):
    with pytest.raises(InputError, match="neither"):
        verify_evidence(bundle.directory)
    with pytest.raises(InputError, match="both"):
        verify_evidence(bundle.directory, digest=bundle.digest, public_key=keys / "public.pem")


@pytest.mark.parametrize("name", TAMPERED)
def test_changed_file_is_named(copy, bundle, name):
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    report = verify_evidence(copy, digest=bundle.digest)
    assert (report.changed, report.passed, report.exit_status) == ((name,), False, 1)
    assert name in str(report)


@pytest.mark.parametrize("name", TAMPERED)
def test_attacker_who_rewrites_the_manifest_is_caught(copy, bundle, keys, name):
    sign_evidence(copy, private_key=keys / "private.pem")
    (copy / name).write_bytes((copy / name).read_bytes().replace(b"Not passed", b"Passed") + b" ")
    rewrite_manifest(copy)
    by_digest = verify_evidence(copy, digest=bundle.digest)
    by_signature = verify_evidence(copy, public_key=keys / "public.pem")
    assert not by_digest.is_vouched
    assert not by_digest.passed
    assert not by_signature.is_vouched
    assert not by_signature.passed
    # Twin: the same bundle convinces a verifier that trusts the manifest.
    assert trust_manifest(copy).passed


@settings(
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_every_changed_byte_is_caught(copy, bundle, data):
    name = data.draw(st.sampled_from(sorted(bundle.files)))
    content = (copy / name).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = bytearray(content)
    changed[place] ^= flip
    try:
        (copy / name).write_bytes(changed)
        report = verify_evidence(copy, digest=bundle.digest)
    finally:
        (copy / name).write_bytes(content)
    assert not report.passed
    assert report.changed == (() if name == MANIFEST else (name,))
    # Twin: the byte as it was is not reported.
    assert verify_evidence(copy, digest=bundle.digest).passed


def test_every_changed_byte_of_a_signed_manifest_is_caught(copy, keys):
    sign_evidence(copy, private_key=keys / "private.pem")
    content = (copy / MANIFEST).read_bytes()
    for place in range(0, len(content), 29):
        changed = bytearray(content)
        changed[place] ^= 1
        (copy / MANIFEST).write_bytes(changed)
        assert not verify_evidence(copy, public_key=keys / "public.pem").passed, place


def test_missing_and_unexpected_files_are_named(copy, bundle):
    (copy / "figures" / "roc_curve.png").rename(copy / "figures" / "other.png")
    report = verify_evidence(copy, digest=bundle.digest)
    assert report.missing == ("figures/roc_curve.png",)
    assert report.unexpected == ("figures/other.png",)


@pytest.mark.parametrize("name", [".gitignore", ".git/config", "figures/.hidden"])
def test_hidden_file_is_unexpected(copy, bundle, name):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).touch()
    assert verify_evidence(copy, digest=bundle.digest).unexpected == (name,)


@pytest.mark.parametrize("name", ["model_card.md", MANIFEST])
def test_link_to_the_same_content_is_caught(copy, bundle, tmp_path, name):
    (copy / name).rename(tmp_path / "outside")
    (copy / name).symlink_to(tmp_path / "outside")
    report = verify_evidence(copy, digest=bundle.digest)
    assert not report.passed
    assert name in (*report.missing, *report.unexpected)


def test_linked_folder_is_caught(copy, bundle, tmp_path):
    (copy / "figures").rename(tmp_path / "outside")
    (copy / "figures").symlink_to(tmp_path / "outside")
    report = verify_evidence(copy, digest=bundle.digest)
    assert report.missing == ("figures/roc_curve.png",)
    assert report.unexpected == ("figures",)


def test_pipe_does_not_block(copy, bundle):
    (copy / "model_card.md").unlink()
    os.mkfifo(copy / "model_card.md")
    assert verify_evidence(copy, digest=bundle.digest).missing == ("model_card.md",)


@pytest.mark.parametrize("kind", ["parent", "absolute", "twisted"])
def test_path_out_of_the_folder_is_never_opened(copy, tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = {
        "parent": "../secret",
        "absolute": str(secret),
        "twisted": "figures/../../secret",
    }[kind]
    manifest = json.loads((copy / MANIFEST).read_bytes())
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    manifest["files"][path] = {"sha256": digest, "size_bytes": 6}
    (copy / MANIFEST).write_bytes(write_json(manifest))
    assert trust_manifest(copy).missing == (path,)


def test_line_break_in_a_name_makes_no_row(copy, bundle):
    (copy / "x\nEvidence  intact").touch()
    report = verify_evidence(copy, digest=bundle.digest)
    assert not report.passed
    assert len(str(report).splitlines()) == 3


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64, 7, b"0" * 64])
def test_bad_digest_is_refused(bundle, digest):
    with pytest.raises(InputError, match="64 hexadecimal"):
        verify_evidence(bundle.directory, digest=digest)


def test_folder_without_bundle_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=MANIFEST):
            verify_evidence(folder, digest="0" * 64)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b"\xff", b'{"files": 1}', b'{"manifest_version": 2, "files": {}}'),
        b'{"manifest_version": 1, "files": {"a": 1}}',
        b'{"manifest_version": 1, "files": []}',
    ],
)
def test_vouched_file_that_is_no_manifest_is_refused(copy, content):
    (copy / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match="version 1"):
        trust_manifest(copy)


def test_huge_manifest_is_not_read(copy, bundle):
    with (copy / MANIFEST).open("r+b") as file:
        file.truncate(2**40)
    report = verify_evidence(copy, digest=bundle.digest)
    assert "too large" in report.reason


def test_other_weights_than_released_are_caught(bundle, tmp_path):
    files = make_release(tmp_path)
    files["weights"].write_bytes(b"other")
    report = verify_evidence(bundle.directory, digest=bundle.digest, files=files)
    assert report.unmatched == ("weights",)
    assert not report.passed


def test_released_files_are_unmatched_where_the_evidence_is_not_intact(copy, bundle, tmp_path):
    files = make_release(tmp_path / "again")
    (copy / "evidence.json").write_text("{}")
    report = verify_evidence(copy, digest=bundle.digest, files=files)
    assert report.unmatched == ("code", "weights")


def test_unknown_role_is_refused(bundle):
    with pytest.raises(InputError, match="code, weights"):
        verify_evidence(bundle.directory, digest=bundle.digest, files={"tokenizer": __file__})


# Signatures.


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_signed_bundle_passes(copy, tmp_path, curve):
    key = ec.generate_private_key(curve())
    write_private_key(tmp_path / "private.pem", key, "secret word")
    write_public_key(tmp_path / "public.pem", key)
    with pytest.raises(InputError, match="private_key"):
        sign_evidence(copy, private_key=tmp_path / "private.pem")
    path = sign_evidence(copy, private_key=tmp_path / "private.pem", password="secret word")
    assert path == copy / SIGNATURE
    report = verify_evidence(copy, public_key=tmp_path / "public.pem")
    assert report.passed
    assert report.vouched_by == "signature"


def test_signature_leaves_the_digest_valid(copy, bundle, keys):
    sign_evidence(copy, private_key=keys / "private.pem")
    sign_evidence(copy, private_key=keys / "private.pem")
    assert verify_evidence(copy, digest=bundle.digest).passed


def test_signing_and_verifying_need_no_network(copy, keys, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    sign_evidence(copy, private_key=keys / "private.pem")
    assert verify_evidence(copy, public_key=keys / "public.pem").passed


def test_command_of_model_signing_agrees(copy, keys):
    sign_evidence(copy, private_key=keys / "private.pem")
    command = [sys.executable, "-m", "model_signing", "verify", "key", MANIFEST]
    command += ["--signature", SIGNATURE, "--public_key", str(keys / "public.pem")]
    assert subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode == 0
    (copy / MANIFEST).write_bytes((copy / MANIFEST).read_bytes() + b" ")
    assert subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode != 0


def test_signature_by_another_key_is_caught(copy, keys):
    sign_evidence(copy, private_key=keys / "private.pem")
    report = verify_evidence(copy, public_key=keys / "other.pem")
    assert not report.is_vouched


def test_unsigned_bundle_is_not_vouched_for(bundle, keys):
    report = verify_evidence(bundle.directory, public_key=keys / "public.pem")
    assert report.reason.startswith("not signed")


def test_linked_signature_counts_as_none(copy, keys, tmp_path):
    sign_evidence(copy, private_key=keys / "private.pem").rename(tmp_path / "outside")
    (copy / SIGNATURE).symlink_to(tmp_path / "outside")
    assert verify_evidence(copy, public_key=keys / "public.pem").reason.startswith("not signed")


def test_signature_of_another_file_is_caught(copy, keys, tmp_path):
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    (other / "model_card.md").write_text("Another model.")
    rewrite_manifest(other)
    sign_evidence(other, private_key=keys / "private.pem")
    shutil.copy(other / SIGNATURE, copy / SIGNATURE)
    assert verify_evidence(other, public_key=keys / "public.pem").passed
    assert not verify_evidence(copy, public_key=keys / "public.pem").is_vouched


@settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "mediaType",
                            "verificationMaterial",
                            "publicKey",
                            "dsseEnvelope",
                            "payload",
                        ]
                    ),
                    inner,
                    max_size=4,
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_rubbish_is_a_signature(copy, keys, content):
    (copy / SIGNATURE).write_bytes(content)
    report = verify_evidence(copy, public_key=keys / "public.pem")
    assert not report.is_vouched


def test_huge_signature_is_not_read(copy, keys):
    (copy / SIGNATURE).write_bytes(b" " * (2**20 + 1))
    assert "too large" in verify_evidence(copy, public_key=keys / "public.pem").reason


def test_damaged_bundle_is_not_signed(copy, keys):
    (copy / "model_card.md").write_text("Another model.")
    with pytest.raises(InputError, match="intact"):
        sign_evidence(copy, private_key=keys / "private.pem")
    assert not (copy / SIGNATURE).exists()


def test_unusable_keys_are_refused(copy, keys, tmp_path):
    write_private_key(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048))
    write_private_key(tmp_path / "curve.pem", ec.generate_private_key(ec.SECP256K1()))
    for path in ("rsa.pem", "curve.pem", "missing.pem"):
        with pytest.raises(InputError, match="private_key"):
            sign_evidence(copy, private_key=tmp_path / path)
    with pytest.raises(InputError, match="private_key"):
        sign_evidence(copy, private_key=keys / "public.pem")
    sign_evidence(copy, private_key=keys / "private.pem")
    for path in (keys / "private.pem", tmp_path / "missing.pem", copy / "evidence.json"):
        with pytest.raises(InputError, match="public_key"):
            verify_evidence(copy, public_key=path)


def test_the_standard_library_is_enough_to_import():
    code = (
        "import sys, bigmodel_utils.standards._signing as s, bigmodel_utils.standards._evidence\n"
        "heavy = {'cyclonedx', 'packageurl', 'model_signing', 'cryptography', 'numpy'}\n"
        "assert not heavy & {name.split('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
