"""Factor and inverse updates in the ledger, against counters at the place where they happen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from tiny import engine, run_spec

from curvebench.kernels import kronecker_torch, mkor_torch
from curvebench.kernels.mfac_torch import SlidingWindow
from curvebench.oracle import ledger
from curvebench.run import execute

STEPS = 7
LAYERS = 2  # of tiny.mlp

EVERY: dict[str, Any] = {"inverse_every": 3}
CASES: list[tuple[str, dict[str, Any], Any, str, tuple[int, int]]] = [
    ("kfac", EVERY, kronecker_torch, "eigenbasis", (2 * LAYERS * STEPS, 2 * LAYERS * 3)),
    ("kfac", {"solve": "inverse", "factor_every": 2, **EVERY}, kronecker_torch, "damped_inverse",
     (2 * LAYERS * 4, 2 * LAYERS * 3)),
    ("ekfac", EVERY, kronecker_torch, "eigenbasis", (2 * LAYERS * STEPS, 2 * LAYERS * 3)),
    ("mkor", EVERY, mkor_torch, "rank_one_step", (2 * LAYERS * 2, 2 * LAYERS * 3)),  # the first is the identity
    ("eva", {}, None, "", (2 * LAYERS * STEPS, 0)),
    ("mfac", {"window": 4}, SlidingWindow, "update", (STEPS, STEPS)),
    ("sgd", {}, torch.linalg, "eigh", (0, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "given", "place", "name", "expected"), CASES, ids=[f"{c[0]}-{c[3]}" for c in CASES])
def test_updates_are_those_that_happened(
    method: str,
    given: dict[str, Any],
    place: Any,
    name: str,
    expected: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: Counter[str] = Counter()
    if place is not None:
        original: Callable[..., Any] = getattr(place, name)

        def counted(*args: Any, **more: Any) -> Any:
            happened[name] += 1
            return original(*args, **more)

        monkeypatch.setattr(place, name, counted)
    running = engine(run_spec(method, **given), tiny.mlp(0.1, batch=4))
    for step in range(STEPS):
        running.step(step, float("inf"))
    counts = ledger.as_dict(running.counts())
    assert (counts["factor_updates"], counts["inverse_updates"]) == expected
    assert counts["bytes_communicated"] == 0
    if place is not None:
        assert happened[name] == expected[0 if method == "mkor" else 1]


def test_what_a_library_keeps_to_itself_is_null_and_said() -> None:
    spec = run_spec("shampoo", root_every=2)
    running = engine(spec, tiny.mlp(0.1, batch=4))
    for step in range(3):
        running.step(step, float("inf"))
    assert running.uncounted() == ("factor_updates", "inverse_updates")


def test_a_record_has_them_per_run_and_per_step() -> None:
    from curvebench import cards
    from curvebench.spec import Budget, RunSpec

    def record(method: str, **given: Any) -> dict[str, Any]:
        card = cards.method(method)
        return execute(
            RunSpec(task="least-squares", scale="quick", method=method, hyperparameters=card.resolve(given),
                    needs=tuple(sorted(map(str, card.needs))), framework="torch", device="cpu", dtype="float32",
                    seed_block=0, budget=Budget(4)))  # fmt: skip

    mine = record("kfac", inverse_every=2)
    assert mine["ledger"] == {**mine["ledger"], "factor_updates": 8, "inverse_updates": 4, "bytes_communicated": 0}
    step = mine["work"]["ledger"]
    assert (step["gradient"], step["factor_updates"], step["inverse_updates"]) == (1, 2, 1)
    theirs = record("shampoo", root_every=2)
    assert theirs["ledger"]["factor_updates"] is theirs["work"]["ledger"]["inverse_updates"] is None
    assert any("does not say" in note for note in theirs["provenance"]["notes"])
