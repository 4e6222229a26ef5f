"""Everything is rebuilt from records alone, without a framework; the command line says what is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from synthetic import make, quick_study

from curvebench.cli.main import cli
from curvebench.errors import MissingPackageError, StoreError
from curvebench.report import build, of_study
from curvebench.report.build import anchor
from curvebench.store import Record, Store, write_tuned

SMALL = [make(m, f, s, steps=100) for m in ("adam", "sgd") for f in ("torch", "jax") for s in range(3)]


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def fill(folder: Path, records: list[Record]) -> Path:
    store = Store(folder)
    for one in records:
        store.append(one)
    return folder


def test_files(tmp_path: Path) -> None:
    written = build([*SMALL, make(task="digits-cnn", direction="max", target=0.9)], tmp_path)
    names = [str(p.relative_to(tmp_path)) for p in written]
    stems = ("digits-cnn", "least-squares")
    tables = [f"tables/all/{stem}.{form}" for stem in stems for form in ("md", "csv", "tex")]
    figures = [f"figures/all/{stem}.{form}" for stem in stems for form in ("png", "svg")]
    order = ["tables/all/least-squares-ranking.md", "tables/all/least-squares-pairs.csv"]  # one run has no order
    assert sorted(names) == sorted([*tables, *figures, *order, "tables/all/index.md"])
    assert sorted(contents(tmp_path)) == sorted(names), "and nothing else"


def test_the_index_has_every_table_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    build([*SMALL, make(task="digits-cnn")], tmp_path, study="quick")
    folder = tmp_path / "tables" / "quick"
    text = (folder / "index.md").read_text()
    for table in ("digits-cnn", "least-squares"):
        assert (folder / f"{table}.md").read_text().strip() in text
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert len(links) == 4
    assert all((folder / link).is_file() for link in links)
    headings = {anchor(line[4:]) for line in text.splitlines() if line.startswith("### ")}
    assert set(re.findall(r"\(#([^)]+)\)", text)) == headings


def test_the_same_records_give_the_same_files(tmp_path: Path) -> None:
    build(SMALL, tmp_path / "a")
    build(SMALL[::-1], tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_building_again_replaces(tmp_path: Path) -> None:
    build([make()], tmp_path, ["markdown"])
    build(SMALL, tmp_path, ["markdown"])
    assert "SGD" in (tmp_path / "tables" / "all" / "least-squares.md").read_text()


def test_no_records_make_an_empty_index(tmp_path: Path) -> None:
    (index,) = build([], tmp_path)
    assert index.read_text().startswith("# Results: all")


def test_failed_only_tasks_have_tables_and_no_figures(tmp_path: Path) -> None:
    names = [p.name for p in build([make(status="crashed", reason="boom")], tmp_path)]
    assert names == ["least-squares.md", "least-squares.csv", "least-squares.tex", "index.md"]


def test_tables_tell_the_size_of_the_tuning_pool(tmp_path: Path) -> None:
    pool = {
        "task": "least-squares",
        "method": "adam",
        "scale": "quick",
        "framework": "torch",
        "pool": "sobol-quick",
        "trials": 8,
        "hyperparameters": {"lr": 0.1},
        "metric": 1e-3,
        "label": "f(x) - f*",
        "cost": {"seconds": 1.0, "oracle_calls": 4000},
        "runs": [],
    }
    write_tuned(tmp_path / "tuned", pool, twin=True)
    build([make()], tmp_path, ["markdown"])
    text = (tmp_path / "tables/all/least-squares.md").read_text()
    assert "tuned, 8 trials per method, chosen on validation (pool sobol-quick)" in text


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'docx': must be one of markdown, csv, latex, png, svg, pdf"):
        build(SMALL, tmp_path, ["docx", "markdown"])
    assert contents(tmp_path) == {}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StoreError, match="a file stands where a folder is needed; choose another folder with --out"):
        build(SMALL, tmp_path / "out")


@pytest.mark.parametrize(("hidden", "formats"), [("seaborn", ["png"]), ("matplotlib", ["svg"]), ("pandas", ["csv"])])
def test_a_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str, formats: list[str]
) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == hidden]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(MissingPackageError, match=r"curvebench\[report\]"):
        build(SMALL, tmp_path, formats)


def test_a_report_needs_neither_framework(tmp_path: Path) -> None:
    fill(tmp_path / "records", SMALL)
    code = f"""
import sys

class NoFramework:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "jax", "jaxlib", "optax"):
            raise ImportError(f"{{name}} is not installed")

sys.meta_path.insert(0, NoFramework())
from pathlib import Path
from curvebench.report import build, site
from curvebench.store import Store
records = list(Store({str(tmp_path / "records")!r}).read())
out = Path({str(tmp_path / "out")!r})
build(records, out)
site.build(records, out / "report", out / "tuned")
assert not {{"torch", "jax"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/figures/all/least-squares.svg").is_file()
    assert (tmp_path / "out/report/index.html").is_file()


class Study:
    tasks = ("least-squares",)
    methods = ("adam", "sgd")
    frameworks = ("torch",)
    seeds = 2
    scale = "quick"
    hyperparameters = "tuned"


def test_of_study() -> None:
    strangers = [make("mezo"), make(task="digits-cnn"), make("adam", "jax"), make(seed=2), make(spec__scale="paper")]
    members = [make(), make(seed=1), make("sgd", spec__source="card")]
    assert of_study([*strangers, *members], Study()) == members, "numbers stored as the card's serve as tuned"  # type: ignore[arg-type]
    given = make(spec__source="given", spec__hyperparameters={"lr": 9.0})
    assert of_study([*members, given], Study()) == members, "unless the method has tuned ones"  # type: ignore[arg-type]


# ---- the command line ----------------------------------------------------------------------------------------------


def test_an_empty_store_is_a_sentence_and_exit_2(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", "--records", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert f"no records in {tmp_path}: run `curvebench bench quick` first" in done.stderr
    assert contents(tmp_path) == {}


def test_the_default_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "results" / "records", SMALL)
    done = CliRunner().invoke(cli, ["report", "--no-figures"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("least squares\ntarget")
    assert "written: results/tables/all/index.md and 5 other files" in done.stderr
    assert "open results/report/index.html" in done.stderr
    assert Path("results/report/report.json").is_file()
    assert not Path("results/figures").exists()


def test_formats_and_json(tmp_path: Path) -> None:
    records = fill(tmp_path / "records", SMALL)
    base = ["report", "--records", str(records), "--out", str(tmp_path / "out"), "--no-figures", "--no-html"]
    assert CliRunner().invoke(cli, [*base, "--format", "markdown"]).stdout.startswith("### least squares\n")
    assert CliRunner().invoke(cli, [*base, "--format", "csv"]).stdout.startswith("method,title,family,framework")
    (table,) = json.loads(CliRunner().invoke(cli, [*base, "--json"]).stdout)
    assert (table["task"], len(table["rows"])) == ("least-squares", 4)
    assert CliRunner().invoke(cli, [*base, "--format", "docx"]).exit_code == 2


def test_one_task_and_the_nearest_name(tmp_path: Path) -> None:
    records = fill(tmp_path / "records", quick_study(seeds=1))
    base = ["report", "--records", str(records), "--out", str(tmp_path / "out"), "--no-figures", "--no-html"]
    done = CliRunner().invoke(cli, [*base, "--task", "digits-cnn"])
    assert done.exit_code == 0
    assert "least squares" not in done.stdout
    done = CliRunner().invoke(cli, [*base, "--task", "digit-cnn"])
    assert done.exit_code == 2
    assert "did you mean 'digits-cnn'?" in done.stderr


def test_an_unknown_study(tmp_path: Path) -> None:
    records = fill(tmp_path / "records", [make()])
    done = CliRunner().invoke(cli, ["report", "--records", str(records), "--study", "no-such-study"])
    assert done.exit_code == 2
    assert "no-such-study" in done.stderr


def test_a_corrupt_record_is_a_warning_and_the_rest_a_table(tmp_path: Path) -> None:
    records = fill(tmp_path / "records", SMALL)
    victim = next(iter(sorted(records.rglob("*.json"))))
    os.truncate(victim, 100)
    base = ["report", "--records", str(records), "--out", str(tmp_path / "out"), "--no-figures", "--no-html"]
    done = CliRunner().invoke(cli, base)
    assert done.exit_code == 0
    assert "warning: " in done.stderr
    assert victim.name in done.stderr
    assert "least squares" in done.stdout
    assert (records / "quarantine" / victim.name).exists()


def test_help_teaches_by_example() -> None:
    done = CliRunner().invoke(cli, ["report", "--help"])
    assert done.exit_code == 0
    assert "curvebench report --study quick --no-figures" in done.stdout
