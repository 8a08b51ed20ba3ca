"""The page: the shell a server hands out, and the one file that holds a whole store."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["ASSETS", "POLICY", "asset", "dumps", "shell", "standalone"]

ASSETS: Mapping[str, str] = {
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "maths.js": "text/javascript; charset=utf-8",
    "maths.css": "text/css; charset=utf-8",
}
"""What a server hands out besides the shell, with its type."""
BASE = "default-src 'none'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
POLICY = f"{BASE}; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
"""Content security policy of a served page: its own files, nothing inline, nothing from elsewhere."""
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 28 28'%3E%3Cpath fill='none' "
    "stroke='%238d8678' stroke-width='2' d='M5 14C11 14 11 6 17 6M5 14C11 14 11 22 17 22'/%3E"
    "%3Ccircle cx='5' cy='14' r='4' fill='%238d8678'/%3E%3Ccircle cx='19' cy='6' r='5' fill='%233346c8'/%3E"
    "%3Ccircle cx='18' cy='22' r='3.5' fill='%238d8678'/%3E%3C/svg%3E"
)
MATHS = re.compile(r"\$|\\\\[(\[]|\\\\[a-zA-Z]+|\^|\d/\d")
"""Whether JSON may hold something to typeset."""


@cache
def asset(name: str) -> str:
    """The text of a built file."""
    return files("flyweight.viewer").joinpath("assets", name).read_text("utf-8")


def dumps(value: object) -> str:
    """JSON in ASCII: control characters and lone surrogates arrive as escapes and lose nothing."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def shell() -> str:
    """The page of a server, which asks for everything else."""
    head = '<link rel="stylesheet" href="assets/page.css">'
    return _document("server", head, '<script src="assets/page.js"></script>')


def standalone(data: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """The page as one file, in parts: `data` are (path, JSON value) as a server would answer them.

    Its policy allows the scripts and styles inside by their hash, and no request at all. Mathematics is typeset by a
    part that is left out where nothing needs it.
    """
    style, script = _inline(asset("page.css")), _inline(asset("page.js"))
    maths = {name: asset(name) for name in ("maths.js", "maths.css")}
    policy = (
        f"{BASE}; script-src {_hash(script)} {_hash(maths['maths.js'])}; "
        f"style-src {_hash(style)} {_hash(maths['maths.css'])}"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'
    before, after = _document("file", head, f"\0<script>{script}</script>").split("\0")
    yield before
    typeset = False
    for path, value in data:
        text = dumps(value)
        typeset = typeset or MATHS.search(text) is not None
        yield _block(path, text)
    if typeset:
        yield from (_block(name, text) for name, text in maths.items())
    yield after


def _document(mode: str, head: str, scripts: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en" data-mode="{mode}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Flyweight</title>\n'
        f'<meta name="referrer" content="no-referrer">\n<link rel="icon" href="{ICON}">\n{head}\n</head>\n<body>\n'
        '<div id="app"></div>\n<noscript>This page draws recorded searches, for which it needs JavaScript.</noscript>\n'
        f"{scripts}\n</body>\n</html>\n"
    )


def _block(path: str, text: str) -> str:
    # Compressed without a time stamp, so that equal stores give equal files.
    packed = base64.b64encode(gzip.compress(text.encode(), 6, mtime=0))
    return f'<script type="text/plain" data-path="{path}">{packed.decode()}</script>\n'


def _inline(text: str) -> str:
    """The text as it can stand in an element of its own."""
    assert not re.search(r"</(script|style)|<!--", text, re.IGNORECASE)
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
