"""Whether a bundle is what was written: by a digest kept elsewhere, or by a signature."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._checks import InputError, import_extra
from .._report import Report
from ._digests import hash_bytes, hash_file, hash_released, list_entries
from ._evidence import MANIFEST, MANIFEST_VERSION

SIGNATURE = f"{MANIFEST}.sig"
"""The file of a bundle that holds the signature of its manifest."""

_DIGEST = re.compile("[0-9a-f]{64}")
# Whoever can write to the folder decides these sizes, and both files are read into memory.
_MAX_MANIFEST_BYTES = 2**26
_MAX_SIGNATURE_BYTES = 2**20


@dataclass(frozen=True)
class EvidenceReport(Report):
    """Whether a bundle, and what was released with it, is what was vouched for.

    Attributes:
        directory: where the bundle lies.
        vouched_by: `"digest"` or `"signature"`.
        reason: why the manifest is not vouched for; empty if it is.
        changed: files of the bundle whose content is another.
        missing: files of the bundle that are not there, or are no regular files.
        unexpected: what lies in the bundle and is not in its manifest.
        unmatched: roles whose released file is not the one that the evidence describes.
    """

    directory: str
    vouched_by: str
    reason: str = ""
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()

    @property
    def is_vouched(self) -> bool:
        """Whether the manifest is the one vouched for; if not, nothing else is known."""
        return not self.reason

    @property
    def passed(self) -> bool:
        """Whether everything is what was vouched for."""
        return self.is_vouched and not (
            self.changed or self.missing or self.unexpected or self.unmatched
        )

    @property
    def exit_status(self) -> int:
        """0 if it passed and 1 if it did not, as a process ends."""
        return 0 if self.passed else 1

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and the verdict as plain values, ready for JSON."""
        fields = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }
        return fields | {"is_vouched": self.is_vouched, "passed": self.passed}

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = [
            ("Evidence", f"{'intact' if self.passed else 'NOT INTACT'}: {self.directory}"),
            ("Manifest", self.reason or f"the one vouched for by the {self.vouched_by}"),
        ]
        lists = {
            "Changed": self.changed,
            "Missing": self.missing,
            "Unexpected": self.unexpected,
            "Not as released": self.unmatched,
        }
        # Names come from who can write to the folder; a line break in one must not make a row.
        rows += [
            (label, ", ".join(name if name.isprintable() else repr(name) for name in names))
            for label, names in lists.items()
            if names
        ]
        return rows


def verify_evidence(
    directory: str | os.PathLike[str],
    *,
    digest: str | None = None,
    public_key: str | os.PathLike[str] | None = None,
    files: Mapping[str, str | os.PathLike[str]] | None = None,
) -> EvidenceReport:
    """Checks every file of a bundle against what was vouched for when it was written.

    A manifest cannot vouch for itself, as who changes a file can rewrite it. So either its
    hash comes from elsewhere, or its signature is checked by a key that does.

    Args:
        directory: the bundle that `write_evidence` wrote.
        digest: the `digest` of the bundle, kept elsewhere. Either this or `public_key`.
        public_key: file with the public key, PEM, of who ran `sign_evidence`.
        files: what was released, by role, to compare with what the evidence describes.

    Returns:
        What is not as it was; `passed` says whether that is nothing.

    Raises:
        InputError: if neither or both of `digest` and `public_key` are given, one of them
            cannot be read, there is no bundle, or a role is not in the evidence.
        MissingExtraError: for a signature, without the libraries of the extra `evidence`.

    Limits:
        If the manifest is not vouched for, it is not read, so that no file is named. With
        `digest` a signature in the folder is not looked at. A signature says who vouches, not
        for which release: an older bundle that the same key signed passes too, so read its
        name and day. Says that the files are the same, not that what they say is true. Empty
        folders are passed over.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from bigmodel_utils.standards import DataSheet, ModelCard, check_release, write_evidence
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     weights = Path(folder, "model.keras")
        ...     _ = weights.write_bytes(b"weights")
        ...     bundle = write_evidence(
        ...         f"{folder}/evidence",
        ...         check_release({}, "development", subjects=[]),
        ...         model_card=ModelCard("digits", "1.0"),
        ...         data_sheet=DataSheet("digits", "1998"),
        ...         files={"weights": weights},
        ...     )
        ...     _ = Path(bundle.directory, "model_card.md").write_text("Better than it is.")
        ...     verify_evidence(bundle.directory, digest=bundle.digest).changed
        ('model_card.md',)
    """
    folder = Path(directory)
    manifest_path = _find_manifest(folder)
    if (digest is None) == (public_key is None):
        raise InputError(
            "digest",
            "or `public_key` must be given, one of them",
            "neither" if digest is None else "both",
            "pass what was kept elsewhere: a manifest cannot vouch for itself",
        )
    vouched_by = "signature" if digest is None else "digest"
    if manifest_path.stat().st_size > _MAX_MANIFEST_BYTES:
        return EvidenceReport(str(folder), vouched_by, f"{MANIFEST} is too large to be one")
    content = manifest_path.read_bytes()
    if digest is not None:
        reason = _compare_digest(content, digest)
    else:
        reason = _check_signature(content, folder / SIGNATURE, Path(public_key or ""))
    if reason:
        return EvidenceReport(str(folder), vouched_by, reason)
    return _compare_files(folder, _read_manifest(content), vouched_by, files or {})


def sign_evidence(
    directory: str | os.PathLike[str],
    *,
    private_key: str | os.PathLike[str],
    password: str | None = None,
) -> Path:
    """Signs a bundle, so that a public key vouches for it in place of a digest.

    The signature is that of OpenSSF Model Signing over `manifest.json`, and lies beside it.
    Its own command checks it, too: `model_signing verify key manifest.json --signature
    manifest.json.sig --public_key KEY`.

    Args:
        directory: the bundle that `write_evidence` wrote.
        private_key: file with an elliptic key, PEM, of the curve P-256, P-384 or P-521.
        password: of the key, if it has one.

    Returns:
        The file that holds the signature; one that was there is replaced.

    Raises:
        InputError: if the bundle is not what its manifest says, or the key cannot be used.
        MissingExtraError: without the libraries of the extra `evidence`.

    Limits:
        Nothing is fetched or published. Sign where the bundle was written: what was changed
        together with its manifest before is signed as it is.

    References:
        OpenSSF, OpenSSF Model Signing (OMS) Specification, 2025.
    """
    folder = Path(directory)
    manifest = _find_manifest(folder)
    own = verify_evidence(folder, digest=hash_file(manifest))
    if not own.passed:
        raise InputError("directory", "must be intact", own, "write the evidence again")
    signing = import_extra("model_signing.signing", extra="evidence")
    try:
        signer = signing.Config().use_elliptic_key_signer(
            private_key=private_key, password=None if password is None else password.encode()
        )
    # What a key file can hold that is no key has no common error.
    except Exception as error:
        raise _refuse_key("private_key", private_key, error) from error
    target = folder / SIGNATURE
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".signature-") as beside:
            signer.sign(manifest, Path(beside, SIGNATURE))
            Path(beside, SIGNATURE).replace(target)
    except OSError as error:
        raise InputError(
            "directory", "must take a file", error, "sign where it can be written"
        ) from error
    return target


def _find_manifest(folder: Path) -> Path:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            "directory", f"must hold {MANIFEST}", folder, "pass a folder of `write_evidence`"
        )
    return path


def _compare_digest(content: bytes, digest: str) -> str:
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InputError(
            "digest", "must be 64 hexadecimal digits", repr(digest), "pass `EvidenceBundle.digest`"
        )
    found = hash_bytes(content)
    return "" if found == digest else f"another than the digest vouches for: its own is {found}"


def _check_signature(content: bytes, signature: Path, public_key: Path) -> str:
    """Returns why the signature does not vouch for the manifest, or nothing if it does."""
    verifying = import_extra("model_signing.verifying", extra="evidence")
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:
        raise _refuse_key("public_key", public_key, error) from error
    if signature.is_symlink() or not signature.is_file():
        return f"not signed: no {SIGNATURE}"
    if signature.stat().st_size > _MAX_SIGNATURE_BYTES:
        return f"{SIGNATURE} is too large to be a signature"
    with tempfile.TemporaryDirectory() as copy:
        # A copy, so that what is verified and what is read next are the same bytes.
        Path(copy, MANIFEST).write_bytes(content)
        try:
            verifier.verify(Path(copy, MANIFEST), signature)
        # However what someone wrote into the file fails to be a signature, it vouches for nothing.
        except Exception as error:
            return f"another than the signature vouches for ({type(error).__name__})"
    return ""


def _refuse_key(name: str, path: str | os.PathLike[str], error: Exception) -> InputError:
    return InputError(
        name,
        "must be the file of an elliptic key, PEM, of the curve P-256, P-384 or P-521",
        f"{os.fspath(path)} ({type(error).__name__})",
        "make one with `openssl ecparam -genkey -name prime256v1 -noout`, its public half with "
        "`openssl ec -pubout`; a key with a password needs it",
    )


def _read_manifest(content: bytes) -> dict[str, str]:
    """Returns hashes by path."""
    try:
        manifest = json.loads(content)
        if manifest["manifest_version"] == MANIFEST_VERSION:
            return {path: entry["sha256"] for path, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(
        "directory",
        f"must hold a {MANIFEST} of version {MANIFEST_VERSION}",
        "another file",
        "pass a folder of `write_evidence`, or use the version of the library that wrote it",
    )


def _compare_files(
    folder: Path,
    hashes: Mapping[str, str],
    vouched_by: str,
    files: Mapping[str, str | os.PathLike[str]],
) -> EvidenceReport:
    """Compares what lies in a folder with a manifest that is vouched for.

    Only paths that were found in the folder, and are regular files, are opened: a path of the
    manifest that leads out of the folder counts as missing.
    """
    entries = list_entries(folder)
    regular = {path for path, is_file in entries.items() if is_file}
    expected = hashes.keys() | {MANIFEST, SIGNATURE}
    changed = [
        path for path in sorted(hashes.keys() & regular) if hash_file(folder / path) != hashes[path]
    ]
    missing = sorted(hashes.keys() - regular)
    links = entries.keys() & {MANIFEST, SIGNATURE} - regular
    unexpected = sorted((entries.keys() - expected) | links)
    unmatched = sorted(files)
    if files and "evidence.json" in regular and "evidence.json" not in changed:
        unmatched = _find_unmatched(folder / "evidence.json", files)
    return EvidenceReport(
        str(folder),
        vouched_by,
        changed=tuple(changed),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        unmatched=tuple(unmatched),
    )


def _find_unmatched(evidence: Path, files: Mapping[str, str | os.PathLike[str]]) -> list[str]:
    """Returns roles whose file is another than the evidence, which is intact, describes."""
    released = json.loads(evidence.read_bytes())["released"]
    for role in files:
        if role not in released:
            known = ", ".join(released)
            raise InputError("files", "must be named by role", repr(role), f"choose from {known}")
    return [
        role
        for role, path in sorted(files.items())
        if hash_released(role, Path(path)).sha256 != released[role]["sha256"]
    ]
