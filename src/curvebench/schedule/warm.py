"""Imported by the fork server, last, for its effect: what every child would do again is done once.

Cards are parsed: with building the validators that takes 0.15 s. Changed files are noticed, as always.
The garbage collector forgets what there is: a collection in a child would write to, and so copy, every page of it.
"""

from __future__ import annotations

import contextlib
import gc

from curvebench import cards
from curvebench.errors import CurvebenchError

for kind in ("methods", "tasks", "datasets"):
    # A bad card is for the run that needs it to complain of; here it would end the server.
    with contextlib.suppress(CurvebenchError, OSError):
        cards.load_all(kind)

gc.collect()
gc.freeze()
