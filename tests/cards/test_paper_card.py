"""A paper's cells take from their table what they do not say themselves."""

from __future__ import annotations

from pathlib import Path

from curvebench import cards


def test_cells_take_what_their_table_shares(root: Path) -> None:
    paper = cards.paper("claim")
    a, b, c, d, e = paper.cells()
    assert [cell.id for cell in paper.cells()] == ["a", "b", "c", "d", "e"]
    assert (a.value, a.spread, a.n, a.unit, a.not_run, a.note) == (
        90.0,
        0.5,
        5,
        "accuracy, %",
        "needs a GPU",
        "all of them",
    )
    assert (b.n, b.setup, b.note, b.baseline) == (3, "10 epochs; batch 8", "all of them; last", "a")
    assert (c.value, c.text, c.unit) == (None, "diverge", "loss")
    assert (a.table, a.place, a.page, a.source, a.by, a.read) == ("table-1", "Table 1", 3, "paper", None, "notes 1")
    assert (d.margin, d.margin_reason, d.source, d.by) == (0.1, "a tenth", "third-party", "Somebody")
    assert (e.margin, e.margin_reason) == (0.2, "a fifth")
    assert d.not_run is None


def test_a_measure_is_reduced_below_the_paper_scale_or_where_the_set_up_differs() -> None:
    whole = {"task": "valley", "method": "mine", "quantity": "final"}
    assert not cards.Measure(scale="paper", **whole).reduced  # type: ignore[arg-type]
    assert cards.Measure(scale="standard", **whole).reduced  # type: ignore[arg-type]
    assert cards.Measure(scale="paper", proxy="another data set", **whole).reduced  # type: ignore[arg-type]
