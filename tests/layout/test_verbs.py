"""The Makefile's verbs are the only way in: help lists them; tox, CI and the hooks call them."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
VERBS = {"help", "bench", "test", "lint", "types", "certify", "tables", "docs", "asv", "asv-publish", "nightly",
         "wheel", "image", "gpu-bundle", "clean"}  # fmt: skip


def make(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**environ, **variables},
    )


def listed() -> set[str]:
    return set(re.findall(r"^  make (\S+)", make().stdout, re.MULTILINE))


def test_plain_make_lists_the_verbs_with_what_they_do() -> None:
    done = make()
    assert done.returncode == 0
    assert listed() >= VERBS
    assert all(re.match(r"  make \S+ +\S.{10}", line) for line in done.stdout.splitlines())


def test_every_target_is_phony_and_listed() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    targets = set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))
    assert phony == targets == listed()


@pytest.mark.parametrize("verb", sorted(VERBS - {"help", "clean", "image"}))
def test_every_verb_installs_first_and_runs_in_the_environment(verb: str) -> None:
    done = make("--dry-run", verb, VENV="some-environment")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    install = next(i for i, line in enumerate(lines) if "tools/install.py" in line)
    work = [i for i, line in enumerate(lines) if f"{ROOT}/some-environment/bin/" in line and i > install]
    assert work


def test_no_install_takes_the_environment_as_it_is() -> None:
    assert "tools/install.py" not in make("--dry-run", "bench", NO_INSTALL="1").stdout


def test_a_failing_step_fails_the_verb(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    assert make("types", VENV=str(tmp_path), NO_INSTALL="1").returncode == 2


def test_tox_environments_are_verbs_and_run_them() -> None:
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    environments = {name.strip() for name in tox["tox"]["env_list"].split(",")}
    environments |= {section.split(":")[1] for section in tox.sections() if section.startswith("testenv:")}
    assert environments
    assert environments <= VERBS
    assert tox["testenv"]["commands"].startswith("make VENV={env_dir} {env_name}")


def test_ci_runs_lint_types_and_the_tests_last() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    verbs = re.search(r"^for verb in (.*?); do", script.read_text(), re.MULTILINE)
    assert verbs is not None
    assert verbs.group(1).split() == ["lint", "types", "docs", "certify", "test"]


def test_hooks_call_verbs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repository in config["repos"] for hook in repository["hooks"]]
    assert entries
    assert {entry.split()[0] for entry in entries} == {"make"}
    assert {entry.split()[1] for entry in entries} <= VERBS
