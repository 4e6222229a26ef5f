"""CMA-ES through the oracle: each sample one loss, the noise the oracle's, the same search as pycma's own loop."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import cma
import numpy as np
import pytest
import tiny
import torch
from tiny import engine, run_spec
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.methods.cma_es_torch import CMAES, Noise
from curvebench.oracle import ledger
from curvebench.oracle.standalone_torch import AutogradOracle


class Bowl:
    """``1/2 sum a_i theta_i^2`` over a matrix [2, 3] and a vector [4]; remembers every point asked."""

    def __init__(self, shapes: tuple[tuple[int, ...], ...] = ((2, 3), (4,))) -> None:
        rng = np.random.default_rng(0)
        self.parameters = [torch.tensor(rng.standard_normal(shape)) for shape in shapes]
        self.scales = [torch.tensor(rng.uniform(0.5, 20.0, shape)) for shape in shapes]
        self.asked: list[np.ndarray] = []

    def __call__(self) -> Tensor:
        self.asked.append(flat(self.parameters))
        return torch.stack([(a * p**2).sum() / 2 for a, p in zip(self.scales, self.parameters, strict=True)]).sum()

    def numpy(self, x: np.ndarray) -> float:
        return float((flat(self.scales) * x**2).sum() / 2)


def flat(tensors: list[Tensor]) -> np.ndarray:
    return np.concatenate([t.numpy().reshape(-1) for t in tensors])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_the_first_mean_is_the_weighted_best_half() -> None:
    """Hansen's recombination, which needs nothing of the covariance: w_i ~ ln((n+1)/2) - ln i, i = 1..n/2."""
    bowl = Bowl()
    CMAES(bowl.parameters, sigma=0.3, generator=generator()).step(bowl)
    samples = np.array(bowl.asked)
    n = 4 + math.floor(3 * math.log(10))
    assert len(samples) == n == 10
    weights = np.log((n + 1) / 2) - np.log(np.arange(1, n // 2 + 1))
    best = samples[np.argsort([bowl.numpy(x) for x in samples])[: n // 2]]
    np.testing.assert_allclose(flat(bowl.parameters), weights @ best / weights.sum(), rtol=1e-12)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_it_is_pycmas_search_on_the_oracles_noise(covariance: str) -> None:
    bowl, gen = Bowl(), generator()
    optimizer = CMAES(bowl.parameters, sigma=0.3, covariance=covariance, generator=generator())
    noise = Noise()
    theirs = cma.CMAEvolutionStrategy(
        flat(bowl.parameters), 0.3, {"randn": noise, "seed": math.nan, "verbose": -9, "verb_log": 0, "popsize": 10,
                                     "CMA_diagonal": covariance == "diagonal"},
    )  # fmt: skip
    start = bowl.numpy(flat(bowl.parameters))
    for _ in range(40):
        noise.stream = AutogradOracle(bowl.parameters, None, gen).stream("cma-es")
        candidates = theirs.ask()
        theirs.tell(candidates, [bowl.numpy(x) for x in candidates])
        optimizer.step(bowl)
        np.testing.assert_allclose(flat(bowl.parameters), theirs.mean, rtol=1e-9)
    assert bowl.numpy(theirs.mean) < start / 100


def test_each_sample_is_one_loss_in_the_ledger_and_the_global_generators_are_left_alone() -> None:
    card = tiny.card("cma-es")
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    running = engine(run_spec("cma-es"), tiny.mlp(batch=4))
    seen = torch.get_rng_state()
    for step in range(3):
        running.step(step, float("inf"))
    assert np.array_equal(np.random.get_state()[1], before)
    assert torch.equal(torch.get_rng_state(), seen)
    n = card.queries_per_step(card.resolve({}), d=31)["loss"]
    assert n == 4 + math.floor(3 * math.log(31)) == 14
    counts = ledger.as_dict(running.counts())
    assert (counts["loss"], counts["samples"], counts["draws"]) == (3 * n, 3 * n * 4, 3 * n * 31)
    assert sum(running.state_bytes().values()) >= 2 * 31**2 * 8, "the covariance and its eigenvectors"


@pytest.mark.parametrize("d", [1, 2, 7, 31, 1000, 40154])
def test_the_cards_population_is_the_classes(d: int) -> None:
    card = tiny.card("cma-es")
    assert card.queries_per_step(card.resolve({}), d=d)["loss"] == 4 + math.floor(3 * math.log(d))
    assert card.queries_per_step(card.resolve({"population": 6}), d=d)["loss"] == 6


def test_above_2000_parameters_it_is_separable() -> None:
    bowl = Bowl(((50, 40), (1,)))
    optimizer = CMAES(bowl.parameters, population=4, generator=generator())
    optimizer.step(bowl)
    assert optimizer.state_bytes() < 100 * 2001 * 8, "no matrix of d^2 numbers"
    small = Bowl()
    full = CMAES(small.parameters, population=4, generator=generator())
    full.step(small)
    assert full._strategy.sm.C.shape == (10, 10)


def test_a_restored_state_continues_with_the_same_bits() -> None:
    one, two = Bowl(), Bowl()
    first = CMAES(one.parameters, sigma=0.3, generator=generator())
    for _ in range(3):
        first.step(one)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = CMAES(two.parameters, sigma=0.7)
    with pytest.raises(pickle.UnpicklingError, match="CMAEvolutionStrategy was not an allowed global"):
        torch.load(file)  # pycma's object comes from a file only if its reader says that it is trusted
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=False))
    for _ in range(3):
        first.step(one)
        second.step(two)
    assert np.array_equal(flat(one.parameters), flat(two.parameters))
    assert np.array_equal(first._strategy.sm.C, second._strategy.sm.C)


def test_losses_that_are_not_finite_rank_last_and_a_step_of_them_is_skipped() -> None:
    bowl = Bowl()
    optimizer = CMAES(bowl.parameters, sigma=0.3, generator=generator())
    before = flat(bowl.parameters)
    assert math.isnan(float(optimizer.step(lambda: bowl() * math.nan)))
    assert np.array_equal(flat(bowl.parameters), before)
    assert optimizer.notes() == ["1 steps skipped: no sample had a finite loss"]
    bowl.asked.clear()

    def half() -> Tensor:
        value = bowl()
        return value if len(bowl.asked) % 2 else value * math.inf

    optimizer.step(half)
    good = np.array(bowl.asked[::2])
    weights = np.log(11 / 2) - np.log(np.arange(1, 6))
    best = good[np.argsort([bowl.numpy(x) for x in good])]
    np.testing.assert_allclose(flat(bowl.parameters), weights @ best / weights.sum(), rtol=1e-12)


def test_a_budget_that_ends_inside_a_generation_leaves_the_mean() -> None:
    running = engine(run_spec("cma-es"), tiny.mlp(batch=4))
    running.step(0, float("inf"))
    mean = tiny.flat(tiny.parameters(running))
    from curvebench.run.loop import StepInterrupted

    with pytest.raises(StepInterrupted):
        running.step(1, 0.0)
    assert np.array_equal(tiny.flat(tiny.parameters(running)), mean)
    assert ledger.as_dict(running.counts())["loss"] == 14 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, r"CMAES: sigma = 0.0: must lie in \(0, inf\)"),
        ({"population": 1}, r"population = 1: must lie in \[2, inf\)"),
        ({"population": -3}, r"population = -3: must lie in \[2, inf\)"),
        ({"covariance": "sparse"}, r"covariance = 'sparse': must be one of 'auto', 'full', 'diagonal'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        CMAES([torch.zeros(3)], **options)


def test_bad_parameters_and_no_closure() -> None:
    with pytest.raises(TypeError, match=r"CMAES: a parameter has dtype torch.int64: must be floating"):
        CMAES([torch.arange(3)])
    with pytest.raises(CurvebenchError, match="needs a closure that returns the loss"):
        CMAES([torch.zeros(3)]).step()


def test_a_state_is_never_unpickled() -> None:
    optimizer = CMAES([torch.nn.Parameter(torch.zeros(3))])
    state = optimizer.state_dict()
    with pytest.raises(CurvebenchError, match="strategy = bytes: must be pycma's"):
        optimizer.load_state_dict(state | {"strategy": b"cos\nsystem\n."})
