"""The formats: a golden page, hostile names, nothing from outside, no folder of this machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flyweight.errors import ConfigError
from flyweight.report import Report
from flyweight.report.words import bytes_, count, difference, operations, p_value, plain
from flyweight.stats import Interval
from flyweight.store import Store
from tests.report.report_kit import Found, Said, opened, report, small, write

GOLDEN = Path(__file__).with_name("golden.md")
HOSTILE = "a|b<script>alert(1)</script>`*x*`\x1b[31m\u202e\ud800&amp;"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path) as store:
        yield store


def page(made: Report) -> str:
    """Markdown without the versions of this machine."""
    return re.sub(r"made with: .*", "made with: ...", made.markdown())


# Markdown and terminal


def test_markdown_is_the_golden_page(store: Store) -> None:
    """The figures are those of test_report_numbers.py. To renew: python -m tests.report.test_report_formats"""
    small(store)
    assert page(report(store)) == GOLDEN.read_text("utf-8")


def test_terminal_lines_fit_and_lose_nothing(store: Store) -> None:
    small(store)
    made = report(store)
    for width in (80, 100, 200):
        lines = made.terminal(width).splitlines()
        assert max(map(len, lines)) <= width
        for text in ("75.0 % (30.1–95.4)", "1.60e5", "4 kB", "+25.0 (0.0 to +75.0)", "62.5 % (25.0–100.0)"):
            assert any(text in line for line in lines), text
    assert len(made.terminal(80).splitlines()) > len(made.terminal(200).splitlines())


def test_an_empty_run_and_no_run(store: Store) -> None:
    run = write(store, "greedy", {}, finish=False)
    assert f"Without any result so far: {run}." in report(store).markdown()
    assert "No results." in Report.made([]).terminal()


def test_hostile_names_are_text_everywhere(store: Store) -> None:
    found = {"p": Found([Said("R", 0, 0.5), Said("W", 1, 0.1)])}
    meta = {"p": {"level": HOSTILE}}
    write(
        store, "best_of_n", found, n=2, verifier=HOSTILE, model=f"/x/{HOSTILE}", task=HOSTILE, split=HOSTILE, meta=meta
    )
    made = report(store)
    for text in (made.markdown(), made.terminal(), made.html(), made.json()):
        text.encode("utf-8")
        assert "\x1b" not in text and "\u202e" not in text
    assert "<script" not in made.html()
    table = next(line for line in made.markdown().splitlines() if line.startswith("| best_of_n"))
    assert len(re.findall(r"(?<!\\)\|", table)) == 16 and "\\<script" in table


# HTML


class _Read(HTMLParser):
    """Tags that are open, and every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "img", "iframe", "object"}
        self.attributes += attrs
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_stands_alone(store: Store) -> None:
    small(store)
    text = report(store).html()
    read = _Read()
    read.feed(text)
    assert read.open == []
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    outside = {value for name, value in read.attributes if value and ("//" in value or name in {"src", "srcset"})}
    assert outside <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}, "names, not addresses"
    assert "@import" not in text and "url(http" not in text
    assert len(read.ids) == len(set(read.ids))
    assert '<td class="n">75.0 % (30.1–95.4)</td>' in text


def test_without_matplotlib_html_says_how_to_get_pictures(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    small(store)
    made = report(store)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'flyweight[plots]'" in made.html() and "<svg" not in made.html()
    for draw in (made.svg, made.png):
        with pytest.raises(ConfigError, match=re.escape("pip install 'flyweight[plots]'")):
            draw()


def test_no_folder_of_this_machine(store: Store, tmp_path: Path) -> None:
    found = {"p": Found([Said("R")])}
    write(store, "greedy", found, model=str(tmp_path / "m.gguf"), data=str(tmp_path / "q.jsonl"))
    made = report(store)
    for text in (made.markdown(), made.html(), made.json()):
        assert str(tmp_path) not in text and "m.gguf" in text and "q.jsonl" in text


# Words


def test_words() -> None:
    assert [count(value) for value in (0, 16, 16.04, 16.25, 99.96, 100.4, 12345.6)] == [
        "0", "16", "16.0", "16.2", "100.0", "100", "12,346",
    ]  # fmt: skip
    assert [operations(value) for value in (0, 6e4, 1.234e12, 0.5)] == ["0", "6.00e4", "1.23e12", "5.00e-1"]
    assert [bytes_(value) for value in (0, 999, 1000, 20_480, 1_500_000_000)] == [
        "0 B",
        "999 B",
        "1 kB",
        "20.5 kB",
        "1.5 GB",
    ]
    assert [p_value(p) for p in (0.0004, 0.012, 0.0999, 0.53, 1)] == ["< 0.001", "0.012", "0.100", "0.53", "1.00"]
    assert difference(Interval(-0.0301, -0.00001, 0.05)) == "0.0 (−3.0 to +5.0)"
    assert plain("a\n b\x1b\u202e\ud800") == "a b\\x1b\\u202e\\ud800"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as written:
        small(written)
        GOLDEN.write_text(page(report(written)), "utf-8")
