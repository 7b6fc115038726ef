"""Processor time of a search for near-duplicates against the size of the corpus.

MinHash-LSH against comparing all pairs of the same shingle sets, on random parts of the
docstrings of the standard library; exact duplicates count as texts. The exponent is the slope
of log time over log size: 1 is proportional, 2 is quadratic. The last
figure says how many of the true pairs the hashing finds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from bigmodel_utils import data, hardware, reliability

RESULTS = Path(__file__).parent / "results"
THRESHOLD = 0.8
SIZES = {"lsh": (450, 900, 1800, 3600, 7200), "all_pairs": (225, 450, 900, 1800)}


def main() -> None:
    """Measures both searches and writes one JSON for this device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    corpus = data.load_standard_library("docstrings")
    texts = [document.text for document in corpus.documents]
    device = hardware.detect_devices()[0]
    report: dict[str, Any] = {
        "device": device.name,
        "python": platform.python_version(),
        "datasketch": version("datasketch"),
        "corpus": corpus.to_dict(),
        "threshold": THRESHOLD,
        "rounds": rounds,
        "unit": "processor seconds",
    }
    searches = {"lsh": search_by_hashing, "all_pairs": search_all_pairs}
    print(f"near-duplicates of docstrings from similarity {THRESHOLD:g}, {device.name}")
    for name, search in searches.items():
        cost = reliability.measure_search_cost(search, texts, sizes=SIZES[name], num_rounds=rounds)
        seconds = np.median(cost.seconds, axis=0)
        report[name] = cost.to_dict() | {"median_seconds": seconds.tolist()}
        print(f"  {name}: exponent {cost.exponent:.2f}")
        for size, spent in zip(cost.sizes, seconds, strict=True):
            print(f"    {size:>5} texts {spent:8.3f} s")
    report["search"] = compare_findings(texts[::2])
    print("  on {num_texts} texts: {lsh} of {all_pairs} pairs found".format(**report["search"]))
    RESULTS.mkdir(exist_ok=True)
    slug = "".join(c if c.isalnum() else "-" for c in device.name.lower()).strip("-")
    path = RESULTS / f"reliability-{slug}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}")


def search_by_hashing(texts: list[str]) -> set[tuple[int, int]]:
    """The library's search."""
    report = reliability.find_near_duplicates(texts, threshold=THRESHOLD)
    return {pair[:2] for pair in report.pairs}


def search_all_pairs(texts: list[str]) -> set[tuple[int, int]]:
    """The same pairs by comparing each distinct text with each other one."""
    firsts = {text: index for index, text in reversed(list(enumerate(texts)))}
    sets = [(firsts[text], reliability.build_shingles(text)) for text in dict.fromkeys(texts)]
    return {
        (first, second)
        for (first, shingles), (second, other) in itertools.combinations(sets, 2)
        if reliability.measure_similarity(shingles, other) >= THRESHOLD
    }


def compare_findings(texts: list[str]) -> dict[str, int]:
    """Pairs that each search finds in the same texts."""
    found, true = search_by_hashing(texts), search_all_pairs(texts)
    if not found <= true:
        raise RuntimeError("the search reports a pair that comparing all pairs does not")
    return {"num_texts": len(texts), "lsh": len(found), "all_pairs": len(true)}


if __name__ == "__main__":
    main()
