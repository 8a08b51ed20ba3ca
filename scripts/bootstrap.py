"""Make `.venv` ready for `make demo` and `make test`: create it, install this checkout, show what takes long.

    python scripts/bootstrap.py local,dev    # extras of pyproject.toml, at the versions of constraints.txt

Standard library only. Returns at once when nothing changed since the last time; whatever goes wrong ends in
one line, and what the steps printed is in `.venv/bootstrap.log`. Kept to the syntax of Python 3.7, so that an
old Python gets as far as that line too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOOR = (3, 11)
ENGINE = "llama-cpp-python"
COMPILERS = ("c++", "g++", "clang++")
FULL = "the disk of {} is full: the environment needs about 1 GB, building the engine another one; free some"
NO_COMPILER = (
    f"{ENGINE} has no built wheel for this machine, and there is no C++ compiler to build it "
    "(Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install)"
)
OFFLINE = "the package index cannot be reached; the first run needs a network, later ones do not"


class Failure(Exception):
    """One line for the user."""


class Display:
    """What is going on, on stderr: a line rewritten in place on a terminal, else a line now and then."""

    def __init__(self, every: float = 15.0) -> None:
        self.started = time.monotonic()
        self.every = every
        self.said = 0.0
        self.live = sys.stderr.isatty()

    def status(self, text: str) -> None:
        """Show `text` with the minutes and seconds since the start."""
        now = time.monotonic()
        seconds = int(now - self.started)
        line = "{} ({}:{:02d})".format(text, *divmod(seconds, 60))
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r\x1b[K" + line[:width])
            sys.stderr.flush()
        elif now - self.said >= self.every:
            self.said = now
            self.say(line)

    def say(self, text: str) -> None:
        """A line that stays."""
        sys.stderr.write(("\r\x1b[K" if self.live else "") + text + "\n")
        sys.stderr.flush()


class Progress:
    """Reads the lines of `pip install --verbose` and knows in a few words what pip is doing."""

    def __init__(self) -> None:
        self.now = "installing"
        self.building = False
        self.news = ""
        """Something worth a line of its own, said once."""

    def read(self, line: str) -> None:
        """Take in one line of pip's output."""
        text = line.strip()
        if re.match(r"(Using cached|Downloading|Processing) \S*llama[-_]cpp[-_]python-\S*\.whl", text):
            self.news = f"{ENGINE}: a built wheel is at hand, nothing to compile"
        elif text.startswith(f"Building wheel for {ENGINE}") and not self.building:
            self.building = True
            self.now = f"building {ENGINE}"
            self.news = f"{ENGINE}: no built wheel, compiling it (about 5 minutes on 2 cores, kept for next time)"
        elif self.building:
            step = re.match(r"\[(\d+)/(\d+)\]", text)
            if step:
                self.now = f"building {ENGINE}, step {step[1]} of {step[2]}"
            elif text.startswith("Created wheel for"):
                self.building, self.now = False, "installing"
        elif text.startswith(("Collecting ", "Downloading ", "Using cached ")):
            self.now = "installing: " + text.split()[1]
        elif text.startswith("Installing collected packages"):
            self.now = "installing: unpacking"


def main(extras: set[str]) -> None:
    """Bring `.venv` up to date with `extras`. Raises Failure with one line when that is impossible."""
    check_python()
    venv = ROOT / ".venv"
    with (ROOT / "pyproject.toml").open() as lock:  # a second `make` waits here for the first
        fcntl.flock(lock, fcntl.LOCK_EX)
        have = installed(venv)
        if have is not None and extras <= have:
            return
        try:
            install(venv, extras | (have or set()))
        except OSError as error:
            if error.errno == 28 or crowded(ROOT):
                raise Failure(FULL.format(ROOT)) from error
            raise Failure(f"cannot set up {error.filename or venv}: {error.strerror}") from error


def check_python() -> None:
    """Raise Failure unless this Python can run Flyweight and make environments."""
    if sys.version_info < FLOOR:
        found = "{}.{}".format(*sys.version_info)
        raise Failure(f"Flyweight needs Python 3.11 or newer, and {sys.executable} is {found}")
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        package = "python{}.{}-venv".format(*sys.version_info)
        raise Failure(f"{sys.executable} cannot make environments (Debian, Ubuntu: apt install {package})")


def fingerprint() -> str:
    """Changes whenever an installed environment is out of date: other files, other place, other Python."""
    inputs = [(ROOT / name).read_text("utf-8") for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256("\0".join([*inputs, str(ROOT), sys.version]).encode()).hexdigest()


def installed(venv: Path) -> set[str] | None:
    """Extras the environment was completely installed with; None if missing, unfinished or out of date."""
    try:
        stamp = json.loads((venv / "bootstrap.json").read_text("utf-8"))
        if stamp["fingerprint"] == fingerprint() and (venv / "bin" / "python").exists():
            return set(stamp["extras"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def install(venv: Path, extras: set[str]) -> None:
    """Create the environment if it is missing or unfinished, then install into it."""
    display = Display()
    unfinished, stamp, log = venv / "unfinished", venv / "bootstrap.json", venv / "bootstrap.log"
    if unfinished.exists() or not usable(venv):
        display.status("creating .venv")
        shutil.rmtree(venv, ignore_errors=True)
        venv.mkdir()
        unfinished.touch()
        log.touch()
        run([sys.executable, "-m", "venv", str(venv)], log, display, "creating .venv")
    unfinished.touch()
    if stamp.exists():
        stamp.unlink()
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--verbose", "--progress-bar=off"]
    options = ["--no-input", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
    target = "{}[{}]".format(ROOT, ",".join(sorted(extras)))
    run([*pip, *options, "-e", target], log, display, "installing")
    stamp.write_text(json.dumps({"fingerprint": fingerprint(), "extras": sorted(extras)}), "utf-8")
    unfinished.unlink()
    display.say("environment ready in {}:{:02d}".format(*divmod(int(time.monotonic() - display.started), 60)))


def usable(venv: Path) -> bool:
    """Whether the environment runs, belongs to this place and this Python version, and has pip."""
    probe = "import pip, sys; print(sys.prefix, *sys.version_info[:2])"
    try:
        done = subprocess.run([str(venv / "bin" / "python"), "-c", probe], capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.split("\n")[0] == "{} {} {}".format(venv, *sys.version_info[:2])


def run(command: list[str], log: Path, display: Display, what: str) -> None:
    """Run one step: all it prints goes to `log`, a digest of it to the display. Raises Failure."""
    progress = Progress()
    progress.now = what
    with log.open("a+", encoding="utf-8", errors="replace") as sink, log.open(errors="replace") as source:
        source.seek(0, os.SEEK_END)
        process = subprocess.Popen(  # its own group, so that Ctrl-C and failures end the compilers too
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
        output, pending = "", ""
        try:
            while True:
                running = process.poll() is None
                fresh = source.read()
                output += fresh
                *lines, pending = (pending + fresh).split("\n")
                for line in lines:
                    progress.read(line)
                if progress.news:
                    display.say(progress.news)
                    progress.news = ""
                if progress.building and not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
                    raise Failure(NO_COMPILER)
                if not running:
                    break
                display.status(progress.now)
                time.sleep(0.2)
        finally:
            end(process)
    if process.returncode:
        raise Failure(explain(output, log))


def end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that nothing of the step's process group goes on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def crowded(folder: Path) -> bool:
    """Whether the disk of `folder` has next to nothing left."""
    return shutil.disk_usage(folder).free < 50e6


def explain(output: str, log: Path) -> str:
    """The cause of a failed step in one line, read from what it printed."""
    if "No space left on device" in output or "Disk quota exceeded" in output or crowded(log.parent):
        return FULL.format(ROOT)
    if "Retrying (" in output and re.search("No matching distribution|Could not fetch|Max retries", output):
        return OFFLINE
    errors = re.findall(r"^.*?\b(?:ERROR|error|Error): *(.+)$", output, re.MULTILINE)
    where = f"building {ENGINE}" if f"Failed building wheel for {ENGINE}" in output else "the installation"
    first = errors[0].strip()[:160] if errors else "no reason given"
    return f"{where} failed: {first} (everything it printed: {log})"


def stop(number: int, frame: object) -> None:
    """Let a termination end the step under way just as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        main(set(sys.argv[1].split(",")))
    except Failure as failure:
        Display().say(f"Error: {failure}")
        sys.exit(1)
    except KeyboardInterrupt:
        Display().say("interrupted; run it again to continue")
        sys.exit(130)
