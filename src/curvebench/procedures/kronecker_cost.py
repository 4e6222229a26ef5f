"""What the Kronecker family costs: a step beside SGD's, MKOR beside its own matrix products, scaling laws.

All float32. ``python -m curvebench.procedures.kronecker_cost`` prints the scaling laws (processor seconds, one thread);
the ratios are those of ``tests/peers/test_kronecker.py`` and ``benchmarks/kronecker.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from curvebench.statistics.pairs import Ratio, interleave

if TYPE_CHECKING:
    from torch import Tensor, nn

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
METHODS = ("kfac", "ekfac", "mkor")
WORKLOADS = ("resnet20", "encoder")
BATCH = {"resnet20": 128, "encoder": 32}


class Cost(NamedTuple):
    """The ratio of single steps (a median), and ``amortised``: of the sums over all steps, periodic ones included."""

    ratio: Ratio
    amortised: float


def encoder(
    vocabulary: int = 30522, positions: int = 64, width: int = 128, heads: int = 2, inner: int = 512, layers: int = 2
) -> nn.Module:
    """A BERT-tiny-like encoder with two classes, of plain Linear layers, so that all of them can be preconditioned.

    Args:
        vocabulary: number of words.
        positions: length of a sequence.
        width: of the hidden states.
        heads: of an attention.
        inner: width of the feed-forward layer.
        layers: number of blocks.
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
            self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

        def forward(self, h: Tensor) -> Tensor:
            q, k, v = (f(h).unflatten(-1, (heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
            weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
            h = self.norm1(h + self.out((weights @ v).transpose(1, 2).flatten(2)))
            out: Tensor = self.norm2(h + self.down(F.gelu(self.up(h))))
            return out

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
            self.norm = nn.LayerNorm(width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.pool, self.head = nn.Linear(width, width), nn.Linear(width, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            h = self.norm(self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device)))
            out: Tensor = self.head(torch.tanh(self.pool(self.blocks(h)[:, 0])))
            return out

    return Encoder()


def _workload(name: str, batch: int) -> tuple[Callable[[], nn.Module], Tensor, Tensor]:
    """A fresh model, and one batch of inputs and labels."""
    import torch

    generator = torch.Generator().manual_seed(0)
    if name == "encoder":
        tokens = torch.randint(0, 30522, (batch, 64), generator=generator)
        return encoder, tokens, torch.randint(0, 2, (batch,), generator=generator)
    if name != "resnet20":
        raise ValueError(f"workload = {name!r}: must be one of {', '.join(WORKLOADS)}")
    from curvebench.tasks.cifar_resnet import blocks
    from curvebench.tasks.cifar_resnet_torch import torch_resnet

    images = torch.randn(batch, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 10, (batch,), generator=generator)
    return lambda: torch_resnet(list(blocks(20)), "batch", 8), images, labels


def _method(name: str) -> Callable[..., Any]:
    from curvebench.methods.ekfac_torch import EKFAC
    from curvebench.methods.kfac_torch import KFAC
    from curvebench.methods.mkor_torch import MKOR

    return {"kfac": KFAC, "ekfac": EKFAC, "mkor": MKOR}[name]


def stepper(workload: str, batch: int, method: str | None, **options: Any) -> Callable[[], object]:
    """One training step in an ordinary loop: SGD with momentum, alone (``method`` None) or as the base of one."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    make, x, y = _workload(workload, batch)
    model = make()
    base = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    opt: Any = base if method is None else _method(method)(model, base=base, **options)

    def step() -> None:
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        opt.step()

    return step


def step(
    workload: str, method: str, pairs: int, threads: int = 2, clock: str = "wall", batch: int | None = None,
    **options: Any,
) -> Cost:  # fmt: skip
    """A step of a method (factors every step, inverses every 10 unless ``options`` say else) against one of its base.

    Args:
        workload: ``resnet20`` (batch 128) or ``encoder`` (batch 32, sequences of 64).
        method: ``kfac``, ``ekfac`` or ``mkor``.
        pairs: interleaved steps of each side.
        threads: intra-op threads of torch.
        clock: ``wall``, or ``cpu``: seconds of this process, which a busy machine disturbs less.
        batch: samples, if not the workload's.
        options: of the method's constructor.
    """
    import torch

    torch.set_num_threads(threads)
    size, read = batch or BATCH[workload], CLOCKS[clock]
    spent: tuple[list[float], list[float]] = ([], [])

    def recorded(run: Callable[[], object], into: list[float]) -> Callable[[], object]:
        def call() -> None:
            began = read()
            run()
            into.append(read() - began)

        return call

    sides = [stepper(workload, size, name, **(options if name else {})) for name in (method, None)]
    for side in sides:  # the first steps allocate; the method's next full cycle begins within the pairs
        side()
        side()
    ours, theirs = (recorded(side, into) for side, into in zip(sides, spent, strict=True))
    ratio = interleave(ours, theirs, pairs, read)
    return Cost(ratio, sum(spent[0]) / sum(spent[1]))


def mkor_beside_its_products(
    width: int, rows: int, pairs: int, threads: int = 2, clock: str = "wall", bias: bool = True
) -> Ratio:
    """``MKOR.step`` (factors every step, base SGD) against ``JG W JA`` of each of three Linear layers.

    With a bias ``W`` is the matrix ``[dW, db]`` that the algorithm is written with, ``[width, width + 1]``.

    Args:
        width: inputs and outputs of each layer.
        rows: samples.
        pairs: interleaved measurements of each side.
        threads: intra-op threads of torch.
        clock: ``wall`` or ``cpu``.
        bias: whether the layers have one.
    """
    import torch
    from torch import nn

    from curvebench.methods.mkor_torch import MKOR

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers = [nn.Linear(width, width, bias) for _ in range(3)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    opt = MKOR(model, base=torch.optim.SGD(model.parameters(), lr=1e-6), inverse_every=1)
    x, y = torch.randn(rows, width), torch.randn(rows, width)
    n = width + bias
    factors = [(torch.randn(width, width), torch.randn(width, n), torch.randn(n, n)) for _ in range(3)]
    read, spent = CLOCKS[clock], 0.0

    def ours() -> None:
        """A whole training step; ``billed`` keeps what its optimiser took."""
        nonlocal spent
        opt.zero_grad()
        (model(x) - y).square().mean().backward()
        began = read()
        opt.step()
        spent += read() - began

    def floor() -> None:
        nonlocal spent
        began = read()
        for JG, W, JA in factors:
            JG @ W @ JA
        spent += read() - began

    for _ in range(3):
        ours()
        floor()
    return interleave(ours, floor, pairs, lambda: spent)


# -- scaling laws ------------------------------------------------------------------------------------------------------

WIDTHS = (256, 384, 512, 768, 1024, 1536)
UPDATE_WIDTHS = (1024, 1536, 2048, 3072, 4096, 6144)
"""Where an update of O(d^2) numbers takes longer than it takes to call it."""


class Law(NamedTuple):
    """``seconds ~ width^exponent`` with a 95 % interval (Student t over the points of the fit)."""

    exponent: float
    low: float
    high: float
    points: tuple[tuple[int, float], ...]


def fit(sizes: Sequence[float], seconds: Sequence[float]) -> Law:
    """Least squares of ``log seconds`` over ``log size``.

    Raises:
        ValueError: fewer than three points, which leave nothing to estimate the error from.
    """
    from scipy import stats

    if len(sizes) < 3:
        raise ValueError(f"{len(sizes)} points: an interval of the slope needs at least 3")
    found = stats.linregress(np.log(sizes), np.log(seconds))
    half = float(stats.t.ppf(0.975, len(sizes) - 2) * found.stderr)
    slope = float(found.slope)
    return Law(slope, slope - half, slope + half, tuple(zip(map(int, sizes), map(float, seconds), strict=True)))


def pieces(d: int) -> dict[str, Callable[[], Callable[[], object]]]:
    """The parts of a step for a layer of ``d`` inputs and outputs, by name: each makes its data, and what to time."""
    import torch

    from curvebench.kernels import kronecker_torch as K
    from curvebench.kernels import mkor_torch as M

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(0))

    def update() -> Callable[[], object]:
        J, v = torch.eye(d), normal(d)
        return lambda: M.update_(J, M.rank_one_step(J, v, "code"))

    def factor(use: Callable[[Tensor], object]) -> Callable[[], Callable[[], object]]:
        def make() -> Callable[[], object]:
            X = K.gram(normal(2 * d, d)) / (2 * d)
            return lambda: use(X)

        return make

    def product(use: Callable[[Tensor, Tensor], object]) -> Callable[[], Callable[[], object]]:
        def make() -> Callable[[], object]:
            W, Q = normal(d, d), torch.eye(d)
            return lambda: use(W, Q)

        return make

    return {
        "MKOR update of a factor": update,
        "K-FAC eigenbasis of a factor": factor(K.eigenbasis),
        "K-FAC inverse of a factor": factor(lambda X: K.damped_inverse(X, 1e-3)),
        "MKOR preconditioning of a layer": product(lambda W, Q: M.preconditioned(Q, Q, W, None)),
        "K-FAC preconditioning of a layer": product(lambda W, Q: K.solve_eigen(W, Q, Q, W.abs(), 1e-3)),
    }


def scaling(
    widths: Sequence[int] = WIDTHS, update_widths: Sequence[int] = UPDATE_WIDTHS, repeats: int = 7, threads: int = 1
) -> dict[str, Law]:
    """How the parts of a step grow with the width ``d`` of a layer of ``d`` inputs and outputs, processor seconds.

    The least of ``repeats`` interleaved measurements counts.
    """
    import torch

    torch.set_num_threads(threads)
    laws = {}
    for name in pieces(widths[0]):
        calls = {d: pieces(d)[name]() for d in (update_widths if "update" in name else widths)}
        least = dict.fromkeys(calls, float("inf"))
        for turn in range(repeats + 1):
            for d, call in calls.items():
                began = time.process_time()
                call()
                if turn:  # the first turn warms up
                    least[d] = min(least[d], time.process_time() - began)
        laws[name] = fit(list(least), list(least.values()))
    return laws


def main() -> None:
    """Print the scaling laws."""
    for name, law in scaling().items():
        points = ", ".join(f"{d}: {1e3 * s:.2f} ms" for d, s in law.points)
        print(f"{name}: d^{law.exponent:.2f} [{law.low:.2f}, {law.high:.2f}]; {points}")


if __name__ == "__main__":
    main()
