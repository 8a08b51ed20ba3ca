"""Print the wheel that fits this Python and platform best; pip's own rules decide, libc and all.

    .venv/bin/python scripts/find_wheel.py llama-cpp-python 0.3.36 SOURCE...

A source is the address of an index page or of a wheel. Ends with code 1 and one line when nothing fits.
Whoever calls it sets the time limit: a name server that does not answer cannot be given one from inside.
"""

from __future__ import annotations

import gzip
import posixpath
import sys
import urllib.request
from collections.abc import Iterable
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from pip._vendor.packaging import tags, utils, version


class Links(HTMLParser):
    """The targets of a page's links, as written."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def main(project: str, pinned: str, sources: list[str]) -> None:
    candidates: list[str] = []
    for source in sources:
        try:
            candidates += [source] if source.endswith(".whl") else links(source)
        except Exception as error:  # of network, server, encoding or markup: all mean that there is nothing to be had
            sys.exit("{}: {}".format(urlsplit(source).hostname, str(error).strip("<>")))
    wheel = best(project, pinned, candidates)
    if wheel is None:
        sys.exit(f"none of {len(candidates)} files is {project} {pinned} for this Python and platform")
    print(wheel)


def links(page: str) -> list[str]:
    """Addresses a page links to. Raises whatever the network or the page does wrong."""
    request = urllib.request.Request(page, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as answer:
        body, base, packed = answer.read(), answer.geturl(), answer.headers.get("Content-Encoding") == "gzip"
    parser = Links()
    parser.feed((gzip.decompress(body) if packed else body).decode("utf-8", "replace"))
    absolute = [urljoin(base, link) for link in parser.found]
    # A page that came safely must not lead to a file that does not.
    return [link for link in absolute if urlsplit(link).scheme == urlsplit(page).scheme]


def best(project: str, pinned: str, candidates: Iterable[str]) -> str | None:
    """The candidate of exactly this version whose tags rank highest here; None if none fits."""
    ranks = {tag: rank for rank, tag in enumerate(tags.sys_tags())}
    fitting: list[tuple[int, str]] = []
    for candidate in candidates:
        try:
            file = unquote(posixpath.basename(urlsplit(candidate).path))
            name, found, _, accepted = utils.parse_wheel_filename(file)
        except ValueError:  # not a wheel's name
            continue
        rank = min((ranks[tag] for tag in accepted if tag in ranks), default=None)
        if name == utils.canonicalize_name(project) and found == version.Version(pinned) and rank is not None:
            fitting.append((rank, candidate))
    return min(fitting)[1] if fitting else None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
