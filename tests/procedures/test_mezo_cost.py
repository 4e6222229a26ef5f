"""MeZO needs the memory of an inference forward: measured by the kernel, in fresh processes."""

from __future__ import annotations

import pytest

from curvebench.procedures import mezo_cost
from curvebench.run.memory import reset_peak, resident


def test_the_encoder_has_the_size_of_bert_tiny() -> None:
    module, loss = mezo_cost.encoder(mezo_cost.TINY._replace(batch=1, length=4))
    head = 2 * 128 + 2
    assert sum(p.numel() for p in module.parameters()) == 4_385_920 + head  # prajjwal1/bert-tiny, pooler included
    assert loss().shape == ()


@pytest.mark.skipif(
    resident() is None or not reset_peak(),
    reason="peak memory is not measurable: /proc/self/clear_refs cannot be written here",
)
def test_a_step_peaks_where_an_inference_forward_does() -> None:
    size = mezo_cost.SMALL
    kinds = ("inference", "mezo", "mezo-copy")
    peaks = dict(zip(kinds, mezo_cost.peaks(kinds, size, threads=1), strict=True))
    module, _ = mezo_cost.encoder(size)
    parameters = 4 * sum(p.numel() for p in module.parameters())
    assert peaks["inference"] > 1e6
    assert peaks["mezo"] <= 1.02 * peaks["inference"]
    # the control: a copy of the parameters is seen, at its size
    assert peaks["mezo-copy"] - peaks["inference"] == pytest.approx(parameters, rel=0.15)
