"""BatchNorm's running statistics: updated once per step, as nn.BatchNorm2d would, whatever was asked."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import tiny
import torch
from torch import nn

from curvebench.errors import UnmetNeedError
from curvebench.oracle.batchnorm_torch import BatchNorm2d
from curvebench.run.engine_jax import JaxEngine
from curvebench.spec import Query


def running(oracle: Any) -> dict[str, np.ndarray]:
    buffers = dict(oracle.task.objective.module.named_buffers())
    return {n: buffers[n].numpy().copy() for n in ("1.running_mean", "1.running_var")}


def torchs_own(problem: Any, steps: int, params: Any = None) -> dict[str, np.ndarray]:
    """The buffers of nn.BatchNorm2d after one training forward per step, the parameters fixed."""
    task = tiny.Torch(problem).task
    ours = task.objective.module
    own = nn.Sequential(*(nn.BatchNorm2d(3, dtype=torch.float64) if isinstance(m, BatchNorm2d) else m for m in ours))
    own.load_state_dict(ours.state_dict())
    if params is not None:
        with torch.no_grad():
            for name, p in own.named_parameters():
                p.copy_(torch.tensor(params[name]))
    own.train()
    for step in range(steps):
        own(task.batch(step)[0])
    return {n: b.numpy().copy() for n, b in own.named_buffers() if n in ("1.running_mean", "1.running_var")}


ASKING = {
    "nothing": (),
    "loss": ("loss",),
    "gradient": ("gradient",),
    "several queries": ("gradient", "hvp", "ggnvp", "jvp", "loss"),
    "functional queries only": ("jvp", "jvp"),
    "two points": ("loss", "gradient"),
}


@pytest.mark.parametrize("asking", list(ASKING))
def test_running_statistics_are_torchs_own_after_the_same_batches(asking: str) -> None:
    oracle = tiny.Torch(tiny.norm())
    v = tiny.tangent(oracle.problem)
    for step in range(3):
        oracle.oracle.begin_step(step, oracle.task.batch(step))
        point = oracle.oracle.at()
        for query in ASKING[asking]:
            if asking == "two points":
                point = oracle.oracle.at()
            oracle.answer(point, query, v if query in ("hvp", "ggnvp", "jvp") else None)
        before = running(oracle)
        oracle.oracle.end_step()
        assert tiny.relative(before, running(oracle)) > 1e-3, "they move at the end of the step, not during it"
    assert tiny.relative(running(oracle), torchs_own(oracle.problem, 3)) < 1e-12
    settled = running(oracle)
    oracle.oracle.end_step()
    assert tiny.relative(settled, running(oracle)) == 0, "an end without a begin is no step"


@pytest.mark.parametrize("query", ["loss", "jvp"])
def test_the_first_point_of_a_step_gives_the_statistics(query: str) -> None:
    """Also where it is not at the live parameters, and for functional queries: as in jax."""
    oracle = tiny.Torch(tiny.norm())
    v = tiny.tangent(oracle.problem)
    params = tiny.shifted(oracle.problem.parameters, 0.5, v)
    oracle.ask(query, params, v if query == "jvp" else None)
    oracle.ask("gradient")
    oracle.oracle.end_step()
    assert tiny.relative(running(oracle), torchs_own(oracle.problem, 1, params)) < 1e-12

    jaxed = tiny.Jax(tiny.norm())

    def step(asked: Any, p: Any, moved: Any) -> Any:
        getattr(asked.at(moved), query)(*([v] if query == "jvp" else []))
        asked.at(p).gradient()
        return jaxed.task.commit(asked.buffers, asked.batch_statistics)

    assert tiny.relative(jaxed.trace(step, None, params), running(oracle)) < 1e-12


@pytest.mark.parametrize(
    ("method", "given"),
    [("momentum", {}), ("adahessian", {"hessian_every": 2}), ("mezo", {}), ("lbfgs", {})],
)
def test_both_frameworks_and_every_kind_of_method_leave_the_same_statistics(method: str, given: Any) -> None:
    """lbfgs asks several forwards per step and adahessian inside a branch: one update per step all the same."""
    problem = tiny.norm()
    found = []
    for framework in tiny.FRAMEWORKS:
        given_ = {"max_eval": 2} if method == "lbfgs" and framework == "torch" else given
        spec = tiny.run_spec(method, framework=framework, draws="reference", **given_)
        engine = tiny.engine(spec, problem)
        steps = 1 if method == "lbfgs" else 3  # no twins: only the first step starts from the same parameters
        for step in range(steps):
            engine.step(step, float("inf"))
        found.append(
            {n: np.array(b) for n, b in engine.carry[1].items()} if isinstance(engine, JaxEngine) else running(engine)
        )
    assert tiny.relative(*found) < 1e-9
    if steps == 1:
        assert tiny.relative(found[0], torchs_own(problem, 1)) < 1e-12


def test_evaluation_uses_the_running_statistics_and_changes_nothing() -> None:
    oracle = tiny.Torch(tiny.norm())
    jaxed = tiny.Jax(tiny.norm())
    oracle.oracle.end_step()
    before = {n: t.clone() for n, t in oracle.task.objective.module.state_dict().items()}
    seen = oracle.task.evaluate()
    after = oracle.task.objective.module.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert oracle.task.objective.module.training
    with jax.enable_x64(True):
        other = jaxed.task.evaluate(jaxed.task.params, running(oracle))
        fresh = jaxed.task.evaluate(jaxed.task.params, jaxed.task.buffers)
    assert tiny.relative(seen.loss, other.loss) < 1e-12
    assert tiny.relative(seen.loss, fresh.loss) > 1e-6, "other statistics, another loss"
    assert (seen.metric, seen.test) == (other.metric, other.test)


def test_training_mode_normalises_with_the_batch_and_writes_nothing_unless_armed() -> None:
    layer = BatchNorm2d(3)
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    own = nn.BatchNorm2d(3)
    assert torch.equal(layer(x), own(x))
    assert torch.equal(layer.running_mean, torch.zeros(3))
    assert torch.equal(layer.batch_mean, torch.zeros(3))
    layer.pending = True
    layer(x)
    torch.testing.assert_close(layer.batch_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(layer.batch_var, x.var((0, 2, 3), unbiased=True))
    own.eval(), layer.eval()
    layer.load_state_dict(own.state_dict())
    assert torch.equal(layer(x), own(x))


def test_per_sample_gradients_with_batchnorm_are_refused_naming_the_groupnorm_sibling() -> None:
    from curvebench import cards
    from curvebench.oracle.ledger import check_needs

    task = cards.task("cifar10-resnet20")
    with pytest.raises(UnmetNeedError) as caught:
        check_needs("m-fac", [Query.GRADIENT, Query.PER_SAMPLE_GRADIENT], task.name, task.offers, task.refuses)
    assert str(caught.value) == (
        "m-fac needs per_sample_gradient and cifar10-resnet20 cannot answer it: "
        "BatchNorm couples the samples of a batch: use cifar10-resnet20-gn"
    )
    sibling = cards.task("cifar10-resnet20-gn")
    check_needs("m-fac", list(Query), sibling.name, sibling.offers, sibling.refuses)


def test_a_need_that_a_task_does_not_offer_and_does_not_explain_lists_what_it_offers() -> None:
    from curvebench.oracle.ledger import check_needs

    with pytest.raises(
        UnmetNeedError, match=r"mine needs hvp and toy cannot answer it: the task offers gradient, loss$"
    ):
        check_needs("mine", [Query.HVP], "toy", [Query.LOSS, Query.GRADIENT])
