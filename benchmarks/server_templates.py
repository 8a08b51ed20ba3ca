"""M2: chat templates that attack whoever renders them, each in a process of its own.

python -m benchmarks.server templates
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.server_kit import Figures
from flyweight.errors import ModelError
from flyweight.policies.llamacpp.template import ChatTemplate
from flyweight.types import Message
from tests.template_payloads import HOSTILE

__all__ = ["templates"]

TURNS = (Message("system", "Be brief."), Message("user", "hi"))
HARMLESS = "{% for message in messages %}{{ message['content'] | trim }}{% endfor %}"
FAILING = "{{ raise_exception('no') }}"
WATCHED = ("ctypes.", "import", "open", "os.", "pty.", "shutil.", "socket.", "subprocess.")
"""What code that was let loose would do; Python tells of it before it is done."""


def templates(model: str) -> Figures:
    """M2: is each refused in a line, what did it run, what did it take?"""
    for source in (HARMLESS, FAILING):  # what Jinja loads when it is first used is not the attacker's doing
        with contextlib.suppress(ModelError):
            _render(source)
    found = [_attempt(partial(_render, source)) for source in HOSTILE.values()]
    control = _attempt(lambda: jinja2.Template(HOSTILE["cycler globals"]).render())
    refused, executions = (sum(each[key] for each in found) for key in ("refused", "executions"))
    seconds, mb = (max(each[key] for each in found) for key in ("seconds", "mb"))
    return {
        "templates": len(found),
        "refused_in_one_line": refused,
        "executions": executions,
        "executions_of_one_in_plain_jinja": control["executions"],
        "cpu_seconds_max": seconds,
        "mb_max": mb,
        "target": "30 or more, all refused, 0 executions, <= 1 s, <= 256 MB",
        "met": refused == len(found) >= 30 and executions == 0 and seconds <= 1 and mb <= 256,
    }


def _render(source: str) -> str:
    return ChatTemplate(source).render(TURNS)


def _attempt(render: Callable[[], str]) -> dict[str, Any]:
    """What came of one, told by the child that rendered it; one that died was not refused."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(theirs, json.dumps(_watched(render)).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as told:
        said = told.read()
    _, _, used = os.wait4(child, 0)
    lost = {"refused": False, "executions": 0, "seconds": round(used.ru_utime + used.ru_stime, 2), "mb": 0.0}
    return dict(json.loads(said)) if said else lost


def _watched(render: Callable[[], str]) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here, not with what the parent had
    before = _memory("VmRSS")
    executed: list[str] = []
    watching = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        # Jinja itself compiles a template to Python and executes that, once: all under a name of its own.
        foreign = event == "exec" and getattr(arguments[0], "co_filename", "") not in ("<template>", "<unknown>")
        if watching and (foreign or event.startswith(WATCHED)):
            executed.append(event)

    sys.addaudithook(hear)
    began = time.process_time()
    line = ""
    try:
        render()
    except ModelError as error:
        line = str(error)
    seconds = time.process_time() - began
    watching = False
    return {
        "refused": 0 < len(line) < 400 and "\n" not in line,
        "executions": len(executed),
        "seconds": round(seconds, 2),
        "mb": round(_memory("VmHWM") - before, 1),
    }


def _memory(key: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{key}:"))) / 1024
