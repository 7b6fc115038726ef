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
    model = build_language_model(settings)
    optimizer = build_optimizer(model)
    sides = [tuple(torch.tensor(part).long() for part in side) for side in (data, held_out)]
    return _make_epoch(model, optimizer, sides, clip_norm=1.0)


def build_optimizer(model: Any) -> Any:
    """Builds AdamW with the defaults of `bigmodel_utils.models.build_language_model`."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)


def make_language_steps(
    tokens: np.ndarray, settings: Any, *, num_steps: int
) -> Callable[[], float]:
    """Returns a function that takes steps in bfloat16 with a compiled model on the accelerator.

    Weights and moments stay in float32, as under Keras' policy `mixed_bfloat16`. Each batch is
    a row of `tokens`, of shape `(num_batches, batch, time + 1)`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    model = build_language_model(settings).to(device)
    optimizer = build_optimizer(model)
    batches = torch.from_numpy(tokens).long().to(device)

    @torch.compile
    def measure(batch: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            logits = model(batch[:, :-1])
        return functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())

    def run_steps() -> float:
        for step in range(num_steps):
            loss = measure(batches[step % len(batches)])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return float(loss.detach())  # waits for the device

    return run_steps


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


def build_language_model(settings: Any) -> Any:
    """Builds the transformer of `bigmodel_utils.models` with its default choices."""
    width, heads, hidden = settings.width, settings.num_heads, settings.feedforward_width
    half = width // heads // 2
    angles = torch.outer(
        torch.arange(settings.context_length), 10_000.0 ** -(torch.arange(half) / half)
    )
    cosine, sine = angles.cos(), angles.sin()

    def rotate(part: Any) -> Any:
        first, second = part.chunk(2, dim=-1)
        turn = [table.to(part.device, part.dtype) for table in (cosine, sine)]
        turned = first * turn[0] - second * turn[1], second * turn[0] + first * turn[1]
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
