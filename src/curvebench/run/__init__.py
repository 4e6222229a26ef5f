"""Execute one run under the clock. The only timed code of curvebench; see :func:`execute`."""

from __future__ import annotations

from curvebench.run.code import code_key
from curvebench.run.execute import execute, prepare

__all__ = ["code_key", "execute", "prepare"]
