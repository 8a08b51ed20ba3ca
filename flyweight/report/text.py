"""The report as Markdown and for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from textwrap import fill

from flyweight.report.page import Block, Code, Heading, Items, Picture, Table, Text

__all__ = ["markdown", "terminal"]

GAP = "  "


def markdown(blocks: Iterable[Block]) -> str:
    """GitHub's Markdown; pictures are left out, their figures stand in the tables."""
    return "\n\n".join(text for text in map(_markdown, blocks) if text) + "\n"


def terminal(blocks: Iterable[Block], width: int = 100) -> str:
    """Plain text in lines of at most `width` where cells allow it; wider tables go on below with the first column."""
    return "\n\n".join(text for text in (_terminal(block, width) for block in blocks) if text) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {_escaped(text)}"
        case Text(text):
            return _escaped(text)
        case Items(items, warning):
            return "\n".join(f"- {'**Warning:** ' if warning else ''}{_escaped(item)}" for item in items)
        case Table(head, rows, left):
            rule = ["---"] * left + ["--:"] * (len(head) - left)
            lines = [[_escaped(cell) for cell in line] for line in (head, *rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
        case Code(text):
            return f"{_fence(text)}text\n{text}\n{_fence(text)}"
        case Picture():
            return ""


def _escaped(text: str) -> str:
    """Text in which nothing is markup."""
    text = re.sub(r"([\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w))", r"\\\1", text)
    return re.sub(r"^([#+-]|\d+[.)])(?=\s)", r"\\\1", text)


def _fence(text: str) -> str:
    """More backticks than the text has in a row."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def _terminal(block: Block, width: int) -> str:
    match block:
        case Heading(level, text):
            return f"{text}\n{'=' * len(text)}" if level < 3 else text
        case Text(text):
            return _filled(text, width)
        case Items(items, warning):
            return "\n".join(_filled(item, width, "! " if warning else "- ") for item in items)
        case Table():
            return "\n\n".join(_lines(part) for part in _parts(block, width))
        case Code(text):
            return fill(text, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        case Picture():
            return ""


def _filled(text: str, width: int, mark: str = "") -> str:
    return fill(
        text,
        width,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _widths(table: Table) -> list[int]:
    return [max(len(line[column]) for line in (table.head, *table.rows)) for column in range(len(table.head))]


def _parts(table: Table, width: int) -> list[Table]:
    """The table cut into ones of at most `width`; each begins with the text columns."""
    widths = _widths(table)
    first = max(1, table.left)
    parts: list[list[int]] = [list(range(first))]
    for column in range(first, len(table.head)):
        used = sum(widths[c] + len(GAP) for c in parts[-1])
        if len(parts[-1]) > first and used + widths[column] > width:
            parts.append(list(range(first)))
        parts[-1].append(column)
    return [Table(_pick(table.head, part), tuple(_pick(row, part) for row in table.rows), table.left) for part in parts]


def _pick(line: Sequence[str], columns: Sequence[int]) -> tuple[str, ...]:
    return tuple(line[column] for column in columns)


def _lines(table: Table) -> str:
    widths = _widths(table)
    return "\n".join(
        GAP.join(
            cell.ljust(width) if column < table.left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (table.head, *table.rows)
    )
