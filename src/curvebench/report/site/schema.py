"""The JSON Schema of ``report.json``: ``python -m curvebench.report.site.schema`` writes it to ``docs/schemas/``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from curvebench.cards import root
from curvebench.report.site.plain import adapter

NAME = "report.schema.json"


def text() -> str:
    """The schema's file."""
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **adapter().json_schema(mode="serialization"),
        "title": "curvebench report",
    }
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "docs" / "schemas"
    target.mkdir(parents=True, exist_ok=True)
    (target / NAME).write_text(text(), encoding="utf-8")
    print(target / NAME)
