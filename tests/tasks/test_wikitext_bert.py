"""Masked windows of WikiText-2: BERT's rule, what is shown and what is asked, and the note on the missing part."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from curvebench import cards
from curvebench.tasks import wikitext_bert
from curvebench.tasks.masking import STAYS, FreshMasks, draw_masks

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'curvebench[bert]'")
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def test_windows_and_masks_follow_bert_s_rule() -> None:
    stream = np.random.default_rng(0).integers(1000, 30522, 100_000).astype(np.uint16)
    split = wikitext_bert.masked_windows(stream, 42, np.random.default_rng(1))
    tokens, positions = split.inputs[:, :42], split.inputs[:, 42:]
    assert tokens.shape == (2500, 42)
    assert positions.shape == split.targets.shape == (2500, 6), "15 % of 40"
    assert (tokens[:, 0] == 101).all()
    assert (tokens[:, -1] == 102).all()
    assert positions.min() == 1
    assert positions.max() == 40
    restored = tokens.copy()
    np.put_along_axis(restored, positions, split.targets, axis=1)
    assert np.array_equal(restored[:, 1:-1].ravel(), stream)
    shown = np.take_along_axis(tokens, positions, axis=1)
    shares = [(shown == 103).mean(), (shown == split.targets).mean()]
    assert np.abs(np.array(shares) - [0.8, 0.1]).max() < 5 * np.sqrt(0.16 / shown.size), "5 standard deviations"
    assert len(wikitext_bert.masked_windows(stream, 42, np.random.default_rng(1), 7)) == 7


@pytest.mark.shared
def test_without_the_training_part_the_title_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (SHARED / "text").is_dir():
        pytest.skip("../shared/data/text is not here")
    monkeypatch.setenv("CURVEBENCH_DATA", str(SHARED))
    card = cards.task("wikitext-2-bert-tiny-mlm")
    at = wikitext_bert.problem(card, card.at("quick"), 0)
    assert at.suffix == " (trained on the validation part)"
    assert "WikiText-2's training part is not on this machine" in at.notes[0]
    assert at.dimension == 4_416_698, "transformers' BertForMaskedLM of the same size"
    assert (at.train.inputs[:, :64] == 100).any(), "<unk> is [UNK]"


def test_training_masks_are_fresh_at_every_step_and_the_same_in_both_frameworks() -> None:
    length = 32
    stream = np.random.default_rng(0).integers(1000, 2000, 30 * 6).astype(np.uint16)
    fixed = wikitext_bert.masked_windows(stream, length, np.random.default_rng(1))
    fresh = FreshMasks(length, fixed.targets.shape[1], 30522)
    whole = fixed.inputs[:, :length].copy()
    np.put_along_axis(whole, fixed.inputs[:, length:], fixed.targets, axis=1)
    seen = []
    for step in (0, 1, 0):
        draws = fresh.draws(7, step, len(fixed))
        assert draws.shape == (len(fixed), fresh.columns)
        batch = [torch.from_numpy(a) for a in (*fixed, draws)]
        inputs, targets = (a.numpy() for a in fresh.in_torch(*batch))
        twins = fresh.in_jax(*(jnp.asarray(a, jnp.int32) for a in (*fixed, draws)))
        assert np.array_equal(inputs, twins[0])
        assert np.array_equal(targets, twins[1])
        positions = inputs[:, length:]
        assert np.array_equal(targets, np.take_along_axis(whole, positions, axis=1)), "what was there before any mask"
        restored = inputs[:, :length].copy()
        np.put_along_axis(restored, positions, targets, axis=1)
        assert np.array_equal(restored, whole), "elsewhere nothing is hidden"
        seen.append(inputs)
    assert np.array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[1])


def test_fresh_masks_follow_bert_s_shares_at_all_inner_places() -> None:
    masks = draw_masks(np.random.default_rng(0), 4000, 30, 4, 30522)
    shares = [(masks.shown == 103).mean(), (masks.shown == STAYS).mean()]
    assert np.abs(np.array(shares) - [0.8, 0.1]).max() < 5 * np.sqrt(0.16 / 16000), "5 standard deviations"
    counts = np.bincount(masks.positions.ravel(), minlength=31)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 16000 / 30).max() < 5 * np.sqrt(16000 / 30)
