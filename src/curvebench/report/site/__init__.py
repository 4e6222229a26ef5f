"""The report as a site: one folder that opens from disk, and ``report.json`` for programs.

``model`` says what ``report.json`` holds, ``collect`` makes it from records, ``write`` writes the folder; the page
itself is in ``web/``.
"""

from curvebench.report.site.collect import collect
from curvebench.report.site.write import build

__all__ = ["build", "collect"]
