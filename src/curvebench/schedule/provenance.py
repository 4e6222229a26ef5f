"""What only the parent of a run knows about where its record comes from."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import curvebench
from curvebench.types import Json

SOURCES = ("src", "methods", "tasks", "datasets", "studies")
"""What of a checkout decides results; a README in progress does not make it dirty."""


def command() -> str:
    """The command that this process was started with, without the place of the program."""
    return shlex.join(["curvebench", *sys.argv[1:]])


@cache
def git() -> Json | None:
    """Commit of the checkout that curvebench runs from and whether its sources have changes; None elsewhere."""
    root = Path(curvebench.__file__).parents[2]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", *(name for name in SOURCES if (root / name).exists()))
    return None if not commit or changes is None else {"commit": commit, "dirty": bool(changes)}


def _git(root: Path, *words: str) -> str | None:
    # No lock: two studies, or a study and its user, may ask at once.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
