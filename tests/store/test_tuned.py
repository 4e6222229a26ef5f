"""Tuned hyperparameters: one file per (task, method), refused with file, key and what is allowed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from curvebench.errors import StoreError
from curvebench.store import tuned, tuned_path, write_tuned

CONTENT: dict[str, Any] = {
    "task": "digits-cnn",
    "method": "adam",
    "scale": "quick",
    "framework": "torch",
    "pool": "sobol-8",
    "trials": 8,
    "hyperparameters": {"lr": 0.01, "nesterov": True, "line_search": "strong_wolfe"},
    "metric": 0.97,
    "label": "validation accuracy",
    "cost": {"seconds": 12.5, "oracle_calls": 4000},
    "runs": ["0123456789abcdef"],
}


def test_round_trip_and_places(tmp_path: Path) -> None:
    path = write_tuned(tmp_path, CONTENT, twin=True)
    assert path == tmp_path / "digits-cnn" / "adam.json" == tuned_path(tmp_path, "digits-cnn", "adam", "jax", True)
    for framework in ("torch", "jax"):
        assert tuned(tmp_path, "digits-cnn", "adam", framework, True) == {"schema": 1, **CONTENT}
    assert tuned(tmp_path, "digits-cnn", "adam", "torch", False) is None
    assert tuned(tmp_path, "digits-cnn", "sgd", "torch", True) is None


def test_a_method_without_twin_has_one_file_each(tmp_path: Path) -> None:
    for framework in ("torch", "jax"):
        path = write_tuned(tmp_path, CONTENT | {"framework": framework}, twin=False)
        assert path.name == f"adam-{framework}.json"
    found = tuned(tmp_path, "digits-cnn", "adam", "jax", False)
    assert found is not None
    assert found["framework"] == "jax"


def test_writing_again_replaces(tmp_path: Path) -> None:
    write_tuned(tmp_path, CONTENT, twin=True)
    path = write_tuned(tmp_path, CONTENT | {"trials": 16}, twin=True)
    assert json.loads(path.read_text())["trials"] == 16
    assert [p.name for p in path.parent.iterdir()] == ["adam.json"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trials": 0}, "trials = 0: must be at least 1"),
        ({"trials": "8"}, "trials = '8': must be int"),
        ({"trials": True}, "trials = True: must be int"),
        ({"hyperparameters": {"lr": [1]}}, r"hyperparameters.lr = \[1\]: must be a number"),
        ({"cost": {"seconds": 1.0}}, "cost.oracle_calls: must be a number"),
        ({"extra": 1}, "unknown keys extra"),
        ({"schema": 2}, "newer curvebench"),
        ({"method": "sgd"}, "method = 'sgd': the file's place says 'adam'"),
    ],
)
def test_a_bad_file_is_refused_with_its_key(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = write_tuned(tmp_path, CONTENT, twin=True)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=sentence) as caught:
        tuned(tmp_path, "digits-cnn", "adam", "torch", True)
    assert "adam.json" in str(caught.value)


@pytest.mark.parametrize("key", sorted(CONTENT))
def test_a_missing_key_is_refused_on_both_sides(tmp_path: Path, key: str) -> None:
    path = write_tuned(tmp_path, CONTENT, twin=True)
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=f"{key}: is missing"):
        tuned(tmp_path, "digits-cnn", "adam", "torch", True)
    with pytest.raises(StoreError, match=f"{key}: is missing"):
        write_tuned(tmp_path, {k: v for k, v in CONTENT.items() if k != key}, twin=True)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write_tuned(tmp_path, CONTENT, twin=True)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StoreError, match="not valid JSON"):
        tuned(tmp_path, "digits-cnn", "adam", "torch", True)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tuned(tmp_path, CONTENT, twin=True)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        write_tuned(tmp_path, CONTENT | {"trials": 16}, twin=True)
    assert json.loads(path.read_text())["trials"] == 8
    assert [p.name for p in path.parent.iterdir()] == ["adam.json"]
