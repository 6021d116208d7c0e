# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest

import made_up
from seqmark_tools import results
from seqmark_tools.__main__ import main
from seqmark_tools.report import build, export, markdown, tables
from seqmark_tools.report.data import collect
from seqmark_tools.report.figure import Json, Panel
from seqmark_tools.report.page import in_script
from seqmark_tools.report.paper import build as paper
from seqmark_tools.report.rerun import rerun_command

ROOT = Path(__file__).parents[2]
REAL = sorted((ROOT / "results").glob("*/*.json"))
VOID = {"br", "input", "meta"}


class Balance(HTMLParser):
    """Fails on a tag that is not closed in its place, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("src", "href"):
                assert (value or "").startswith("#"), "nothing is loaded"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def parse(path: Path) -> str:
    parser = Balance()
    parser.feed(path.read_text(encoding="utf-8"))
    assert parser.open == []
    return "".join(parser.text)


def test_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_up.write(tmp_path / "good.json", made_up.good())
    assert main(["report", str(path)]) == 0
    page = tmp_path / "good.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = parse(page)
    assert "6 rows measured, 1 skipped, 1 errors" in text
    assert "Made Up & Sons <tm>" in text
    assert "y[3] is 2 | want 1" in text
    assert "rmsnorm: native is 2.0x as fast as highway (geometric mean of 1 problems)." in text


def test_markdown(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "good.json", made_up.good())
    assert main(["report", str(path), "-o", str(tmp_path / "out.md")]) == 0
    lines = (tmp_path / "out.md").read_text(encoding="utf-8").splitlines()
    assert "## rmsnorm" in lines
    assert any("y[3] is 2 \\| want 1" in line for line in lines)
    assert any("**1.00 ms**" in line for line in lines), "the fastest of a problem is bold"
    rows = [line for line in lines if "| qwen2.5" in line and "ms" in line]
    widths = {len(line.replace("\\|", "").split("|")) for line in rows}
    assert widths == {len(markdown.OPERATOR_COLUMNS) + 2}


def test_counters_may_be_missing(tmp_path: Path) -> None:
    entry = made_up.entry(made_up.name(), real_time=5.0)
    path = made_up.write(tmp_path / "bare.json", made_up.document(entry))
    assert main(["report", str(path)]) == 0
    assert "5.00 ns" in (tmp_path / "bare.html").read_text(encoding="utf-8")


def test_text_cannot_end_the_script() -> None:
    text = in_script(json.dumps({"reason": "</script><b>"}))
    assert "<" not in text
    assert json.loads(text) == {"reason": "</script><b>"}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            {
                "dram_bytes_per_second": 4.3e12,
                "matrix_flops_per_second": {"bf16": 8e14, "f32": 0},
                "special_per_second": 5e12,
                "cache_bytes": 6e7,
            },
            "dram 4.30 TB/s, matrix bf16 800 TFLOP/s, 5.00 Tspecial/s",
        ),
        ({}, ""),
    ],
)
def test_rates(document: dict[str, object], text: str) -> None:
    assert tables.rates(document) == text


def test_only_failures(tmp_path: Path) -> None:
    rows = [row for row in made_up.good()["benchmarks"] if "samples" not in row]
    path = made_up.write(tmp_path / "failed.json", made_up.document(*rows))
    assert main(["report", str(path)]) == 0
    assert "0 rows measured" in parse(tmp_path / "failed.html")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"context": {}, "benchmarks": []}'])
@pytest.mark.parametrize("more", [[], ["--paper"], ["--csv", "{tmp}/csv"]])
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, more: list[str]
) -> None:
    path = made_up.write(tmp_path / "bad.json", content)
    extra = [word.format(tmp=tmp_path) for word in more]
    assert main(["report", str(path), *extra]) == 2
    assert str(path) in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["bad.json"]


def test_missing_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "missing.json")]) == 2
    assert "missing.json" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["-o", "out.pdf"], ["--paper", "-o", "out.md"]])
def test_unknown_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    path = made_up.write(tmp_path / "good.json", made_up.good())
    assert main(["report", str(path), *words]) == 2
    assert words[-1] in capsys.readouterr().err


def test_other_programs(tmp_path: Path) -> None:
    document = made_up.document(made_up.entry("BM_Sort/1024", real_time=7.0, odd=float("nan")))
    del document["context"]["seqmark_schema"]
    path = made_up.write(tmp_path / "foreign.json", document)
    for suffix in ("html", "md"):
        output = tmp_path / f"foreign.{suffix}"
        assert main(["report", str(path), "-o", str(output)]) == 0
        text = output.read_text(encoding="utf-8")
        assert "BM_Sort/1024" in text
        assert "7.00 ns" in text


@pytest.mark.parametrize("make", [build.make_page, paper.make_page])
def test_every_figure_is_plotlys(make: object) -> None:
    """What plotly's own model of figures would refuse, a browser would leave out silently."""
    assert callable(make)
    page = make(collect(results.read_all([p for p in REAL if p.parent.name != "published"])))
    panels = [p for s in page.sections for f in s.figures for *_, p in f.files()]
    assert len(panels) > 20
    for panel in panels:
        figure = go.Figure({"data": panel.traces, "layout": panel.layout})
        assert len(figure.data) == len(panel.traces) > 0


def test_csv(tmp_path: Path) -> None:
    entries = [
        made_up.measured(made_up.name("prefill", "auto", "mamba-130m", "cuda", length), seconds)
        for length, seconds in ((1024, 0.25), (4096, 1.0))
    ]
    path = made_up.write(tmp_path / "models.json", made_up.document(*entries))
    folder = tmp_path / "data"
    assert main(["report", str(path), "--csv", str(folder)]) == 0
    with (folder / "latency.csv").open(encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["series", "tokens", "time to first token (TTFT) [s]"]
    assert lines == [["Mamba-130m", "1024", "0.25"], ["Mamba-130m", "4096", "1.0"]]
    only = tmp_path / "only"
    assert main(["report", str(path), "--csv", str(only), "--only", "memory*", "--only=roof*"]) == 0
    assert sorted(file.name for file in only.iterdir()) == ["memory.csv", "roofline.csv"]
    assert main(["report", str(path), "--csv", str(only), "--only", "memery*"]) == 2


COMMAND = "build/seqmark_bench --preset=full --cache=hot --prefill_chunk 4096 --max_time=1"
PEERS = "python3 tools/peers --device=cpu --threads=2 --rows=rows.txt"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            COMMAND,
            "tools/bench '--benchmark_filter=^gemm/onednn/mamba-1\\.4b\\.in_proj/dtype:bf16/"
            "device:cpu/batch:1/seqlen:2048/' --dtypes=bf16 --batches=1 --seqlens=2048 "
            "--cache=hot --prefill_chunk=4096",
        ),
        (
            PEERS,
            "python3 tools/peers '--filter=^gemm/onednn/mamba-1\\.4b\\.in_proj/dtype:bf16/"
            "device:cpu/batch:1/seqlen:2048/' --device=cpu --threads=2",
        ),
    ],
)
def test_rerun_command(tmp_path: Path, command: str, words: str) -> None:
    name = made_up.name("gemm", "onednn", "mamba-1.4b.in_proj", "cpu", 2048)
    document = made_up.document(made_up.measured(name))
    document["context"]["command_line"] = command
    path = made_up.write(tmp_path / "one.json", document)
    assert rerun_command(collect([results.read(path)]).items[0]) == words


def test_a_picture_has_room_for_its_legend() -> None:
    def panel(names: int) -> Panel:
        traces: list[Json] = [{"name": f"row {i}", "x": [1], "y": [1]} for i in range(names)]
        return Panel("rows", traces, {}, "x", "y")

    assert export.height(panel(5)) == export.HEIGHT
    shown, hidden = panel(40), panel(80)
    for trace in hidden.traces[40:]:
        trace["showlegend"] = False
    assert export.height(shown) == export.height(hidden) > 40 * 19
