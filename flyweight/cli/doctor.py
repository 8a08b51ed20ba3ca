"""`flyweight doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flyweight.cli import doctor_endpoint, options, render
from flyweight.errors import ConfigError, FlyweightError

if TYPE_CHECKING:
    from importlib.metadata import Distribution

    from flyweight.verifiers.remote import Remote
    from flyweight.verifiers.trained import Trained

__all__ = ["Check", "examine", "register"]

HELP = """Check that the main job can run here; every line that fails says how to fix it.

\b
Examples:
  flyweight doctor
  flyweight doctor --verifier prm:math-shepherd@models/my-prm
  flyweight doctor --model openai:http://127.0.0.1:8000 --json | jq '.checks[] | select(.status != "ok")'

With --verifier the reward model is loaded, or asked where it is remote, and scores the right and the wrong solution of
its recipe's example. With --model openai:URL every endpoint is asked a few short things about what it can do.

Exit code 0 when the main job can run and the verifier tells right from wrong, else 3. The network is looked at only
with --network.
"""

PACKAGES = ("typer", "rich", "pydantic", "numpy", "jinja2", "httpx2", "jsonschema_rs")
FEATURES = [
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
]
"""Instruction sets that matter for speed, as /proc/cpuinfo spells them."""
MEMORY = 1.6e9
"""Bytes the main job needs: 0.5 GB of weights, 0.8 GB of KV for 32 slots, and Python."""
WHEELS = "https://abetlen.github.io/llama-cpp-python/whl/cpu"
"""The index of the engine's maintainer with built wheels; PyPI has its source."""
NATIVE = {"avx512f": "AVX512", "avx512_vnni": "AVX512_VNNI", "avx512_bf16": "AVX512_BF16", "amx_tile": "AMX_INT8"}
"""What a wheel built for every processor leaves out, as /proc/cpuinfo and as the engine spell it."""
TIMEOUT = 3.0
"""Seconds to wait for a server."""

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: Status
    """`fail` only where the main job, or the verifier named, cannot run; `warn` where something else would be slow or
    missing."""
    detail: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help=HELP, short_help="Check this machine; say how to fix what fails.")(doctor)


def doctor(
    network: Annotated[bool, typer.Option("--network", help="Also try the sources of models, 3 s each.")] = False,
    verifier: Annotated[
        str,
        typer.Option(
            "--verifier", help="Also try a reward model: prm:RECIPE@MODEL, reward:RECIPE@MODEL or remote:URL:api=..."
        ),
    ] = "",
    model: Annotated[str, typer.Option("--model", help="Also ask the endpoints of openai:URL[,URL...][#NAME].")] = "",
    json: options.Json = False,
) -> int:
    checks = []
    for check in examine(network, _named(verifier) if verifier else None, _endpoints(model) if model else None):
        checks.append(check)
        if not json:
            typer.echo(f"{check.status:<4}  {check.name:<15} {render.oneline(check.detail)}")
            if check.fix:
                typer.echo(f"{'':<22}fix: {render.oneline(check.fix)}")
    failed = {check.name for check in checks if check.status == "fail"}
    able = failed <= {"verifier", "endpoint"}
    if json:
        typer.echo(render.dumps({"able": able, "checks": [asdict(check) for check in checks]}))
    else:
        typer.echo("The main job can run." if able else "The main job cannot run yet.")
    return 3 if failed else 0


def examine(
    network: bool = False, verifier: Trained[Any, Any] | Remote | None = None, endpoints: str | None = None
) -> Iterator[Check]:
    """The checks, each as soon as it is done. None of them raises."""
    probes: list[Callable[[], Iterator[Check]]] = [
        _python,
        _packages,
        _engine,
        _kernels,
        _cpu,
        _compiler,
        _memory,
        _store,
        _worker,
        _sandbox,
    ]
    if network:
        probes.append(_network)
    for probe in probes:
        try:
            yield from probe()
        except Exception as error:
            yield Check(probe.__name__.strip("_"), "warn", f"cannot be checked: {type(error).__name__}: {error}")
    if endpoints is not None:
        yield from (Check(*finding) for finding in doctor_endpoint.findings(endpoints))
    if verifier is not None:
        yield _verifier(verifier)


def _python() -> Iterator[Check]:
    # An older Python than the oldest we run on would not have come this far.
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, version

    from flyweight import __version__

    found, missing = [f"flyweight {__version__}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Check("packages", "ok", ", ".join(found))


def _engine() -> Iterator[Check]:
    """The engine is imported in a child: a build for another processor would take this one down."""
    from importlib.metadata import PackageNotFoundError, distribution

    name = "llama-cpp-python"
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        fix = f"pip install 'flyweight[local]' --extra-index-url {WHEELS} (without its wheels it builds for minutes)"
        yield Check("engine", "fail", f"{name} is missing", fix)
        return
    built = _built(installed)
    code = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or [f"ended with code {child.returncode}"])[-1]
        fix = f"pip install --force-reinstall --no-cache-dir --no-binary {name} {name}"
        yield Check("engine", "fail", f"{name} {installed.version} ({built}) does not load: {reason}", fix)
        return
    uses = re.findall(r"(\w+) = 1", child.stdout.partition("CPU :")[2])
    detail = f"{name} {installed.version}, {built}; uses {' '.join(uses) or 'no special instructions'}"
    unused = [ours for theirs, ours in NATIVE.items() if theirs in _flags() and ours not in uses]
    if unused and built.startswith("prebuilt"):
        detail += f"; FLYWEIGHT_WHEEL=build make demo compiles one that also uses {' '.join(unused)}"
    if "avx2" in _flags() and "AVX2" not in uses:
        fix = f"pip install --force-reinstall --no-cache-dir --no-binary {name} {name} (several times faster)"
        yield Check("engine", "warn", f"{detail}; this processor could do AVX2", fix)
    else:
        yield Check("engine", "ok", detail)


def _kernels() -> Iterator[Check]:
    """Asked in a child, as they need the engine. Without them everything works, more slowly."""
    code = "from flyweight.policies.llamacpp.kernels import outlook; print(*map(str, outlook()), sep='\\n')"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    if child.returncode:
        return  # the engine's own line says why
    able, detail = child.stdout.strip().split("\n", 1)
    if able == "True":
        yield Check("kernels", "ok", detail)
    else:
        yield Check("kernels", "ok", f"llama.cpp's own, several times slower: {detail}")


def _built(installed: Distribution) -> str:
    """Where an installed engine was compiled, as pip wrote it down."""
    try:
        url = str(loads(installed.read_text("direct_url.json") or "{}").get("url", ""))
    except (ValueError, AttributeError):
        url = ""
    if url.startswith("http"):
        return f"prebuilt ({url.rpartition('/')[2]})"
    # Wheels made to be shared promise a libc; what pip compiles from source on Linux does not.
    tag = re.search(r"^Tag: .*(manylinux|musllinux)", installed.read_text("WHEEL") or "", re.MULTILINE)
    return f"prebuilt ({tag[1]})" if tag else "built here"


def _cpu() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    features = [feature for feature in FEATURES if feature in _flags()]
    yield Check("cpu", "ok", f"{cores} cores; {' '.join(features) or 'features unknown'}")


def _flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(line[1].split()) if line else set()


def _compiler() -> Iterator[Check]:
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    cmake = shutil.which("cmake")
    if compiler:
        detail = f"{compiler}, {cmake or 'cmake comes with the build'}"
        yield Check("compiler", "ok", detail)
    else:
        fix = "Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install"
        yield Check("compiler", "warn", "no C++ compiler; needed to build the engine and its kernels", fix)


def _memory() -> Iterator[Check]:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return
    line = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    if line is None:
        return
    free = int(line[1]) * 1024
    fix = "close other programs, or use a smaller --context" if free < MEMORY else ""
    yield Check("memory", "warn" if fix else "ok", f"{free / 1e9:.1f} GB free, {MEMORY / 1e9:.1f} needed", fix)


def _store() -> Iterator[Check]:
    """Space for models, and each model of the catalog."""
    from flyweight import models

    folder = models.store_dir()
    there = {entry.ref for entry in models.installed()}
    default = models.default()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    missing = 0 if default.name in there else default.bytes
    move = "set FLYWEIGHT_HOME to a folder on a larger disk that you can write to"
    if not os.access(existing, os.W_OK):
        yield Check("disk", "fail" if missing else "warn", f"{folder} cannot be written to", move)
    elif free < missing:
        yield Check("disk", "fail", f"{free / 1e9:.1f} GB free in {folder}, {missing / 1e9:.1f} needed", move)
    else:
        yield Check("disk", "ok", f"{free / 1e9:.1f} GB free in {folder}")
    for model in models.catalog().values():
        wanted = model.name == default.name
        name = "default model" if wanted else "model"
        pull = f"flyweight models pull {model.name}"
        if model.name not in there:
            status: Status = "fail" if wanted else "ok"
            yield Check(name, status, f"{model.name} is not pulled", pull if wanted else "")
            continue
        try:
            models.resolve(model.name)
            yield Check(name, "ok", f"{model.name} is there, sha256 {model.sha256[:12]} verified")
        except FlyweightError as error:
            yield Check(name, "fail" if wanted else "warn", str(error), pull)


def _worker() -> Iterator[Check]:
    """The symbolic worker has to start and to know that the root of 8 is twice the root of 2."""
    from flyweight import answers

    began = time.monotonic()
    verdict = answers.compare("\\sqrt{8}+x", "x+2\\sqrt{2}")
    if verdict.value == "equal":
        yield Check("maths", "ok", f"the symbolic worker answers ({time.monotonic() - began:.1f} s to start)")
    else:
        detail = f"no symbolic comparison: {verdict.reason or verdict.value}; numbers are compared without it"
        yield Check("maths", "warn", detail, "pip install 'flyweight[math]'")


def _sandbox() -> Iterator[Check]:
    from flyweight import sandbox

    try:
        yield Check("sandbox", "ok", sandbox.mechanism())
    except FlyweightError as error:
        fix = "only generated code needs it: apt install bubblewrap, or pip install 'flyweight[sandbox]'"
        yield Check("sandbox", "warn", str(error), fix)


def _network() -> Iterator[Check]:
    """The Hub by a request for one file's head, the package index through pip, which knows its mirror."""
    import httpx2

    from flyweight import models
    from flyweight.fetch import HUB

    proxy = "check the network and HTTPS_PROXY; models already pulled need no network"
    try:
        answer = httpx2.head(HUB, timeout=TIMEOUT)
        yield Check("hugging face", "ok", f"{HUB} answers ({answer.status_code})")
    except httpx2.HTTPError as error:
        yield Check("hugging face", "warn", f"{HUB}: {type(error).__name__}: {error}", proxy)
    wheels = (source for source in models.default().sources if isinstance(source, models.PyPI))
    package = next((wheel.requirement.format(k=1, i=0).partition("==")[0] for wheel in wheels), "pip")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "0"]
    command = [*pip, "--timeout", f"{TIMEOUT:.0f}", "index", "versions", package]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=4 * TIMEOUT, check=False)
        failed = child.returncode != 0
    except subprocess.TimeoutExpired:
        failed = True
    if failed:
        yield Check("package index", "warn", "pip finds no package there", proxy)
    else:
        yield Check("package index", "ok", f"pip finds {package}")


def _named(verifier: str) -> Trained[Any, Any] | Remote:
    from flyweight import verifiers
    from flyweight.verifiers.remote import Remote
    from flyweight.verifiers.trained import Trained

    found = verifiers.load(verifier)
    if not isinstance(found, Trained | Remote):
        raise ConfigError(
            f"--verifier {verifier} has no model of its own to try: prm:RECIPE@MODEL, reward:RECIPE@MODEL, remote:URL"
        )
    return found


def _endpoints(model: str) -> str:
    from flyweight.policies.openai.spec import parse

    if not model.startswith("openai:"):
        raise ConfigError(f"--model {model}: only endpoints are asked, openai:URL; local models are checked anyway")
    parse(model)
    return model


def _verifier(verifier: Trained[Any, Any] | Remote) -> Check:
    """The reward model has to like the right solution of its recipe's example better than the wrong one."""
    try:
        good, bad = verifier.example()
    except Exception as error:  # whatever the libraries that load it raise
        return Check("verifier", "fail", f"{verifier.name} cannot be tried: {type(error).__name__}: {error}")
    finally:
        verifier.close()
    if good > bad:
        return Check("verifier", "ok", f"{verifier.name}: a right solution {good:.3f} > a wrong one {bad:.3f}")
    detail = f"{verifier.name} has it the wrong way round: a right solution {good:.3f}, a wrong one {bad:.3f}"
    return Check("verifier", "fail", detail, "is the model the one that the recipe is for? see docs/prm.md")
