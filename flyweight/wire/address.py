"""Which URLs may be named as an endpoint, and the key that is sent to them and to nobody else."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from flyweight.errors import ConfigError

__all__ = ["KEY", "addresses", "key", "loopback"]

KEY = "OPENAI_API_KEY"
"""The environment variable a key is taken from. FLYWEIGHT_API_KEY, which clients of `flyweight serve` show, goes to no
other server."""
MOST = 256
"""Endpoints of one policy."""


def addresses(text: str, form: str) -> tuple[str, ...]:
    """The base URLs of a comma-separated list, without a slash at the end; `/v1` is added to one without a path.

    `form` says how the whole thing is written. ConfigError for anything but http and https, for a name or password in
    the URL, a query, or an endpoint named twice.
    """
    found: list[str] = []
    for part in (piece.strip() for piece in text.split(",")):
        url = _address(part, form)
        if url in found:
            raise ConfigError(f"{url} is named twice: name each endpoint once")
        found.append(url)
    if len(found) > MOST:
        raise ConfigError(f"{len(found)} endpoints are named: at most {MOST} are allowed")
    return tuple(found)


def _address(text: str, form: str) -> str:
    if re.search(r"[\x00-\x20\x7f-\x9f]", text):
        raise ConfigError(f"{text!r} holds a space or a control character: write {form}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a URL ({error}): write {form}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"a key does not belong in a URL, which ends up in logs: set {KEY} instead")
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{text!r} is not an endpoint: write {form}, with http:// or https://")
    if parts.query or parts.fragment:
        raise ConfigError(f"{text!r} has a query or a fragment: write {form}")
    where = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{where}{f':{port}' if port is not None else ''}{path}"


def key(variable: str = "", environment: dict[str, str] | None = None) -> str:
    """The key from the environment variable named, else from KEY; empty without one.

    ConfigError for a variable that was named and is not set, or a key that cannot stand in a header.
    """
    held = os.environ if environment is None else environment
    name = variable or KEY
    if variable and not held.get(name):
        raise ConfigError(f"key={variable}: that environment variable is not set, and it is to hold the key")
    found = held.get(name, "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", found):
        raise ConfigError(f"the key in {name} holds characters that cannot stand in a header: set it again")
    return found


def loopback(url: str) -> bool:
    """Whether a URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
