"""Where `make demo` takes the engine from: pip's cache, its maintainer's page on a loopback server, or a compiler."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import io
import shutil
import socket
import sys
import sysconfig
import threading
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pip
import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSION = "0.3.36"
PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")
FAST = "CPU : SSE3 = 1 | AVX2 = 1 | DOTPROD = 1 | OPENMP = 1 |"
Page = Callable[[str], str]


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script at work on a copy of the project files: no index, no cache, no settings of this machine's pip."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "WHEELS", (tmp_path / "nowhere").as_uri())
    monkeypatch.setattr(module, "flags", lambda: {"avx2"})
    monkeypatch.setattr(module, "compiler", lambda: True)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    (tmp_path / "constraints.txt").write_text(f"llama_cpp_python=={VERSION}\n")
    for name in ("FLYWEIGHT_WHEEL", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    settings = {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "CACHE_DIR": str(tmp_path / "cache"), "NO_COMPILE": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return module


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real environment of its own; it borrows this one's pip, which takes long to install."""
    venv.create(tmp_path / ".venv", symlinks=True, with_pip=False)
    (tmp_path / "borrowed").mkdir()
    (tmp_path / "borrowed" / "pip").symlink_to(Path(pip.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "borrowed"))
    return tmp_path / ".venv"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """Puts an index page into the folder served on loopback; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def put(html: str) -> str:
        (tmp_path / "index.html").write_text(html)
        return f"http://127.0.0.1:{server.server_port}/index.html"

    yield put
    server.shutdown()
    server.server_close()


def wheel(folder: Path, info: str = FAST, tag: str = "py3-none-any", version: str = VERSION) -> Path:
    """A dummy engine that says it was compiled with `info`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"llama_cpp_python-{version}-{tag}.whl"
    facts = f"llama_cpp_python-{version}.dist-info"
    files = {
        "llama_cpp/__init__.py": engine(info),
        f"{facts}/METADATA": f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {version}\n",
        f"{facts}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    files[f"{facts}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{facts}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def engine(info: str) -> str:
    return f"def llama_backend_init(): pass\ndef llama_print_system_info(): return {info.encode()!r}\n"


def link(path: Path, sha256: str = "") -> str:
    return f'<a href="{path.name}{"#sha256=" + sha256 if sha256 else ""}">{path.name}</a><br>\n'


def test_prebuilt_wheel_from_the_page_to_its_removal(
    bootstrap: ModuleType, home: Path, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log, display = tmp_path / "log", bootstrap.Display(every=1000)
    log.touch()
    file = wheel(tmp_path)
    # Altered on its way: refused, and nothing of it stays.
    monkeypatch.setattr(bootstrap, "WHEELS", page(link(file, "0" * 64)))
    why = bootstrap.provide(home, log, display)
    assert why.startswith("no prebuilt wheel: the installation failed: THESE PACKAGES DO NOT MATCH THE HASHES")
    assert bootstrap.origin(home) == ""
    # As published: installed, and kept from then on without another look.
    monkeypatch.setattr(bootstrap, "WHEELS", page(link(file, hashlib.sha256(file.read_bytes()).hexdigest())))
    assert bootstrap.provide(home, log, display) == ""
    assert bootstrap.origin(home) == "prebuilt"
    assert stream.getvalue().splitlines()[-1] == f"llama-cpp-python {VERSION}: prebuilt wheel {file.name}"
    with monkeypatch.context() as away:
        away.setattr(bootstrap, "find", lambda *arguments: pytest.fail("looked again"))
        assert bootstrap.provide(home, log, display) == ""
    # Another wish takes it out again.
    monkeypatch.setenv("FLYWEIGHT_WHEEL", "build")
    assert bootstrap.provide(home, log, display) == "as FLYWEIGHT_WHEEL asks"
    assert bootstrap.origin(home) == ""


def test_what_was_compiled_here_comes_first(
    bootstrap: ModuleType, home: Path, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "cache" / "wheels" / "aa" / "bb" / "cc" / ("d" * 56)
    built = wheel(kept, tag=f"py3-none-{PLATFORM}")
    wheel(kept, version="0.3.35")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(bootstrap, "WHEELS", page(link(wheel(tmp_path))))
    (tmp_path / "log").touch()
    assert bootstrap.provide(home, tmp_path / "log", bootstrap.Display(every=1000)) == ""
    assert bootstrap.origin(home) == "build"
    assert stream.getvalue().splitlines()[-1] == f"llama-cpp-python {VERSION}: cached build {built.name}"


@pytest.mark.parametrize(
    ("html", "why"),
    [
        (
            "<a href='llama_cpp_python-0.3.36-py3-none-nowhere_x86_64.whl'>",
            "none of 1 files is llama-cpp-python 0.3.36",
        ),
        ("<a href='llama_cpp_python-0.3.36-cp27-cp27m-any.whl'>", "none of 1 files"),
        ("<a href='llama_cpp_python-0.3.35-py3-none-any.whl'>", "none of 1 files"),
        ("<a href='llama_cpp_python-0.3.36+cu121-py3-none-any.whl'>", "none of 1 files"),
        ("<a href='other-0.3.36-py3-none-any.whl'><a href='llama_cpp_python-0.3.36.tar.gz'>", "none of 2 files"),
        ("<a href='file:///llama_cpp_python-0.3.36-py3-none-any.whl'>", "none of 0 files"),
        ("<<a href=\x00 <!-- <a <a href>\x7f&#x1F;<a href='%%%.whl'>", "none of"),
        ("", "none of 0 files"),
    ],
)
def test_a_page_without_a_fitting_wheel(bootstrap: ModuleType, home: Path, page: Page, html: str, why: str) -> None:
    wheel, said = bootstrap.find(home, [page(html)], 30)
    assert wheel == "" and said.startswith(why)


def test_the_best_of_several_wheels(bootstrap: ModuleType, home: Path, page: Page) -> None:
    own = f"cp3{sys.version_info[1]}-cp3{sys.version_info[1]}-{PLATFORM}"
    names = [f"llama_cpp_python-{VERSION}-{tag}.whl" for tag in ("py3-none-any", own, "py3-none-win_amd64")]
    wheel, why = bootstrap.find(home, [page("".join(f"<a href='/x/{name}#sha256=12'>" for name in names))], 30)
    assert wheel.endswith(f"/x/{names[1]}#sha256=12") and why == ""


def test_a_page_that_is_missing_silent_or_gone(
    bootstrap: ModuleType, home: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = page("")
    missing = bootstrap.find(home, [address.replace("index", "nothing")], 30)
    assert missing == ("", "127.0.0.1: HTTP Error 404: File not found")
    silent = socket.socket()  # accepts and never answers
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    slow = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    assert bootstrap.find(home, [slow], 0.4) == ("", "no answer within 0.4 s")
    silent.close()
    assert "refused" in bootstrap.find(home, [slow], 30)[1]


def test_an_engine_is_kept_only_if_it_runs_and_is_fast(
    bootstrap: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = next(home.glob("lib/python*/site-packages")) / "llama_cpp.py"

    def flaw(code: str) -> str:
        place.write_text(code)
        return str(bootstrap.flaw(home))

    assert flaw(engine(FAST)) == ""
    assert "libgomp" in flaw("raise OSError('libgomp.so.1: cannot open shared object file')")
    assert "ended with code -" in flaw("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert flaw(engine("CPU : AVX2 = 1 | FMA = 1 |")) == "it needs FMA, which this processor lacks"
    slow = engine("CPU : NEON = 1 |")
    assert flaw(slow) == "it is a slow one, without AVX2 or DOTPROD"
    monkeypatch.setattr(bootstrap, "compiler", lambda: False)
    assert flaw(slow) == ""
    monkeypatch.setattr(bootstrap, "flags", set)
    assert flaw(engine("CPU : AVX2 = 1 | FMA = 1 |")) == ""


def test_a_prebuilt_wheel_that_was_asked_for_and_is_not_there(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setenv("FLYWEIGHT_WHEEL", "prebuilt")
    monkeypatch.setattr(bootstrap, "find", lambda *arguments: ("", "no answer within 3 s"))
    with pytest.raises(bootstrap.Failure, match=r"no prebuilt wheel of llama-cpp-python 0\.3\.36 .*within 3 s"):
        bootstrap.provide(tmp_path / ".venv", tmp_path / "log", bootstrap.Display(every=1000))
    monkeypatch.setenv("FLYWEIGHT_WHEEL", "fast")
    with pytest.raises(bootstrap.Failure, match=r"is 'fast'; it can be auto, prebuilt, build"):
        bootstrap.main({"local"})


def test_another_wish_makes_an_environment_out_of_date(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    home = tmp_path / ".venv"
    facts = home / "lib" / "python3" / "site-packages" / f"llama_cpp_python-{VERSION}.dist-info"
    facts.mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "bin" / "python").touch()
    (home / "bootstrap.json").write_text(f'{{"fingerprint": "{bootstrap.fingerprint()}", "extras": ["local"]}}')
    for url, kind in (("https://example.org/x.whl", "prebuilt"), ("file:///cache/x.whl", "build")):
        (facts / "direct_url.json").write_text(f'{{"url": "{url}"}}')
        for wish in ("auto", "prebuilt", "build"):
            monkeypatch.setenv("FLYWEIGHT_WHEEL", wish)
            assert bootstrap.installed(home) == ({"local"} if wish in ("auto", kind) else None)
