"""The fork server: what a child inherits from it, and what it must not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from dummies import spec

from curvebench import cards
from curvebench.schedule import Choice, expand, jobs_of, server
from curvebench.schedule.cores import available
from curvebench.schedule.isolation import Isolation
from curvebench.schedule.study import own_modules
from curvebench.types import Json


def result(pool: Isolation, method: str) -> Json:
    pool.start(spec(method), available(), 60.0)
    outcome = pool.wait(120.0)[0]
    assert outcome.record is not None, outcome.reason
    return outcome.record


@pytest.fixture(autouse=True)
def _fresh_server() -> Iterator[None]:
    server.stop()
    yield
    server.stop()


def test_the_server_has_imported_everything_and_started_nothing() -> None:
    """No thread, no CUDA, no XLA backend: none of them survives a fork."""
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    study = cards.study("quick")
    modules = own_modules(jobs_of(expand(study, Choice(seeds=1)), lambda _: "c" * 64))
    assert len(modules) > 5
    state = result(Isolation("dummies:work", server.preload_for(study.frameworks, "curvebench.run", *modules)), "state")
    assert state["threads"] == 2, "a child's own: the main one and the one that watches the parent"
    assert state["cuda"] is False
    assert state["backends"] == []
    assert {"torch", "torch._dynamo", "jax", "optax", *modules} <= set(state["modules"])


def test_only_the_frameworks_of_the_study_are_imported() -> None:
    state = result(Isolation("dummies:work", server.preload_for([])), "state")
    assert not {"torch", "jax"} & set(state["modules"])
    assert server.preload_for(["jax"]) == server.preload_for(["jax", "jax"])
    assert "torch" not in server.preload_for(["jax"])


def test_a_server_with_other_modules_replaces_the_first() -> None:
    server.ensure(("numpy",))
    first = server.pid()
    server.ensure(("numpy",))
    assert server.pid() == first
    server.ensure(("numpy", "decimal"))
    assert server.pid() != first
    assert server.alive()


def test_a_dead_server_is_replaced() -> None:
    pool = Isolation("dummies:work", server.preload_for([]))
    result(pool, "quick")
    first = server.pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    result(pool, "quick")
    assert server.pid() != first


def test_stopping_twice_is_no_error() -> None:
    server.ensure(("numpy",))
    server.stop()
    assert not server.alive()
    server.stop()


def test_a_script_without_a_main_guard_does_not_start_over_in_its_children(tmp_path: Path) -> None:
    """And what is defined in ``__main__`` costs children nothing: they never import it."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from pathlib import Path
        from curvebench.schedule import Options, jobs_of, run_study
        from curvebench.store import Store
        from dummies import spec
        print("the script runs")
        jobs = jobs_of([spec("quick", block) for block in range(3)], lambda _: "c" * 64)
        print(run_study(jobs, Store(Path("records")), Options(worker="dummies:work")).ran)
        """)
    )
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("the script runs\n3\n", "", 0)
