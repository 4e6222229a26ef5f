"""The tables in docs/results and on the README's first screen are what the code makes of the committed records."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from curvebench.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "docs" / "results" / "tables"
HOW = (
    "curvebench report --records results/records/reference --out FOLDER --study {}, then tools/readme_tables.py FOLDER"
)


@pytest.fixture(scope="module", params=["quick", "cifar-quick"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tables/<study>`` as the code makes it now; FOLDER holds a copy of the tuning pools, whose size is printed."""
    folder = tmp_path_factory.mktemp("committed")
    shutil.copytree(ROOT / "results" / "tuned", folder / "tuned")
    shutil.copytree(ROOT / "results" / "records" / "reference", folder / "records")
    words = ["report", "--records", str(folder / "records"), "--out", str(folder), "--study", str(request.param)]
    done = CliRunner().invoke(cli, [*words, "--no-figures", "--no-html"])
    assert done.exit_code == 0, done.output
    return folder / "tables" / str(request.param)


def without_pictures(text: str) -> str:
    """Links to figures stand in a page only where figures were made."""
    return re.sub(r"\n!\[[^\n]*\)\n", "", text)


def test_no_committed_table_is_stale(made: Path) -> None:
    committed = TABLES / made.name
    names = {path.name for path in made.iterdir()}
    assert names == {path.name for path in committed.iterdir()}, HOW.format(made.name)
    stale = [
        n
        for n in sorted(names)
        if without_pictures((made / n).read_text()) != without_pictures((committed / n).read_text())
    ]
    assert stale == [], HOW.format(made.name)


def test_the_first_screen_is_one_of_them(made: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    shown = dict(re.findall(rf"<!-- table: {made.name}/(\S+) -->\n\n(.*?)\n\n<!-- end -->", readme, re.DOTALL))
    assert shown
    for task, text in shown.items():
        assert text == (made / f"{task}.md").read_text().strip(), HOW.format(made.name)
