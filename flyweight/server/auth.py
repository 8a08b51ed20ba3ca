"""Who may ask: the key, the host the client believes it talks to, the page a browser comes from."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence

from flyweight.errors import ConfigError
from flyweight.server.errors import ApiError

__all__ = ["Keys", "check_host", "check_origin", "is_loopback", "refuse_open_door"]

LOCAL = {"localhost", "127.0.0.1", "::1"}
HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}))(?::([0-9]{1,5}))?")
SHORTEST = 8
"""Characters of a key."""

Headers = Sequence[tuple[bytes, bytes]]


class Keys:
    """The keys that open the server; without any, every client may come in."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """ConfigError for a key that is too short, or that no header can carry."""
        self._keys = [key.encode("utf-8", "surrogatepass") for key in keys]
        for key in self._keys:
            if len(key) < SHORTEST or not key.isascii() or any(not 33 <= byte <= 126 for byte in key):
                raise ConfigError(f"an API key must be at least {SHORTEST} visible ASCII characters without spaces")

    def __bool__(self) -> bool:
        return bool(self._keys)

    def owner(self, headers: Headers) -> str:
        """Whose request this is: a digest of its key, empty where none is needed. ApiError 401 without a right one.

        Only `Authorization: Bearer KEY` counts, and only once. Every key is compared in constant time.
        """
        if not self._keys:
            return ""
        given = [value for name, value in headers if name == b"authorization"]
        if not given:
            raise _refused("no API key: send it as 'Authorization: Bearer KEY'")
        scheme, _, key = given[0].partition(b" ")
        right = [hmac.compare_digest(known, key) for known in self._keys]
        if len(given) > 1 or scheme.lower() != b"bearer" or not any(right):
            raise _refused("the API key is not right: send it as 'Authorization: Bearer KEY', once")
        return hashlib.sha256(key).hexdigest()


def _refused(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_open_door(host: str, keys: Keys) -> None:
    """ConfigError for an address that others can reach, without a key."""
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines: set --api-key (or FLYWEIGHT_API_KEY), or use 127.0.0.1"
        )


def check_host(headers: Headers, allowed: frozenset[str]) -> None:
    """ApiError for a Host that is malformed (400) or, where `allowed` is not empty, foreign (421).

    A page of somebody else's that had its name resolve to this machine still sends its own name: this is what keeps
    it out. Ports do not matter.
    """
    given = [value for name, value in headers if name == b"host"]
    found = HOST.fullmatch(given[0].decode("latin-1")) if len(given) == 1 else None
    if found is None or int(found[2] or 0) > 65535:
        raise ApiError(400, "the Host header is missing, malformed or given twice", code="invalid_host")
    if allowed and found[1].strip("[]").lower() not in allowed:
        raise ApiError(421, "this server does not go by the name in the Host header", code="host_not_allowed")


def check_origin(headers: Headers, allowed: frozenset[str]) -> str | None:
    """The page a browser comes from, None for other clients and pages of our own. ApiError 403 for a foreign one."""
    given = [value.decode("latin-1") for name, value in headers if name == b"origin"]
    if not given:
        return None
    host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
    if len(given) == 1 and given[0] in (f"http://{host}", f"https://{host}"):
        return None
    if len(given) == 1 and given[0] in allowed:
        return given[0]
    raise ApiError(403, "pages of this origin may not use the server (--allow-origin)", code="origin_not_allowed")
