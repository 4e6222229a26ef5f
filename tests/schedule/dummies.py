"""Worker functions for the fault tests: each stands for what a method can do to its process.

They live in an importable module because a child imports its worker by name. The method's name chooses the behaviour.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from curvebench.spec import Budget, RunSpec


def spec(method: str = "quick", seed_block: int = 0, task: str = "dummy", framework: str = "none") -> RunSpec:
    """A run that only :func:`work` understands; the server preloads nothing for a framework of no name."""
    return RunSpec(
        task=task,
        scale="quick",
        method=method,
        hyperparameters=(("lr", 0.1),),
        needs=("gradient",),
        framework=framework,
        device="cpu",
        dtype="float64",
        seed_block=seed_block,
        budget=Budget(10),
    )


def record(spec: RunSpec, **notes: Any) -> dict[str, Any]:
    """What ``curvebench.run.execute`` returns, for a run of three evaluations that reached its target."""
    return {
        "spec": spec.to_json(),
        "title": {
            "method": spec.method,
            "task": spec.task,
            "method_family": "first-order",
            "task_family": "regression",
            "twin": True,
        },
        "status": "reached",
        "reason": "gap 0.01 <= 0.1 at step 10",
        "metric": {"name": "gap", "label": "f(x) - f*", "direction": "min", "target": 0.1, "optimum": 0.0},
        "curve": {
            "step": [0, 5, 10],
            "seconds": [0.0, 0.001, 0.002],
            "oracle_calls": [0, 5, 10],
            "gradient_equivalents": [None, None, None],
            "metric": [1.0, 0.1 + spec.seed_block, 0.01],
            "loss": [1.0, 0.1, 0.01],
            "test": [None, None, None],
        },
        "final": {"metric": 0.01, "loss": 0.01, "test": None},
        "crossing": {"step": 10, "seconds": 0.002, "oracle_calls": 10, "gradient_equivalents": None},
        "consumed": {"step": 10, "seconds": 0.002, "oracle_calls": 10, "gradient_equivalents": None},
        "ledger": {"gradient": 10, "draws": 0, "samples": 10, "self_reported": []},
        "seconds": {
            "setup": 0.001,
            "compilation": None,
            "cache": None,
            "first_step": 0.001,
            "step": {"median": 0.0002, "p10": 0.0001, "p90": 0.0003, "n": 10},
            "evaluation": 0.001,
            "total": 0.01,
        },
        "work": None,
        "memory": {"peak_bytes": None, "parameter_bytes": 8, "state_bytes": 8, "how": "not measured: a dummy"},
        "provenance": {
            "started": "2026-01-01T00:00:00Z",
            "versions": {"curvebench": "0"},
            "machine": {},
            "threads": 1,
            "cpu_wall_ratio": 1.0,
            "load": 0.0,
            "notes": [],
            **notes,
        },
    }


def work(spec: RunSpec) -> dict[str, Any]:
    """Do what the method's name says; ``<word>-<n>`` and ``<word>`` are the same."""
    return BEHAVIOURS[spec.method.split("-")[0]](spec)


def _quick(spec: RunSpec) -> dict[str, Any]:
    time.sleep(0.01)
    return record(spec)


def _slow(spec: RunSpec) -> dict[str, Any]:
    time.sleep(0.3)
    return record(spec)


def _marked(spec: RunSpec) -> dict[str, Any]:
    """Leave a mark when it starts, so that a test can count how often a run was started."""
    with open(os.environ["DUMMY_MARKS"], "a") as marks:
        marks.write(f"{spec.id} {os.getpid()}\n")
    return _quick(spec)


def _markedhang(spec: RunSpec) -> dict[str, Any]:
    _marked(spec)
    return _hang(spec)


def _hang(spec: RunSpec) -> dict[str, Any]:
    time.sleep(1000)
    return record(spec)


def _stubborn(spec: RunSpec) -> dict[str, Any]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _hang(spec)


def _hold(spec: RunSpec) -> dict[str, Any]:
    """Hang in C without ever releasing the GIL."""
    pattern = "a?" * 40 + "a" * 40
    import re

    re.match(pattern, "a" * 40)
    return record(spec)


def _family(spec: RunSpec) -> dict[str, Any]:
    """Start a process that outlives this one unless the whole group is killed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    Path(os.environ["DUMMY_MARKS"]).write_text(str(process.pid))
    return _hang(spec) if spec.method.endswith("hang") else record(spec)


def _raise(spec: RunSpec) -> dict[str, Any]:
    raise ValueError("the dummy is broken")


def _memory(spec: RunSpec) -> dict[str, Any]:
    raise MemoryError("no room for 8 EiB")


def _leave(spec: RunSpec) -> dict[str, Any]:
    sys.exit("I give up")


def _exit(spec: RunSpec) -> dict[str, Any]:
    os._exit(3)


def _exit255(spec: RunSpec) -> dict[str, Any]:
    os._exit(255)


def _kill(spec: RunSpec) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def _segfault(spec: RunSpec) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("still alive")


def _server(spec: RunSpec) -> dict[str, Any]:
    """Kill the fork server once, then behave."""
    marks = Path(os.environ["DUMMY_MARKS"])
    if not marks.exists():
        marks.write_text("killed")
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
    return record(spec)


def _print(spec: RunSpec) -> dict[str, Any]:
    for _ in range(2000):
        os.write(1, b"x" * 10_000 + b"\n")
    print("the last line")
    return record(spec) if not spec.method.endswith("raise") else _raise(spec)


def _large(spec: RunSpec) -> dict[str, Any]:
    """A result of 20 MB."""
    return record(spec, notes=["y" * 20_000_000])


def _odd(spec: RunSpec) -> dict[str, Any]:
    return record(spec, notes=[object()])


def _closed(spec: RunSpec) -> dict[str, Any]:
    sys.stdout.close()
    os.close(2)
    return record(spec)


def _cores(spec: RunSpec) -> dict[str, Any]:
    began = time.time()
    time.sleep(0.05)
    cores, threads = sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"]
    return record(spec, notes=[json.dumps({"cores": cores, "omp": threads, "began": began, "ended": time.time()})])


def _state(spec: RunSpec) -> dict[str, Any]:
    """What the process inherited from the fork server."""
    state: dict[str, Any] = {"threads": len(os.listdir("/proc/self/task")), "modules": sorted(sys.modules)}
    if "torch" in sys.modules:
        state["cuda"] = sys.modules["torch"].cuda.is_initialized()
    if "jax" in sys.modules:
        state["backends"] = sorted(sys.modules["jax._src.xla_bridge"]._backends)
    return state


def _wrong(spec: RunSpec) -> dict[str, Any]:
    return {**record(spec), "status": "splendid"}


def _variable(spec: RunSpec) -> dict[str, Any]:
    return record(spec, notes=[os.environ.get("DUMMY_VARIABLE", "")])


BEHAVIOURS = {name[1:]: value for name, value in list(globals().items()) if name.startswith("_") and callable(value)}
