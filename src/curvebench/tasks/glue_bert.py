"""Fine-tuning BERT on GLUE, each task with its metric.

The official validation part is the test set here: what papers report, and never tuned on. The last rows of a fixed
permutation of the official training part are held out for validation: targets and tuning look at them.
Inputs ``[n, 2, length]``: WordPiece numbers filled up with 0, and segments. Batches are cut after their longest
sentence in torch; jax compiles one shape, the longest of the part.
Without pre-trained weights a run starts from random ones; the record says so, and so does the title of the table.
The ``paper`` scales have dropout and a linearly falling rate as M-FAC's fine-tuning has; others have neither.
Differs from it: a held-out validation part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench import cards
from curvebench.cards import DatasetCard, TaskCard, TaskScale
from curvebench.data import roots, weights
from curvebench.data.glue import LAYOUTS, Sentences, load_glue
from curvebench.data.tokens import cached, encode
from curvebench.data.wordpiece import load_vocabulary
from curvebench.tasks.bert_jax import jax_classifier
from curvebench.tasks.bert_model import SIZES, initial
from curvebench.tasks.bert_torch import torch_classifier
from curvebench.tasks.dropout import DropoutKeys, check_rate
from curvebench.tasks.problem import Problem, Split, batch_size, generator
from curvebench.tasks.scores import Extra

METRICS = {
    "cola": "matthews", "sst2": "accuracy", "mrpc": "f1", "stsb": "pearson", "qqp": "f1", "mnli": "accuracy",
    "qnli": "accuracy", "rte": "accuracy",
}  # fmt: skip

EXTRAS = {
    "mrpc": {"test accuracy": Extra("accuracy")},
    "qqp": {"test accuracy": Extra("accuracy")},
    "stsb": {"test Spearman": Extra("spearman")},
}
"""The second of the official pair; MNLI's is the accuracy on its mismatched part."""


class Part(NamedTuple):
    """One part in numbers."""

    tokens: npt.NDArray[np.uint16]  # [n, 2, length]
    labels: npt.NDArray[Any]  # [n], int64 classes or float64 scores


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """The task at a scale.

    Options: ``size`` (tiny | mini | base), ``length`` (at most so many WordPieces), ``train``, ``validation``, ``test``
    (rows at most; 0: all), ``held_out`` (rows of the training part), ``weights`` (name of the pre-trained model),
    ``dropout`` (rate while training, 0 by default).

    Raises:
        DataError: a data file is missing or is not the official one, or the weights are a pickle.
        ValueError: more rows are held out than there are, or a rate of dropout outside [0, 1).
    """
    options: Mapping[str, Any] = scale.options
    assert card.dataset is not None
    shape, name = SIZES[str(options["size"])], card.dataset
    official, judged, *others = parts(cards.dataset(name), int(options["length"]))
    held = int(options["held_out"])
    if not 1 <= held < len(official.labels):
        raise ValueError(f"{card.name}: held_out = {held}: must lie in [1, {len(official.labels) - 1}]")
    order = generator(name, "split", "held-out").permutation(len(official.labels))
    rows = {"train": order[:-held], "validation": order[-held:]}
    outputs = len(LAYOUTS[name].classes) or 1
    most = int(options["test"]) or None
    extras = dict(EXTRAS.get(name, {}))
    for other in others:  # MNLI's
        extras["mismatched test accuracy"] = Extra("accuracy", _split(other, np.arange(len(other.labels))[:most]))
    dropout = check_rate(card.name, float(options.get("dropout", 0.0)))
    at = Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), shape, outputs),
        train=_split(official, rows["train"][: int(options["train"]) or None]),
        validation=_split(official, rows["validation"][: int(options["validation"]) or None]),
        test=_split(judged, np.arange(len(judged.labels))[:most]),
        train_probe=int(options["validation"]) or held,
        criterion="cross-entropy" if outputs > 1 else "squared",
        metric=METRICS[name],
        torch_module=lambda: torch_classifier(shape, outputs, dropout),
        jax_apply=lambda train: jax_classifier(shape, outputs, dropout if train else 0.0),
        batch=batch_size(scale),
        padded=True,
        extras=extras,
        augment=DropoutKeys() if dropout else None,
        chunk=250,
    )
    return pretrained(at, str(options["weights"]))


def pretrained(at: Problem, model: str) -> Problem:
    """The problem started from the weights of ``model`` where there are some, else with a note that there are none."""
    found = weights.find(model)
    if found.path is None:
        remedy = f"set {weights.VARIABLE} to a folder with {model}/{weights.FILE}"
        note = f"started from random weights: {found.why}; {remedy}"
        return replace(at, notes=(*at.notes, note), suffix=" (random weights)")
    parameters, count = weights.overlay(at.parameters, found.path)
    note = f"started from {model}, {count} of {len(parameters)} tensors, sha256 {weights.identity(model)[:16]}"
    return replace(at, parameters=parameters, notes=(*at.notes, note))


def parts(card: DatasetCard, length: int) -> tuple[Part, ...]:
    """The official training and validation part (MNLI: and its mismatched one) in numbers, from the cache if there."""
    folder = roots.locate(card)
    roots.verify(card, folder)
    vocabulary = cards.dataset("bert-vocabulary")
    key: dict[str, Any] = {"data": card.digest, "vocabulary": vocabulary.digest, "length": length}
    if card.name == "mnli":
        key["parts"] = 3

    def make() -> tuple[npt.NDArray[np.generic], ...]:
        path, found = load_vocabulary(card=vocabulary).path, load_glue(folder, card=card)
        return tuple(
            array
            for part in (found.train, found.validation, found.mismatched)
            if part is not None
            for array in _numbers(path, part, length)
        )

    arrays = cached(key, make)
    return tuple(Part(t.astype(np.uint16, copy=False), y) for t, y in zip(arrays[::2], arrays[1::2], strict=True))


def _numbers(vocabulary: Any, part: Sentences, length: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[Any]]:
    return encode(vocabulary, part.first, part.second, length), part.labels


def _split(part: Part, rows: npt.NDArray[np.int64]) -> Split:
    """Rows of a part, cut after the longest of them."""
    tokens = part.tokens[rows]
    longest = int((tokens[:, 0] != 0).sum(axis=1).max())
    return Split(tokens[:, :, :longest].astype(np.int64), part.labels[rows])
