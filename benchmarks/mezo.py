"""A MeZO step on an encoder like BERT-tiny: time and peak memory as multiples of an inference forward's."""

from __future__ import annotations

import os


class Step:
    """Medians of interleaved pairs; peaks of fresh processes."""

    timeout = 600.0

    def track_time(self) -> float:
        from curvebench.procedures.mezo_cost import duration

        return duration(pairs=int(os.environ.get("CURVEBENCH_PAIRS", "50"))).ratio

    def track_peak(self) -> float:
        from curvebench.procedures.mezo_cost import peaks

        return peaks(["mezo"])[0] / peaks(["inference"])[0]

    track_time.unit = "forwards"  # type: ignore[attr-defined]
    track_peak.unit = "peaks of inference"  # type: ignore[attr-defined]
