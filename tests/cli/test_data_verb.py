"""``curvebench data``: what it prints, and that wrong data is an error of the user's kind."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import platformdirs
import pytest

from curvebench import cards
from curvebench.cli.data import data
from curvebench.data import fetch
from curvebench.errors import DataError, UnknownNameError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.delenv("CURVEBENCH_DATA", raising=False)


def _run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(data, list(arguments))


def test_list() -> None:
    result = _run("list")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines] == cards.names("datasets")
    assert any(line.startswith("cifar10 ") and " absent " in line and "data fetch cifar10" in line for line in lines)


def test_list_json() -> None:
    rows = json.loads(_run("list", "--json").output)
    assert [row["name"] for row in rows] == cards.names("datasets")
    assert all(set(row) == {"name", "title", "status", "detail"} for row in rows)


def test_verify_embedded() -> None:
    pytest.importorskip("sklearn")
    result = _run("verify", "digits")
    assert (result.exit_code, result.output) == (0, "ok  digits: comes with scikit-learn\n")


def test_verify_absent_and_unknown() -> None:
    assert isinstance(_run("verify", "cifar10").exception, DataError)
    error = _run("verify", "cifar").exception
    assert isinstance(error, UnknownNameError)
    assert "did you mean 'cifar10'" in str(error)


@pytest.mark.shared
def test_verify_real(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (SHARED / "cifar10/cifar-10-batches-py/test_batch").is_file():
        pytest.skip("../shared/data/cifar10 is not here")
    monkeypatch.setenv("CURVEBENCH_DATA", str(SHARED))
    lines = _run("verify", "cifar10").output.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("ok  ") for line in lines)
    result = _run("fetch", "cifar10")
    assert result.exit_code == 0, "what is there needs no network and no right to write"
    assert f"cifar10: {SHARED / 'cifar10'}, checksums match" in result.output


def test_fetch_hands_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def bring(card: cards.DatasetCard, **options: object) -> Path:
        seen.update(options, name=card.name)
        return tmp_path / "here"

    monkeypatch.setattr(fetch, "fetch", bring)
    result = _run("fetch", "cifar10", "--layout", "binary", "--root", str(tmp_path))
    assert seen == {"name": "cifar10", "layout": "binary", "root": tmp_path}
    assert result.output.splitlines()[0] == f"cifar10: {tmp_path / 'here'}, checksums match"
    assert f"export CURVEBENCH_DATA={tmp_path}\n" in result.output
    assert "cite the technical report" in result.output


def test_fetch_of_an_embedded_set_says_why_not() -> None:
    error = _run("fetch", "digits").exception
    assert isinstance(error, DataError)
    assert "digits: nothing to download (comes with scikit-learn" in str(error)


@pytest.mark.parametrize("verb", [[], ["list"], ["fetch"], ["verify"]])
def test_help_teaches_by_example(verb: list[str]) -> None:
    result = _run(*verb, "--help")
    assert result.exit_code == 0
    assert "Examples:\n  " in result.output
    assert "  curvebench data " in result.output
