"""What the harness adds to a step: its loop against a bare hand-written one, interleaved in one process.

Both sides do the same arithmetic on the same device with the same optimiser (SGD with momentum 0.9): batch, forward,
backward, update. The harness's side is :func:`curvebench.run.loop.train` itself with evaluation left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from curvebench import cards, tasks
from curvebench.run.loop import Goal, Trajectory, train
from curvebench.spec import Budget, RunSpec
from curvebench.statistics.pairs import Ratio, interleave
from curvebench.tasks.problem import Evaluation, Problem

LR, MOMENTUM = 1e-3, 0.9


def overhead(task: str, framework: str, steps: int, pairs: int, threads: int = 2) -> Ratio:
    """Seconds per ``steps`` steps, harness against bare loop.

    Args:
        task: name of a task card; its quick scale is used.
        framework: ``torch`` or ``jax``.
        steps: steps in one measurement.
        pairs: interleaved measurements of each side.
        threads: intra-op threads of torch.
    """
    card = cards.task(task)
    problem = tasks.load(card, "quick", 0)
    ours = harness(problem, task, card.dtype, framework, steps, threads)
    theirs = {"torch": bare_torch, "jax": bare_jax}[framework](problem, card.dtype, steps, threads)
    ours()
    theirs()
    return interleave(ours, theirs, pairs)


def harness(problem: Problem, task: str, dtype: str, framework: str, steps: int, threads: int) -> Callable[[], object]:
    """The harness's loop, ``steps`` steps a call."""
    method = cards.method("momentum")
    spec = RunSpec(
        task=task, scale="quick", method="momentum", hyperparameters=method.resolve({"lr": LR, "momentum": MOMENTUM}),
        needs=("gradient",), framework=framework, device="cpu", dtype=dtype, seed_block=0, budget=Budget(steps),
    )  # fmt: skip
    if framework == "torch":
        from curvebench.run.engine_torch import TorchEngine as Engine
    else:
        from curvebench.run.engine_jax import JaxEngine as Engine  # type: ignore[assignment]
    engine: Any = Engine(spec, problem, method, threads)
    engine.evaluate = lambda: Evaluation(0.0, 0.0, None)

    def run() -> Trajectory:
        out = Trajectory()
        train(engine, Budget(steps, 1e9), Goal(None, "min", "loss"), steps + 1, out)
        return out

    return run


def bare_torch(problem: Problem, dtype: str, steps: int, threads: int) -> Callable[[], object]:
    """What a person would write in torch; BatchNorm is torch's own."""
    import torch
    from torch import nn

    from curvebench.oracle.batchnorm_torch import BatchNorm2d
    from curvebench.tasks.criteria_torch import CRITERIA
    from curvebench.tasks.runtime_torch import TorchTask

    torch.set_num_threads(threads)
    task = TorchTask(problem, torch.device("cpu"), getattr(torch, dtype))
    module, criterion = task.objective.module, CRITERIA[problem.criterion]
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNorm2d):
                setattr(parent, name, nn.BatchNorm2d(child.num_features))
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)

    def run() -> None:
        for step in range(steps):
            x, y = task.batch(step)
            optimizer.zero_grad()
            criterion(module(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return run


def bare_jax(problem: Problem, dtype: str, steps: int, threads: int) -> Callable[[], object]:
    """What a person would write in jax: one jitted step with donated state, one wait at the end."""
    del threads
    import jax
    import optax

    from curvebench.tasks.criteria_jax import CRITERIA
    from curvebench.tasks.runtime_jax import JaxTask

    task = JaxTask(problem, jax.devices("cpu")[0], np.dtype(dtype))
    apply, criterion = problem.jax_apply(True), CRITERIA[problem.criterion]
    optimizer = optax.sgd(LR, momentum=MOMENTUM)

    def objective(params: Any, buffers: Any, batch: Any) -> Any:
        outputs, statistics = apply(params, buffers, batch[0], None)
        return criterion(outputs, batch[1]), statistics

    def step(params: Any, buffers: Any, state: Any, data: Any, rows: Any) -> Any:
        grads, statistics = jax.grad(objective, has_aux=True)(params, buffers, task.batch(data, rows))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), task.commit(buffers, statistics), state

    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    carry: list[Any] = [task.params, task.buffers, optimizer.init(task.params)]

    def run() -> None:
        for index in range(steps):
            carry[:] = jitted(*carry, task.data, task.rows(index))
        jax.block_until_ready(carry)

    return run
