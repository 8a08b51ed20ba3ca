"""What runs inside the sandbox. Sent there compiled: standard library only, nothing of the package.

    run CODE            the program as `__main__`
    serve CODE CHANNEL  requests over the channel, each answered by a fresh process that runs the program first
    judge CHANNEL       test statements over the channel; the names they call are answered by the other side
    command WORD...     any program

Every message of the channel is one line, `KIND LENGTH [SECONDS]`, and then that many bytes. Requests: E (value of an
expression), S (output for this stdin), J (test statements). Replies: V (a value as JSON, or the output), X (an error),
T (out of time). A judge's process asks with C (an expression) and gets V, X or T.
"""

from __future__ import annotations

import builtins
import os
import resource
import select
import sys
import time
from _json import encode_basestring_ascii as quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

REPLY = 64_000
"""Bytes of a value or an output; more is an error."""
DEPTH = 100
CANNOT_START = 127
"""Exit status of a command that is not there or cannot run."""
SIGKILL, SIGXCPU = 9, 24
"""As in `signal`, which takes milliseconds to import."""
ITEMS = 10_000
"""Items taken from an iterator."""


def main() -> None:
    _, mode, uid, memory, cpu, processes, files, ready, *rest = sys.argv
    confine(int(uid), int(memory), int(cpu), int(processes), int(files))
    os.write(int(ready), b"1")
    os.set_inheritable(int(ready), False)
    if mode == "command":
        try:
            os.execvp(rest[0], rest)
        except OSError:
            os._exit(CANNOT_START)
    add_exit()
    if mode == "run":
        run(read_all(int(rest[0])).decode("utf-8", "surrogatepass"), int(ready))
    os.close(int(ready))
    if mode == "run":
        return
    if mode == "serve":
        serve(int(rest[1]), read_all(int(rest[0])).decode("utf-8", "surrogatepass"))
    else:
        serve(int(rest[0]), "")


def confine(uid: int, memory: int, cpu: int, processes: int, files: int) -> None:
    """Limits that nothing inside can raise again, then another user if there is one to become."""
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, files),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    ):
        resource.setrlimit(what, (limit, limit))
    if uid:
        os.setresuid(uid, uid, uid)


def add_exit() -> None:
    """`exit` and `quit`, which Python without `site` lacks and programs use."""
    from _sitebuiltins import Quitter

    builtins.exit, builtins.quit = Quitter("exit", "Ctrl-D"), Quitter("quit", "Ctrl-D")


def read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)


def module(name: str) -> dict[str, Any]:
    """The namespace of a new module."""
    made = type(sys)(name)
    sys.modules[name] = made
    return made.__dict__


def run(source: str, ready: int) -> None:
    """Run the program as `__main__`; its uncaught errors are shown as Python shows them."""
    sys.argv = ["program"]
    try:
        exec(compile(source, "<program>", "exec"), module("__main__"))
    except SystemExit:
        raise
    except BaseException as error:
        if isinstance(error, MemoryError):
            os.write(ready, b"M")
        trace = error.__traceback__
        sys.excepthook(type(error), error.with_traceback(trace and trace.tb_next), None)
        sys.stdout.flush()
        os._exit(1)


def serve(channel: int, source: str) -> None:
    """Answer requests until the other side hangs up."""
    code: Any = None
    buffer = b""
    while True:
        while b"\n" not in buffer:
            part = os.read(channel, 65_536)
            if not part:
                return
            buffer += part
        line, _, buffer = buffer.partition(b"\n")
        kind, length, seconds = line.decode().split()
        while len(buffer) < int(length):
            buffer += os.read(channel, 65_536)
        text, buffer = buffer[: int(length)], buffer[int(length) :]
        if code is None and kind != "J":
            try:
                code = compile(source, "<program>", "exec")
            except BaseException as error:
                code = type(error).__name__ + ": does not compile"
        if isinstance(code, str):
            kind, reply = "X", code.encode()
        else:
            kind, reply = attempt(channel, code, kind, text, float(seconds))
        send(channel, kind, reply)


def send(channel: int, kind: str, payload: bytes) -> None:
    data = b"%s %d\n%s" % (kind.encode(), len(payload), payload)
    while data:
        data = data[os.write(channel, data) :]


def attempt(channel: int, code: Any, kind: str, text: bytes, seconds: float) -> tuple[str, bytes]:
    """(kind, payload) of the reply of a new process."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(source)
        os.setpgid(0, 0)
        if kind != "J":
            os.close(channel)
        child(channel, code, kind, text, sink, seconds)
    os.close(sink)
    deadline = time.monotonic() + seconds
    parts: list[bytes] = []
    size, late = 0, False
    while size <= REPLY:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([source], [], [], left)[0]:
            late = True
            break
        part = os.read(source, 65_536)
        if not part:
            break
        parts.append(part)
        size += len(part)
    os.close(source)
    status: int | None = None
    while not late and status is None:  # the output may have ended before the process
        found, value = os.waitpid(pid, os.WNOHANG)
        if found:
            status = os.waitstatus_to_exitcode(value)
        elif time.monotonic() > deadline or size > REPLY:
            late = size <= REPLY
            break
        else:
            time.sleep(0.0005)
    for kill in (os.killpg, os.kill):
        try:  # noqa: SIM105  # contextlib takes milliseconds to import
            kill(pid, SIGKILL)
        except OSError:
            pass
    if status is None:
        os.waitpid(pid, 0)
        status = -SIGKILL
    payload = b"".join(parts)
    if late or status == -SIGXCPU:
        return "T", b""
    if size > REPLY:
        return "X", b"more than %d bytes of output" % REPLY
    if kind == "S":
        return ("V", payload) if status == 0 else ("X", b"exit status %d" % status)
    if payload[:1] in (b"V", b"X"):
        return payload[:1].decode(), payload[1:]
    return "X", b"ended without a value, exit status %d" % status


def child(channel: int, code: Any, kind: str, text: bytes, sink: int, seconds: float) -> None:
    """The life of one attempt; never returns."""
    status = 1
    try:
        cpu = int(seconds) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        if kind == "S":
            program_on(code, text, sink)
            status = 0
        else:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            source = text.decode("utf-8", "surrogatepass")
            reply = judge(channel, source) if kind == "J" else value_of(code, source)
            while reply:
                reply = reply[os.write(sink, reply) :]
            status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        if kind != "S":
            os.write(sink, ("X" + describe(error)).encode("ascii", "backslashreplace"))
            status = 0
    finally:
        if kind == "S":
            try:
                sys.stdout.flush()
            except BaseException:
                status = 1
        os._exit(status & 255)


def describe(error: BaseException) -> str:
    try:
        return type(error).__name__ + ": " + str(error)[:200]
    except BaseException:
        return "an error that cannot be shown"


def program_on(code: Any, text: bytes, sink: int) -> None:
    """Run the program as `__main__` with the text as its stdin and the sink as its stdout."""
    source, feed = os.pipe()
    if os.fork() == 0:  # a pipe holds 64 kB: who reads is not who writes
        try:
            os.close(source)
            os.close(sink)
            while text:
                text = text[os.write(feed, text) :]
        finally:
            os._exit(0)
    os.close(feed)
    os.dup2(source, 0)
    os.dup2(sink, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.close(source)
    os.close(sink)
    for name, fd, how in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        stream = open(fd, how, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    exec(code, module("__main__"))


def value_of(code: Any, text: str) -> bytes:
    space = module("program")
    exec(code, space)
    # This process is the sandbox: the program has just run here, and the expression is one of the tests.
    value = eval(compile(text, "<test>", "eval"), space)
    return b"V" + encode(value, 0).encode("ascii")


def encode(value: Any, depth: int) -> str:
    """Plain data as JSON. What JSON lacks is an object of one entry: t, s, d, b, c, g (see flyweight.sandbox.wire).

    An instance of a class derived from a plain type counts as that type: none of its own methods is asked.
    """
    if depth > DEPTH:
        raise ValueError("nested too deep")
    depth += 1
    kind = type(value)
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        text = float.__repr__(value)
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)
    if isinstance(value, str):
        return quoted(str.__str__(value))
    if isinstance(value, list):
        return "[" + series(list.__iter__(value), depth) + "]"
    if isinstance(value, tuple):
        return '{"t":[' + series(tuple.__iter__(value), depth) + "]}"
    if isinstance(value, set):
        return '{"s":[' + series(set.__iter__(value), depth) + "]}"
    if isinstance(value, frozenset):
        return '{"s":[' + series(frozenset.__iter__(value), depth) + "]}"
    if isinstance(value, dict):
        return '{"d":[' + series(dict.items(value), depth) + "]}"
    if isinstance(value, (bytes, bytearray)):
        return '{"b":"' + bytes(value).hex() + '"}'
    if isinstance(value, complex):
        return '{"c":[' + encode(value.real, depth) + "," + encode(value.imag, depth) + "]}"
    if hasattr(kind, "__next__") or kind in (range, type({}.keys()), type({}.values()), type({}.items())):
        return '{"g":[' + series(iter(value), depth) + "]}"
    raise TypeError("returned a " + kind.__name__ + ", which is not plain data")


def series(items: Iterable[Any], depth: int) -> str:
    parts, size = [], 0
    for item in items:
        parts.append(encode(item, depth))
        size += len(parts[-1])
        if len(parts) > ITEMS or size > REPLY:
            raise ValueError("too much data")
    return ",".join(parts)


class Refused(Exception):
    """What a call of the program came to when it was neither a value nor an error of Python's own."""


def judge(channel: int, text: str) -> bytes:
    """Run test statements; every name in the header line calls the program on the other side."""
    import json

    names, _, source = text.partition("\n")
    buffer = b""

    def ask(expression: str) -> Any:
        nonlocal buffer
        send(channel, "C", expression.encode("utf-8", "surrogatepass"))
        while b"\n" not in buffer:
            buffer += os.read(channel, 65_536)
        line, _, buffer = buffer.partition(b"\n")
        kind, length = line.decode().split()
        while len(buffer) < int(length):
            buffer += os.read(channel, 65_536)
        payload, buffer = buffer[: int(length)], buffer[int(length) :]
        if kind != "V":
            name, _, said = payload.decode("utf-8", "replace").partition(": ")
            error = getattr(builtins, name, None)
            if isinstance(error, type) and issubclass(error, Exception):
                raise error.__new__(error, said)  # a test may be that it is raised
            raise Refused(payload.decode("utf-8", "replace"))
        return decode(json.loads(payload))

    def calling(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = [spell(arg) for arg in args] + [key + "=" + spell(arg) for key, arg in kwargs.items()]
            return ask(name + "(" + ", ".join(given) + ")")

        return call

    space = module("tests")
    for name in names.split():
        alias, _, real = name.partition("=")
        space[alias] = calling(real)
    exec(compile(source, "<tests>", "exec"), space)
    return b"Vtrue"


def decode(value: Any) -> Any:
    """Plain data from its JSON."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    [(kind, inner)] = value.items()
    if kind == "b":
        return bytes.fromhex(inner)
    items = [decode(item) for item in inner]
    if kind == "d":
        return dict(items)
    if kind == "c":
        return complex(*items)
    makers: dict[str, Any] = {"t": tuple, "s": frozenset, "g": iter}
    return makers[kind](items)


def spell(value: Any) -> str:
    """Plain data as Python source."""
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes, complex):
        return repr(value)
    if kind is float:
        return "float('" + repr(value) + "')"
    if kind in (list, tuple, set, frozenset):
        inner = ",".join(spell(item) for item in value)
        return kind.__name__ + "([" + inner + "])"
    if kind is dict:
        return "{" + ",".join(spell(key) + ":" + spell(item) for key, item in value.items()) + "}"
    if kind is range:
        return repr(value)
    raise Refused("a test passes a " + kind.__name__ + ", which is not plain data")


if __name__ == "__main__":
    main()
