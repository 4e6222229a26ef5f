"""One conformance test over all methods, found through their cards."""

from __future__ import annotations

import pytest

from curvebench import cards
from curvebench.cards import MethodCard
from curvebench.procedures.conformance import conformance

# torch first: jax then begins with the trial that converged there, and compiles few programs
CASES = [(name, f) for name in cards.names("methods") for f in sorted(cards.method(name).frameworks, reverse=True)]


@pytest.fixture(autouse=True)
def _jax_settings() -> object:
    """The engine sets jax's precision and platform for its process; hand them back."""
    import jax

    names = ("jax_enable_x64", "jax_platforms", "jax_disable_most_optimizations")
    kept = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_disable_most_optimizations", True)  # programs are compiled fast: they run for microseconds
    yield
    for name, value in kept.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(("name", "framework"), CASES, ids=[f"{n}-{f}" for n, f in CASES])
def test_every_method_keeps_the_contract(name: str, framework: str, device: str) -> None:
    findings = list(conformance(cards.method(name), name, framework, device))
    assert len(findings) == 10
    assert not [f"{f.statement}: {f.seen}" for f in findings if not f.holds]


BROKEN = '''
import torch

class Leaky(torch.optim.Optimizer):
    """Draws from the global generator and forgets its momentum in state_dict."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})
        self.buffers = {}

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.buffers.setdefault(p, torch.zeros_like(p))
                buffer.mul_(0.5).add_(p.grad + 0.01 * torch.randn_like(p))
                p.add_(buffer, alpha=-group["lr"])
        return loss
'''


def test_what_breaks_the_contract_is_found(tmp_path: object) -> None:
    from pathlib import Path

    from curvebench.methods import resolve

    path = Path(str(tmp_path)) / "leaky.py"
    path.write_text(BROKEN)
    reference = f"{path}:Leaky"
    card = resolve(reference, ["gradient"])
    assert isinstance(card, MethodCard)
    wrong = {f.statement for f in conformance(card, reference, "torch") if not f.holds}
    assert "a restored snapshot continues with the same bits" in wrong


def test_a_query_that_is_not_declared_is_found(tmp_path: object) -> None:
    from curvebench.methods import resolve

    card = resolve("torch.optim:SGD", ["loss"])  # it needs the gradient, and the closure gives it none
    findings = {f.statement: f for f in conformance(card, "torch.optim:SGD", "torch")}
    assert not findings["it converges on the toy-quadratic"].holds
