"""`make demo` and `make test` prepare their own environment, and say in one line what stops them."""

from __future__ import annotations

import ast
import errno
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "bootstrap.py"

PIP = """\
Collecting typer>=0.29 (from flyweight==0.1.0)
  Downloading typer-0.29.2-py3-none-any.whl (58 kB)
Collecting llama-cpp-python>=0.3.36 (from flyweight==0.1.0)
  Using cached llama_cpp_python-0.3.36.tar.gz (60.3 MB)
Processing ./diskcache-5.6.3-py3-none-any.whl (from llama-cpp-python>=0.3.36->flyweight==0.1.0)
Building wheels for collected packages: llama-cpp-python
  Building wheel for llama-cpp-python (pyproject.toml): started
  *** Building project with Ninja...
  [1/173] Building C object vendor/llama.cpp/ggml/src/ggml.c.o
  [12/173] Building CXX object vendor/llama.cpp/src/llama.cpp.o
  Created wheel for llama-cpp-python: filename=llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl
Installing collected packages: typer, llama-cpp-python
"""


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, at work on a copy of the project files."""
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "WHEELS", (tmp_path / "nowhere").as_uri())
    monkeypatch.delenv("FLYWEIGHT_WHEEL", raising=False)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return module


@pytest.fixture
def steps(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replaces the two slow steps: making an environment leaves a Python there, installing does nothing."""
    done: list[list[str]] = []

    def run(command: list[str], log: Path, display: object, what: str, why: str = "") -> None:
        done.append(command)
        python = log.parent / "bin" / "python"
        python.parent.mkdir(exist_ok=True)
        # What `usable` asks of an environment: its place and version.
        python.write_text("#!/bin/sh\necho {} {} {}\n".format(log.parent, *sys.version_info[:2]))
        python.chmod(0o755)

    monkeypatch.setattr(bootstrap, "run", run)
    monkeypatch.setattr(bootstrap, "output", lambda command, seconds: ("", "no wheel"))
    return done


def kinds(steps: list[list[str]]) -> list[str]:
    """`venv` or the extras installed, per step."""
    return ["venv" if "venv" in step else step[-1].split("[")[1].rstrip("]") for step in steps]


def test_installs_once_and_remembers(bootstrap: ModuleType, steps: list[list[str]], tmp_path: Path) -> None:
    bootstrap.main({"local"})
    bootstrap.main({"local"})
    assert kinds(steps) == ["venv", "local"]
    bootstrap.main({"local", "dev"})
    bootstrap.main({"local"})
    assert kinds(steps)[2:] == ["dev,local"]
    with (tmp_path / "constraints.txt").open("a") as stream:
        stream.write("# changed\n")
    bootstrap.main({"local"})
    assert kinds(steps)[3:] == ["local"]


def test_an_environment_made_elsewhere_is_redone(bootstrap: ModuleType, steps: list[list[str]], tmp_path: Path) -> None:
    bootstrap.main({"local"})
    python = tmp_path / ".venv" / "bin" / "python"
    (tmp_path / ".venv" / "bootstrap.json").unlink()
    python.write_text("#!/bin/sh\necho /elsewhere 3 11\n")
    bootstrap.main({"local"})
    assert kinds(steps) == ["venv", "local"] * 2


@pytest.mark.parametrize("step", [0, 1])
def test_interrupted_setup_is_redone_from_scratch(
    bootstrap: ModuleType, steps: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    complete: Callable[..., None] = bootstrap.run

    def interrupted(*arguments: object) -> None:
        if len(steps) == step:
            (tmp_path / ".venv" / "rubbish").touch()
            raise KeyboardInterrupt
        complete(*arguments)

    monkeypatch.setattr(bootstrap, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.main({"local"})
    monkeypatch.setattr(bootstrap, "run", complete)
    steps.clear()
    bootstrap.main({"local"})
    assert kinds(steps) == ["venv", "local"] and not (tmp_path / ".venv" / "rubbish").exists()
    assert json.loads((tmp_path / ".venv" / "bootstrap.json").read_text())["extras"] == ["local"]


def test_progress_follows_pip(bootstrap: ModuleType) -> None:
    progress = bootstrap.Progress("no answer within 3 s")
    shown, news = [], []
    for line in PIP.splitlines():
        progress.read(line)
        shown.append(progress.now)
        if progress.news:
            news.append(progress.news)
            progress.news = ""
    assert shown[1] == "installing: typer-0.29.2-py3-none-any.whl"
    assert shown[9] == "compiling llama-cpp-python 0.3.36, step 12 of 173"
    assert shown[-1] == "installing: unpacking"
    told = "llama-cpp-python 0.3.36: compiling (about 5 minutes on 2 cores, kept for next time; no answer within 3 s)"
    assert news == [told]


@pytest.mark.parametrize("how", ["Using cached ", "Downloading ", "Processing ./"])
def test_a_wheel_that_pip_finds_by_itself_is_announced(bootstrap: ModuleType, how: str) -> None:
    line = f"  {how}llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    expected, known = bootstrap.Progress(), bootstrap.Progress("no answer within 3 s")
    for progress in (expected, known):
        progress.read(line)
    assert expected.news == ""
    name = "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    assert known.news == f"llama-cpp-python 0.3.36: {name} of the package index"


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("x\nERROR: Could not install: [Errno 28] No space left on device: '/x'", "is full"),
        ("cc1plus: fatal error: error writing to /x: No space left on device\nERROR: Failed", "is full"),
        ("WARNING: Retrying (Retry(total=4))\nERROR: No matching distribution found for typer", "cannot be reached"),
        (
            "ERROR: Cannot install a and b\nERROR: ResolutionImpossible",
            "the installation failed: Cannot install a and b",
        ),
        (
            "src/x.cpp:1:2: error: no such header\nERROR: Failed building wheel for llama-cpp-python",
            "building llama-cpp-python failed: no such header",
        ),
        ("", "no reason given"),
    ],
)
def test_failures_are_explained_in_one_line(bootstrap: ModuleType, tmp_path: Path, output: str, line: str) -> None:
    message = bootstrap.explain(output, tmp_path / "bootstrap.log")
    assert line in message and "\n" not in message
    assert str(tmp_path) in message or line == "cannot be reached"


def test_a_failing_step_names_its_log(bootstrap: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "bootstrap.log"
    code = "import sys; print('ERROR: it broke'); sys.exit(3)"
    with pytest.raises(bootstrap.Failure, match=r"failed: it broke \(everything it printed: .*bootstrap\.log\)"):
        bootstrap.run([sys.executable, "-c", code], log, bootstrap.Display(), "trying")
    assert log.read_text() == "ERROR: it broke\n"


def test_missing_compiler_ends_the_build_at_once(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    code = "import time; print('Building wheel for llama-cpp-python: started', flush=True); time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(bootstrap.Failure, match=r"no C\+\+ compiler .*apt install g\+\+"):
        bootstrap.run([sys.executable, "-c", code], tmp_path / "log", bootstrap.Display(), "trying")
    assert time.monotonic() - started < 30


def test_old_python_and_missing_venv_are_named(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        bootstrap.Failure, match=r"cannot make environments \(Debian, Ubuntu: apt install python3\.\d+-venv"
    ):
        bootstrap.main({"local"})
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(bootstrap.Failure, match=r"needs Python 3\.11 or newer, and .* is 3\.9"):
        bootstrap.main({"local"})


def test_an_old_python_can_read_the_script() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_disk_errors_are_one_line(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code), str(tmp_path / ".venv"))

    monkeypatch.setattr(bootstrap, "install", fail)
    expected = "is full" if code == errno.ENOSPC else r"cannot set up .*\.venv: Permission denied"
    with pytest.raises(bootstrap.Failure, match=expected):
        bootstrap.main({"local"})


def test_display_is_quiet_without_a_terminal(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    display = bootstrap.Display(every=1000)
    for _ in range(50):
        display.status("installing")
    display.say("done")
    assert stream.getvalue() == "installing (0:00)\ndone\n"


def test_termination_ends_the_children_too(tmp_path: Path) -> None:
    """Ctrl-C and kill leave no compiler behind and no traceback on the screen."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    pids = tmp_path / "pids"
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text(f"import os, time; open({str(pids)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    code = (  # the real script, with a sleeping child in place of `python -m venv`
        "import runpy, subprocess, sys; start = subprocess.Popen\n"
        "def popen(command, **options):\n"
        f"    step = [sys.executable, {str(sleeper)!r}] if options.get('start_new_session') else command\n"
        "    return start(step, **options)\n"
        "subprocess.Popen = popen; sys.argv = ['bootstrap.py', 'local']\n"
        f"runpy.run_path({str(tmp_path / 'scripts' / 'bootstrap.py')!r}, run_name='__main__')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (pids.exists() and pids.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and errors.splitlines()[-1] == "interrupted; run it again to continue"
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids.read_text()), 0)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_says_that_there_is_no_python(tmp_path: Path) -> None:
    """Version managers leave commands on the PATH that exist and fail."""
    for name in ("make", "sh", "mkdir", "test", "echo"):
        found = shutil.which(name)
        if found:
            (tmp_path / name).symlink_to(found)
    for name in ("python3.12", "python3"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{name}: command not found' >&2\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    for target in ("demo", "test"):
        done = subprocess.run(["make", target], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert "needs Python 3.11 or newer, and there is none on the PATH" in line
