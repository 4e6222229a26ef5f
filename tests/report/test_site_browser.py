"""The site in headless Chromium, end to end: opens from disk, switches axes, filters, sorts, opens a run, exports."""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from sites import HOSTILE

pytestmark = [
    pytest.mark.skipif(
        chromium.binary() is None, reason="no Chromium: apt-get install chromium, or name one in CURVEBENCH_CHROMIUM"
    ),
    # the browser is started by a fork; other tests of this process may have used jax
    pytest.mark.filterwarnings("ignore:os.fork.. was called:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = "[...document.querySelectorAll('table.data tbody tr:not(.spacer)')]"


@pytest.fixture(scope="module")
def page(made_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as found:
        found.size(1280)
        found.open((made_site / "index.html").as_uri())
        yield found


def click(page: chromium.Page, text: str, among: str = "button, a, label") -> None:
    page.js(
        f"[...document.querySelectorAll({among!r})].find(e => e.textContent.trim().startsWith({text!r})).click(), 0"
    )
    page.settle()


def first_column(page: chromium.Page) -> list[str]:
    return page.js(f"{ROWS}.map(row => row.cells[0].textContent)")


def test_the_overview_says_what_was_compared(page: chromium.Page) -> None:
    page.go("#/")
    text = page.js("document.querySelector('main').innerText")
    assert "9 methods in torch and jax on 3 tasks" in text
    assert "What may be concluded" in text
    assert page.js("document.title") == "Overview · curvebench"
    assert len(first_column(page)) == 17
    assert page.js("document.querySelectorAll('main table strong').length") > 3
    assert HOSTILE in text, "shown as text"
    assert "taken" not in page.js("document.title")


def test_the_axis_is_switched_and_stands_in_the_address(page: chromium.Page) -> None:
    page.go("#/task/least-squares")
    label = "document.querySelector('.drawing svg[role=img]').getAttribute('aria-label')"
    assert "against seconds, 16 lines" in page.js(label)
    before = page.js("document.querySelector('.drawing svg[role=img]').outerHTML")
    click(page, "oracle calls", ".drawing label")
    assert "against oracle calls, 16 lines" in page.js(label)
    assert page.js("document.querySelector('.drawing svg[role=img]').outerHTML") != before
    assert page.js("location.hash") == "#/task/least-squares?axis=oracle_calls"
    assert page.js("document.getElementById('live').textContent") == "Against: oracle calls"
    page.go("#/")
    page.go("#/task/least-squares?axis=oracle_calls")
    assert "against oracle calls" in page.js(label), "a permalink"


def test_a_filter_holds_for_table_and_figure(page: chromium.Page) -> None:
    page.go("#/task/least-squares")
    page.js("const b = document.querySelector('input[type=search]'); b.value = 'adam jax';"
            "b.dispatchEvent(new Event('input')), 0")  # fmt: skip
    page.settle()
    assert page.js("document.querySelector('.count').textContent") == "2 of 16 rows"
    assert "2 lines" in page.js("document.querySelector('.drawing svg[role=img]').getAttribute('aria-label')")
    assert "q=adam+jax" in page.js("location.hash")
    page.go("#/task/least-squares?framework=torch")
    assert page.js("document.querySelector('.count').textContent") == "8 of 16 rows"


def test_sorting_is_said_and_keeps_absences_last(page: chromium.Page) -> None:
    page.go("#/task/digits-cnn")
    head = "[...document.querySelectorAll('table.data')][0].tHead.rows[0].cells[2]"
    assert page.js(f"{head}.getAttribute('aria-sort')") == "none"
    values = f"{ROWS}.slice(0, 17).map(row => row.cells[2].textContent)"
    for way, reverse in (("ascending", False), ("descending", True)):
        page.js(f"{head}.querySelector('button').click(), 0")
        page.settle()
        assert page.js(f"{head}.getAttribute('aria-sort')") == way
        seen = page.js(values)
        numbers = [float(v.split(" ")[0]) for v in seen if v != "–"]
        assert numbers == pytest.approx(sorted(numbers, reverse=reverse), abs=1e-3), "as printed"
        assert seen[-2:] == ["–", "–"], "L-BFGS was unsupported"
    assert page.js("document.activeElement.tagName") in ("BODY", "MAIN", "BUTTON")


def test_a_run_has_its_command_environment_and_curve(page: chromium.Page) -> None:
    page.go("#/runs?method=mezo&task=digits-cnn")
    assert page.js("document.querySelector('.count').textContent") == "6 of 146 rows"
    click(page, first_column(page)[0], "tbody a")
    page.until("document.querySelector('h1').textContent.includes('MeZO')")
    text = page.js("document.querySelector('main').innerText")
    for wanted in ("curvebench bench", "Where it ran", "started", "asked: gradient"):
        assert wanted in text
    assert page.js("document.querySelectorAll('figure svg circle, figure svg path').length") > 3
    assert page.js("document.activeElement.id") == "main"
    assert page.js("location.hash").startswith("#/run/digits-cnn.")


def test_what_is_shown_is_exported(page: chromium.Page, tmp_path: Path) -> None:
    page.go("#/task/least-squares?framework=jax&sort=step~")
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    click(page, "Export CSV", ".table button")
    end = time.monotonic() + 20
    while not (tmp_path / "least-squares.csv").exists() and time.monotonic() < end:
        time.sleep(0.05)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "least-squares.csv").read_text())))
    assert [line["framework"] for line in lines] == ["jax"] * 8
    steps = [float(line["step"]) for line in lines if line["step"]]
    assert steps == sorted(steps, reverse=True)
    assert lines[0]["method"] == first_column(page)[0]


@pytest.mark.parametrize(
    "fragment",
    [
        "tasks",
        "methods",
        "method/adam",
        "method/hostile",
        "across",
        "tuning",
        "papers",
        "paper/mezo",
        "runs",
        "nowhere",
    ],
)
def test_every_page_is_drawn(page: chromium.Page, fragment: str) -> None:
    page.go(f"#/{fragment}")
    assert page.js("document.querySelectorAll('main h1').length") == 1
    assert "could not be drawn" not in page.js("document.querySelector('main').innerText")
    assert page.js("document.documentElement.scrollWidth <= innerWidth")


def test_pages_can_be_used_by_keyboard_and_readers(page: chromium.Page, made_site: Path) -> None:
    page.open((made_site / "index.html").as_uri() + "#/task/least-squares")
    page.key("Tab", 9)
    assert page.js("document.activeElement.className") == "skip"
    page.key("Enter", 13, "\r")
    assert page.js("document.activeElement.id") == "main"
    assert page.js("location.hash") == "#/task/least-squares"
    nameless = page.js(
        "[...document.querySelectorAll('button, input, select, a, svg[role=img]')].filter(e => !("
        "e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert nameless == []
    assert page.js("[...document.querySelectorAll('table.data')].every(t => t.caption && t.tHead)")
    assert page.js("[...document.querySelectorAll('.frame')].every(f => f.tabIndex === 0)")
    heads = page.js("[...document.querySelectorAll('main h1, main h2, main h3')].map(e => +e.tagName[1])")
    assert all(b - a <= 1 for a, b in itertools.pairwise(heads)), "no level is left out"


def test_light_and_dark(page: chromium.Page) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    page.size(1280, dark=True)
    page.go("#/")
    dark = page.js(back)
    page.size(1280)
    page.settle()
    assert page.js(back) == "rgb(255, 255, 255)" != dark
    for _ in range(2):
        page.js("document.getElementById('theme').click(), 0")
    assert page.js("document.getElementById('theme').textContent") == "Theme: dark"
    assert page.js(back) == dark
    page.js("document.getElementById('theme').click(), 0")


@pytest.mark.parametrize("width", [400, 900, 1500])
def test_no_page_is_wider_than_its_window(page: chromium.Page, width: int) -> None:
    page.size(width)
    for fragment in ("", "task/digits-cnn", "papers", "runs"):
        page.go(f"#/{fragment}")
        assert page.js("document.documentElement.scrollWidth <= innerWidth"), fragment
    page.size(1280)


@pytest.mark.nightly
def test_ten_thousand_records_open_fast_and_stay_light(tmp_path: Path) -> None:
    from open_times import seconds
    from sites import many

    from curvebench.report import site

    folder = site.build(list(many(10_000)), tmp_path / "report", tmp_path)[0].parent
    assert min(seconds(folder, 3)) < 1.5
    with chromium.browser(tmp_path / "home") as found:
        found.size(1280)
        found.open((folder / "index.html").as_uri() + "#/runs")
        found.until("document.querySelector('.count')?.textContent === '10000 rows'")
        assert len(first_column(found)) < 100, "the rest is not in the document"
        assert found.js("document.querySelector('table.data').getAttribute('aria-rowcount')") == "10001"
        found.js("document.querySelector('.frame').scrollTop = 1e9, 0")
        found.until("document.querySelector('[aria-rowindex=\"10001\"]')")
        assert found.errors() == []


def test_nothing_failed_and_nothing_was_asked_of_a_network(page: chromium.Page) -> None:
    assert page.errors() == []
    assert {address.partition(":")[0] for address in page.requests()} <= {"file", "about", "data", "blob"}
