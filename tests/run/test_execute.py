"""From a spec to a record: every status with its reason, the same seed the same bits, time where it belongs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
import torch
from tiny import FRAMEWORKS, run_spec

import curvebench.run.execute
from curvebench import cards, tasks
from curvebench.cards import MethodCard
from curvebench.errors import DeviceError
from curvebench.oracle import ledger
from curvebench.run import execute
from curvebench.spec import RunSpec
from curvebench.store import Record

each = pytest.mark.parametrize("framework", FRAMEWORKS)
EXECUTE = sys.modules["curvebench.run.execute"]

METHODS = '''
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch


class Base(torch.optim.Optimizer):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, {"lr": lr})
        self.taken = 0

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        self.taken += 1
        for p in self.param_groups[0]["params"]:
            p.add_(p.grad, alpha=-self.param_groups[0]["lr"])
        return loss


class Raises(Base):
    def step(self, closure):
        if self.taken == 3:
            raise RuntimeError("the matrix is\\nnot positive definite")
        return super().step(closure)


class AtConstruction(Base):
    def __init__(self, params, lr: float = 0.1):
        raise ValueError("no such option")


class OutOfMemory(Base):
    def step(self, closure):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class HostOutOfMemory(Base):
    def step(self, closure):
        raise MemoryError("cannot allocate")


class ManyQueries(Base):
    """Asks a hundred gradients a step, ten milliseconds each."""

    def step(self, closure):
        for _ in range(100):
            loss = super().step(closure)
            time.sleep(0.01)
        return loss


class Greedy(Base):
    """Asks what it does not declare."""

    oracle = None

    def step(self, closure=None):
        self.oracle.at().hvp([torch.ones_like(p) for p in self.oracle.parameters])


def sgd(learning_rate: float = 0.1):
    return optax.sgd(learning_rate)


def raises(learning_rate: float = 0.1):
    """Raises on the host in its fourth step."""
    base = optax.sgd(learning_rate)

    def host(count, g):
        if count >= 3:
            raise RuntimeError("the matrix is not positive definite")
        return np.asarray(g)

    def update(g, state, params=None):
        count, inner = state
        g = jax.tree.map(lambda x: jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), count, x), g)
        g, inner = base.update(g, inner, params)
        return g, (count + 1, inner)

    return optax.GradientTransformation(lambda p: (jnp.zeros((), jnp.int32), base.init(p)), update)


def out_of_memory(learning_rate: float = 0.1):
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2.00GiB.")


def greedy(learning_rate: float = 0.1):
    def update(g, state, params=None, *, oracle, **extra):
        return oracle.at(params).hvp(params), state

    return optax.GradientTransformationExtraArgs(lambda p: optax.EmptyState(), update)
'''


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a child that is pinned to one core."""
    monkeypatch.setattr(EXECUTE.machine, "available_cores", lambda: 1)


@pytest.fixture(scope="module")
def methods_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mine") / "mine_of_execute.py"
    file.write_text(METHODS)
    return file


def checked(spec: RunSpec) -> dict[str, Any]:
    """Execute, and read what comes out with the store's own schema, as the scheduler would complete it."""
    out = execute(spec)
    provenance = {**out["provenance"], "command": "test", "concurrent": 1, "git": None, "machine": {}}
    keys = {"run": spec.id, "code": "0" * 64, "machine": "0" * 64}
    record = Record.from_json({**out, "provenance": provenance, "schema": 1, "keys": keys, "attempt": 1})
    assert record.spec == spec
    assert record.status.value == out["status"]
    assert record.to_json()["curve"] == Record.from_json(record.to_json()).to_json()["curve"]
    assert out["reason"]
    return out


# -- statuses ----------------------------------------------------------------------------------------------------------


@each
def test_reached(framework: str) -> None:
    out = checked(run_spec("lbfgs", "logistic-breast-cancer", framework, steps=40))
    target = cards.task("logistic-breast-cancer").at("quick").target
    assert out["status"] == "reached"
    assert out["metric"] == {
        "name": "gap", "label": "f(w) - f*", "direction": "min", "target": target,
        "optimum": tasks.load(cards.task("logistic-breast-cancer"), "quick", 0).optimum,
    }  # fmt: skip
    crossing, curve = out["crossing"], out["curve"]
    at = curve["step"].index(crossing["step"])
    assert curve["metric"][at] <= target < min(curve["metric"][:at])
    assert crossing == {
        "step": curve["step"][at],
        "seconds": curve["seconds"][at],
        "oracle_calls": curve["oracle_calls"][at],
        "gradient_equivalents": curve["gradient_equivalents"][at],
    }
    assert crossing["gradient_equivalents"] > crossing["oracle_calls"], "a line search costs more than its gradients"
    assert out["reason"] == f"gap {curve['metric'][at]:.4g} <= {target:g} at step {crossing['step']}"
    assert curve["step"][-1] == out["consumed"]["step"] == 40, "the run goes on after the target"
    assert out["final"] == {"metric": curve["metric"][-1], "loss": curve["loss"][-1], "test": None}
    assert out["ledger"]["gradient"] == out["consumed"]["oracle_calls"] >= 80
    assert out["title"]["twin"] is False


@each
def test_budget(framework: str) -> None:
    out = checked(run_spec("sgd", framework=framework, steps=25, lr=0.01))
    assert (out["status"], out["crossing"]) == ("budget", None)
    assert out["reason"] == "25 steps spent, target gap 0.001 not met"
    assert out["curve"]["step"] == [0, 10, 20, 25]
    assert out["curve"]["oracle_calls"] == [0, 10, 20, 25]
    assert out["ledger"] == {
        **dict.fromkeys(ledger.COLUMNS, 0), "gradient": 25, "samples": 25 * 1000, "self_reported": [],
    }  # fmt: skip
    assert out["memory"]["parameter_bytes"] == 100 * 8
    assert out["memory"]["state_bytes"] == 0
    assert out["seconds"]["step"]["n"] == 24
    assert (out["seconds"]["compilation"] is None) == (framework == "torch")


@each
@pytest.mark.parametrize(("task", "lr"), [("least-squares", 1e200), ("least-squares", 3.0), ("digits-cnn", 1e30)])
def test_diverged(framework: str, task: str, lr: float) -> None:
    """Both by overflow at once and by growing; a diverged run keeps no crossing and ends where it was seen."""
    steps = 3000 if lr == 3.0 else 60
    dtype = "float32" if task == "digits-cnn" else "float64"
    out = checked(run_spec("sgd", task, framework, steps=steps, dtype=dtype, lr=lr))
    assert (out["status"], out["crossing"]) == ("diverged", None)
    last = out["curve"]["step"][-1]
    assert out["reason"].startswith("the loss is ")
    assert out["reason"].endswith(f" at step {last}")
    assert last == out["consumed"]["step"] < steps
    assert out["final"]["loss"] is None
    assert all(v is not None for v in out["curve"]["loss"][:-1])


@each
def test_unsupported_by_the_task(framework: str) -> None:
    spec = run_spec("torch.optim:SGD" if framework == "torch" else "optax:sgd", "cifar10-resnet20", framework,
                    needs=["gradient", "per_sample_gradient"])  # fmt: skip
    out = checked(spec)
    assert out["status"] == "unsupported"
    assert out["reason"].endswith("BatchNorm couples the samples of a batch: use cifar10-resnet20-gn")
    assert out["curve"]["step"] == []
    assert out["final"] == {"metric": None, "loss": None, "test": None}


def test_unsupported_without_an_implementation(tmp_path: Path) -> None:
    card = tmp_path / "half.toml"
    card.write_text(
        'name = "half"\ntitle = "Half"\nfamily = "first-order"\nsummary = "half"\nneeds = ["gradient"]\n'
        '[hyperparameters.lr]\ndefault = 0.1\nrange = "(0, inf)"\n'
        '[implementation.torch]\ntarget = "torch.optim:SGD"\narguments = { lr = "$lr" }\n'
    )
    assert checked(run_spec(str(card), steps=2))["status"] == "budget"
    out = checked(run_spec(str(card), framework="jax", steps=2))
    assert out["status"] == "unsupported"
    assert out["reason"] == "half: no implementation in jax: there is torch"


@each
def test_crashed_in_a_step(framework: str, methods_file: Path) -> None:
    """What was seen before stays on the record; the reason is what was raised, on one line."""
    name = {"torch": "Raises", "jax": "raises"}[framework]
    out = checked(run_spec(f"{methods_file}:{name}", framework=framework, steps=30))
    assert out["status"] == "crashed"
    sentence = "RuntimeError: the matrix is not positive definite"
    assert out["reason"] == (sentence if framework == "torch" else f"JaxRuntimeError: {sentence}")
    assert out["curve"]["step"] == [0]
    assert out["crossing"] is None


@each
def test_crashed_at_construction_and_by_an_undeclared_query(framework: str, methods_file: Path) -> None:
    if framework == "torch":
        out = checked(run_spec(f"{methods_file}:AtConstruction", steps=3))
        assert (out["status"], out["reason"]) == ("crashed", "ValueError: no such option")
        assert out["memory"]["state_bytes"] is None
    greedy = {"torch": "Greedy", "jax": "greedy"}[framework]
    out = checked(run_spec(f"{methods_file}:{greedy}", framework=framework, needs=["gradient"], steps=3))
    assert out["status"] == "crashed"
    assert out["reason"] == ("the method asked for hvp but declares needs = [gradient]: add 'hvp' to the card's needs")


@pytest.mark.parametrize(
    ("framework", "name"), [("torch", "OutOfMemory"), ("torch", "HostOutOfMemory"), ("jax", "out_of_memory")]
)
def test_out_of_memory(framework: str, name: str, methods_file: Path) -> None:
    out = checked(run_spec(f"{methods_file}:{name}", framework=framework, steps=3))
    assert out["status"] == "out_of_memory"
    assert "allocate" in out["reason"]


def test_a_framework_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = EXECUTE.importlib.import_module

    def absent(name: str) -> Any:
        if name == "curvebench.run.engine_jax":
            raise ModuleNotFoundError("No module named 'jax'", name="jax")
        return real(name)

    monkeypatch.delitem(sys.modules, "curvebench.run.engine_jax", raising=False)
    monkeypatch.setattr(EXECUTE.importlib, "import_module", absent)
    out = checked(run_spec("sgd", framework="jax", steps=3))
    assert out["status"] == "crashed"
    assert out["reason"] == "framework = jax needs the package 'jax': pip install 'curvebench[jax]'"


@each
def test_a_device_that_is_not_there_is_refused_with_a_sentence(framework: str) -> None:
    if framework == "torch":
        from curvebench.run.engine_torch import device
    else:
        from curvebench.run.engine_jax import device
    with pytest.raises(
        DeviceError, match=rf"device = cuda:77: {framework} \S+ sees (no|\d+) (?i:cuda) devices; use cpu"
    ):
        device("cuda:77")
    out = checked(run_spec("sgd", framework=framework, device="cuda:77", steps=3))
    assert out["status"] == "crashed"
    assert "use cpu" in out["reason"]


def test_what_is_no_fault_of_a_method_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EXECUTE, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        execute(run_spec("sgd", steps=3))


# -- the same seed, the same curve -------------------------------------------------------------------------------------

CURVES = ("metric", "loss", "test", "step", "oracle_calls")


@each
@pytest.mark.parametrize(
    ("method", "task", "dtype"),
    [
        ("adam", "digits-cnn", "float32"),
        ("adahessian", "least-squares", "float64"),
        ("mezo", "least-squares", "float64"),
    ],
)
def test_the_same_seed_gives_the_same_bits(framework: str, method: str, task: str, dtype: str) -> None:
    first, again, other = (
        checked(run_spec(method, task, framework, steps=20, dtype=dtype, seed_block=block)) for block in (0, 0, 1)
    )
    for key in CURVES:
        assert first["curve"][key] == again["curve"][key]
    assert first["ledger"] == again["ledger"]
    assert first["curve"]["loss"] != other["curve"]["loss"]


@each
def test_where_the_hyperparameters_come_from_and_what_was_run_before_change_nothing(framework: str) -> None:
    """Third-party optimisers that draw from torch's global generator get the run's own seed."""
    torch.manual_seed(123)
    first = checked(run_spec("mezo", framework=framework, steps=10))
    torch.rand(7)
    again = checked(run_spec("mezo", framework=framework, steps=10))
    assert first["curve"]["loss"] == again["curve"]["loss"]
    if framework == "torch":
        checked(run_spec("sgd", steps=1))
        one = torch.initial_seed()
        checked(run_spec("sgd", steps=1, seed_block=1))
        assert torch.initial_seed() != one


def test_native_and_reference_draws_are_both_runs_of_the_same_method() -> None:
    native, reference = (checked(run_spec("mezo", steps=5, draws=draws)) for draws in ("native", "reference"))
    assert native["ledger"] == reference["ledger"]
    assert native["curve"]["loss"][0] == reference["curve"]["loss"][0]
    assert native["curve"]["loss"][-1] != reference["curve"]["loss"][-1]
    assert native["spec"]["draws"] != reference["spec"]["draws"]


# -- budgets -----------------------------------------------------------------------------------------------------------


def test_a_budget_of_seconds_ends_inside_a_step_of_many_queries(methods_file: Path) -> None:
    """One step would take a second; the budget is a tenth of it."""
    began = time.perf_counter()
    out = checked(run_spec(f"{methods_file}:ManyQueries", steps=50, seconds=0.1))
    assert time.perf_counter() - began < 5
    assert out["status"] == "budget"
    assert out["reason"] == "0.1 s spent inside step 1, target gap 0.001 not met"
    assert out["consumed"]["step"] == 0
    assert 0.1 <= out["consumed"]["seconds"] < 0.6
    assert 1 <= out["consumed"]["oracle_calls"] == out["ledger"]["gradient"] < 60
    assert out["curve"]["step"] == [0], "a step that was not finished is not on the curve"


@each
def test_a_budget_of_seconds_ends_between_steps_with_an_evaluation(framework: str) -> None:
    out = checked(run_spec("sgd", framework=framework, steps=10**9, seconds=0.05, lr=0.01))
    assert out["status"] == "budget"
    assert out["reason"].startswith("0.05 s spent after ")
    assert out["curve"]["step"][-1] == out["consumed"]["step"]
    assert 0.05 <= out["consumed"]["seconds"] < 0.5
    assert out["curve"]["seconds"][-1] == out["consumed"]["seconds"]


def test_numpys_blas_gets_the_cores_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was loaded by the fork server, with the server's number of threads."""
    from threadpoolctl import threadpool_info, threadpool_limits

    threadpool_limits(2, user_api="blas")
    monkeypatch.setattr(EXECUTE.machine, "available_cores", lambda: 1)
    out = checked(run_spec("sgd", steps=1))
    assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
    assert out["provenance"]["threads"] == 1


def test_time_is_counted_where_it_belongs(methods_file: Path) -> None:
    out = checked(run_spec("sgd", framework="jax", steps=30, lr=0.1))
    seconds = out["seconds"]
    assert seconds["compilation"] > 0.005
    assert out["consumed"]["seconds"] < seconds["total"] - seconds["compilation"]
    assert seconds["evaluation"] > 0
    assert seconds["first_step"] > 0
    assert seconds["step"]["p10"] <= seconds["step"]["median"] <= seconds["step"]["p90"]
    assert out["curve"]["seconds"] == sorted(out["curve"]["seconds"])


def test_compiled_programs_are_kept_and_the_record_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jax.experimental.compilation_cache import compilation_cache

    monkeypatch.setenv("CURVEBENCH_CACHE", str(tmp_path))
    compilation_cache.reset_cache()
    try:
        found = []
        for block in (0, 1):
            jax.clear_caches()
            found.append(checked(run_spec("sgd", framework="jax", steps=2, seed_block=block))["seconds"]["cache"])
        assert found == ["miss", "hit"]
        assert any((tmp_path / "xla").iterdir())
    finally:
        compilation_cache.reset_cache()


# -- engines -----------------------------------------------------------------------------------------------------------


@each
def test_an_engine_runs_on_every_device(framework: str, device: str) -> None:
    tiny.jax_device(device)
    spec = run_spec("adahessian", framework=framework, device=device, lr=0.05, hessian_every=2)
    engine, reference = tiny.engine(spec, tiny.conv(0.1)), None
    losses = [engine.evaluate().loss]
    for step in range(4):
        engine.clock.start()
        engine.step(step, float("inf"))
        engine.clock.stop()
        losses.append(engine.evaluate().loss)
    engine.clock.flush()
    assert len(engine.clock.laps) == 4
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert ledger.as_dict(engine.counts())["hvp"] == 2
    if device == "cpu":
        reference = losses
    assert reference is None or reference == losses


def test_a_zeroth_order_method_runs_with_autograd_off(methods_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for method in ("mezo", "sgd"):
        engine = tiny.engine(run_spec(method), tiny.squared())
        forward = engine.oracle.objective.module.forward
        modes: list[bool] = []
        monkeypatch.setattr(
            engine.oracle.objective.module,
            "forward",
            lambda x, f=forward, m=modes: (m.append(torch.is_grad_enabled()), f(x))[1],
        )
        engine.step(0, float("inf"))
        seen.append(set(modes))
    assert seen == [{False}, {True}]


def test_prepare_refuses_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EXECUTE.tasks, "load", lambda *_: pytest.fail("the data were read"))
    out = execute(run_spec("torch.optim:SGD", "cifar10-resnet20", needs=["per_sample_gradient"]))
    assert out["status"] == "unsupported"
    assert isinstance(curvebench.run.prepare(run_spec("sgd"))[0], MethodCard)
