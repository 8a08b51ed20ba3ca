"""The report as one HTML file: no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape

from flyweight.report.page import Block, Code, Heading, Items, Picture, Table, Text

__all__ = ["html"]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #6b7280; --line: #d5d9df; --mark: #b45309; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --paper: #14171b; --faint: #9aa3ae; --line: #343a42; --mark: #f0a45d; }
}
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.2; margin: 2em 0 .6em; }
h1 { margin-top: 0; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .3em; }
p, li { max-width: 46rem; }
.wide { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3em .7em; border-bottom: 1px solid var(--line); text-align: left; }
th { color: var(--faint); font-weight: 500; vertical-align: bottom; }
.n { text-align: right; }
ul.warnings { list-style: none; padding: 0; }
ul.warnings li { border-left: 3px solid var(--mark); padding: .1em .8em; margin: .4em 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; color: var(--faint); }
figure { margin: 1em 0; }
figure svg { width: 100%; max-width: 54rem; height: auto; }
""".strip()
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def html(blocks: Iterable[Block], picture: Callable[[Picture], str]) -> str:
    """The page. `picture` gives the SVG element of a picture, or other HTML in its place."""
    body = "\n".join(_html(block, picture) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Flyweight report</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block, picture: Callable[[Picture], str]) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Items(items, warning):
            lines = "\n".join(f"<li>{escape(item)}</li>" for item in items)
            kind = ' class="warnings"' if warning else ""
            return f"<ul{kind}>\n{lines}\n</ul>" if items else ""
        case Table():
            head = _line("th", block.head, block.left)
            rows = "\n".join(_line("td", row, block.left) for row in block.rows)
            table = f"<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
            return f'<div class="wide">\n{table}\n</div>'
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Picture():
            return f'<figure role="img" aria-label="{escape(block.text)}">\n{picture(block)}\n</figure>'


def _line(tag: str, cells: Iterable[str], left: int) -> str:
    shown = (
        f"<{tag}>{escape(cell)}</{tag}>" if column < left else f'<{tag} class="n">{escape(cell)}</{tag}>'
        for column, cell in enumerate(cells)
    )
    return f"<tr>{''.join(shown)}</tr>"
