"""Learning curves: what is drawn where, always the same bytes, and no curve that breaks them."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from synthetic import make, quick_study

pytest.importorskip("seaborn", reason="figures need the extra 'report'")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from curvebench.report import groups
from curvebench.report.curves import curve, figure, lines, over_seeds, picture
from curvebench.report.style import COLOURS, MARKERS, looks
from curvebench.store import Record


def drawn(records: list[Record]) -> Figure:
    (group,) = groups(records)
    found = figure(group, looks(records))
    assert found is not None
    return found


def seeds(method: str = "adam", count: int = 3, **options: Any) -> list[Record]:
    return [make(method, seed=seed, **options) for seed in range(count)]


def legend_of(found: Figure) -> list[str]:
    return [t.get_text() for t in found.legends[0].get_texts() if t.get_text()]


def test_the_panels_share_the_metric() -> None:
    found = drawn([*seeds(), *[make("adam", "jax", s) for s in range(3)], *seeds("sgd")])
    left, middle, right = found.axes
    assert left.get_xlabel() == "seconds (on the clock)"
    assert middle.get_xlabel() == "oracle calls"
    assert right.get_xlabel() == "gradient-equivalents"
    assert left.get_ylabel() == "f(x) - f*  (lower is better)"
    assert left.get_yscale() == "log"
    assert legend_of(found) == ["Adam", "SGD", "torch", "jax", "target 0.001", "range over seeds"]
    styles = {line.get_linestyle() for line in right.lines}
    assert {"-", "--"} <= styles, "torch solid, jax dashed"


def test_the_title_says_that_a_task_started_from_random_weights() -> None:
    title = "RTE, BERT-tiny (random weights)"
    found = drawn([make(seed=s, title__task=title) for s in range(3)])
    assert found.get_suptitle() == title
    assert title in picture(found, "svg").decode()


def test_a_score_has_a_linear_axis_that_points_up() -> None:
    left, *_ = drawn(seeds(direction="max", target=0.9)).axes
    assert left.get_yscale() == "linear"
    assert left.get_ylabel() == "validation accuracy  (higher is better)"


def test_times_that_cannot_be_compared_are_not_an_axis() -> None:
    found = drawn([*seeds(), make("sgd", keys__machine="ef" * 32)])
    assert [axes.get_xlabel() for axes in found.axes] == ["optimiser steps", "oracle calls", "gradient-equivalents"]


def test_records_without_counted_work_have_two_panels() -> None:
    found = drawn([make(seed=s, work=None) for s in range(3)])
    assert [axes.get_xlabel() for axes in found.axes] == ["seconds (on the clock)", "oracle calls"]


def test_seconds_that_span_decades_are_logarithmic() -> None:
    assert drawn([*seeds(), *seeds("sgd", step_seconds=1e-2)]).axes[0].get_xscale() == "log"
    assert drawn([*seeds(), *seeds("sgd", step_seconds=5e-5)]).axes[0].get_xscale() == "linear"


def test_a_method_looks_the_same_in_every_figure() -> None:
    records = quick_study()
    appearance = looks(records)
    assert next(iter(appearance)) == "mezo", "zeroth order comes first"
    assert list(appearance)[-1] == "adahessian"
    assert len({(look.colour, look.marker) for look in appearance.values()}) == 8
    assert looks(records[::-1]) == appearance
    for group in groups(records):
        found = figure(group, appearance)
        assert found is not None
        for axes in found.axes:
            for line in axes.lines:
                if line.get_marker() in MARKERS:
                    assert (line.get_color(), line.get_marker()) in {(v.colour, v.marker) for v in appearance.values()}


def test_more_methods_than_colours_still_differ() -> None:
    records = [make(f"m{k:03}") for k in range(len(COLOURS) * len(MARKERS))]
    assert len({(look.colour, look.marker) for look in looks(records).values()}) == len(records)


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_records_give_the_same_bytes(form: str) -> None:
    records = seeds() + seeds("sgd")
    first, second = picture(drawn(records), form), picture(drawn(records[::-1]), form)
    assert first == second
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form])


def test_the_bitmap_is_neither_empty_nor_cut() -> None:
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(picture(drawn(quick_study()[:48]), "png")))[..., :3]
    ink = (pixels < 0.97).any(axis=2)
    assert 0.02 < ink.mean() < 0.5
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    assert not border.any(), "nothing touches the edge: nothing is cut off"


def overlaps(found: Figure) -> list[str]:
    FigureCanvasAgg(found).draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in found.legends[0].get_texts() if t.get_text()]
    boxes += [("title", found._suptitle.get_window_extent())]  # type: ignore[union-attr]
    for axes in found.axes:
        boxes += [(axes.get_xlabel(), axes.xaxis.label.get_window_extent()), ("panel", axes.get_window_extent())]
    return [f"{a} / {b}" for i, (a, x) in enumerate(boxes) for b, y in boxes[i + 1 :] if x.overlaps(y)]


def test_nothing_overlaps() -> None:
    assert overlaps(drawn(quick_study()[:48])) == []
    assert overlaps(drawn([make(f"method-{k}") for k in range(30)])) == []


@pytest.mark.parametrize(
    "records",
    [
        [make()],
        [make(values=[1.0])],
        [make(values=[0.0, 0.0, 0.0])],
        [make(values=[1.0, None, 1e-3])],
        [make(values=[1.0, 5.0, None], status="diverged")],
        [make(values=[-1.0, -2.0], direction="max", target=-0.5)],
        [make(target=None)],
        [make(curve__seconds=[None] * 51)],
        [make(curve__seconds=[0.0] * 51)],
        [make(), make("sgd", status="crashed")],
        [make(seed=s, values=[1.0] * (2 + 20 * s)) for s in range(3)],
    ],
    ids=["one", "point", "zeros", "hole", "lost", "negative", "no target", "no time", "no clock", "crash", "ragged"],
)
def test_odd_curves_are_drawn(records: list[Record]) -> None:
    assert picture(drawn(records), "png")


@pytest.mark.parametrize(
    "records",
    [
        [make(status="crashed")],
        [make(values=[])],
        [make(values=[None, None], status="diverged")],
        [make(status="unsupported"), make("sgd", status="out_of_memory")],
    ],
)
def test_nothing_to_draw_is_no_figure(records: list[Record]) -> None:
    (group,) = groups(records)
    assert figure(group, looks(records)) is None


def test_a_seed_that_diverged_is_a_cross_and_not_in_the_mean() -> None:
    alone = seeds(count=2)
    lost = make(seed=2, status="diverged", values=[1.0, 1e3, 1e9, None])
    (row,) = groups([*alone, lost])[0].rows
    (with_lost,) = lines([row], "step", 1e-16)
    (without,) = lines([groups(alone)[0].rows[0]], "step", 1e-16)
    assert np.array_equal(with_lost.mean, without.mean)
    assert [float(y[-1]) for _, y in with_lost.lost] == [1e9]
    found = drawn([*alone, lost])
    assert "seed diverged" in legend_of(found)
    assert found.axes[0].get_ylim()[1] < 10.0, "it does not stretch the axis"


def test_the_mean_is_geometric_on_a_logarithmic_axis() -> None:
    x = np.array([0.0, 1.0])
    two = [(x, np.array([1.0, 1e-2])), (x, np.array([1.0, 1e-6]))]
    _, mean, low, high = over_seeds(two, logarithmic=True)
    assert mean[-1] == pytest.approx(1e-4)
    assert (low[-1], high[-1]) == (pytest.approx(1e-6), pytest.approx(1e-2))
    assert over_seeds(two, logarithmic=False)[1][-1] == pytest.approx((1e-2 + 1e-6) / 2)


def test_seeds_are_interpolated_inside_their_own_range_only() -> None:
    short = (np.array([0.0, 1.0, 9.0]), np.array([0.0, 1.0, 9.0]))
    long = (np.array([0.0, 5.0, 10.0]), np.array([0.0, 5.0, 10.0]))
    x, mean, low, high = over_seeds([short, long], logarithmic=False)
    assert x.max() == 9.0, "it ends where the first seed ends"
    assert mean == pytest.approx(x)
    assert low == pytest.approx(high)


def test_one_seed_that_ends_early_does_not_hide_the_others() -> None:
    early = (np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    others = [(np.array([0.0, 1.0, 10.0]), np.array([1.0, 1.0, 0.0]))] * 2
    x, mean, _, _ = over_seeds([early, *others], logarithmic=False)
    assert x.max() == 10.0
    assert mean[-1] == 0.0


def test_a_long_curve_is_thinned() -> None:
    step = np.linspace(0.0, 1.0, 5000)
    x, mean, _, _ = over_seeds([(step, 1.0 - step)], logarithmic=False)
    assert x.size <= 200
    assert (x[0], x[-1]) == (0.0, 1.0)
    assert mean == pytest.approx(1.0 - x)


def test_values_that_are_not_finite_are_skipped() -> None:
    found = curve(make(values=[1.0, None, 0.5]), "step", None)
    assert found is not None
    assert found[0].tolist() == [0.0, 20.0]
    assert math.isfinite(found[1].sum())


def test_the_target_line_stands_at_the_target() -> None:
    for axes in drawn(seeds(target=0.02)).axes:
        dotted = [line for line in axes.lines if line.get_linestyle() == ":" or len(set(line.get_ydata())) == 1]
        assert any(float(line.get_ydata()[0]) == 0.02 for line in dotted)
