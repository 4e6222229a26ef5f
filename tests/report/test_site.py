"""The site without a browser: well-formed, self-contained, the same as report.json, and that as its schema says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import html5lib
import jsonschema
import pytest
from sites import HOSTILE
from synthetic import make

from curvebench.report import site
from curvebench.report.site import schema
from curvebench.report.site.write import WEB, script

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
SMALL = [make(m, f, s, steps=100) for m in ("adam", "sgd") for f in ("torch", "jax") for s in range(3)]
ADDRESS = re.compile(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", re.IGNORECASE)


def value(path: Path, name: str) -> Any:
    """What a data script hands over."""
    text = path.read_text(encoding="utf-8")
    start = f"curvebench.put({json.dumps(name)},"
    assert text.startswith(start), path
    assert text.endswith(");\n")
    return json.loads(text[len(start) : -3])


@pytest.fixture(scope="session")
def data(made_site: Path) -> dict[str, Any]:
    folder = made_site / "data"
    names = [p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.js")]
    return {name: value(folder / f"{name}.js", name) for name in names}


@pytest.fixture(scope="session")
def report(made_site: Path) -> dict[str, Any]:
    return json.loads((made_site / "report.json").read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_every_file_that_it_names_is_there(made_site: Path) -> None:
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(
        (made_site / "index.html").read_text(encoding="utf-8")
    )
    named = [e.get(key) for e in document.iter() for key in ("src", "href") if isinstance(e.tag, str) and e.get(key)]
    files = [name for name in named if not name.startswith("#")]
    assert len(files) > 20
    assert all((made_site / name).is_file() for name in files)
    assert len(set(files)) == len(files)
    ids = {e.get("id") for e in document.iter() if isinstance(e.tag, str)}
    assert {name[1:] for name in named if re.fullmatch(r"#\w+", name)} <= ids
    assert document.get("lang") == "en"


def test_nothing_is_loaded_from_elsewhere(made_site: Path) -> None:
    own = [p for p in WEB.rglob("*") if p.suffix in {".js", ".css", ".html", ".svg"} and p.parent.name != "vendor"]
    for path in own:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not ADDRESS.search(text), path
        assert "import(" not in text
        assert "fetch(" not in text
        assert "@import" not in text


def test_no_content_becomes_markup() -> None:
    # Text of cards and records goes through text nodes; the one innerHTML holds numbers alone.
    found = [p.name for p in WEB.rglob("*.js") if p.parent.name == "js" and "innerHTML" in p.read_text()]
    assert found == ["looks.js"]


def test_vendored_files_have_their_licences_and_are_small() -> None:
    vendor = WEB / "assets" / "vendor"
    scripts = sorted(p.name for p in vendor.glob("*.js"))
    assert scripts == ["d3.min.js", "plot.umd.min.js", "table-core.js"]
    assert all((vendor / f"{name.split('.')[0]}.LICENSE").is_file() for name in scripts)
    assert sum(p.stat().st_size for p in vendor.iterdir()) < 1_200_000


def test_the_site_is_small_without_the_curves_of_runs(made_site: Path) -> None:
    files = [p for p in made_site.rglob("*") if p.is_file() and p.parent.name != "runs" and p.name != "report.json"]
    assert sum(p.stat().st_size for p in files) < 5_000_000
    document = (made_site / "index.html").read_text()
    first = [p for p in files if p.relative_to(made_site).as_posix() in document]
    assert sum(p.stat().st_size for p in first) < 1_000_000, "what the first page loads"


def test_own_scripts_and_styles_are_short() -> None:
    for path in [*(WEB / "assets" / "js").iterdir(), *(WEB / "assets" / "css").iterdir()]:
        assert len(path.read_text().splitlines()) <= 250, path


def test_report_json_is_what_its_schema_says(report: dict[str, Any]) -> None:
    found = json.loads((SCHEMAS / schema.NAME).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    jsonschema.Draft202012Validator(found).validate(report)
    short = {**report, "runs": [], "papers": [], "tasks": [], "profiles": []}
    assert jsonschema.Draft202012Validator(found).is_valid(short)
    for broken in ({**short, "more": 1}, {k: v for k, v in short.items() if k != "runs"}, {**short, "tasks": [{}]}):
        assert not jsonschema.Draft202012Validator(found).is_valid(broken)


def test_the_schema_is_current_and_describes_every_key() -> None:
    assert (SCHEMAS / schema.NAME).read_text(encoding="utf-8") == schema.text(), (
        "run: python -m curvebench.report.site.schema"
    )
    whole = json.loads(schema.text())
    for name, table in {"Report": whole, **whole["$defs"]}.items():
        if table.get("type") == "object":
            assert table["additionalProperties"] is False, name


def test_the_page_and_report_json_say_the_same(report: dict[str, Any], data: dict[str, Any]) -> None:
    first = data["report"]
    for key in ("summary", "methods", "environments", "pair_columns", "study"):
        assert first[key] == report[key]
    assert (data["profiles"], data["tuning"]) == (report["profiles"], report["tuning"])
    for task, outlined in zip(report["tasks"], first["tasks"], strict=True):
        assert data[f"tasks/{task['id']}"]["ranking"] == task["ranking"]
        assert outlined["rows"] == task["rows"]
        assert all("pairs" not in axis for axis in (outlined["ranking"] or {"axes": []})["axes"])
    assert [data[f"papers/{paper['id']}"] for paper in report["papers"]] == report["papers"]
    listed = [row[0] for row in data["runs"]["rows"]]
    assert listed == [run["id"] for run in report["runs"]]
    details = {key: run for name, chunk in data.items() if name.startswith("runs/") for key, run in chunk.items()}
    assert {key: {k: v for k, v in run.items() if k != "curve"} for key, run in details.items()} == {
        run["id"]: run for run in report["runs"]
    }
    assert all(len(run["curve"]["step"]) == len(run["curve"]["metric"]) for run in details.values())


def test_what_a_report_says_of_its_records(report: dict[str, Any]) -> None:
    summary = report["summary"]
    assert summary["lead"].startswith("9 methods in torch and jax on 3 tasks (")
    assert "1 to 3 seeds a row" in summary["lead"]
    assert summary["runs"] == len(report["runs"]) == 146
    assert sum(summary["statuses"].values()) == 146
    assert any("with 3 seeds no difference is claimed (that takes 5)" in said for said in summary["conclusions"])
    assert any("diverged" in said for said in summary["caveats"])
    (older,) = [run for run in report["runs"] if run["row"] is None]
    assert older["code"] == "0" * 64
    assert HOSTILE in {method["title"] for method in report["methods"]}
    best = [row for task in report["tasks"] for row in task["rows"] if row["best"]]
    assert len(best) > len(report["tasks"]), "a set within noise, not a winner"
    (pool,) = report["tuning"][0]["pools"]
    assert pool["expected"] == sorted(pool["expected"], reverse=True)
    assert report["papers"], "every paper's card, measured or not"


def test_each_row_of_a_figure_has_its_line(report: dict[str, Any], data: dict[str, Any]) -> None:
    for task in report["tasks"]:
        lines = data[f"tasks/{task['id']}"]["lines"]
        assert set(lines) >= {"step", "seconds", "oracle_calls"}
        for line in lines["step"]:
            assert len(line["x"]) == len(line["mean"]) == len(line["low"]) == len(line["high"])
            assert all(a <= b <= c for a, b, c in zip(line["low"], line["mean"], line["high"], strict=True))
            assert line["x"] == sorted(line["x"])


def test_a_script_cannot_be_broken_out_of() -> None:
    text = script("x", ["</script>", "\u2028"])
    assert "</" not in text
    assert "\u2028" not in text
    assert json.loads(text[len('curvebench.put("x",') : -3]) == ["</script>", "\u2028"]


def test_the_same_records_give_the_same_site_and_building_again_replaces(tmp_path: Path) -> None:
    def contents(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    site.build([make(task="digits-cnn")], tmp_path / "b", tmp_path / "none")
    assert (tmp_path / "b" / "data" / "tasks" / "digits-cnn.js").is_file()
    written = site.build(SMALL, tmp_path / "a", tmp_path / "none")
    site.build(SMALL[::-1], tmp_path / "b", tmp_path / "none")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert written[0].name == "index.html"
    assert {str(p.relative_to(tmp_path / "a")) for p in written} == set(contents(tmp_path / "a"))


def test_no_records_make_a_site_that_says_so(tmp_path: Path) -> None:
    site.build([], tmp_path, tmp_path / "none")
    found = value(tmp_path / "data" / "report.js", "report")
    assert found["summary"]["lead"] == "No records: nothing was compared."
    assert found["tasks"] == []
