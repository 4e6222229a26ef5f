"""The installer's decisions, without installing: when it does nothing, what it refuses, which torch it takes."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIND = ROOT / "tools" / "find-python.sh"


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("curvebench_install", ROOT / "tools" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environment(installer: ModuleType, tmp_path: Path) -> Any:
    """What looks like an installed environment; its interpreter is the one that runs the tests."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "bin" / "curvebench").write_text("")
    (folder / "pyvenv.cfg").write_text("home = /nowhere\nversion = 3.11.7\n")
    made = installer.Environment(folder)
    made.write_stamp(made.key("cpu", False), made=True)
    return made


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "install.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_installed_environment_is_left_alone_at_once(environment: Any) -> None:
    start = time.monotonic()
    done = run("--venv", str(environment.path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - start < 5  # an installation takes a minute


@pytest.mark.parametrize("lost", ["bin/python", "bin/curvebench", "curvebench-install.json"])
def test_a_lost_file_is_noticed(environment: Any, lost: str) -> None:
    key = environment.key("cpu", False)
    assert environment.stands(key)
    (environment.path / lost).unlink()
    assert not environment.stands(key)


def test_an_interrupted_installation_does_not_count(environment: Any) -> None:
    key = environment.key("cpu", False)
    environment.write_stamp("")
    assert not environment.stands(key)
    environment.stamp.write_text("{")
    assert not environment.stands(key)


def test_the_key_follows_what_is_installed(environment: Any, installer: ModuleType, tmp_path: Path) -> None:
    keys = {environment.key(torch, site) for torch in ("cpu", "cuda") for site in (True, False)}
    assert len(keys) == 4
    before = environment.key("cpu", False)
    (environment.path / "pyvenv.cfg").write_text("version = 3.12.0\n")
    assert environment.key("cpu", False) != before


def test_the_key_ignores_the_settings_of_tools(
    environment: Any, installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(installer, "ROOT", tmp_path)
    before = environment.key("cpu", False)
    text = (tmp_path / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace("line-length = 120", "line-length = 119"))
    assert environment.key("cpu", False) == before
    (tmp_path / "pyproject.toml").write_text(text.replace('"click>=8.1"', '"click>=8.2"'))
    assert environment.key("cpu", False) != before


def test_a_folder_that_is_no_environment_is_refused_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "cat.png").write_text("meow")
    done = run("--venv", str(folder))
    assert done.returncode == 2
    assert "is not a virtual environment; name another folder" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["cat.png"]


def test_a_foreign_environment_is_never_removed(environment: Any, installer: ModuleType) -> None:
    environment.stamp.unlink()
    environment.write_stamp("")
    assert environment.read_stamp()["made"] is False


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"torch==2.13.0": "2.13.0+cpu"}, "2.13.0+cpu"),
        ({"torch==2.13.0": "2.13.0", "torch>=2.6": "2.14.1"}, ""),  # builds for CUDA
        ({"torch>=2.6": "2.12.0+cpu"}, "2.12.0+cpu"),
        ({}, ""),
    ],
)
def test_a_local_wheel_counts_if_it_is_a_cpu_build(
    environment: Any,
    installer: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, str],
    expected: str,
) -> None:
    monkeypatch.setattr(installer, "TORCH", "2.13.0")
    asked = []

    def call(*command: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        version = answers.get(command[-1])
        report = json.dumps({"install": [{"metadata": {"version": version}}]})
        return subprocess.CompletedProcess(command, 0 if version else 1, report if version else "", "")

    monkeypatch.setattr(installer, "call", call)
    assert installer.local_cpu_wheel(environment) == expected
    assert all("--no-index" in command for command in asked)  # nothing is asked of a network


@pytest.mark.parametrize(
    ("choice", "present", "local", "index", "expected", "words"),
    [
        ("cpu", "", "2.13.0+cpu", True, ["--no-index", "torch==2.13.0+cpu"], "on this machine's disk"),
        ("cpu", "", "", True, ["--index-url", "torch==2.13.0"], "from PyTorch's own index"),
        ("cpu", "", "", False, ["torch==2.13.0"], "about 3 GB to download"),
        ("cuda", "", "2.13.0+cpu", True, ["torch==2.13.0"], "about 3 GB to download"),
        ("cuda", "2.13.0+cpu", "", True, ["--force-reinstall", "torch==2.13.0"], "about 3 GB to download"),
        ("cuda", "2.13.0", "", True, [], "torch 2.13.0 is there"),
        ("cpu", "2.11.0+cu130", "", True, [], "torch 2.11.0+cu130 is there"),
    ],
)
def test_which_torch_is_installed(
    environment: Any,
    installer: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    choice: str,
    present: str,
    local: str,
    index: bool,
    expected: list[str],
    words: str,
) -> None:
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(installer, "TORCH", "2.13.0")
    monkeypatch.setattr(installer, "installed_torch", lambda _: present)
    monkeypatch.setattr(installer, "local_cpu_wheel", lambda _: local)
    monkeypatch.setattr(installer, "cpu_index_answers", lambda: index)
    monkeypatch.setattr(installer.sys, "platform", "linux")
    monkeypatch.setattr(installer.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(installer.Environment, "pip", lambda _, *arguments: commands.append(arguments))
    installer.install_torch(environment, choice)
    assert len(commands) == (1 if expected else 0)
    assert all(word in commands[0] for word in expected)
    if commands:
        assert ("--no-index" in commands[0], "--index-url" in commands[0]) == (
            "--no-index" in expected,
            "--index-url" in expected,
        )
    assert words in capsys.readouterr().out


def test_the_index_of_cpu_builds_that_does_not_answer_is_passed_over(
    installer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "CPU_INDEX", "http://127.0.0.1:9")  # the discard port: refused
    assert installer.cpu_index_answers() is False


def test_a_python_without_venv_is_passed_over_and_the_absence_is_a_sentence(tmp_path: Path) -> None:
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 127\n")  # a version manager's shim for what is not installed
        (tmp_path / name).chmod(0o755)
    shell = shutil.which("sh")
    assert shell
    done = subprocess.run([shell, str(FIND)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Python 3.11 or newer with venv and ensurepip" in done.stderr


def test_the_named_python_is_taken_or_refused() -> None:
    environ = {"PATH": os.environ["PATH"]}
    found = subprocess.run(["sh", str(FIND), sys.executable], env=environ, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == sys.executable
    refused = subprocess.run(["sh", str(FIND), "/bin/false"], env=environ, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "PYTHON=/bin/false does not run" in refused.stderr
