"""The stored certificate: as data, as a line with its age and sources, and in the report."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from curvebench.cli.main import cli
from curvebench.errors import StoreError
from curvebench.store import certificate as stored

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def finding(name: str, outcome: str) -> dict[str, Any]:
    return {"name": name, "sentence": "a toy", "value": 1.0, "bound": "<= 2", "outcome": outcome, "seen": "",
            "seconds": 0.1}  # fmt: skip


def content(**change: Any) -> dict[str, Any]:
    return {
        "started": (NOW - timedelta(days=3)).isoformat(), "seconds": 60.0, "code": stored.code_hash(),
        "git": {"commit": "c0ffee0123456789", "dirty": False}, "versions": {}, "machine": {"line": "Toy, Linux"},
        "findings": [finding("a", "pass"), finding("b", "pass")], **change,
    }  # fmt: skip


def test_a_certificate_is_data_and_a_line(tmp_path: Path) -> None:
    stored.write_certificate(tmp_path, content())
    found = stored.certificate(tmp_path, NOW)
    assert found.found
    assert found.same_code
    assert found.age_days == pytest.approx(3.0)
    assert [f["name"] for f in found.findings] == ["a", "b"]
    assert found.line == (
        f"certificate: 2 of 2 statements hold; measured 2026-11-21 (3 days ago), code {stored.code_hash()[:8]}, "
        "commit c0ffee012, these sources; Toy, Linux"
    )
    assert json.loads(json.dumps(found.to_json()))["passed"] == 2


def test_other_sources_failures_and_gaps_are_said(tmp_path: Path) -> None:
    findings = [finding("a", "pass"), finding("b", "fail"), finding("c", "not measured")]
    stored.write_certificate(tmp_path, content(code="f" * 64, findings=findings, git={"commit": "abc", "dirty": True}))
    line = stored.certificate(tmp_path, NOW - timedelta(days=3)).line
    assert "1 of 3 statements hold, 1 do not (b), 1 not measured; measured 2026-11-21 (today)" in line
    assert "other sources than these: run `curvebench certify` again" in line
    assert "commit abc++" not in line
    assert "commit abc+" in line


def test_without_one_the_report_says_how_to_get_it(tmp_path: Path) -> None:
    found = stored.certificate(tmp_path)
    assert not found.found
    assert found.line == "not certified: run `curvebench certify`"
    assert found.to_json()["findings"] == []


def test_the_report_prints_it(tmp_path: Path) -> None:
    shard = next(iter(sorted(path for path in (ROOT / "results" / "records" / "reference").iterdir() if path.is_dir())))
    shutil.copytree(shard, tmp_path / "records" / shard.name)
    arguments = ["report", "--records", str(tmp_path / "records"), "--out", str(tmp_path), "--no-figures", "--no-html"]
    before = CliRunner().invoke(cli, arguments)
    assert before.exit_code == 0, before.output
    assert "not certified: run `curvebench certify`" in before.output
    stored.write_certificate(tmp_path, content())
    assert "certificate: 2 of 2 statements hold" in CliRunner().invoke(cli, [*arguments, "--format", "markdown"]).output
    assert "certificate" not in CliRunner().invoke(cli, [*arguments, "--json"]).output


def test_only_a_whole_certificate_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curvebench.procedures import certify

    arguments = ["certify", "--out", str(tmp_path)]
    assert CliRunner().invoke(cli, [*arguments, "mkor-rank-one-inverse"]).exit_code == 0
    assert not (tmp_path / stored.NAME).exists()
    whole = certify.certify
    monkeypatch.setattr(certify, "certify", lambda names: whole(["mkor-rank-one-inverse", "mfac-woodbury-dense"]))
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    found = stored.certificate(tmp_path)
    assert found.same_code
    assert found.count("pass") == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 9}, "newer curvebench"),
        ({"started": "yesterday"}, "started = 'yesterday': must be a time with its zone"),
        ({"findings": [{"name": "a"}]}, r"findings\[0\].sentence: is missing"),
        ({"findings": [finding("a", "maybe")]}, r"findings\[0\].outcome = 'maybe': must be one of pass, fail"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    (tmp_path / stored.NAME).write_text(json.dumps({"schema": 1, **content(), **change}))
    with pytest.raises(StoreError, match=words):
        stored.certificate(tmp_path)
