"""Sequence-level distillation: a student learns texts that its teacher wrote."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import check_array, check_integer
from ..generation import SamplingSettings, generate


def write_examples(
    teacher: Any,
    prompts: Any,
    *,
    num_tokens: int,
    sampling: SamplingSettings | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Has a language model write the texts that its student learns: sequence-level distillation.

    Args:
        teacher: a language model as for `generation.generate`.
        prompts: the beginnings, int tokens of shape `(num_texts, num_prompt_tokens)`.
        num_tokens: tokens that the teacher adds to each.
        sampling: how it draws them; `SamplingSettings(temperature=0)` takes the most probable
            token each time, in place of the beam search of the paper. Plain sampling if left out.
        seed: of the draws; each text has its own.

    Returns:
        Inputs and targets, int32 of shape `(num_texts, num_prompt_tokens + num_tokens - 1)`,
        the targets one token later: ready for `training.train` and the student as it is.

    Raises:
        InputError: if there are no prompts, or one does not fit into the context.

    Limits:
        One text at a time. The tokens of the prompt are learned too: take prompts from the
        texts that the student shall know, or of one token.

    Example:
        >>> from bigmodel_utils.models import LanguageModelSettings, build_language_model
        >>> settings = LanguageModelSettings(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ...     context_length=10,
        ... )
        >>> x, y = write_examples(build_language_model(settings), [[1], [2]], num_tokens=4)
        >>> x.shape, bool((x[:, 1:] == y[:, :-1]).all())
        ((2, 4), True)

    References:
        Kim and Rush, Sequence-Level Knowledge Distillation (2016), section 3.2.
    """
    starts = check_array("prompts", prompts, shape=(None, None))
    check_integer("seed", seed, at_least=0)
    # Draws of one text must not decide those of another.
    seeds = np.random.SeedSequence(seed).generate_state(len(starts))
    texts = [
        [*start, *generate(teacher, start, num_tokens=num_tokens, sampling=sampling, seed=int(own))]
        for start, own in zip(starts, seeds, strict=True)
    ]
    tokens = np.asarray(texts, dtype=np.int32)
    return tokens[:, :-1], tokens[:, 1:]
