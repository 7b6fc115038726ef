"""The plain loop that an engineer would write in PyTorch: same shapes, batch, loss, precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def make_image_epoch(
    data: tuple[np.ndarray, np.ndarray], held_out: tuple[np.ndarray, np.ndarray]
) -> Callable[[Sequence[np.ndarray]], float]:
    """Returns a function that trains the article's network for an epoch and validates it."""
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.Adam(model.parameters(), eps=1e-7)
    sides = [
        (torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(y.argmax(axis=1)))
        for x, y in (data, held_out)
    ]
    return _make_epoch(model, optimizer, sides, measures_accuracy=True)


def make_language_epoch(
    data: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    settings: Any,
) -> Callable[[Sequence[np.ndarray]], float]:
    """Returns a function that trains the transformer for an epoch and validates it."""
    model = _make_language_model(settings)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    sides = [tuple(torch.tensor(part).long() for part in side) for side in (data, held_out)]
    return _make_epoch(model, optimizer, sides, clip_norm=1.0)


def _make_epoch(
    model: Any,
    optimizer: Any,
    sides: Sequence[Any],
    *,
    measures_accuracy: bool = False,
    clip_norm: float | None = None,
) -> Callable[[Sequence[np.ndarray]], float]:
    (x, y), (x_held_out, y_held_out) = sides

    def measure(inputs: Any, targets: Any) -> tuple[Any, Any]:
        logits = model(inputs).flatten(0, -2)
        loss = functional.cross_entropy(logits, targets.flatten())
        right = (logits.argmax(-1) == targets.flatten()).sum() if measures_accuracy else 0
        return loss, right

    def run_epoch(batches: Sequence[np.ndarray]) -> float:
        model.train()
        total, num_right = torch.zeros(()), 0
        for batch in batches:
            rows = torch.from_numpy(batch)
            loss, right = measure(x[rows], y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            total += loss.detach() * len(batch)
            num_right += right
        model.eval()
        with torch.no_grad():
            for start in range(0, len(x_held_out), 128):
                rows = slice(start, start + 128)
                loss, right = measure(x_held_out[rows], y_held_out[rows])
        return float(total) + float(loss)

    return run_epoch


def _make_language_model(settings: Any) -> Any:
    width, heads, hidden = settings.width, settings.num_heads, settings.feedforward_width
    half = width // heads // 2
    angles = torch.outer(
        torch.arange(settings.context_length), 10_000.0 ** -(torch.arange(half) / half)
    )
    cosine, sine = angles.cos(), angles.sin()

    def rotate(part: Any) -> Any:
        first, second = part.chunk(2, dim=-1)
        turned = first * cosine - second * sine, second * cosine + first * sine
        return torch.cat(turned, dim=-1)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_norm, self.forward_norm = nn.RMSNorm(width), nn.RMSNorm(width)
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.output = nn.Linear(width, width, bias=False)
            self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
            self.down = nn.Linear(hidden, width, bias=False)

        def forward(self, flow: Any) -> Any:
            shape = (*flow.shape[:2], 3, heads, 2 * half)
            query, key, value = self.qkv(self.attention_norm(flow)).view(shape).unbind(2)
            query, key, value = (part.transpose(1, 2) for part in (query, key, value))
            mixed = functional.scaled_dot_product_attention(
                rotate(query), rotate(key), value, is_causal=True
            )
            flow = flow + self.output(mixed.transpose(1, 2).flatten(2))
            gate, up = self.gate_up(self.forward_norm(flow)).chunk(2, dim=-1)
            return flow + self.down(functional.silu(gate) * up)

    class LanguageModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(settings.vocabulary_size, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(settings.num_layers)))
            self.norm = nn.RMSNorm(width)

        def forward(self, tokens: Any) -> Any:
            state = self.norm(self.blocks(self.embedding(tokens)))
            return state @ self.embedding.weight.T

    return LanguageModel()
