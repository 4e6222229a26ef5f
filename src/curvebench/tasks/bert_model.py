"""BERT's sizes and initial parameters in NumPy, by the names of ``transformers``' model.

BERT-tiny has 2 layers of width 128, BERT-mini 4 of 256, BERT-base 12 of 768; with the full vocabulary and a two-way
classifier 4,386,178, 11,171,074 and 109,483,778 parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from curvebench.types import Parameters

SPREAD = 0.02
"""Standard deviation of every weight matrix and embedding, as in BERT."""


class Bert(NamedTuple):
    """Sizes of a network."""

    layers: int
    width: int
    heads: int
    hidden: int
    vocabulary: int = 30522
    positions: int = 512


SIZES = {"tiny": Bert(2, 128, 2, 512), "mini": Bert(4, 256, 4, 1024), "base": Bert(12, 768, 12, 3072)}


def initial(rng: np.random.Generator, shape: Bert, outputs: int | None) -> Parameters:
    """N(0, 0.02^2) matrices and embeddings (a zero row for the filling token), zero biases, unit norms.

    Args:
        rng: draws the matrices in the dict's order.
        shape: sizes of the network.
        outputs: of a classifier behind the pooler, or None for a masked-language-model head.
    """
    parameters: Parameters = {}

    def matrix(name: str, *size: int) -> None:
        parameters[f"{name}.weight"] = SPREAD * rng.standard_normal(size)

    def dense(name: str, n_out: int, n_in: int) -> None:
        matrix(name, n_out, n_in)
        parameters[f"{name}.bias"] = np.zeros(n_out)

    def norm(name: str) -> None:
        parameters[f"{name}.weight"] = np.ones(shape.width)
        parameters[f"{name}.bias"] = np.zeros(shape.width)

    matrix("bert.embeddings.word_embeddings", shape.vocabulary, shape.width)
    parameters["bert.embeddings.word_embeddings.weight"][0] = 0
    matrix("bert.embeddings.position_embeddings", shape.positions, shape.width)
    matrix("bert.embeddings.token_type_embeddings", 2, shape.width)
    norm("bert.embeddings.LayerNorm")
    for index in range(shape.layers):
        layer = f"bert.encoder.layer.{index}"
        for part in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{part}", shape.width, shape.width)
        dense(f"{layer}.attention.output.dense", shape.width, shape.width)
        norm(f"{layer}.attention.output.LayerNorm")
        dense(f"{layer}.intermediate.dense", shape.hidden, shape.width)
        dense(f"{layer}.output.dense", shape.width, shape.hidden)
        norm(f"{layer}.output.LayerNorm")
    if outputs is None:
        parameters["cls.predictions.bias"] = np.zeros(shape.vocabulary)
        dense("cls.predictions.transform.dense", shape.width, shape.width)
        norm("cls.predictions.transform.LayerNorm")
    else:
        dense("bert.pooler.dense", shape.width, shape.width)
        dense("classifier", outputs, shape.width)
    return parameters


class Site(NamedTuple):
    """A place where BERT drops: its name below torch's ``BertModel``, its number, and its elements' strides."""

    name: str
    number: int
    strides: tuple[int, ...]


def dropout_sites(shape: Bert) -> tuple[Site, ...]:
    """BERT's own places: embeddings, attention weights, both outputs of a layer, and last the pooled output.

    Strides count to the longest sequence, so that a batch cut after its longest sentence has the same masks.
    """
    hidden, square = (shape.width, 1), (shape.positions**2, shape.positions, 1)
    sites = [Site("embeddings.dropout", 0, hidden)]
    for index in range(shape.layers):
        layer = f"encoder.layer.{index}"
        sites += [
            Site(f"{layer}.attention.self.dropout", 3 * index + 1, square),
            Site(f"{layer}.attention.output.dropout", 3 * index + 2, hidden),
            Site(f"{layer}.output.dropout", 3 * index + 3, hidden),
        ]
    return (*sites, Site("classifier", 3 * shape.layers + 1, (1,)))
