"""What the repository promises about itself: public names, direction of imports, light start, no unsafe calls."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "flyweight"
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]

# What each part of the package may import from the others. A new part gets a line here; the order is that of the
# arrows in the design: a part sees only parts that stand above it.
ARROWS: dict[str, set[str]] = {
    "__main__": {"cli"},
    "types": set(),
    "errors": set(),
    "stats": {"errors"},
    "registry": {"errors"},
    "textfile": {"errors"},
    "spelling": {"errors"},
    "protocols": {"errors", "types"},
    "select": {"errors", "protocols", "types"},
    # Strategies speak to models through Search alone; code_agreement also runs programs.
    "strategies": {
        "answers",
        "errors",
        "protocols",
        "registry",
        "sandbox",
        "select",
        "spelling",
        "types",
        "verifiers",
    },
    "abstain": {"errors", "protocols", "select", "store", "strategies"},
    "calls": {"protocols", "types"},
    "candidates": {"abstain", "protocols", "select", "types"},
    "setting": {"abstain", "errors", "protocols", "types"},
    "live": {"calls", "candidates", "errors", "protocols", "setting", "types"},
    "reader": {"calls", "live", "protocols", "types"},
    "vocabulary": {"calls", "errors", "live", "protocols", "reader", "select", "types"},
    "trace": {"errors", "types"},
    "store": {"errors", "protocols", "trace", "types"},
    "report": {"bench", "errors", "protocols", "select", "stats", "store", "strategies", "tasks", "types"},
    "viewer": {"bench", "errors", "report", "stats", "store", "strategies", "trace", "types"},
    "runner": {"abstain", "calls", "errors", "live", "protocols", "setting", "types", "vocabulary"},
    "sandbox": {"errors", "textfile"},
    "answers": {"errors", "sandbox", "select", "types"},
    "fetch": {"errors"},
    "wire": {"errors"},
    "huggingface": {"errors"},
    "models": {"errors", "fetch", "types"},
    "policies": {"errors", "huggingface", "models", "protocols", "registry", "textfile", "types", "wire"},
    "verifiers": {
        "answers",
        "errors",
        "huggingface",
        "models",
        "policies",
        "protocols",
        "registry",
        "sandbox",
        "spelling",
        "textfile",
        "types",
        "wire",
    },
    "tasks": {"answers", "errors", "protocols", "registry", "sandbox", "textfile", "types"},
    "training": {"errors", "policies", "protocols", "runner", "stats", "types", "verifiers"},
}
ABOVE_ALL = {"cli", "server"}
"""Nothing may import these."""
SEE_EVERYTHING = {"api", "bench", "cli", "distributed", "optimal", "server", "testing"}

OPEN = ("abstain", "api", "errors", "models", "protocols", "runner", "select", "stats", "testing", "trace", "types")
PUBLIC = {name for name in NAMES if Path(name).parts[1].removesuffix(".py") in OPEN}
"""Modules whose every name is public or starts with an underscore; elsewhere `__all__` may leave helpers out."""

INSIDE = "flyweight/sandbox/inside.py"
"""Runs generated code, and is itself run inside the sandbox only: nothing imports it."""
UNSAFE_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
EXTRAS = {"peft", "ray", "scipy", "torch", "transformers", "vllm"}
HEAVY = ["httpx2", "jinja2", "llama_cpp", "numpy", "pydantic", "rich", "sympy", "torch", "typer"]


@cache
def tree(path: Path) -> ast.Module:
    """The parsed source."""
    return ast.parse(path.read_text("utf-8"), str(path))


def indexed(path: Path) -> set[str]:
    """The modules that the docstring of a package names."""
    return set(re.findall(r"\b\w+\.py\b", ast.get_docstring(tree(path)) or ""))


def part(name: str) -> str:
    """`flyweight.policies.llamacpp` → `policies`; the package itself is `__init__`."""
    return [*name.split("."), "__init__"][1]


def imported(module: ast.AST) -> set[str]:
    """Full names of the modules imported anywhere in the source, also inside functions."""
    names = set()
    # What a notebook shows is drawn by the viewer, loaded when a notebook asks: the one arrow that points back.
    shows = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == "_repr_html_"]
    drawn = {id(inner) for node in shows for inner in ast.walk(node)}
    for node in ast.walk(module):
        if id(node) in drawn:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            assert node.module is not None
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "flyweight" else {node.module}
            )
    return names


@pytest.mark.parametrize("name", NAMES)
def test_imports_follow_the_arrows(name: str) -> None:
    own = Path(name).relative_to("flyweight").parts[0].removesuffix(".py")
    ours = {part(found) for found in imported(tree(ROOT / name)) if found.split(".")[0] == "flyweight"} - {own}
    ours -= {found for found in ours if found.startswith("__version")}
    if own == "__init__":
        allowed = {"api", "errors", "types"}
    elif own in SEE_EVERYTHING:
        allowed = ours - (ABOVE_ALL if own not in ABOVE_ALL else set())
    else:
        assert own in ARROWS, f"{own}: say in tests/test_repository.py what this part of the package may import"
        allowed = ARROWS[own]
    assert ours <= allowed, f"{name} must not import {sorted(ours - allowed)}"


def test_arrows_have_no_cycle() -> None:
    remaining = dict(ARROWS)
    remaining.pop("__main__")
    while remaining:
        ready = {own for own, seen in remaining.items() if not seen & remaining.keys()}
        assert ready, f"cycle among {sorted(remaining)}"
        remaining = {own: seen for own, seen in remaining.items() if own not in ready}


def listed(module: ast.Module) -> list[str] | None:
    """The module's `__all__`."""
    for node in module.body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "__all__" for to in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_listed_exactly(name: str) -> None:
    module = tree(ROOT / name)
    names = listed(module)
    if names is None:
        assert name not in PUBLIC, "a public module lists its names in __all__"
        return
    assert names == sorted(set(names), key=lambda name: (kind(name), name.casefold(), name)), "sort __all__"
    if name not in PUBLIC:
        return
    public = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    unlisted = {found for found in public if not found.startswith("_")} - set(names)
    assert not unlisted, f"add to __all__, or give a leading underscore: {sorted(unlisted)}"


def kind(name: str) -> int:
    """Constants, then classes, then functions: the order in which ruff sorts names."""
    return 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2


def test_everything_listed_can_be_imported() -> None:
    import importlib

    for path in SOURCES:
        names = listed(tree(path))
        if names is None or path.name == "__main__.py":
            continue
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        try:
            module = importlib.import_module(dotted)
        except ModuleNotFoundError as missing:
            assert missing.name in EXTRAS, missing  # tests run without these extras too
            continue
        assert all(hasattr(module, name) for name in names), dotted


def test_import_is_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import flyweight; took = time.perf_counter() - start; "
        f"print([name for name in {HEAVY} if name in sys.modules], took < 5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"  # the seconds only guard against a hang; the modules are what costs


@pytest.mark.parametrize("name", NAMES)
def test_no_unsafe_calls_and_no_stubs(name: str) -> None:
    module = tree(ROOT / name)
    unsafe = {found for found in imported(module) if found.split(".")[0] in UNSAFE_MODULES}
    assert not unsafe, f"{name} imports {sorted(unsafe)}"
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert name == INSIDE or called not in {
                "eval",
                "exec",
                "builtins.eval",
                "builtins.exec",
                "yaml.load",
                "os.system",
                "os.popen",
            }
            shell = [keyword.value for keyword in node.keywords if keyword.arg == "shell"]
            assert all(isinstance(value, ast.Constant) and value.value is False for value in shell)
            if called == "torch.load":
                assert any(keyword.arg == "weights_only" for keyword in node.keywords)
        if isinstance(node, ast.Name):
            assert node.id != "NotImplementedError", f"{name}:{node.lineno}: a stub"


def test_core_dependencies_are_few_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    core = [re.split(r"[\[<>=! ]", entry)[0] for entry in project["dependencies"]]
    assert len(core) <= 8
    extras = project["optional-dependencies"]
    assert not any("litellm" in entry for entries in [core, *extras.values()] for entry in entries)
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    wanted = core + [re.split(r"[\[<>=! ]", entry)[0] for name in ("local", "math", "dev") for entry in extras[name]]
    assert set(wanted) - {"flyweight"} <= pinned


def test_ci_runs_the_documented_command() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert lines[-1] == "make test" and (ROOT / ".ci" / "run").stat().st_mode & 0o111


INDEXES = [path for path in SOURCES if path.name == "__init__.py" and indexed(path)]


@pytest.mark.parametrize(
    "path",
    INDEXES,
    ids=lambda path: str(path.parent.relative_to(ROOT)),
)
def test_an_index_of_modules_names_each_of_its_folder(path: Path) -> None:
    modules = {other.name for other in path.parent.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert indexed(path) == modules


def tracked() -> list[Path]:
    """The files under version control; the test is skipped where there is no checkout."""
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_paths_of_one_machine_are_tracked() -> None:
    machine = re.compile(rb"(?<![\w.])/(?:work|tmp|root|farm|home|Users)/[\w.-]+")
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content[:8000] and path.suffix not in {".svg", ".jsonl"}:
            found += [f"{path.relative_to(ROOT)}: {match[0].decode()}" for match in machine.finditer(content)]
    assert not found
