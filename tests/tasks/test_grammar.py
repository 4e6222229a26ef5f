"""The grammar's exact distributions against enumeration, the task's floor, and BERT's twins on it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny

from curvebench import cards
from curvebench.run.execute import execute
from curvebench.spec import Query
from curvebench.tasks import grammar, grammar_bert
from curvebench.tasks.problem import Problem

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'curvebench[bert]'")


def rules(states: int = 2, tokens: int = 3) -> grammar.Grammar:
    return grammar.draw_grammar(np.random.default_rng(0), states, tokens, 0.7)


def probability(at: grammar.Grammar, path: tuple[int, ...], written: tuple[int, ...]) -> float:
    value = at.start[path[0]] * at.write[path[0], written[0]]
    for before, here, token in zip(path, path[1:], written[1:], strict=False):
        value *= at.follow[before, here] * at.write[here, token]
    return float(value)


@pytest.mark.parametrize("masked", [[0], [3], [1, 2], [0, 3], [0, 1, 2, 3]])
def test_the_posterior_is_that_of_enumerating_all_derivations(masked: list[int]) -> None:
    at, length = rules(), 4
    written = np.array([[0, 2, 1, 2], [1, 1, 0, 2]])
    found = grammar.posterior(at, written, np.tile(masked, (2, 1)))
    for row, sentence in enumerate(written):
        weight = np.zeros((len(masked), 3))
        for filled in itertools.product(range(3), repeat=len(masked)):
            whole = sentence.copy()
            whole[masked] = filled
            total = sum(probability(at, path, tuple(whole)) for path in itertools.product(range(2), repeat=length))
            for place, token in enumerate(filled):
                weight[place, token] += total
        np.testing.assert_allclose(found[row], weight / weight.sum(1, keepdims=True), rtol=1e-12)


def test_sentences_have_the_rules_frequencies() -> None:
    at = rules()
    written = grammar.sentences(np.random.default_rng(1), at, 20000, 3)
    exact = np.zeros((3, 3))
    for path in itertools.product(range(2), repeat=3):
        for whole in itertools.product(range(3), repeat=3):
            for place in range(3):
                exact[place, whole[place]] += probability(at, path, whole)
    for place in range(3):
        counts = np.bincount(written[:, place], minlength=3) / 20000
        assert np.abs(counts - exact[place]).max() < 5 * np.sqrt(0.25 / 20000), "5 standard deviations"


def test_the_posterior_beats_every_other_guess_on_average() -> None:
    """The mean log-loss of the posterior at the true tokens is its mean entropy; of the marginal it is more."""
    at = grammar.draw_grammar(np.random.default_rng(2), 4, 8)
    rng = np.random.default_rng(3)
    written = grammar.sentences(rng, at, 4000, 12)
    masked = grammar.masks(rng, 4000, 12, 2)
    truth = grammar.posterior(at, written, masked)
    at_true = np.take_along_axis(truth, np.take_along_axis(written, masked, 1)[..., None], 2)[..., 0]
    losses = -np.log(at_true)
    spread = 5 * losses.std() / np.sqrt(losses.size)
    assert abs(losses.mean() - grammar.entropy(truth)) < spread
    marginal = np.bincount(written.ravel(), minlength=8) / written.size
    assert grammar.entropy(truth) < -(marginal * np.log(marginal)).sum()


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"states = 1, tokens = 3, sharpness = 0.1: must be >= 2, >= 2, > 0"):
        grammar.draw_grammar(np.random.default_rng(0), 1, 3)
    with pytest.raises(ValueError, match=r"masked = 9: must lie in \[1, 8\]"):
        problem(masked=9)


SMALL = {"tokens": 6, "length": 8, "masked": 2, "states": 3, "layers": 1, "width": 8, "heads": 2, "hidden": 12,
         "train": 40, "validation": 12, "test": 12}  # fmt: skip


def problem(seed_block: int = 0, **options: Any) -> Problem:
    card = cards.task("grammar-bert")
    at = card.at("quick")
    return grammar_bert.problem(card, replace(at, batch=4, options={**at.options, **SMALL, **options}), seed_block)


def test_masks_hide_the_targets_and_instances_do_not_follow_the_seed_block() -> None:
    one, other = problem(), problem(1)
    assert np.array_equal(one.train.inputs, other.train.inputs)
    assert not np.array_equal(one.parameters["cls.predictions.transform.dense.weight"],
                              other.parameters["cls.predictions.transform.dense.weight"])  # fmt: skip
    shown, positions = one.train.inputs[:, :8], one.train.inputs[:, 8:]
    assert (np.take_along_axis(shown, positions, 1) == grammar_bert.MASK).all()
    assert (shown == grammar_bert.MASK).sum() == positions.size
    assert one.train.targets.min() >= grammar_bert.FIRST
    assert one.validation is not None
    np.testing.assert_allclose(one.validation.targets.sum(-1), 1, atol=1e-10)
    assert "the least cross-entropy at a masked position is" in one.notes[0]


def test_the_record_says_that_attention_was_switched_for_a_hessian_vector_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = problem()
    monkeypatch.setattr("curvebench.tasks.load", lambda *_: at)

    def notes(method: str) -> list[str]:
        content = execute(tiny.run_spec(method, task="grammar-bert", steps=1, seconds=None))
        assert content["status"] in ("budget", "reached"), content["reason"]
        found: list[str] = content["provenance"]["notes"]
        return [note for note in found if "attention ran with the math kernel" in note]

    assert len(notes("adahessian")) == 1
    assert notes("sgd") == []


def test_torch_and_jax_agree_and_the_excess_is_never_negative() -> None:
    at = problem()
    rng = np.random.default_rng(3)
    at = replace(at, parameters={n: p + 0.1 * rng.standard_normal(p.shape) for n, p in at.parameters.items()})
    left, right = tiny.Torch(at), tiny.Jax(at)

    def ask(jaxed: Any, params: Any) -> Any:
        point = jaxed.at(params, needs=(Query.GRADIENT,))
        return point.loss(), point.gradient()

    loss, gradient = right.trace(ask, None)
    assert tiny.relative(left.ask("loss"), loss) < 1e-12
    ours = left.ask("gradient")
    assert np.sqrt(sum(np.sum((ours[n] - gradient[n]) ** 2) for n in ours) / tiny.dot(gradient, gradient)) < 1e-9
    v, h = tiny.tangent(at), 1e-5
    above, below = (left.ask("gradient", tiny.shifted(at.parameters, step, v)) for step in (h, -h))
    product = left.ask("hvp", at.parameters, v)
    error = sum(np.sum((product[n] - (above[n] - below[n]) / (2 * h)) ** 2) for n in product)
    assert np.sqrt(error / tiny.dot(product, product)) < 1e-6, "attention has a second derivative"
    assert any("attention ran with the math kernel" in note for note in left.oracle.notes())
    seen = left.task.evaluate()
    assert seen.metric > 0
    assert seen.test is not None
    per_sample = left.ask("per_sample_gradient")
    for name, value in left.ask("gradient").items():
        np.testing.assert_allclose(per_sample[name].mean(0), value, atol=1e-10)


def test_bert_tiny_with_the_grammar_s_vocabulary() -> None:
    at = grammar_bert.problem(cards.task("grammar-bert"), cards.task("grammar-bert").at("quick"), 0)
    assert at.parameters["bert.embeddings.word_embeddings.weight"].shape == (34, 128)
    module = at.torch_module()
    assert {n: tuple(p.shape) for n, p in module.named_parameters()} == {n: p.shape for n, p in at.parameters.items()}
