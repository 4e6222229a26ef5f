"""Probes: the same bits in both frameworks, replayed when a stream is opened again, different where they should be."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import tiny
import torch
from tiny import FRAMEWORKS

from curvebench.kernels.replay_torch import CHUNK, part, pieces, visit
from curvebench.oracle import ledger as L
from curvebench.oracle.draws import KINDS, ReferenceStream
from curvebench.oracle.jax import JaxOracle
from curvebench.oracle.streams_torch import mix
from curvebench.oracle.torch import TorchOracle

Drawn = list[np.ndarray]


def torch_draws(plan: list[tuple[str, str, tuple[int, ...]]], step: int = 0, draws: str = "reference", seed: int = 7,
                dtype: Any = torch.float64) -> Drawn:  # fmt: skip
    """Open all streams of the plan, then draw its ``(stream, kind, shape)`` in order."""
    problem = tiny.squared()
    task = tiny.TorchTask(problem, torch.device("cpu"), dtype)
    oracle = TorchOracle(task.objective, tiny.ALL, seed, draws)
    oracle.begin_step(step, task.batch(step))
    opened = {name: oracle.stream(name) for name, _, _ in plan}
    return [opened[name].draw(kind, shape).numpy() for name, kind, shape in plan]


def jax_draws(plan: list[tuple[str, str, tuple[int, ...]]], step: int = 0, draws: str = "reference", seed: int = 7,
              dtype: Any = np.float64) -> Drawn:  # fmt: skip
    def run(step: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), step)
        nowhere: Any = None
        oracle = JaxOracle(nowhere, tiny.ALL, nowhere, step, key, dtype=np.dtype(dtype), noise_seed=seed, draws=draws)
        opened = {name: oracle.stream(name) for name, _, _ in plan}
        return [opened[name].draw(kind, shape) for name, kind, shape in plan]

    with jax.enable_x64(True):
        return [np.asarray(value) for value in jax.jit(run)(np.int32(step))]


DRAW = {"torch": torch_draws, "jax": jax_draws}
PLAN = [
    ("a", "normal", (3, 2)),
    ("b", "rademacher", (5,)),
    ("a", "uniform", ()),
    ("a", "normal", (4,)),
    ("b", "normal", (2,)),
]


def test_reference_bits_are_the_same_in_both_frameworks_and_are_philox() -> None:
    """Streams drawn from in turn do not disturb one another."""
    left, right = torch_draws(PLAN, step=3), jax_draws(PLAN, step=3)
    streams = {name: ReferenceStream(7, 3, name) for name in "ab"}
    for (name, kind, shape), one, other in zip(PLAN, left, right, strict=True):
        truth = streams[name].draw(kind, shape)
        assert one.dtype == other.dtype == np.float64
        assert np.array_equal(one, truth)
        assert np.array_equal(other, truth)


def test_reference_bits_in_float32_are_the_float64_ones_rounded() -> None:
    truth = ReferenceStream(7, 0, "a").draw("normal", (3, 2))
    for found in (torch_draws(PLAN[:1], dtype=torch.float32)[0], jax_draws(PLAN[:1], dtype=np.float32)[0]):
        assert found.dtype == np.float32
        assert np.array_equal(found, truth.astype(np.float32))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("draws", ["native", "reference"])
def test_streams_are_replayed_and_differ_by_name_step_and_seed(framework: str, draws: str) -> None:
    plan = [("a", "normal", (40,)), ("b", "normal", (40,))]
    a, b = DRAW[framework](plan, 2, draws)
    again, _ = DRAW[framework](plan, 2, draws)
    assert np.array_equal(a, again), "the same stream of the same step"
    others = [b, DRAW[framework](plan, 3, draws)[0], DRAW[framework](plan, 2, draws, 8)[0]]
    for other in others:
        assert not np.isin(a, other).any(), "no number in common"


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("draws", ["native", "reference"])
def test_streams_drawn_from_in_turn_are_the_streams_drawn_one_by_one(framework: str, draws: str) -> None:
    turns = [("a", "normal", (20,)), ("b", "normal", (20,)), ("a", "normal", (20,)), ("b", "normal", (20,))]
    ordered = [turns[0], turns[2], turns[1], turns[3]]
    left, right = DRAW[framework](turns, 1, draws), DRAW[framework](ordered, 1, draws)
    for i, j in enumerate((0, 2, 1, 3)):
        assert np.array_equal(left[j], right[i])


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("draws", ["native", "reference"])
def test_kinds_have_their_distribution(framework: str, draws: str) -> None:
    plan = [("s", kind, (4000,)) for kind in ("normal", "rademacher", "uniform")]
    normal, rademacher, uniform = DRAW[framework](plan, 0, draws)
    assert set(np.unique(rademacher)) == {-1.0, 1.0}
    assert uniform.min() >= 0
    assert uniform.max() < 1
    for sample, mean, variance in ((normal, 0, 1), (rademacher, 0, 1), (uniform, 0.5, 1 / 12)):
        assert abs(sample.mean() - mean) < 5 * np.sqrt(variance / 4000)  # fixed bits: this cannot flicker
        assert abs(sample.var() - variance) < 0.1 * variance + 5 / 4000


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("draws", ["native", "reference"])
def test_an_unknown_kind_raises_with_the_known_ones(framework: str, draws: str) -> None:
    with pytest.raises(ValueError, match="kind of draw = 'gauss': must be one of normal, rademacher, uniform"):
        DRAW[framework]([("a", "gauss", (2,))], 0, draws)
    assert KINDS == ("normal", "rademacher", "uniform")


def test_probes_follow_the_tasks_order_of_parameters_in_both_frameworks() -> None:
    """A dict's leaves are sorted in jax, torch's parameters are not: the same parameter gets the same bits."""
    problem = tiny.conv()
    names = list(problem.parameters)
    shuffled = dict(reversed(problem.parameters.items()))
    with jax.enable_x64(True):
        oracle = JaxOracle(None, tiny.ALL, (), np.int32(4), jax.random.key(0), dtype=np.dtype(np.float64),  # type: ignore[arg-type]
                           noise_seed=7, draws="reference", names=tuple(names))  # fmt: skip
        found = oracle.probes("rademacher", "hutchinson", shuffled)
    stream = ReferenceStream(7, 4, "hutchinson")
    for name in names:
        assert np.array_equal(np.asarray(found[name]), stream.draw("rademacher", problem.parameters[name].shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("draws", ["native", "reference"])
def test_chunked_draws_equal_one_undivided_draw(dtype: torch.dtype, draws: str) -> None:
    """MeZO draws pieces of CHUNK scalars and one last piece of at least 16: bitwise the undivided draw (CPU)."""
    task = tiny.TorchTask(tiny.squared(), torch.device("cpu"), dtype)
    oracle = TorchOracle(task.objective, tiny.ALL, 7, draws)
    oracle.begin_step(0, task.batch(0))
    for n in (2 * CHUNK + 16, 2 * CHUNK + 17, CHUNK + 33):
        whole = oracle.stream("mezo").draw("normal", (n,))
        stream = oracle.stream("mezo")
        cut = (n - 16) // CHUNK * CHUNK
        pieces = [stream.draw("normal", (CHUNK,)) for _ in range(cut // CHUNK)] + [stream.draw("normal", (n - cut,))]
        assert torch.equal(torch.cat(pieces), whole)


def test_mezos_own_pieces_are_the_undivided_draws() -> None:
    shapes = [(3,), (CHUNK + 40,), (2, 5), (2 * CHUNK + 16,)]
    task = tiny.TorchTask(tiny.squared(), torch.device("cpu"), torch.float32)
    oracle = TorchOracle(task.objective, tiny.ALL, 7)
    oracle.begin_step(0, task.batch(0))
    stream = oracle.stream("mezo")
    whole = [stream.draw("normal", shape) for shape in shapes]
    params = [torch.zeros(shape) for shape in shapes]
    visit(params, [partial(oracle.stream("mezo").fill_, kind="normal")], lambda i, theta, z: theta.copy_(z))
    assert all(map(torch.equal, params, whole))


@pytest.mark.parametrize("threads", [1, 2])
def test_lanes_draw_the_same_noise_and_count_it_whether_side_by_side_or_not(threads: int) -> None:
    shapes = [(3,), (5 * CHUNK + 40,), (2, 5), (2 * CHUNK + 16,)]
    task = tiny.TorchTask(tiny.squared(), torch.device("cpu"), torch.float32)
    oracle = TorchOracle(task.objective, tiny.ALL, 7)
    oracle.begin_step(0, task.batch(0))
    first, second = oracle.stream("mezo"), oracle.stream("mezo-lane")
    params, expected = [torch.zeros(shape) for shape in shapes], [torch.zeros(shape) for shape in shapes]
    turn = 0
    for i, rows, shape in pieces(params):
        draw = second if rows is not None and turn % 2 else first
        turn += rows is not None
        part(expected[i], rows).copy_(draw.draw("normal", shape))
    oracle.counts[L.DRAWS] = 0
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        draws = [partial(oracle.stream(name).fill_, kind="normal") for name in ("mezo", "mezo-lane")]
        visit(params, draws, lambda i, theta, z: theta.add_(z))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, params, expected))
    assert oracle.counts[L.DRAWS] == sum(p.numel() for p in params)
    with pytest.raises(ZeroDivisionError):  # an error in either lane is the caller's
        visit(params, draws, lambda i, theta, z: 1 / 0)


def test_native_torch_draws_fill_in_place_what_they_draw() -> None:
    task = tiny.Torch(tiny.squared())
    for draws in ("native", "reference"):
        oracle = TorchOracle(task.task.objective, tiny.ALL, 7, draws)
        oracle.begin_step(0, task.task.batch(0))
        out = torch.empty(6, dtype=torch.float64)
        assert oracle.stream("s").fill_(out, "normal") is out
        assert torch.equal(out, oracle.draw("normal", "s", (6,)))


def test_seeds_of_streams_use_32_bits_and_differ() -> None:
    seeds = {mix(base, step) for base in (0, 1, 2**62) for step in range(2000)}
    assert max(seeds) < 2**32
    assert len(seeds) > 5990  # 6,000 draws of 32 bits: a collision is rare


def test_native_draws_leave_the_global_generator_alone() -> None:
    task = tiny.Torch(tiny.squared())
    oracle = TorchOracle(task.task.objective, tiny.ALL, 7)
    before = torch.get_rng_state()
    oracle.draw("normal", "a", (10,))
    assert torch.equal(before, torch.get_rng_state())
