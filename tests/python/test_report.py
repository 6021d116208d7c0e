# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

import made_up
import report

VOID = {"meta"}


class Balance(HTMLParser):
    """Fails on a tag that is not closed in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_up.write(tmp_path / "good.json", made_up.good())
    assert report.main([str(path)]) == 0
    page = tmp_path / "good.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert "6 rows measured, 1 skipped, 1 errors." in "".join(parser.text)
    assert "Made Up & Sons <tm>" in parser.text
    assert "y[3] is 2 | want 1" in parser.text
    assert "<b>1.00 ms</b>" in text, "the fastest provider of a problem is bold"
    assert "<td class=\"n\">2.00×</td>" in text  # fmt: skip
    assert "http" not in text, "nothing is loaded"


def test_markdown(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "good.json", made_up.good())
    assert report.main([str(path), "-o", str(tmp_path / "out.md")]) == 0
    lines = (tmp_path / "out.md").read_text(encoding="utf-8").splitlines()
    assert "## rmsnorm" in lines
    assert any("y[3] is 2 \\| want 1" in line for line in lines)
    widths = {
        len(line.replace("\\|", "").split("|"))
        for line in lines
        if "qwen2.5" in line and "ms" in line
    }
    assert widths == {len(report.OPERATOR_COLUMNS) + 2}


def test_counters_may_be_missing(tmp_path: Path) -> None:
    entry = made_up.entry(made_up.name(), real_time=5.0)
    path = made_up.write(tmp_path / "bare.json", made_up.document(entry))
    assert report.main([str(path)]) == 0
    assert "5.00 ns" in (tmp_path / "bare.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            '{"dram_bytes_per_second": 4.3e12, "matrix_flops_per_second": {"bf16": 8e14, "f32": 0},'
            ' "special_per_second": 5e12, "cache_bytes": 6e7}',
            "dram 4.30 TB/s, matrix bf16 800 TFLOP/s, 5.00 Tspecial/s",
        ),
        ("{", ""),
        ("[]", ""),
        (None, ""),
    ],
)
def test_ceilings(document: object, text: str) -> None:
    assert report.ceilings(document) == text


def test_only_failures(tmp_path: Path) -> None:
    rows = [row for row in made_up.good()["benchmarks"] if "samples" not in row]
    path = made_up.write(tmp_path / "failed.json", made_up.document(*rows))
    assert report.main([str(path)]) == 0
    assert "0 rows measured" in (tmp_path / "failed.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["", "{", '{"context": {}, "benchmarks": [{"name": "BM_x"}]}'])
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    path = made_up.write(tmp_path / "bad.json", content)
    assert report.main([str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "bad.html").exists()


def test_missing_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "missing.json")]) == 1
    assert "missing.json" in capsys.readouterr().err


def test_unknown_format(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "good.json", made_up.good())
    with pytest.raises(SystemExit, match="2"):
        report.main([str(path), "-o", "out.pdf"])
