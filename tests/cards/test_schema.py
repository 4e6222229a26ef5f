"""The JSON Schemas for editors are current and say what the parser says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from curvebench import cards
from curvebench.cards import schema
from curvebench.cards.loading import CLASSES

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.mark.parametrize("name", sorted(schema.texts()))
def test_current(name: str) -> None:
    assert (SCHEMAS / name).read_text(encoding="utf-8") == schema.texts()[name], (
        "run: python -m curvebench.cards.schema"
    )


def test_no_schema_without_a_kind() -> None:
    found = {path.name for path in SCHEMAS.iterdir()} - {"report.schema.json"}  # tests/report/test_site.py has that one
    assert found == set(schema.texts())
    assert len(schema.texts()) == len(cards.KINDS) == len(CLASSES)


@pytest.mark.parametrize("name", sorted(schema.texts()))
def test_every_key_is_described_and_unknown_ones_are_refused(name: str) -> None:
    whole = json.loads(schema.texts()[name])
    for table in (whole, *whole["$defs"].values()):
        if table.get("type") == "object":
            assert table["additionalProperties"] is False
            assert all("description" in entry for entry in table["properties"].values())
    assert "path" not in whole["properties"]
    assert "digest" not in whole["properties"]


def test_the_module_writes_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "curvebench.cards.schema", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / name) for name in schema.texts()]
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == schema.texts()
