"""How long the site takes to open in headless Chromium: ``python tests/report/open_times.py FOLDER [PAGE ...]``.

From the start of the navigation to the moment when the first page is in the document, cold and then five times warm.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import chromium


def seconds(site: Path, times: int = 5) -> list[float]:
    """Seconds to the first page, the first with an empty cache."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, chromium.browser(Path(home)) as page:
        page.size(1280)
        out = []
        for _ in range(times + 1):
            page.open((site / "index.html").as_uri())
            out.append(page.js("performance.getEntriesByName('drawn')[0].startTime") / 1000.0)
        return out


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    cold, *warm = seconds(folder)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.parts[-2] != "runs")
    print(f"{folder}: cold {cold:.2f} s, warm {statistics.median(warm):.2f} s (median of {len(warm)}); ", end="")
    print(f"{(size - (folder / 'report.json').stat().st_size) / 1e6:.2f} MB without curves of runs and report.json")
