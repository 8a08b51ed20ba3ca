"""How fast this machine runs a model, and in how much memory: a short measurement, kept for the next time.

    python -m flyweight.optimal.speed MODEL.gguf packed 32     # one engine's figures, as JSON

The engine itself is measured, on real questions, in a process of its own: drawing, bookkeeping and drafts included.
Seconds depend on the rows decoded together and on the tokens in front of them, so both are varied; everything between
is interpolated. The figures are kept by model file, form of the weights, processor, threads and versions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import flyweight
from flyweight.errors import ConfigError, ModelError

__all__ = ["Machine", "Speed", "forget", "forms", "known", "measure", "scaled"]

MEASURED = "measured here"
VERSION = 1
"""Of this measurement: figures of another one are not taken over."""
ENGINES = {2: (1, 2), 32: (4, 8, 16, 32)}
"""Slots of the engines measured, and the rows decoded in each."""
CONTEXT = 1024
LONG = 1400
"""Characters of the longer prompt: some 400 tokens."""
STEPS = 40
FEWEST = 6
SECONDS = 1.2
"""Time for one point, beyond the fewest steps."""
DRAFTING = {1: 240, 2: 120}
"""Tokens by rows where the engine drafts, however long they take: how well that goes shows only in a longer text."""
LIMIT = 600.0
BUSY = 0.5
"""Other work per CPU beyond which a measurement says little about the machine."""


@dataclass(frozen=True)
class Speed:
    """One model in one form on one machine."""

    parameters: float
    kv_bytes: float
    """Of one token."""
    points: tuple[tuple[int, float, float], ...]
    """(rows, tokens in front of them, seconds a token of every row takes)."""
    prefill: tuple[float, float]
    """Seconds of any prompt, and of each of its tokens."""
    memory: tuple[tuple[int, int, float], ...]
    """(slots, context, bytes held at most)."""
    note: str = MEASURED

    def step(self, rows: float, behind: float) -> float:
        """Seconds in which each of `rows` draws a token, with `behind` tokens in front."""
        by_rows: dict[int, list[tuple[float, float]]] = {}
        for points, context, seconds in self.points:
            by_rows.setdefault(points, []).append((context, seconds))
        line = [(float(rows), _between(sorted(points), behind)) for rows, points in sorted(by_rows.items())]
        return _between(line, rows, flat=rows < line[0][0])

    def prompt(self, tokens: float) -> float:
        """Seconds of computing so many tokens."""
        return self.prefill[0] + self.prefill[1] * tokens if tokens else 0.0

    def resident(self, slots: int, context: int) -> float:
        """Bytes of a process that holds the model with so many slots of so many tokens, nothing parked."""
        fixed = sorted((float(s), held - s * c * self.kv_bytes) for s, c, held in self.memory)
        return _between(fixed, slots) + slots * context * self.kv_bytes

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Speed:
        """The opposite."""
        points = tuple((int(rows), float(behind), float(seconds)) for rows, behind, seconds in facts["points"])
        memory = tuple((int(slots), int(context), float(held)) for slots, context, held in facts["memory"])
        fixed, each = facts["prefill"]
        return cls(facts["parameters"], facts["kv_bytes"], points, (fixed, each), memory, facts["note"])


def _between(line: Sequence[tuple[float, float]], at: float, *, flat: bool = False) -> float:
    """The line through the points at a place: straight between two, the last slope goes on; never falling outside."""
    if len(line) == 1 or flat:
        return line[0][1]
    right = next((i for i, (x, _) in enumerate(line) if x >= at), len(line) - 1)
    (x0, y0), (x1, y1) = line[max(0, right - 1)], line[max(1, right)]
    if at > x1 or at < x0:
        # Noise must not make more work cheaper.
        return y1 + max(0.0, (y1 - y0) / (x1 - x0)) * (at - x1) if at > x1 else min(y0, y1)
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def scaled(speed: Speed, parameters: float, kv_bytes: float, size: float, name: str) -> Speed:
    """A guess for a model that is not here, from one of another size: seconds and bytes in proportion to parameters.

    `size`: bytes of its file, 0 where nobody says.
    """
    times = parameters / speed.parameters
    held = [(slots, context, bytes - slots * context * speed.kv_bytes) for slots, context, bytes in speed.memory]
    base = min(rest for _, _, rest in held)
    weights = max(size, base * times)
    return replace(
        speed,
        parameters=parameters,
        kv_bytes=kv_bytes,
        points=tuple((rows, behind, seconds * times) for rows, behind, seconds in speed.points),
        prefill=(speed.prefill[0], speed.prefill[1] * times),
        memory=tuple((s, c, rest - base + weights + s * c * kv_bytes) for s, c, rest in held),
        note=f"estimated from {name}, in proportion to the parameters",
    )


# Measuring ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What figures belong to besides the model."""

    cpu: str
    threads: int
    engine: str

    @classmethod
    def here(cls) -> Machine:
        """This one. ConfigError without the embedded engine."""
        from importlib.metadata import version

        from flyweight.policies.llamacpp import machine

        engine = f"llama-cpp-python {version('llama-cpp-python')}, flyweight {flyweight.__version__}"
        return cls(machine.cpu_name(), machine.default_threads(), engine)


def forms() -> tuple[str, ...]:
    """Forms of the weights worth comparing here: the file as it is, and unpacked for our kernels or as bf16."""
    from flyweight.policies.llamacpp.kernels import Kernels, kernels

    return ("packed", "file") if isinstance(kernels(), Kernels) else ("file", "bf16")


def known(path: Path, form: str) -> Speed | None:
    """What was measured of a file earlier; None if nothing was."""
    try:
        return Speed.from_dict(_table()[_key(path, form)])
    except (KeyError, TypeError, ValueError):  # never measured, or somebody wrote into the record
        return None


def measure(path: Path, form: str, tell: Callable[[str], None] = lambda line: None) -> Speed:
    """The speed of a model in a form, measured now unless it is known. Raises ModelError if it does not run here."""
    found = known(path, form)
    if found is not None:
        return found
    if (load := os.getloadavg()[0]) > BUSY * (os.cpu_count() or 1):
        tell(f"this machine is busy (load {load:.1f}): what is measured now is too slow; --fresh measures again")
    parts = []
    for number, slots in enumerate(ENGINES, 1):
        tell(f"measuring {path.stem}, {form} ({number} of {len(ENGINES)})")
        parts.append(_child(path, form, slots))
    prompts = [point for part in parts for point in part["prompts"]]
    speed = Speed(
        parts[0]["parameters"],
        parts[0]["kv_bytes"],
        tuple(sorted((int(r), float(b), float(s)) for part in parts for r, b, s in part["points"])),
        _fitted([(float(tokens), float(seconds)) for tokens, seconds in prompts]),
        tuple((int(part["slots"]), int(part["context"]), float(part["memory"])) for part in parts),
    )
    _remember(_key(path, form), speed)
    return speed


def _child(path: Path, form: str, slots: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "flyweight.optimal.speed", str(path), form, str(slots)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired as slow:
        raise ModelError(f"{path} was not measured within {LIMIT:.0f} s") from slow
    if done.returncode != 0:
        raise ModelError((done.stderr.strip().splitlines() or [f"{path} cannot be measured"])[-1])
    return dict(json.loads(done.stdout))


def _fitted(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Seconds of a prompt, and of each token: the line through the middle of the short ones and of the long ones."""
    ordered = sorted(points)
    half = len(ordered) // 2
    (x0, y0), (x1, y1) = (
        (fmean(x for x, _ in part), median(y for _, y in part)) for part in (ordered[:half], ordered[half:])
    )
    each = max(0.0, (y1 - y0) / (x1 - x0)) if x1 > x0 else y1 / max(1.0, x1)
    return max(0.0, y0 - each * x0), each


def forget() -> None:
    """Drop everything measured on this machine."""
    _file().unlink(missing_ok=True)


def _key(path: Path, form: str) -> str:
    from flyweight import models

    here = Machine.here()
    return " | ".join([models.digest(path)[:16], form, here.cpu, f"{here.threads} threads", here.engine, str(VERSION)])


def _file() -> Path:
    from flyweight.policies.llamacpp.machine import cache_folder

    return cache_folder() / "speed.json"


def _table() -> dict[str, Any]:
    try:
        table = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _remember(key: str, speed: Speed) -> None:
    """Keep the figures; where nothing can be written, the next plan measures again."""
    from flyweight.policies.llamacpp.machine import locked

    file = _file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file.with_suffix(".lock")):
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps({**_table(), key: speed.as_dict()}, indent=1), "utf-8")
            os.replace(partial, file)
    except OSError:
        return


# In the process that measures -----------------------------------------------------------------------------------------


def figures(path: Path, form: str, slots: int) -> dict[str, Any]:
    """What one engine does: points, prompts, memory."""
    from flyweight.policies.llamacpp import LlamaCpp

    context = CONTEXT
    try:
        policy = LlamaCpp(path, weights=form, slots=slots, context=context, parked_mb=0)
    except ConfigError as error:
        if "was trained for" not in str(error):
            raise
        context = 512
        policy = LlamaCpp(path, weights=form, slots=slots, context=context, parked_mb=0)
    if policy.weights.kind != form:
        raise ModelError(f"{path} does not run as {form} here: {policy.weights.note or 'nothing is quantised'}")
    try:
        points, prompts = _points(policy, ENGINES[slots])
        held = _peak()
        kv_bytes = policy._model.kv_bytes("f16")
        return {
            "parameters": policy.params,
            "kv_bytes": kv_bytes,
            "slots": slots,
            "context": context,
            "points": points,
            "prompts": prompts,
            "memory": held,
        }
    finally:
        policy.close()


def _points(policy: Any, widths: Sequence[int]) -> tuple[list[Any], list[Any]]:
    points, prompts = [], []
    texts = _texts()
    longest = DRAFTING if policy.weights.kind == "packed" else {}
    _drawn(policy, next(texts), 1, 4)  # whatever is touched first is slow once
    for rows in widths:
        for long in (0, LONG):
            text = next(texts)
            while long and len(text) < long:
                text = next(texts) + "\n\n" + text
            measured = None
            while measured is None and len(text) > 1:
                measured = _drawn(policy, text, rows, longest.get(rows, STEPS), whole=rows in longest)
                text = text[: len(text) // 2]
            if measured is not None:
                points.append([rows, *measured[:2]])
                prompts.append(measured[2:])
    return points, prompts


def _texts() -> Iterator[str]:
    """Real questions with their solutions, again and again, never beginning alike."""
    from flyweight.tasks import files, gsm8k

    rows = files.bundled(gsm8k.DEV)
    for number in range(1 << 20):
        row = rows[number % len(rows)]
        yield f"{row['question']}\n" if number < len(rows) else f"{number} {row['question']}\n"


def _drawn(
    policy: Any, text: str, rows: int, steps: int, *, whole: bool = False
) -> tuple[float, float, float, float] | None:
    """(tokens in front, seconds a token, prompt tokens, their seconds); None where the text leaves no room.

    `whole`: all steps, however long they take.
    """
    from flyweight.protocols import Request
    from flyweight.types import BOXED, Message, Node, Sampling

    root = Node(messages=(Message("system", BOXED), Message("user", text)), key=text[:40])
    sampling = Sampling(temperature=0.0 if rows == 1 else 0.7, max_tokens=steps)
    for id in range(rows):
        policy.add(Request(id, root, sampling, seed=id))
    before, counted = policy.profile, policy.counters
    taken: list[float] = []
    drawn, left, spent = 0, set(range(rows)), 0.0
    while left:
        was, had = policy.profile, policy.counters
        began = time.perf_counter()
        answers = policy.step()
        seconds = time.perf_counter() - began
        left -= {answer.id for answer in answers}
        now = policy.profile
        decoding = now.prefill_seconds == was.prefill_seconds and now.row_steps - was.row_steps == rows
        if decoding:  # all rows, and nothing else
            taken.append(seconds)
            drawn += policy.counters.generated_tokens - had.generated_tokens
            spent += seconds
        if not whole and spent > SECONDS and len(taken) >= FEWEST:
            break
    for id in left:
        policy.cancel(id)
    computed = policy.counters.prompt_tokens - counted.prompt_tokens
    if not taken or not computed:
        return None
    usual = sorted(taken)[: max(1, round(0.9 * len(taken)))]  # what else the machine did is not the engine's
    path = (computed + policy.counters.cached_tokens - counted.cached_tokens) / rows
    front = path + drawn / rows / 2
    each = fmean(usual) * len(taken) * rows / drawn
    return front, each, float(computed), policy.profile.prefill_seconds - before.prefill_seconds


def _peak() -> int:
    """Bytes this process has held at most."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def main() -> None:
    path, form, slots = sys.argv[1:]
    try:
        print(json.dumps(figures(Path(path), form, int(slots))))
    except flyweight.FlyweightError as error:
        raise SystemExit(" ".join(str(error).split())) from None


if __name__ == "__main__":
    main()
