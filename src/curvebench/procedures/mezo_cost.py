"""What a MeZO step costs beside an inference forward: peak memory above the parameters, and time.

On an encoder like BERT-tiny, of plain torch modules. Memory is the kernel's: each figure comes from a fresh process
with one malloc arena and a low mmap threshold, so that freed blocks are returned; after a warm-up and ``malloc_trim``
the high-water mark is reset, and ``VmHWM - VmRSS`` after one more call is the peak above the parameters.

``python -m curvebench.procedures.mezo_cost [PAIRS]`` prints both for :data:`TINY`.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from curvebench.errors import CurvebenchError
from curvebench.run.memory import reset_peak, resident
from curvebench.statistics.pairs import Ratio, interleave

if TYPE_CHECKING:
    from torch import Tensor, nn

KINDS = ("inference", "mezo", "mezo-copy", "sgd")
ENVIRON = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Size(NamedTuple):
    """An encoder and its batch.

    Args:
        layers: blocks of attention and feed-forward.
        width: of the hidden state.
        heads: of attention.
        inner: width of the feed-forward layer.
        vocabulary: tokens that have an embedding.
        batch: sequences.
        length: tokens of a sequence.
    """

    layers: int = 2
    width: int = 128
    heads: int = 2
    inner: int = 512
    vocabulary: int = 30522
    batch: int = 32
    length: int = 128


TINY = Size()
SMALL = Size(layers=1, width=64, heads=2, inner=256, vocabulary=30522, batch=64, length=64)
"""For tests."""


def encoder(size: Size) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The encoder with a head of two classes, and its mean cross-entropy on one random batch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        """Post-norm, with projections of their own, as in BERT."""

        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(size.width, size.width) for _ in range(3))
            self.out = nn.Linear(size.width, size.width)
            self.up, self.down = nn.Linear(size.width, size.inner), nn.Linear(size.inner, size.width)
            self.norm1, self.norm2 = nn.LayerNorm(size.width), nn.LayerNorm(size.width)

        def forward(self, x: Tensor) -> Tensor:
            n, length, width = x.shape
            q, k, v = (
                project(x).view(n, length, size.heads, width // size.heads).transpose(1, 2)
                for project in (self.query, self.key, self.value)
            )
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
            x = self.norm1(x + self.out(mixed))
            y: Tensor = self.norm2(x + self.down(F.gelu(self.up(x))))
            return y

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.types = nn.Embedding(size.vocabulary, size.width), nn.Embedding(2, size.width)
            self.positions = nn.Embedding(512, size.width)
            self.norm = nn.LayerNorm(size.width)
            self.blocks = nn.Sequential(*(Block() for _ in range(size.layers)))
            self.pooler, self.head = nn.Linear(size.width, size.width), nn.Linear(size.width, 2)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.tokens(ids) + self.types(torch.zeros_like(ids))
            x = self.norm(x + self.positions.weight[: ids.shape[1]])
            logits: Tensor = self.head(torch.tanh(self.pooler(self.blocks(x)[:, 0])))
            return logits

    torch.manual_seed(0)
    module = Encoder().eval()
    ids, labels = torch.randint(size.vocabulary, (size.batch, size.length)), torch.randint(2, (size.batch,))
    return module, lambda: F.cross_entropy(module(ids), labels)


def call(kind: str, module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], object]:
    """One inference forward, or one optimiser step, of :data:`KINDS`."""
    import torch

    from curvebench.methods.mezo_torch import MeZO

    if kind == "inference":
        return torch.inference_mode()(loss)
    if kind == "sgd":
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-6)

        def step() -> None:
            loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()  # at the end, so that gradients are no part of what is there before

        return step
    mezo = MeZO(module.parameters(), restore="copy" if kind == "mezo-copy" else "replay")
    return lambda: mezo.step(loss)


def peaks(kinds: Sequence[str], size: Size = TINY, threads: int = 2) -> list[int]:
    """Peak bytes above the parameters of one call of each kind, all in one fresh process.

    Raises:
        CurvebenchError: this kernel has no high-water mark that can be reset.
    """
    words = [sys.executable, "-m", "curvebench.procedures.mezo_cost", "--peaks", ",".join(kinds), str(threads)]
    done = subprocess.run(
        [*words, *map(str, size)], env={**os.environ, **ENVIRON}, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    if None in answer:
        raise CurvebenchError("peak memory is not measurable: /proc/self/clear_refs cannot be written here")
    return [int(n) for n in answer]


def peaks_here(kinds: Sequence[str], size: Size, threads: int) -> list[int | None]:
    """:func:`peaks` in this process, which must be fresh; None where the kernel does not tell."""
    import torch

    torch.set_num_threads(threads)
    module, loss = encoder(size)
    return [_peak(call(kind, module, loss)) for kind in kinds]


def _peak(run: Callable[[], object]) -> int | None:
    for _ in range(2):
        run()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    if not reset_peak() or (before := resident()) is None:
        return None
    run()
    after = resident()
    return None if after is None else after[1] - before[0]


def duration(size: Size = TINY, pairs: int = 50, threads: int = 2, clock: str = "wall") -> Ratio:
    """A MeZO step against an inference forward, interleaved.

    Args:
        size: encoder and batch.
        pairs: interleaved measurements of each side.
        threads: intra-op threads of torch.
        clock: ``wall``, or ``cpu``: seconds of this process, all its threads together.
    """
    import torch

    torch.set_num_threads(threads)
    module, loss = encoder(size)
    step, forward = call("mezo", module, loss), call("inference", module, loss)
    for _ in range(3):
        step()
        forward()
    return interleave(step, forward, pairs, CLOCKS[clock])


def main(words: list[str]) -> None:
    """Print one figure of a fresh process, or all of them."""
    if words[:1] == ["--peaks"]:
        print(json.dumps(peaks_here(words[1].split(","), Size(*map(int, words[3:])), int(words[2]))))
        return
    found = {kind: peaks([kind])[0] for kind in KINDS}
    for kind, size in found.items():
        print(f"{kind:10} {size / 1e6:7.2f} MB above the parameters, {size / found['inference']:.3f} of inference")
    pairs = int(words[0]) if words else 50
    for threads, clock in ((2, "wall"), (1, "cpu")):
        ratio = duration(pairs=pairs, threads=threads, clock=clock)
        print(f"step / forward, {threads} threads, {clock}: {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}], "
              f"{1e3 * ratio.ours:.1f} and {1e3 * ratio.theirs:.1f} ms, n = {ratio.n}")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
