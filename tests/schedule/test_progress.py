"""What a person is told while a study runs."""

from __future__ import annotations

import io

import pytest
from dummies import record, spec

from curvebench.schedule import progress
from curvebench.schedule.progress import Bar, Clockwork, Plain, display, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (245, "4 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_time_left_learns_from_what_runs_took() -> None:
    specs = [spec("a", block) for block in range(20)]
    clock = Clockwork(20, {s.id: 10.0 for s in specs})
    assert clock.left() == pytest.approx(200.0)
    for one in specs[:10]:
        clock.start(one)
        clock.end(one, "reached", 5.0)
    assert 50.0 < clock.left() < 60.0, "half as long as guessed, with some doubt left"
    for one in specs[10:]:
        clock.start(one)
        clock.end(one, "budget", 5.0)
    assert clock.left() == 0.0
    assert clock.statuses() == "10 reached, 10 budget"


def test_jobs_share_the_time_left() -> None:
    specs = [spec("a", block) for block in range(4)]
    assert Clockwork(4, {s.id: 10.0 for s in specs}, jobs=2).left() == pytest.approx(20.0)


def test_one_line_per_run_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    shown = display(Clockwork(2, {}), stream)
    assert isinstance(shown, Plain)
    with shown:
        for block in (0, 1):
            shown.started(spec("quick", block))
            shown.tick()
            shown.ended(spec("quick", block), record(spec("quick", block)), 1.25)
    first, second = stream.getvalue().splitlines()
    assert first.startswith(
        "[1/2] dummy / quick / none / seed 0: reached in 1.2 s (gap 0.01 <= 0.1 at step 10); about "
    )
    assert second == "[2/2] dummy / quick / none / seed 1: reached in 1.2 s (gap 0.01 <= 0.1 at step 10)"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_bar(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(progress, "REFRESH", 0.0)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    stream = Terminal()
    shown = display(Clockwork(3, {}), stream)
    assert isinstance(shown, Bar)
    with shown:
        shown.started(spec("quick[bold]", 0))
        shown.ended(spec("quick[bold]", 0), record(spec("quick[bold]", 0)), 1.0)
        crashed = {**record(spec("kill", 1)), "status": "crashed", "reason": "the process died of SIGKILL"}
        shown.started(spec("kill", 1))
        shown.ended(spec("kill", 1), crashed, 1.0)
        shown.tick()
    return stream.getvalue()


def test_the_bar_shows_runs_counts_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = run_bar(monkeypatch)
    assert "quick[bold]" in text
    assert "2/3" in text
    assert "1 reached, 1 crashed" in text
    assert "seed 1: crashed: the process died of SIGKILL" in text
    assert "\x1b[33m" in text, "a failure is yellow"


def test_no_color_means_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in run_bar(monkeypatch)
