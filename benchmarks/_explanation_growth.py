"""How the cost of each engine grows with samples, features, rows and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from _explanation_arms import fit_growth
from _explanation_lime import (
    build_image_network,
    build_table_network,
    build_text_predict,
    load_table,
    make_text,
)

from bigmodel_utils import data, explanation

SAMPLES = [1000, 2000, 4000, 8000, 16_000]


def measure_growth(num_rounds: int) -> dict[str, Any]:
    """Slopes of log time over log size: 1 is in proportion, 0 is free."""
    print("growth: time at the smallest and the largest size, slope in logarithms [95 %]")
    return {
        "LIME, tables": _measure_tables(num_rounds),
        "LIME, images": _measure_images(num_rounds),
        "LIME, texts": _measure_texts(num_rounds),
        "KernelSHAP": _measure_kernel_shap(num_rounds),
        "expected gradients": _measure_gradients(num_rounds),
    }


def _widen(num_features: int) -> np.ndarray:
    """Rows of a table of any width; beyond thirty the tumors' features come again."""
    return np.resize(load_table().T, (num_features, 569)).T.astype(np.float32)


def _measure_tables(num_rounds: int) -> dict[str, Any]:
    def make(*, samples: int = 5000, features: int = 30, rows: int = 1) -> Any:
        table = _widen(features)
        predict = explanation.build_predict_fn(build_table_network(features))
        return lambda: explanation.explain_with_lime_tabular(
            predict, table[:rows], background=table, num_samples=samples, targets=1
        )

    return {
        "samples": fit_growth(
            "LIME, tables: samples", lambda n: make(samples=n), SAMPLES, num_rounds
        ),
        "features": fit_growth(
            "LIME, tables: features", lambda n: make(features=n), [10, 20, 40, 80, 160], num_rounds
        ),
        "rows": fit_growth(
            "LIME, tables: rows", lambda n: make(rows=n), [4, 8, 16, 32, 64], num_rounds
        ),
    }


def _measure_images(num_rounds: int) -> dict[str, Any]:
    images = data.load_digits().x
    predict = explanation.build_predict_fn(build_image_network())

    def make(*, samples: int = 1000, side: int = 4, rows: int = 1) -> Any:
        grid = explanation.make_grid_segments((28, 28), side, hide_value=0.0)
        return lambda: explanation.explain_with_lime_image(
            predict, images[:rows], segments=grid, num_samples=samples
        )

    sides = {16: 7, 49: 4, 196: 2}
    return {
        "samples": fit_growth(
            "LIME, images: samples", lambda n: make(samples=n), SAMPLES[:4], num_rounds
        ),
        "features": fit_growth(
            "LIME, images: squares", lambda n: make(side=sides[n]), list(sides), num_rounds
        ),
        "rows": fit_growth("LIME, images: rows", lambda n: make(rows=n), [1, 2, 4, 8], num_rounds),
    }


def _measure_texts(num_rounds: int) -> dict[str, Any]:
    predict = build_text_predict()

    def make(*, samples: int = 2000, words: int = 25, rows: int = 1) -> Any:
        texts = [make_text(words)] * rows
        return lambda: explanation.explain_with_lime_text(
            predict, texts, num_samples=samples, targets=1
        )

    return {
        "samples": fit_growth(
            "LIME, texts: samples", lambda n: make(samples=n), SAMPLES[:4], num_rounds
        ),
        "features": fit_growth(
            "LIME, texts: words", lambda n: make(words=n), [15, 30, 60, 120], num_rounds
        ),
        "rows": fit_growth("LIME, texts: rows", lambda n: make(rows=n), [1, 2, 4, 8], num_rounds),
    }


def _measure_kernel_shap(num_rounds: int) -> dict[str, Any]:
    def make(
        *, samples: int = 1000, features: int = 30, rows: int = 4, background: int = 25
    ) -> Any:
        table = _widen(features)
        predict = explanation.build_predict_fn(build_table_network(features), batch_size=2**14)
        return lambda: explanation.explain_with_kernel_shap(
            predict, table[:rows], background=table[100 : 100 + background], budget=samples
        )

    return {
        "samples": fit_growth(
            "KernelSHAP: evaluations", lambda n: make(samples=n), SAMPLES[:4], num_rounds
        ),
        "features": fit_growth(
            "KernelSHAP: features", lambda n: make(features=n), [20, 40, 80, 160], num_rounds
        ),
        "rows": fit_growth("KernelSHAP: rows", lambda n: make(rows=n), [2, 4, 8, 16], num_rounds),
        "background": fit_growth(
            "KernelSHAP: background", lambda n: make(background=n), [10, 20, 40, 80], num_rounds
        ),
    }


def _measure_gradients(num_rounds: int) -> dict[str, Any]:
    images, model = data.load_digits().x, build_image_network("linear")

    def make(*, samples: int = 200, rows: int = 1, outputs: int = 10) -> Any:
        return lambda: explanation.explain_with_expected_gradients(
            model,
            images[:rows],
            background=images[100:150],
            num_samples=samples,
            targets=range(outputs),
        )

    return {
        "samples": fit_growth(
            "expected gradients: samples",
            lambda n: make(samples=n),
            [100, 200, 400, 800],
            num_rounds,
        ),
        "rows": fit_growth(
            "expected gradients: rows", lambda n: make(rows=n), [1, 2, 4, 8], num_rounds
        ),
        "outputs": fit_growth(
            "expected gradients: outputs", lambda n: make(outputs=n), [1, 2, 4, 8], num_rounds
        ),
    }
