"""A headless Chromium, driven over a pipe by its own protocol: no driver to install, no port to open."""

from __future__ import annotations

import base64
import functools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "chrome-headless-shell", "google-chrome", "google-chrome-stable")
MISSING = "no Chromium: apt-get install chromium, or name one in FLYWEIGHT_CHROMIUM"
PATIENCE = 60.0
"""Seconds before a page that does not do what is waited for fails the test."""


@functools.cache
def chromium() -> str | None:
    """The program, if there is one."""
    return os.environ.get("FLYWEIGHT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser with one page."""

    def __init__(self, *, width: int = 1280, height: int = 860, scale: float = 1.0) -> None:
        program = chromium()
        assert program is not None, MISSING
        self._folder = tempfile.TemporaryDirectory(prefix="flyweight-browser-", ignore_cleanup_errors=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        flags += ["--no-first-run", "--disable-extensions", "--disable-background-networking", "--mute-audio"]
        # The protocol is spoken on file descriptors 3 and 4 of the child.
        command = ["bash", "-c", 'exec 3<&"$0" 4>&"$1"; shift; exec "$@"', str(to_read), str(to_write), program]
        command += [*flags, "--remote-debugging-pipe", f"--user-data-dir={self._folder.name}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self._rest = b""
        self._id = 0
        self.events: list[dict[str, Any]] = []
        """What the page did since the last `open`: dialogs, requests, refusals of its policy, errors."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = ""
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height, scale)

    def resize(self, width: int, height: int, scale: float = 1.0) -> None:
        """The size of the window, in CSS pixels, and how many dots each has."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def dark(self, wanted: bool) -> None:
        """Whether the system prefers a dark page."""
        value = "dark" if wanted else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def open(self, url: str) -> None:
        """Go to the address and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until(lambda: any(event["method"] == "Page.loadEventFired" for event in self.events), "the page to load")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        said = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression in the page is true."""
        self.until(lambda: bool(self.run(f"!!({script})")), script)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Strike a key, as KeyboardEvent names it."""
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                text=text if kind == "keyDown" else "",
                modifiers=8 * shift,
            )

    def click(self, selector: str) -> None:
        """Click the first element of that kind."""
        self.run(
            f"document.querySelector({json.dumps(selector)}).dispatchEvent(new MouseEvent('click',{{bubbles:true}}))"
        )

    def write(self, selector: str, text: str) -> None:
        """Write into a field."""
        self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(text)};"
            " e.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.run("document.body.innerText"))

    def picture(
        self, path: Path, *, whole: bool = False, clip: tuple[float, float, float, float] | None = None
    ) -> None:
        """Write what is seen to a PNG; `clip` is x, y, width, height."""
        area = (
            {} if clip is None else {"clip": dict(zip(("x", "y", "width", "height"), clip, strict=True)) | {"scale": 1}}
        )
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **area)
        path.write_bytes(base64.b64decode(shot["data"]))

    def of(self, method: str) -> list[dict[str, Any]]:
        """What happened of one kind, such as Network.requestWillBeSent."""
        return [event["params"] for event in self.events if event["method"] == method]

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait, hearing what the page does."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, f"waited in vain for {what}"
            self._hear(0.05)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, to the page."""
        return self._call(method, session=self._session, **params)

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(20)
        for pipe in (self._read, self._write):
            os.close(pipe)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, *, session: str = "", **params: Any) -> dict[str, Any]:
        self._id += 1
        mine = self._id
        message = {"id": mine, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for said in self._hear(0.5):
                if said.get("id") == mine:
                    assert "error" not in said, f"{method}: {said['error']}"
                    result: dict[str, Any] = said["result"]
                    return result
        raise AssertionError(f"the browser did not answer {method}")

    def _hear(self, seconds: float) -> list[dict[str, Any]]:
        """Messages that came; events are kept, and a dialog is noted and closed."""
        if select.select([self._read], [], [], seconds)[0]:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser is gone"
            self._rest += data
        *whole, self._rest = self._rest.split(b"\0")
        messages = [json.loads(each) for each in whole]
        for said in messages:
            if "method" in said:
                self.events.append(said)
                if said["method"] == "Page.javascriptDialogOpening":
                    closing = {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": False}}
                    os.write(self._write, json.dumps(closing | {"sessionId": self._session}).encode() + b"\0")
        return messages
