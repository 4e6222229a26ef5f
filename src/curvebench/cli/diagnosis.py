"""The facts that ``doctor`` tells. Imports no framework into this process: devices are asked for in a child."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import curvebench
from curvebench import cards
from curvebench.errors import CurvebenchError

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "XLA_FLAGS",
    "JAX_PLATFORMS",
    "CUDA_VISIBLE_DEVICES",
    "CURVEBENCH_CARDS",
    "CURVEBENCH_DATA",
    "CURVEBENCH_SMOKE",
)
_HIDDEN_EXTRAS = ("all", "dev")
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*])?.*?(?:extra *== *['\"]([^'\"]+)['\"])?\)?$")
_PROBES = {
    "torch": (
        "import json, torch\n"
        "n = torch.cuda.device_count() if torch.cuda.is_available() else 0\n"
        "print(json.dumps(['cpu'] + [f'cuda:{i} ({torch.cuda.get_device_name(i)})' for i in range(n)]))"
    ),
    "jax": (
        "import json, jax\n"
        "print(json.dumps([f'{d.platform}:{d.id}' + (f' ({d.device_kind})' if d.platform != 'cpu' else '')"
        " for d in jax.devices()]))"
    ),
}


def examine(records: Path, timeout: float) -> dict[str, Any]:
    """Everything, as plain JSON types.

    Args:
        records: the folder that records go to.
        timeout: seconds that each framework gets to list its devices.
    """
    with ThreadPoolExecutor() as pool:  # the frameworks take seconds to import: ask while the rest is looked up
        probes = {framework: pool.submit(_devices, framework, timeout) for framework in _PROBES}
        found = {
            "curvebench": {
                "version": curvebench.__version__,
                "package": str(Path(curvebench.__file__).parent),
                "python": platform.python_version(),
                "executable": sys.executable,
            },
            "packages": packages(),
            "extras": extras(),
            "machine": _machine(),
            "cards": _cards(),
            "data": _data(),
            "records": writable(records),
            "git": _git(),
        }
        return found | {"devices": {framework: probe.result() for framework, probe in probes.items()}}


def requirements() -> list[tuple[str, str | None]]:
    """Every package that curvebench names, with the extra that brings it (None: the core)."""
    try:
        lines = importlib.metadata.requires("curvebench") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pairs = [(found[1], found[2]) for found in map(_REQUIREMENT.match, lines) if found]
    return [(name, extra) for name, extra in pairs if name != "curvebench"]


def version(package: str) -> str | None:
    """The installed version, without importing the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages() -> dict[str, str | None]:
    """Version (None: missing) of every package outside the development extras, and of both frameworks in any case."""
    wanted = [name for name, extra in requirements() if extra not in _HIDDEN_EXTRAS]
    return {name: version(name) for name in dict.fromkeys([*wanted, "torch", "jax"])}


def extras() -> list[dict[str, Any]]:
    """The extras and what of them is missing."""
    members: dict[str, list[str]] = {}
    for name, extra in requirements():
        if extra and extra not in _HIDDEN_EXTRAS:
            members.setdefault(extra, []).append(name)
    return [
        {"name": extra, "missing": [name for name in names if version(name) is None], "install": install(extra)}
        for extra, names in members.items()
    ]


def install(extra: str) -> str:
    """The command that brings an extra."""
    return f"pip install 'curvebench[{extra}]'"


def _devices(framework: str, timeout: float) -> dict[str, Any]:
    if importlib.util.find_spec(framework) is None:
        return {"devices": [], "problem": f"not installed: {install(framework)}"}
    try:
        # -P: a file named torch.py in the working directory is not the framework
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROBES[framework]],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"devices": [], "problem": f"did not list its devices within {timeout:g} s"}
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"devices": [], "problem": f"cannot be imported: {last[0]}"}
    return {"devices": json.loads(done.stdout.splitlines()[-1]), "problem": None}


def _machine() -> dict[str, Any]:
    # not on macOS
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "affinity": available,
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _cards() -> dict[str, Any]:
    try:
        found: dict[str, Any] = {"root": str(cards.root()), "origin": cards.origin(), "problems": []}
    except CurvebenchError as error:
        return {"root": None, "origin": None, "problems": [str(error)], "counts": {}}
    found["counts"] = {kind: len(cards.names(kind)) for kind in cards.KINDS}
    for kind in cards.KINDS:
        try:
            cards.load_all(kind)
        except CurvebenchError as error:
            found["problems"] += str(error).splitlines()
    return found


def _data() -> list[dict[str, str]]:
    if importlib.util.find_spec("curvebench.data") is None:
        return []
    from curvebench import data

    rows = []
    try:
        names = cards.names("datasets")
    except CurvebenchError:
        return []  # the cards' own section says so
    for name in names:
        try:
            state, sentence = data.status(cards.dataset(name))
        except CurvebenchError as error:
            state, sentence = "unknown", str(error)
        rows.append({"name": name, "state": state, "sentence": sentence})
    return rows


def writable(folder: Path) -> dict[str, Any]:
    """Whether records can be stored under ``folder``, found without writing."""
    here = folder.absolute()
    nearest = next((parent for parent in (here, *here.parents) if parent.exists()), here)
    if not nearest.is_dir():
        return {"folder": str(here), "writable": False, "sentence": f"{nearest} is a file: choose --records DIR"}
    if not os.access(nearest, os.W_OK | os.X_OK):
        return {
            "folder": str(here),
            "writable": False,
            "sentence": f"no right to write to {nearest}: choose --records DIR",
        }
    free = shutil.disk_usage(nearest).free / 1e9
    made = "" if nearest == here else ", made when the first record is stored"
    return {"folder": str(here), "writable": True, "sentence": f"writable, {free:.1f} GB free{made}"}


def _git() -> dict[str, Any]:
    program = shutil.which("git")
    if program is None:
        return {"version": None, "commit": None, "sentence": "git is not installed: records carry no commit"}

    def ask(*arguments: str) -> str | None:
        where = Path(curvebench.__file__).parent
        done = subprocess.run([program, "-C", str(where), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    number = (ask("--version") or "").removeprefix("git version ")
    commit = ask("rev-parse", "--short", "HEAD")
    if commit is None:
        return {
            "version": number,
            "commit": None,
            "sentence": "curvebench does not run from a commit: records carry none",
        }
    changed = " with uncommitted changes" if ask("status", "--porcelain") else ""
    return {"version": number, "commit": commit, "sentence": f"commit {commit}{changed}"}
