"""Fixtures of all rooms, and the state of the process that makes a test the same everywhere.

A test writes nothing into the checkout nor into the user's caches; a missing GPU or data is a skip with its reason.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
HOME = tempfile.mkdtemp(prefix="curvebench-tests-")
"""Stands in for the user's cache, config and data folders, in child processes too."""

# Before torch, NumPy and matplotlib are imported: they read these once.
for variable in [name for name in os.environ if name.startswith("CURVEBENCH_") and name != "CURVEBENCH_PAIRS"]:
    del os.environ[variable]
os.environ.update(dict.fromkeys(THREADS, "1"))  # sums in one order: the same bits in every run
os.environ.update({f"XDG_{name}_HOME": str(Path(HOME, name.lower())) for name in ("CACHE", "CONFIG", "DATA", "STATE")})
os.environ.update(
    {
        "COLUMNS": "120",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS is deterministic only with a workspace of fixed size
        "LC_ALL": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "NO_COLOR": "1",
        "PYTHONHASHSEED": "0",
        "TZ": "UTC",
    }
)

# A deadline would test the machine's load, and a database would be a folder in the checkout.
settings.register_profile("curvebench", deadline=None, database=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("curvebench"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "curvebench")


# A plugin of pytest may have loaded NumPy already, whose BLAS then runs as many threads as there are cores.
threadpool_limits(1, user_api="blas")


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@functools.cache
def cuda_missing() -> str:
    """Why no CUDA device can be used, empty when one can."""
    # The driver's own answer: a CUDA context in this process would be inherited by forked children, which it breaks in.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    try:
        import torch
    except ImportError:
        return "no CUDA device: torch is not installed"
    return "" if torch.cuda.is_available() else "no CUDA device"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and (reason := cuda_missing()):
        pytest.skip(reason)
    if item.get_closest_marker("shared") and not SHARED.is_dir():
        pytest.skip("the folder `shared` does not lie beside the checkout")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # A test before may have changed it; only where torch is loaded, since importing it takes two seconds.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """``cpu`` and ``cuda``; the latter skips where there is none."""
    return str(request.param)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data, specifications and golden trajectories beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder `shared` does not lie beside the checkout")
    return SHARED


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """An empty folder for records."""
    folder = tmp_path / "records"
    folder.mkdir()
    return folder


def _status() -> str:
    done = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def _checkout_untouched() -> Iterator[None]:
    """In CI, where nobody edits meanwhile, the tests must leave ``git status`` as it was."""
    before = _status() if os.environ.get("CI") else None
    yield
    if before is not None:
        assert _status() == before, "a test wrote into the checkout"
