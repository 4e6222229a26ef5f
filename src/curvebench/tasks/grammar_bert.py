"""Masked-language-model training of BERT-tiny on a synthetic grammar with a known floor; needs no download.

One instance of the grammar, whatever the seed block; a seed block has its own initial parameters and data order.
Masked tokens are always replaced by the mask (BERT keeps some and replaces some by others), so that the exact
distribution given what is visible is the forward-backward posterior. The metric is the mean Kullback-Leibler divergence
of the model's distributions from it: the excess over the floor, never negative.
Inputs ``[n, length + k]``: tokens (0 the filling, 1 the mask, then the grammar's), and the k masked positions.
Targets: ``[n, k]`` tokens in training, ``[n, k, vocabulary]`` distributions in validation and test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.bert_jax import jax_masked
from curvebench.tasks.bert_model import Bert, initial
from curvebench.tasks.bert_torch import torch_masked
from curvebench.tasks.grammar import draw_grammar, entropy, masks, posterior, sentences
from curvebench.tasks.problem import Problem, Split, batch_size, generator

MASK, FIRST = 1, 2
"""Numbers of the mask and of the grammar's first token."""
UNREACHABLE = 1e-12
"""Probability of the filling and the mask as answers: positive, since the metric takes logarithms."""


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """The task at a scale.

    Options: ``states``, ``tokens``, ``length``, ``masked`` (positions a sentence), ``train``, ``validation``, ``test``
    (sentences), ``layers``, ``width``, ``heads``, ``hidden``.

    Raises:
        ValueError: masked does not lie in [1, length].
    """
    options: Mapping[str, Any] = scale.options
    states, tokens, length, masked = (int(options[key]) for key in ("states", "tokens", "length", "masked"))
    layers, width, heads, hidden = (int(options[key]) for key in ("layers", "width", "heads", "hidden"))
    if not 1 <= masked <= length:
        raise ValueError(f"{card.name}: masked = {masked}: must lie in [1, {length}]")
    shape = Bert(layers, width, heads, hidden, vocabulary=tokens + FIRST, positions=length)
    rules = draw_grammar(generator(card.name, "instance", f"{states}/{tokens}"), states, tokens)

    def split(part: str, exact: bool) -> Split:
        rng = generator(card.name, "data", f"{part}/{states}/{tokens}/{length}/{masked}")
        written = sentences(rng, rules, int(options[part]), length)
        positions = masks(rng, len(written), length, masked)
        shown = written + FIRST
        np.put_along_axis(shown, positions, MASK, axis=1)
        inputs = np.concatenate([shown, positions], axis=1)
        if not exact:
            return Split(inputs, np.take_along_axis(written, positions, axis=1) + FIRST)
        truth = posterior(rules, written, positions)
        never = np.full((*truth.shape[:2], FIRST), UNREACHABLE)
        return Split(inputs, np.concatenate([never, truth], axis=2))

    train, validation, test = split("train", False), split("validation", True), split("test", True)
    floor = entropy(validation.targets[..., FIRST:])
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), shape, None),
        train=train,
        validation=validation,
        test=test,
        train_probe=len(validation),
        criterion="cross-entropy",
        metric="excess",
        torch_module=lambda: torch_masked(shape, length),
        jax_apply=lambda _: jax_masked(shape, length),
        batch=batch_size(scale),
        notes=(f"the least cross-entropy at a masked position is {floor:.6f} nats (exact, validation sentences)",),
    )
