"""Labelled data sets with keys and provenance, and the loaders of the real ones."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_labels, check_same_length, import_extra
from ._download import RemoteFile, fetch_file

_DIGIT_NAMES = tuple("0123456789")

# Hash: keras.datasets.mnist in Keras 3.15.1.
_MNIST_FILE = RemoteFile(
    "mnist/mnist.npz",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
)
# Hashes: tensorflow_datasets/url_checksums/fashion_mnist.txt in TensorFlow Datasets, for these
# addresses. The publisher's own README gives MD5 only, and no address that is encrypted.
_FASHION_ORIGIN = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_FILES = tuple(
    RemoteFile(f"fashion-mnist/{name}", _FASHION_ORIGIN + name, sha256)
    for name, sha256 in (
        (
            "train-images-idx3-ubyte.gz",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    )
)
_MNIST = {"class_names": _DIGIT_NAMES, "source": _MNIST_FILE.origin, "licence": "CC BY-SA 3.0"}
_FASHION = {
    "class_names": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "source": _FASHION_ORIGIN,
    "licence": "MIT",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled examples with their provenance, checked when made, read-only after.

    Attributes:
        name: what the set is called.
        x: inputs `(num_examples, …)`, float32, finite.
        y: class numbers `(num_examples,)`, int64.
        class_names: one name per class.
        source: where the examples come from.
        licence: what their use is subject to.

    Raises:
        InputError: if arrays are empty, of unequal length or wrong shape, an input is not
            finite, or a label has no class name.

    Example:
        >>> points = Dataset("points", [[0.0, 1.0], [2.0, 3.0]], [1, 0], ("left", "right"))
        >>> len(points), points.num_classes, points.x.dtype.name
        (2, 2, 'float32')
    """

    name: str
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    class_names: Sequence[str]
    source: str = "unknown"
    licence: str = "unknown"

    def __post_init__(self) -> None:
        names = _check_class_names(self.class_names)
        x = check_array("x", self.x)
        if x.ndim < 2:
            raise InputError(
                "x",
                "must have shape (num_examples, …)",
                f"shape {x.shape}",
                "add an axis: one row per example",
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: refused
            x = check_array("x", x.astype(np.float32, copy=False)).view()
        y = check_labels("y", self.y, num_classes=len(names))
        check_same_length(x=x, y=y)
        x.flags.writeable = y.flags.writeable = False
        # The one way to convert a field of a frozen dataclass.
        for attribute, value in (("x", x), ("y", y), ("class_names", names)):
            object.__setattr__(self, attribute, value)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not each occurs."""
        return len(self.class_names)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """One content hash per example (64 bits of SHA-256, hexadecimal).

        It depends on the input alone: equal inputs share a key even where labels differ.
        """
        rows = (self.x + np.float32(0)).astype("<f4", copy=False)  # -0 becomes 0
        return tuple(hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows)

    @cached_property
    def sha256(self) -> str:
        """Hash of the shape, the class names and the bytes of `x` and `y`."""
        digest = hashlib.sha256(repr((self.x.shape, self.class_names)).encode())
        digest.update(self.x.astype("<f4", copy=False).tobytes())
        digest.update(self.y.astype("<i8", copy=False).tobytes())
        return digest.hexdigest()

    def take(self, indices: Any) -> Dataset:
        """Returns the examples at `indices`, in that order.

        Args:
            indices: integers from 0 to `len(self) - 1`, `(num_indices,)`; repeats are allowed.

        Returns:
            A data set of `num_indices` examples with the same name and provenance.

        Raises:
            InputError: if there are none, one is no integer or one is out of range.

        Example:
            >>> load_digits().take([0, 7]).y.tolist()
            [0, 7]
        """
        chosen = check_array("indices", indices, shape=(None,))
        if chosen.dtype.kind not in "iu":
            raise InputError(
                "indices",
                "must hold integers",
                f"dtype {chosen.dtype}",
                "pass positions; for a mask, numpy.flatnonzero(mask)",
            )
        outside = (chosen < 0) | (chosen >= len(self))
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            raise InputError(
                "indices",
                f"must lie in 0 … {len(self) - 1}",
                f"{chosen[first]} at index {first}",
                "pass positions within this data set",
            )
        return Dataset(
            self.name,
            self.x[chosen],
            self.y[chosen],
            self.class_names,
            source=self.source,
            licence=self.licence,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns what identifies the set as a plain dictionary, without the arrays."""
        return {
            "name": self.name,
            "num_examples": len(self),
            "shape": list(self.x.shape),
            "class_names": list(self.class_names),
            "source": self.source,
            "licence": self.licence,
            "sha256": self.sha256,
        }


def load_digits() -> Dataset:
    """Loads scikit-learn's handwritten digits at 28 × 28 × 1, offline.

    The 1797 images were scanned at 8 × 8 with values 0 … 16. Each pixel becomes a block of
    3 × 3, with a margin of 2 around, so that networks made for MNIST's shape fit. Nothing is
    lost and nothing gained: `x[:, 3:-2:3, 3:-2:3, 0] * 16` is the original.

    *Limits*: enlarged 8 × 8 images, not MNIST; results on the two do not compare.

    Returns:
        A data set with `x` of `(1797, 28, 28, 1)` in [0, 1] and ten classes.

    Raises:
        MissingExtraError: if scikit-learn is not installed.

    Example:
        >>> digits = load_digits()
        >>> digits.x.shape, digits.num_classes
        ((1797, 28, 28, 1), 10)

    References:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998), UCI
        Machine Learning Repository, doi.org/10.24432/C50P49
    """
    bundled = import_extra("sklearn.datasets", extra="data").load_digits()
    images = np.kron(bundled.images.astype(np.float32) / 16, np.ones((1, 3, 3), np.float32))
    return Dataset(
        "digits",
        np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None],
        bundled.target,
        _DIGIT_NAMES,
        source="scikit-learn load_digits; UCI, doi.org/10.24432/C50P49",
        licence="CC BY 4.0",
    )


def load_breast_cancer() -> Dataset:
    """Loads the Wisconsin diagnostic breast-cancer measurements, offline.

    *Limits*: features are as measured, on scales from thousandths to thousands; standardise
    them with statistics of the training side only.

    Returns:
        A data set with `x` of `(569, 30)` and the classes malignant (212) and benign (357).

    Raises:
        MissingExtraError: if scikit-learn is not installed.

    Example:
        >>> load_breast_cancer().class_names
        ('malignant', 'benign')

    References:
        W. Wolberg, O. Mangasarian, N. Street and W. Street, Breast Cancer Wisconsin
        (Diagnostic) (1993), UCI Machine Learning Repository, doi.org/10.24432/C5DW2B
    """
    bundled = import_extra("sklearn.datasets", extra="data").load_breast_cancer()
    return Dataset(
        "breast_cancer",
        bundled.data,
        bundled.target,
        tuple(str(name) for name in bundled.target_names),
        source="scikit-learn load_breast_cancer; UCI, doi.org/10.24432/C5DW2B",
        licence="CC BY 4.0",
    )


def load_mnist() -> tuple[Dataset, Dataset]:
    """Loads MNIST, downloading 11 MB on first use: 60,000 training and 10,000 test digits.

    The file is kept under `BIGMODEL_CACHE` (default `~/.cache/bigmodel_utils`), fetched from
    `BIGMODEL_DATA_MIRROR` if that is set, and verified by SHA-256 each time.

    Returns:
        Training and test set, `x` of `(num_examples, 28, 28, 1)` in [0, 1].

    Raises:
        DataUnavailableError: if the file is not at hand and cannot be downloaded; there is no
            fallback to other data.

    Example:
        >>> train, test = load_mnist()  # doctest: +SKIP

    References:
        Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-Based Learning Applied to
        Document Recognition (1998), Proceedings of the IEEE 86(11)
    """
    with np.load(fetch_file(_MNIST_FILE), allow_pickle=False) as arrays:
        return (
            _make_image_set("mnist_train", arrays["x_train"], arrays["y_train"], _MNIST),
            _make_image_set("mnist_test", arrays["x_test"], arrays["y_test"], _MNIST),
        )


def load_fashion_mnist() -> tuple[Dataset, Dataset]:
    """Loads Fashion-MNIST, downloading 31 MB on first use: 60,000 and 10,000 articles.

    Cache, mirror and verification are those of `load_mnist`.

    Returns:
        Training and test set, `x` of `(num_examples, 28, 28, 1)` in [0, 1].

    Raises:
        DataUnavailableError: if a file is not at hand and cannot be downloaded; there is no
            fallback to other data.

    Example:
        >>> train, test = load_fashion_mnist()  # doctest: +SKIP

    References:
        H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for
        Benchmarking Machine Learning Algorithms (2017), arXiv:1708.07747
    """
    paths = [fetch_file(file) for file in _FASHION_FILES]
    # An IDX file: 8 bytes of header and one dimension for labels, 16 and three for images.
    x_train, y_train, x_test, y_test = (
        np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=offset)
        for path, offset in zip(paths, (16, 8, 16, 8), strict=True)
    )
    return (
        _make_image_set("fashion_mnist_train", x_train, y_train, _FASHION),
        _make_image_set("fashion_mnist_test", x_test, y_test, _FASHION),
    )


def _make_image_set(
    name: str, pixels: np.ndarray, labels: np.ndarray, provenance: dict[str, Any]
) -> Dataset:
    images = pixels.reshape(-1, 28, 28, 1).astype(np.float32) / 255
    return Dataset(name, images, labels, **provenance)


def _check_class_names(names: Sequence[str]) -> tuple[str, ...]:
    fix = "pass a tuple with one name per class"
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InputError("class_names", "must be a sequence of strings", repr(names), fix)
    if len(names) == 0 or len(set(names)) != len(names):
        raise InputError("class_names", "must be non-empty and distinct", repr(names), fix)
    return tuple(names)
