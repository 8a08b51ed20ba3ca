"""Make `.venv` ready for `make demo` and `make test`: create it, install this checkout, show what takes long.

    python scripts/bootstrap.py local,dev    # extras of pyproject.toml, at the versions of constraints.txt

The package index has the engine, llama-cpp-python, only as source. FLYWEIGHT_WHEEL says where it comes from:
`auto` (the default), `prebuilt` (its maintainer's wheel or nothing) or `build` (never that wheel); see `provide`.
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
WHEELS = "https://abetlen.github.io/llama-cpp-python/whl/cpu/llama-cpp-python/"
"""Where the engine's maintainer publishes built wheels, by the project's README."""
PATIENCE = 3.0
"""Seconds this page has to answer; a machine that cannot reach it loses no more."""
WISHES = ("auto", "prebuilt", "build")
FAST = {"AVX2", "DOTPROD"}
"""An engine that uses neither does the same work several times slower (x86-64 and Arm)."""
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
    """Reads the lines of `pip install --verbose` and knows in a few words what pip is doing.

    `why` says why no wheel of the engine is at hand, where that was found out: what pip finds then is news.
    """

    def __init__(self, why: str = "") -> None:
        self.why = why
        self.now = "installing"
        self.building = False
        self.news = ""
        """Something worth a line of its own, said once."""

    def read(self, line: str) -> None:
        """Take in one line of pip's output."""
        text = line.strip()
        wheel = re.match(r"(?:Using cached|Downloading|Processing) (\S*llama[-_]cpp[-_]python-\S*\.whl)", text)
        if wheel and self.why:
            self.news = f"{label()}: {os.path.basename(wheel[1])} of the package index"
        elif text.startswith(f"Building wheel for {ENGINE}") and not self.building:
            self.building = True
            self.now = f"compiling {label()}"
            because = f"; {self.why}" if self.why else ""
            self.news = f"{label()}: compiling (about 5 minutes on 2 cores, kept for next time{because})"
        elif self.building:
            step = re.match(r"\[(\d+)/(\d+)\]", text)
            if step:
                self.now = f"compiling {label()}, step {step[1]} of {step[2]}"
            elif text.startswith("Created wheel for"):
                self.building, self.now = False, "installing"
        elif text.startswith(("Collecting ", "Downloading ", "Using cached ")):
            self.now = "installing: " + text.split()[1]
        elif text.startswith("Installing collected packages"):
            self.now = "installing: unpacking"


def main(extras: set[str]) -> None:
    """Bring `.venv` up to date with `extras`. Raises Failure with one line when that is impossible."""
    check_python()
    wish()
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
        extras = set(stamp["extras"])
        as_wished = "local" not in extras or wish() in ("auto", origin(venv))
        if stamp["fingerprint"] == fingerprint() and (venv / "bin" / "python").exists() and as_wished:
            return extras
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
    why = provide(venv, log, display) if "local" in extras else ""
    target = "{}[{}]".format(ROOT, ",".join(sorted(extras)))
    source = [f"--no-binary={ENGINE}"] if wish() == "build" else []
    run([*pip_install(venv), *source, "-e", target], log, display, "installing", why)
    stamp.write_text(json.dumps({"fingerprint": fingerprint(), "extras": sorted(extras)}), "utf-8")
    unfinished.unlink()
    display.say("environment ready in {}:{:02d}".format(*divmod(int(time.monotonic() - display.started), 60)))


def pip_install(venv: Path) -> list[str]:
    """The command that installs into the environment, but for what."""
    options = ["--verbose", "--progress-bar=off", "--no-input", "--disable-pip-version-check"]
    return [str(venv / "bin" / "python"), "-m", "pip", "install", *options, "-c", str(ROOT / "constraints.txt")]


def wish() -> str:
    """What FLYWEIGHT_WHEEL asks for."""
    value = os.environ.get("FLYWEIGHT_WHEEL") or "auto"
    if value not in WISHES:
        raise Failure("FLYWEIGHT_WHEEL is {!r}; it can be {}".format(value, ", ".join(WISHES)))
    return value


def pinned() -> str:
    """The engine's version in constraints.txt."""
    line = re.search(r"^llama[-_]cpp[-_]python==(\S+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    if line is None:
        raise Failure(f"constraints.txt does not pin {ENGINE}")
    return line[1]


def label() -> str:
    return f"{ENGINE} {pinned()}"


def origin(venv: Path) -> str:
    """How the engine in the environment was made, `prebuilt` or `build`; empty if it is not the pinned one."""
    for info in venv.glob(f"lib/python*/site-packages/llama_cpp_python-{pinned()}.dist-info"):
        try:  # only the prebuilt one is installed from an address
            url = str(json.loads((info / "direct_url.json").read_text("utf-8"))["url"])
        except (OSError, ValueError, KeyError, TypeError):
            url = ""
        return "prebuilt" if url.startswith("http") else "build"
    return ""


def provide(venv: Path, log: Path, display: Display) -> str:
    """Install the engine from a wheel if there is a good one. Returns why not, empty if it is there now.

    A wheel compiled on this machine earlier comes first. Then the maintainer's, which is compiled for AVX2, FMA,
    F16C and BMI2 on x86-64 (ggml's choice for GGML_NATIVE=off), for the M1 on macOS, and for plain Armv8 on Linux:
    it is tried, not trusted. With AVX2 it is the better default even where a compiler is at hand: a newcomer waits
    seconds instead of five minutes, and who wants AVX-512 and bf16 instructions in it can have them later with
    FLYWEIGHT_WHEEL=build. Without AVX2 or its like it is several times slower, which no first impression is worth:
    then only a machine without a compiler keeps it.
    """
    python = str(venv / "bin" / "python")
    if origin(venv):
        if wish() in ("auto", origin(venv)):
            return ""
        remove(venv, log, display)
    display.status(f"looking for a wheel of {label()}")
    if wish() != "prebuilt":
        kept = output([python, "-m", "pip", "cache", "list", "llama_cpp_python", "--format=abspath"], 60)[0]
        wheel, _ = find(venv, [line for line in kept.splitlines() if line.endswith(".whl")], 60)
        if wheel:
            display.say(f"{label()}: cached build {os.path.basename(wheel)}")
            run([*pip_install(venv), wheel], log, display, f"installing {label()}")
            return ""
    if wish() == "build":
        return "as FLYWEIGHT_WHEEL asks"
    wheel, why = find(venv, [WHEELS], PATIENCE)
    if wheel:
        display.say("{}: prebuilt wheel {}".format(label(), os.path.basename(wheel.partition("#")[0])))
        try:
            run([*pip_install(venv), "--retries=1", wheel], log, display, f"installing {label()}")
            why = flaw(venv)
        except Failure as failure:
            why = str(failure).partition(" (everything")[0]
        if not why:
            return ""
        if origin(venv):
            remove(venv, log, display)
    if wish() == "prebuilt":
        raise Failure(f"FLYWEIGHT_WHEEL=prebuilt, but there is no prebuilt wheel of {label()} to use: {why}")
    return f"no prebuilt wheel: {why}"


def find(venv: Path, sources: list[str], seconds: float) -> tuple[str, str]:
    """The wheel among the sources that fits the environment best, or empty and why there is none."""
    if not sources:
        return "", "none"
    script = str(Path(__file__).resolve().parent / "find_wheel.py")
    printed, why = output([str(venv / "bin" / "python"), script, ENGINE, pinned(), *sources], seconds)
    return printed.strip(), why


def flaw(venv: Path) -> str:
    """What speaks against the prebuilt engine in the environment, empty if nothing does."""
    code = "import llama_cpp; llama_cpp.llama_backend_init(); print(llama_cpp.llama_print_system_info().decode())"
    printed, why = output([str(venv / "bin" / "python"), "-c", code], 60)
    if why:
        return f"it does not run here ({why})"
    uses = set(re.findall(r"(\w+) = 1", printed))
    lacking = [name for name in ("AVX", "AVX2", "BMI2", "F16C", "FMA") if name in uses and name.lower() not in flags()]
    if flags() and lacking:
        return "it needs {}, which this processor lacks".format(", ".join(lacking))
    if not uses & FAST and wish() == "auto" and compiler():
        return "it is a slow one, without {}".format(" or ".join(sorted(FAST)))
    return ""


def flags() -> set[str]:
    """Instruction sets of this processor, empty where Linux does not list them."""
    try:
        line = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return set()
    return set(line[1].split()) if line else set()


def compiler() -> bool:
    return any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS)))


def remove(venv: Path, log: Path, display: Display) -> None:
    """Take the engine out of the environment."""
    run([str(venv / "bin" / "python"), "-m", "pip", "uninstall", "-y", ENGINE], log, display, f"removing {ENGINE}")


def output(command: list[str], seconds: float) -> tuple[str, str]:
    """What a command prints, and in a few words what went wrong, empty if nothing did."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "", f"no answer within {seconds:g} s"
    if done.returncode == 0:
        return done.stdout, ""
    return "", (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1][:160]


def usable(venv: Path) -> bool:
    """Whether the environment runs, belongs to this place and this Python version, and has pip."""
    probe = "import pip, sys; print(sys.prefix, *sys.version_info[:2])"
    try:
        done = subprocess.run([str(venv / "bin" / "python"), "-c", probe], capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.split("\n")[0] == "{} {} {}".format(venv, *sys.version_info[:2])


def run(command: list[str], log: Path, display: Display, what: str, why: str = "") -> None:
    """Run one step: all it prints goes to `log`, a digest of it to the display. Raises Failure.

    `why` is told beside what pip does about the engine itself.
    """
    progress = Progress(why)
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
                if progress.building and not compiler():
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
