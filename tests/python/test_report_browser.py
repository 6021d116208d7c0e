# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, from a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

import made_up
from seqmark_tools.__main__ import main

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium here (apt-get install chromium)"
)
ROOT = Path(__file__).parents[2]
H200 = ROOT / "results" / "h200"
DRAWN = "html[data-drawn=true]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=PROGRAM, args=["--no-sandbox"]
        )  # tests in containers are root's, whom Chromium's sandbox refuses
        yield chromium
        chromium.close()


@dataclass
class Opened:
    """A page, and everything that should not happen in it."""

    page: Page
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def open_page(
    context: BrowserContext, path: Path, state: str = DRAWN, page: Page | None = None
) -> Opened:
    opened = Opened(page or context.new_page())
    page = opened.page

    def said(kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            opened.troubles.append(text)

    page.on("console", lambda message: said(message.type, message.text))
    page.on("pageerror", lambda error: opened.troubles.append(str(error)))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(state, state="attached", timeout=60_000)
    return opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("report") / "h200.html"
    files = [str(H200 / name) for name in ("models.json", "bf16-run1.json", "peers.json")]
    assert main(["report", *files, "-o", str(page)]) == 0
    return page


@pytest.fixture(scope="module")
def opened(browser: Browser, report: Path) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield open_page(context, report)
    context.close()


@pytest.fixture
def page(opened: Opened) -> Iterator[Page]:
    yield opened.page
    assert opened.troubles == []


def drawn_lines(page: Page) -> list[int]:
    """How many marks each figure's plots have."""
    marks = ".scatterlayer .trace, .barlayer .trace"
    return page.evaluate(  # type: ignore[no-any-return]
        "marks => [...document.querySelectorAll('figure')].map("
        "node => [...node.querySelectorAll('.plot')]"
        ".map(plot => plot.querySelectorAll(marks).length)"
        ".reduce((least, here) => Math.min(least, here), Infinity))",
        marks,
    )


def test_nothing_is_fetched(opened: Opened) -> None:
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1


def test_every_figure_is_drawn(page: Page) -> None:
    lines = drawn_lines(page)
    assert len(lines) >= 7
    assert all(lines), "every plot has something in it"
    errors = page.evaluate("""() => figureViews.flatMap(figure =>
        figure.view.panels.flatMap(panel => Plotly.validate(panel.traces, panel.layout) || []))""")
    assert errors == [], "plotly.js knows everything that the figures ask for"


def test_every_view_can_be_picked(page: Page) -> None:
    troubles = page.evaluate("""async () => {
      const troubles = [];
      for (const view of figureViews.filter(one => one.select)) {
        for (let i = 0; i < view.select.options.length; i += 1) {
          view.select.selectedIndex = i;
          await view.pick();
          for (const plot of view.plots) {
            if (!plot.querySelector(".scatterlayer .trace, .barlayer .trace")) {
              troubles.push(view.select.value);
            }
          }
        }
        view.select.selectedIndex = 0;
        await view.pick();
      }
      return troubles;
    }""")
    assert troubles == []


def test_picker_and_legend(page: Page) -> None:
    figure = page.locator("figure[data-figure=latency]")
    traces = figure.locator(".plot").first.locator(".scatterlayer .trace")
    figure.locator("select").select_option(label="all models")
    page.wait_for_function("() => figureViews[0].node.querySelectorAll('.trace').length > 8")
    before = traces.count()
    chip = figure.get_by_role("button", name="Falcon-H1-0.5B")
    chip.focus()
    page.keyboard.press("Space")
    assert chip.get_attribute("aria-pressed") == "false"
    page.wait_for_function(
        "count => figureViews[0].plots[0].querySelectorAll('.trace').length === count",
        arg=before - 1,
    )
    page.keyboard.press("Space")
    assert chip.get_attribute("aria-pressed") == "true"


def column(page: Page, title: str) -> list[str]:
    index = page.evaluate(
        "title => report.table.columns.findIndex(one => one.title === title)", title
    )
    return page.locator(f".rows tbody tr td:nth-child({index + 1})").all_inner_texts()


def test_table_filters(page: Page) -> None:
    box = page.get_by_label("filter")
    box.fill("rmsnorm cudnn -mamba")
    names = column(page, "row")
    assert names
    assert all("rmsnorm" in n and "cudnn" in n and "mamba" not in n for n in names)
    assert page.locator(".count").inner_text().startswith(f"{len(names)} of ")
    box.fill("")
    page.get_by_label("status").select_option("error")
    assert {text.split("\n")[0] for text in column(page, "status")} == {"error"}
    page.get_by_label("status").select_option("")


def test_table_sorts(page: Page) -> None:
    page.get_by_label("filter").fill("ssd_scan")
    head = page.get_by_role("columnheader", name="time", exact=True)
    for order, sign in (("ascending", 1), ("descending", -1)):
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == order
        index = page.evaluate("report.table.columns.findIndex(one => one.key === 'time')")
        values = page.evaluate("i => rowTable.shown.map(row => row.values[i])", index)
        assert len(values) > 10
        assert values == sorted(values, key=lambda value: sign * value)
        shown = column(page, "time")
        texts = page.evaluate("i => rowTable.shown.map(row => row.texts[i])", index)
        assert shown == texts[: len(shown)], "what is shown is in that order"
    page.get_by_label("filter").fill("")


def test_copies_the_command(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("filter").fill("prefill/auto/falcon-h1-0.5b/ seqlen:8192")
    button = page.get_by_role("button", name="Copy the command")
    assert button.count() == 1
    button.press("Enter")
    page.wait_for_function("() => document.querySelector('.copied').textContent")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator(".copied").inner_text()
    assert copied.startswith("tools/bench '--benchmark_filter=^prefill/auto/falcon-h1-0\\.5b/")
    assert "--seqlens=8192" in copied
    page.get_by_label("filter").fill("")


def test_names(page: Page) -> None:
    """Everything that can be operated has a name, and every plot one of its own."""
    unnamed = page.evaluate("""() => [...document.querySelectorAll("button, select, input, a")]
      .filter(node => !(node.getAttribute("aria-label") || node.textContent.trim()
        || (node.labels && node.labels.length)))
      .map(node => node.outerHTML.slice(0, 80))""")
    assert [name for name in unnamed if "modebar" not in name] == []
    plots = page.locator(".plot")
    labels = [plots.nth(i).get_attribute("aria-label") for i in range(plots.count())]
    assert all(labels)


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_colours(browser: Browser, report: Path) -> None:
    context = browser.new_context(color_scheme="dark")
    opened = open_page(context, report)
    dark = background(opened.page)
    tick = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    ink = opened.page.evaluate(tick)
    opened.page.locator("#theme").press("Enter")
    assert background(opened.page) == "rgb(255, 255, 255)" != dark
    opened.page.wait_for_function(f"ink => {tick} !== ink", arg=ink)
    assert opened.troubles == []
    context.close()


@pytest.mark.parametrize("width", [360, 1280, 2200])
def test_no_width_scrolls_sideways(browser: Browser, report: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = open_page(context, report).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_prints(opened: Opened, tmp_path: Path) -> None:
    """All of it on paper: a page a figure or so, none of them cut at the right."""
    opened.page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 50_000


def test_five_hundred_rows(browser: Browser, tmp_path: Path) -> None:
    """Below 8 MB and ready within 3 s of the page's own time: other processes' does not count."""
    entries = []
    for number in range(25):
        for length in range(10, 20):
            for op, provider in (("prefill", "auto"), ("rmsnorm", "native")):
                name = made_up.name(op, provider, f"mamba-{number + 1}m", "cuda", 1 << length)
                entries.append(
                    made_up.measured(name, 1e-6 * (1 << length) * (number + 1))
                    | {"memory_weights": 3e6, "memory_state": 2e6, "share_gemm": 1.0}
                )
    assert len(entries) == 500
    path = made_up.write(tmp_path / "rows.json", made_up.document(*entries))
    assert main(["report", str(path)]) == 0
    report = tmp_path / "rows.html"
    assert report.stat().st_size < 8e6
    context = browser.new_context()
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    opened = open_page(context, report, "html[data-ready=true]", page)
    metrics = session.send("Performance.getMetrics")["metrics"]
    seconds = {metric["name"]: metric["value"] for metric in metrics}
    assert 0.05 < seconds["TaskDuration"] < 3
    assert page.locator(".count").inner_text() == "500 of 500 rows"
    page.wait_for_selector(DRAWN, state="attached", timeout=60_000)
    assert all(drawn_lines(page))
    assert opened.troubles == []
    context.close()


def test_paper(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "paper.html"
    files = [str(path) for path in (*H200.glob("decode-*.json"), H200 / "prefill-mamba.json")]
    assert main(["report", "--paper", *files, "-o", str(page)]) == 0
    context = browser.new_context()
    opened = open_page(context, page)
    keys = opened.page.evaluate(
        "[...document.querySelectorAll('figure')].map(n => n.dataset.figure)"
    )
    assert keys == [
        *("fig1", "fig3", "fig5a", "fig5b", "fig6a", "fig6b"),
        *("fig7", "fig8", "fig9a", "fig9b", "generation"),
    ]
    assert all(drawn_lines(opened.page))
    assert opened.troubles == []
    context.close()


def test_png(tmp_path: Path) -> None:
    entries = [
        made_up.measured(made_up.name("rmsnorm", "native", "mamba-130m", "cuda", 1 << length))
        for length in (10, 12)
    ]
    path = made_up.write(tmp_path / "rows.json", made_up.document(*entries))
    assert main(["report", str(path), "--png", str(tmp_path / "png")]) == 0
    pictures = sorted((tmp_path / "png").iterdir())
    assert [picture.name for picture in pictures] == [
        "roofline.png",
        "scaling--bytes-per-second.png",
        "scaling--sol.png",
        "scaling--time.png",
    ]
    for picture in pictures:
        data = picture.read_bytes()
        assert data.startswith(b"\x89PNG")
        width, height = (int.from_bytes(data[n : n + 4], "big") for n in (16, 20))
        assert (width, height) == (1125, 650)
        assert 5_000 < len(data) < 150_000
