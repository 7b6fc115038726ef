"""Real data: sets and corpora with their provenance, splits that hold, pipelines that resume.

What is bundled with an installed library loads without a network; what must be downloaded
is downloaded only on request, verified, and never replaced by something else.
"""

from ._corpus import Corpus, Document, load_standard_library
from ._corruptions import CORRUPTIONS, corrupt_images
from ._datasets import (
    Dataset,
    load_breast_cancer,
    load_digits,
    load_fashion_mnist,
    load_mnist,
)
from ._download import DataUnavailableError, find_cache
from ._pipelines import make_tf_dataset, shuffle_batches
from ._recall import make_recall_examples
from ._shifts import shift_images
from ._splits import count_overlap, split_by_hash
from ._tokens import END_OF_DOCUMENT, END_TOKEN, pack_tokens, train_tokenizer

__all__ = [
    "CORRUPTIONS",
    "END_OF_DOCUMENT",
    "END_TOKEN",
    "Corpus",
    "DataUnavailableError",
    "Dataset",
    "Document",
    "corrupt_images",
    "count_overlap",
    "find_cache",
    "load_breast_cancer",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_standard_library",
    "make_recall_examples",
    "make_tf_dataset",
    "pack_tokens",
    "shift_images",
    "shuffle_batches",
    "split_by_hash",
    "train_tokenizer",
]
