"""``doctor``: tells the truth about this machine, whatever is missing."""

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from curvebench import cards
from curvebench.cli import diagnosis
from curvebench.cli.main import cli
from curvebench.cli.prescription import render

REQUIRES = [
    "click>=8.1",
    "scikit-learn>=1.5; extra == 'data'",
    'torch>=2.6; extra == "torch"',
    "nowhere-package>=2; extra == 'jax'",
    "curvebench[data,torch]; extra == 'all'",
    "pytest; (python_version < '4') and extra == 'dev'",
]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *arguments])


@pytest.fixture(autouse=True)
def _quick_probes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_probes" not in request.fixturenames:
        monkeypatch.setattr(diagnosis, "_PROBES", {"torch": "print('[\"cpu\"]')", "jax": "print('[\"cpu:0\"]')"})


def test_json(tmp_path: Path) -> None:
    result = invoke("--json", "--records", str(tmp_path / "results"))
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["cards"]["root"] == str(cards.root())
    assert found["cards"]["counts"] == {kind: len(cards.names(kind)) for kind in cards.KINDS}
    assert found["records"]["writable"] is True
    assert found["records"]["folder"] == str(tmp_path / "results")
    assert found["machine"]["cores"] == os.cpu_count()
    assert {row["name"] for row in found["data"]} == set(cards.names("datasets"))
    assert found["devices"]["torch"] == {"devices": ["cpu"], "problem": None}
    assert not (tmp_path / "results").exists()


def test_text(tmp_path: Path) -> None:
    text = invoke("--records", str(tmp_path)).stdout
    for title in ("curvebench", "packages", "devices", "machine", "cards", "data", "records", "what to do"):
        assert f"\n{title}\n" in f"\n{text}"
    assert str(cards.root()) in text
    assert "\x1b" not in text


def test_thread_variables_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert json.loads(invoke("--json").stdout)["machine"]["environment"]["OMP_NUM_THREADS"] == "3"


def test_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    assert diagnosis.requirements() == [
        ("click", None),
        ("scikit-learn", "data"),
        ("torch", "torch"),
        ("nowhere-package", "jax"),
        ("pytest", "dev"),
    ]
    by_name = {extra["name"]: extra for extra in diagnosis.extras()}
    assert set(by_name) == {"data", "torch", "jax"}
    assert by_name["jax"] == {
        "name": "jax", "missing": ["nowhere-package"], "install": "pip install 'curvebench[jax]'",
    }  # fmt: skip
    packages = diagnosis.packages()
    assert packages["nowhere-package"] is None
    assert packages["click"] == importlib.metadata.version("click")
    assert "pytest" not in packages


def test_a_missing_extra_is_prescribed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    text = invoke().stdout
    assert "  --  jax" in text
    assert "pip install 'curvebench[jax]'  for nowhere-package" in text.partition("what to do")[2]


def test_not_installed_as_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert "curvebench is not installed as a package" in invoke().stdout


@pytest.mark.parametrize(
    ("probe", "problem"),
    [
        ("import time; time.sleep(60)", "did not list its devices within 0.5 s"),
        ("raise ImportError('libcudart.so.12: cannot open')",
         "cannot be imported: ImportError: libcudart.so.12: cannot open"),
        ("import os; os._exit(7)", "cannot be imported: exit code 7"),
    ],
)  # fmt: skip
def test_a_framework_that_does_not_answer(probe: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_PROBES", {"json": probe})
    found = json.loads(invoke("--json", "--timeout", "0.5").stdout)
    assert found["devices"] == {"json": {"devices": [], "problem": problem}}


def test_a_framework_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_PROBES", {"nowhere": ""})
    found = json.loads(invoke("--json").stdout)
    assert found["devices"]["nowhere"]["problem"] == "not installed: pip install 'curvebench[nowhere]'"


def test_the_working_directory_shadows_no_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shadow_me.py").write_text("raise SystemExit('shadowed')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(diagnosis, "_PROBES", {"json": "import importlib.util as u; print('[]' if u.find_spec("
                                               "'shadow_me') is None else '[1]')"})  # fmt: skip
    assert json.loads(invoke("--json").stdout)["devices"]["json"]["devices"] == []


def test_bad_cards_are_listed_and_not_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "bad.toml").write_text("= 1", encoding="utf-8")
    monkeypatch.setenv("CURVEBENCH_CARDS", str(tmp_path))
    result = invoke()
    assert result.exit_code == 0
    assert "  --  methods/bad.toml: line 1, column 1: not TOML: Invalid statement" in result.stdout
    assert "the environment variable CURVEBENCH_CARDS says so" in result.stdout


def test_no_cards_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURVEBENCH_CARDS", str(tmp_path))
    result = invoke()
    assert result.exit_code == 0
    assert "must be a folder with at least one of methods" in result.stdout


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_records(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert diagnosis.writable(tmp_path / "results")["sentence"].startswith("no right to write to")
    finally:
        tmp_path.chmod(0o700)


def test_records_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    found = diagnosis.writable(tmp_path / "file" / "results")
    assert (found["writable"], found["sentence"]) == (False, f"{tmp_path}/file is a file: choose --records DIR")


def test_git_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = json.loads(invoke("--json").stdout)["git"]
    assert found == {"version": None, "commit": None, "sentence": "git is not installed: records carry no commit"}


def test_nothing_to_do() -> None:
    healthy: dict[str, Any] = {
        "curvebench": {"version": "1", "package": "p", "python": "3", "executable": "e"},
        "packages": {"click": "8"},
        "extras": [{"name": "torch", "missing": [], "install": "x"}],
        "devices": {"torch": {"devices": ["cpu"], "problem": None}},
        "machine": {"system": "s", "cores": 2, "affinity": [0, 1], "environment": {}},
        "cards": {"root": "/c", "origin": "because", "problems": [], "counts": {"methods": 1}},
        "data": [{"name": "digits", "state": "embedded", "sentence": "comes with scikit-learn"}],
        "records": {"folder": "/r", "writable": True, "sentence": "writable"},
        "git": {"version": "2", "commit": "abc", "sentence": "commit abc"},
    }
    assert render(healthy).endswith("\n  nothing: all is here")


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_real_devices(framework: str, real_probes: None) -> None:
    pytest.importorskip(framework)
    answer = diagnosis._devices(framework, 120)
    assert answer["problem"] is None
    assert answer["devices"][0].startswith("cpu") or "cuda" in answer["devices"][0]


@pytest.fixture
def real_probes() -> None:
    """Asks for the frameworks' own devices."""
