"""Probes: the same bits in both frameworks, replayed when a stream is opened again, different where they should be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import scipy.stats
import tiny
import torch
from tiny import FRAMEWORKS

from curvebench.kernels import team_torch
from curvebench.kernels.replay_torch import CHUNK, pieces, visit, visit_blocks
from curvebench.oracle import ledger as L
from curvebench.oracle.draws import KINDS, ReferenceStream
from curvebench.oracle.jax import JaxOracle
from curvebench.oracle.streams_torch import block_seed, mix
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
    visit(params, partial(oracle.stream("mezo").fill_, kind="normal"), lambda i, theta, z: theta.copy_(z))
    assert all(map(torch.equal, params, whole))


def blocks_of(
    seed: int = 7,
) -> tuple[TorchOracle, Callable[[], Callable[[int], Callable[[torch.Tensor], torch.Tensor]]]]:
    """An oracle in run mode, and what opens a source of the blocks of its stream ``mezo``."""
    task = tiny.TorchTask(tiny.squared(), torch.device("cpu"), torch.float32)
    oracle = TorchOracle(task.objective, tiny.ALL, seed)
    oracle.begin_step(0, task.batch(0))
    return oracle, lambda: oracle.stream("mezo").blocks("normal")  # type: ignore[union-attr]  # run mode: native


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("own", [True, False], ids=["torch's threads", "Python's threads"])
def test_blocks_are_the_same_noise_on_any_number_of_threads_and_each_draw_counts(
    threads: int, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not own:
        monkeypatch.setattr(team_torch, "_gnu", lambda: None)
    shapes = [(3,), (5 * CHUNK + 40,), (2, 5), (2 * CHUNK + 16,)]
    oracle, blocks = blocks_of()
    params, expected = [torch.zeros(shape) for shape in shapes], [torch.zeros(shape) for shape in shapes]
    number, small = 0, oracle.stream("mezo")  # block 0 is the stream's beginning
    for i in (0, 2):
        small.fill_(expected[i], "normal")
    for i, rows, _ in pieces(expected):
        if rows is not None:
            blocks()(number := number + 1)(expected[i][rows])
    oracle.counts[L.DRAWS] = 0
    seen = set()

    def add(i: int, theta: torch.Tensor, z: torch.Tensor) -> None:
        seen.add(threading.get_ident())
        theta.add_(z)

    visit_blocks(params, blocks, add)
    assert all(map(torch.equal, params, expected))
    assert oracle.counts[L.DRAWS] == sum(p.numel() for p in params)
    assert len(seen) <= threads


def test_an_error_on_any_thread_is_the_callers(threads: int) -> None:
    p, (_, blocks) = torch.zeros(9 * CHUNK), blocks_of()
    with pytest.raises(ZeroDivisionError):
        visit_blocks([p], blocks, lambda i, theta, z: 1 / 0)


def test_noise_in_blocks_is_standard_normal_and_blocks_are_independent() -> None:
    """n = 24 blocks: moments within 5 standard errors, Kolmogorov-Smirnov, tails, products of blocks at all lags."""
    n, (_, blocks) = 24, blocks_of()
    source = blocks()
    z = torch.stack([source(k)(torch.empty(CHUNK)) for k in range(n)]).double().numpy()
    size = z.size
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) < 5 * (variance / size) ** 0.5
    assert scipy.stats.kstest(z.ravel(), "norm").pvalue > 1e-4
    assert min(scipy.stats.kstest(row, "norm").pvalue for row in z) > 1e-4 / n
    for edge in (2.0, 3.0, 4.0):
        p = 2 * scipy.stats.norm.sf(edge)
        assert abs((np.abs(z) > edge).sum() - size * p) < 5 * (size * p) ** 0.5
    gram = z @ z.T / CHUNK**0.5  # off the diagonal N(0, 1) each
    off = gram[np.triu_indices(n, 1)]
    assert np.abs(off).max() < 5
    assert scipy.stats.kstest(off, "norm").pvalue > 1e-4
    shifted = [(z[k, lag:] @ z[k + 1, : CHUNK - lag]) / CHUNK**0.5 for k in range(n - 1) for lag in (1, 7, 16, 624)]
    assert np.abs(shifted).max() < 5


def test_seeds_of_blocks_differ_within_a_stream_and_between_streams() -> None:
    seeds = [{block_seed(base, k) for k in range(5000)} for base in (0, 1, 2, 2**32 - 1)]
    assert all(len(s) == 5000 and max(s) < 2**32 for s in seeds)
    assert all(block_seed(base, 0) == base for base in (0, 17, 2**32 - 1))
    assert len(set.union(*seeds)) > 4 * 5000 - 5  # by chance 0.05 pairs coincide


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
