"""Masked-language-model pre-training of BERT on WikiText-2, from random weights.

The text's WordPieces, line after line, are cut into windows ``[CLS] ... [SEP]`` of ``length``. 15 % of a window's
inner positions are chosen by BERT's rule (:mod:`curvebench.tasks.masking`): anew for every training batch, once for
evaluation and for the reported training loss. ``<unk>`` becomes [UNK]. Only chosen positions are decoded.
Where the official training part is not on this machine, the official validation part trains, the first half of the test
part validates and the second half tests; the record and the title say so.
Inputs ``[n, length + k]`` (tokens, then chosen positions), targets ``[n, k]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench import cards
from curvebench.cards import TaskCard, TaskScale
from curvebench.data import roots
from curvebench.data.tokens import cached, pieces
from curvebench.data.wikitext import load_wikitext2
from curvebench.data.wordpiece import SPECIAL, load_vocabulary
from curvebench.tasks.augmentation import chain
from curvebench.tasks.bert_jax import jax_masked
from curvebench.tasks.bert_model import SIZES, initial
from curvebench.tasks.bert_torch import torch_masked
from curvebench.tasks.dropout import DropoutKeys, check_rate
from curvebench.tasks.masking import STAYS, FreshMasks, draw_masks
from curvebench.tasks.problem import Problem, Split, batch_size, generator

SHARE = 0.15


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """The task at a scale.

    Options: ``size`` (tiny | mini | base), ``length`` (of a window), ``train``, ``validation``, ``test`` (windows at
    most; 0: all), ``dropout`` (rate while training, 0 by default).

    Raises:
        DataError: a data file is missing or is not the official one.
        ValueError: length does not lie in [16, 512], or dropout not in [0, 1).
    """
    options: Mapping[str, Any] = scale.options
    shape, length = SIZES[str(options["size"])], int(options["length"])
    if not 16 <= length <= shape.positions:
        raise ValueError(f"{card.name}: length = {length}: must lie in [16, {shape.positions}]")
    dropout = check_rate(card.name, float(options.get("dropout", 0.0)))
    *streams, whole = token_streams()

    def split(part: str, stream: npt.NDArray[np.uint16]) -> Split:
        wanted = int(options[part]) or None
        return masked_windows(stream, length, generator(card.name, "masks", f"{part}/{length}"), wanted)

    train, validation, test = map(split, ("train", "validation", "test"), streams)
    note = (
        "WikiText-2's training part is not on this machine: trained on its validation part, validated on the first "
        "half of its test part, tested on the second"
    )
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), shape, None),
        train=train,
        validation=validation,
        test=test,
        train_probe=len(validation),
        criterion="cross-entropy",
        metric="token-loss",
        torch_module=lambda: torch_masked(shape, length, dropout),
        jax_apply=lambda training: jax_masked(shape, length, dropout if training else 0.0),
        batch=batch_size(scale),
        augment=chain(
            [FreshMasks(length, train.targets.shape[1], shape.vocabulary), *([DropoutKeys()] if dropout else [])]
        ),
        chunk=64,
        notes=() if whole else (note,),
        suffix="" if whole else " (trained on the validation part)",
    )


def token_streams() -> tuple[Any, ...]:
    """Training, validation and test tokens ``[m]`` uint16, and whether the training part is the official one."""
    data, vocabulary = cards.dataset("wikitext-2"), cards.dataset("bert-vocabulary")
    layout = roots.verify(data, roots.locate(data))

    def make() -> tuple[npt.NDArray[np.generic], ...]:
        path, text = load_vocabulary(card=vocabulary).path, load_wikitext2(card=data)
        return tuple(pieces(path, part.split("\n")) for part in (text.train, text.validation, text.test))

    key = {"stream": data.digest, "layout": layout, "vocabulary": vocabulary.digest}
    train, validation, test = cached(key, make)
    if layout == "archive":
        return train, validation, test, True
    half = len(test) // 2
    return train, test[:half], test[half:], False


def masked_windows(
    stream: npt.NDArray[np.uint16], length: int, rng: np.random.Generator, most: int | None = None
) -> Split:
    """Cut a stream of tokens into windows and hide 15 % of each by BERT's rule.

    Args:
        stream: tokens ``[m]``.
        length: of a window, [CLS] and [SEP] included; an incomplete last window is dropped.
        rng: draws positions, fates and replacements.
        most: windows at most.
    """
    inner = length - 2
    count, chosen = len(stream) // inner, round(SHARE * inner)
    if most is not None:
        count = min(count, most)
    tokens = np.full((count, length), SPECIAL["[SEP]"], dtype=np.int64)
    tokens[:, 0] = SPECIAL["[CLS]"]
    tokens[:, 1:-1] = stream[: count * inner].reshape(count, inner)
    positions, shown = draw_masks(rng, count, inner, chosen, SIZES["tiny"].vocabulary)
    targets = np.take_along_axis(tokens, positions, axis=1)
    np.put_along_axis(tokens, positions, np.where(shown == STAYS, targets, shown), axis=1)
    return Split(np.concatenate([tokens, positions], axis=1), targets)
