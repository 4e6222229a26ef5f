"""GLUE tasks: twins, filling and cutting, splits, weights and what the record says, on the real RTE and SST-2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from curvebench import cards, run
from curvebench.data import weights
from curvebench.spec import Query
from curvebench.tasks import bert_model, glue_bert
from curvebench.tasks.bert_jax import jax_classifier
from curvebench.tasks.bert_torch import torch_classifier
from curvebench.tasks.problem import Problem, Split
from curvebench.tasks.runtime_torch import TorchTask

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'curvebench[bert]'")
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SHAPE = bert_model.Bert(1, 8, 2, 12, vocabulary=20, positions=16)
GLUE = [name for name in cards.names("tasks") if cards.task(name).module == "curvebench.tasks.glue_bert"]


def padded(outputs: int) -> Problem:
    """Sentences of 3 to 9 tokens, filled up to 12."""
    rng = np.random.default_rng(outputs)
    tokens = np.zeros((9, 2, 12), dtype=np.int64)
    for row, length in zip(tokens, rng.integers(3, 10, 9), strict=True):
        row[0, :length], row[1, length // 2 : length] = rng.integers(1, 20, length), 1
    labels: Any = rng.random(9) if outputs == 1 else rng.integers(0, outputs, 9)
    split = Split(tokens, labels)
    parameters = bert_model.initial(np.random.default_rng(1), SHAPE, outputs)
    return Problem(
        name="tiny-glue",
        seed_block=0,
        parameters={n: p + 0.1 * rng.standard_normal(p.shape) for n, p in parameters.items()},
        train=split,
        validation=split,
        test=split,
        criterion="squared" if outputs == 1 else "cross-entropy",
        metric="pearson" if outputs == 1 else "f1",
        torch_module=lambda: torch_classifier(SHAPE, outputs),
        jax_apply=lambda _: jax_classifier(SHAPE, outputs),
        batch=4,
        padded=True,
    )


@pytest.mark.parametrize("outputs", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_torch_and_jax_agree_though_torch_cuts_the_filling(outputs: int) -> None:
    at = padded(outputs)
    left, right = tiny.Torch(at), tiny.Jax(at)
    assert left.task.batch(0)[0].shape[-1] == 16 or left.task.batch(0)[0].shape[-1] <= 12

    def ask(jaxed: Any, params: Any) -> Any:
        point = jaxed.at(params, needs=(Query.GRADIENT,))
        return point.loss(), point.gradient()

    loss, gradient = right.trace(ask, None)
    assert tiny.relative(left.ask("loss"), loss) < 1e-12
    ours = left.ask("gradient")
    assert np.sqrt(sum(np.sum((ours[n] - gradient[n]) ** 2) for n in ours) / tiny.dot(gradient, gradient)) < 1e-9


def test_a_batch_is_cut_after_its_longest_sentence_to_a_multiple_of_eight() -> None:
    at = padded(2)
    task = TorchTask(at, torch.device("cpu"), torch.float32)
    for step in range(4):
        x, _ = task.batch(step)
        rows = at.order()[step]
        longest = int((at.train.inputs[rows, 0] != 0).sum(1).max())
        assert x.shape == (4, 2, min(-(-longest // 8) * 8, 12))
        assert x.dtype == torch.int64


def test_every_card_names_its_metric_and_its_parameters() -> None:
    assert len(GLUE) == 24
    for name in GLUE:
        card = cards.task(name)
        assert card.metric.name == glue_bert.METRICS[str(card.dataset)]
        shape = bert_model.SIZES[str(card.options["size"])]
        if card.options["size"] != "base":
            outputs = len(glue_bert.LAYOUTS[str(card.dataset)].classes) or 1
            count = sum(p.size for p in bert_model.initial(np.random.default_rng(0), shape, outputs).values())
            assert f"{count:,} parameters" in card.summary, name


@pytest.mark.shared
class TestReal:
    @pytest.fixture(autouse=True)
    def real(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not (SHARED / "glue").is_dir():
            pytest.skip("../shared/data/glue is not here")
        monkeypatch.setenv("CURVEBENCH_DATA", str(SHARED))

    @pytest.fixture
    def rte(self) -> Problem:
        card = cards.task("rte-bert-tiny")
        return glue_bert.problem(card, replace(card.at("quick"), batch=4), 0)

    def test_without_weights_the_problem_says_so(self, rte: Problem) -> None:
        assert rte.suffix == " (random weights)"
        assert "started from random weights: no bert-tiny/model.safetensors in" in rte.notes[0]
        assert rte.train.inputs.shape[0] == 2000
        assert rte.train.inputs.dtype == np.int64
        assert rte.train.inputs[0, 0, 0] == 101
        assert rte.test is not None
        assert len(rte.test) == 250

    def test_held_out_rows_are_not_trained_on(self) -> None:
        card = cards.task("rte-bert-tiny")
        at = glue_bert.problem(card, card.at("standard"), 0)
        assert at.validation is not None
        assert at.test is not None
        assert (len(at.train), len(at.validation), len(at.test)) == (2240, 250, 277)

    def test_with_weights_the_problem_starts_from_them(
        self, rte: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from safetensors.numpy import save_file

        (tmp_path / "bert-tiny").mkdir()
        rng = np.random.default_rng(5)
        there = {n: rng.standard_normal(p.shape).astype(np.float32) for n, p in rte.parameters.items()}
        save_file({n: p for n, p in there.items() if "classifier" not in n}, tmp_path / "bert-tiny/model.safetensors")
        monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
        at = glue_bert.pretrained(replace(rte, notes=(), suffix=""), "bert-tiny")
        assert at.suffix == ""
        assert "started from bert-tiny, 39 of 41 tensors, sha256" in at.notes[0]
        name = "bert.embeddings.LayerNorm.weight"
        assert np.array_equal(at.parameters[name], there[name].astype(np.float64))
        assert np.array_equal(at.parameters["classifier.weight"], rte.parameters["classifier.weight"])

    def test_a_run_s_record_and_title_say_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = tiny.run_spec("sgd", task="rte-bert-tiny", steps=1, seconds=None)
        content = run.execute(replace(spec, dtype="float32", scale="quick"))
        assert content["status"] in ("budget", "reached"), content["reason"]
        assert content["title"]["task"] == "RTE, BERT-tiny (random weights)"
        assert any("started from random weights" in note for note in content["provenance"]["notes"])
