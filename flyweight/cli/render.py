"""Results for people and for programs. Model output never reaches a terminal unfiltered."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from flyweight.types import Candidate, Problem, Result, Stopped

__all__ = [
    "as_json",
    "block",
    "clean",
    "code_of",
    "cost",
    "dumps",
    "oneline",
    "percent",
    "scores",
    "share",
    "short",
    "sureness",
    "table",
    "unsure",
    "votes",
]

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but newline and tab, marks that reorder text, and surrogates that cannot be encoded."""


def clean(text: str) -> str:
    """The text as a terminal may see it: carriage returns become newlines, other unsafe characters `\\x1b` escapes."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def oneline(text: str) -> str:
    """The cleaned text on one line."""
    return " ".join(clean(text).split())


def short(text: str | None, width: int = 24) -> str:
    """An answer in at most `width` characters, "none" for None."""
    line = "none" if text is None else oneline(text)
    return line if len(line) <= width else line[: width - 1] + "…"


def dumps(value: object) -> str:
    """One line of valid JSON in ASCII: escapes keep lone surrogates and control characters, NaN becomes null."""
    return json.dumps(_finite(value), allow_nan=False)


def as_json(
    result: Result,
    *,
    strategy: str,
    parameters: Mapping[str, object],
    model: str,
    verifier: str,
    seed: int,
    problem: Problem | None = None,
) -> dict[str, object]:
    """The object `--json` prints; `problem` adds its id and question in front."""
    which = {} if problem is None else {"id": problem.id, "question": problem.prompt}
    return {
        **which,
        "answer": result.answer,
        "text": result.text,
        "strategy": strategy,
        "parameters": dict(parameters),
        "model": model,
        "verifier": verifier,
        "seed": seed,
        "stopped": result.stopped.value,
        "error": result.error,
        "confidence": result.confidence,
        "calibrated": result.calibrated,
        "sure": result.sure,
        **({key: result.explained.get(key) for key in ("chosen", "difficulty", "line")} if result.explained else {}),
        "usage": asdict(result.usage),
        "candidates": [_candidate(candidate, result) for candidate in result.candidates],
    }


def block(result: Result, *, label: str, model: str, text: bool = True) -> str:
    """The lines shown for one question: the solution, its answer, who voted for what, and the cost."""
    rows = [("Answer", unsure(result) + ("none found" if result.answer is None else oneline(result.answer)))]
    if len(result.candidates) > 1:
        rows.append(("Votes", votes(result)))
    if any(candidate.node.score is not None for candidate in result.candidates):
        rows.append(("Scores", scores(result)))
    rows += sureness(result)
    rows.append(("Cost", cost(result)))
    rows.append(("Search", f"{label}, {oneline(model)}"))
    if line := result.explained.get("line"):
        rows.append(("Because", oneline(str(line))))
    if result.stopped is not Stopped.DONE:
        rows.append(("Stopped", result.stopped.value))
    if result.error is not None:
        rows.append(("Error", oneline(result.error)))
    head = clean(result.text).strip() + "\n\n" if text and result.text.strip() else ""
    return head + "\n".join(f"{name:<11} {value}" for name, value in rows)


def percent(share: float) -> str:
    """A share in whole percent; 100 % only when it is exactly that."""
    return f"{min(round(100 * share), 99 if share < 1 else 100)} %"


def sureness(result: Result) -> list[tuple[str, str]]:
    """The row that says how sure the answer is: a probability where one is known, else how many agree; none for one
    voter."""
    if result.confidence is None:
        return []
    if result.calibrated:
        return [("Confidence", f"{percent(result.confidence)} that it is right")]
    return [("Agreement", _agreeing(result))]


def unsure(result: Result) -> str:
    """ "not sure (p≈0.3): " in front of an answer below the confidence that was asked for; nothing otherwise."""
    if result.sure or result.best is None:
        return ""
    if result.confidence is None:
        return "not sure (no second answer to compare with): "
    below = math.floor(100 * result.confidence) / 100  # never rounded up to what was asked for
    return f"not sure ({f'p≈{below:.2g}' if result.calibrated else _agreeing(result)}): "


def votes(result: Result, most: int = 4) -> str:
    """Answers with how many candidates gave them, largest class first: "42: 6 of 8, 41: 1, no answer: 1"."""
    classes: dict[int, list[Candidate]] = {}
    silent = 0
    for candidate in result.candidates:
        if candidate.answer_class is None:
            silent += 1
        else:
            classes.setdefault(candidate.answer_class, []).append(candidate)
    parts = [f"{short(_said(members, result))}: {len(members)}" for _, members in sorted(classes.items())]
    if parts:
        parts[0] += f" of {len(result.candidates)}"
    if len(parts) > most:
        parts[most:] = [f"{len(parts) - most} more answers"]
    if silent:
        parts.append(f"no answer: {silent}")
    return ", ".join(parts) or "none"


def share(result: Result) -> str:
    """How many of the candidates gave the selected answer: "6/8"; "-" when there was no vote."""
    mine = next((c.answer_class for c in result.candidates if _selected(c, result)), None)
    if mine is None or len(result.candidates) < 2:
        return "-"
    return f"{sum(c.answer_class == mine for c in result.candidates)}/{len(result.candidates)}"


def _agreeing(result: Result) -> str:
    """ "8 of 16 agree"."""
    agreeing, _, voters = share(result).partition("/")
    return f"{agreeing} of {voters} agree"


def scores(result: Result) -> str:
    """Score of the selected solution, and the range over all."""
    values = [c.node.score.value for c in result.candidates if c.node.score is not None]
    spread = f"between {min(values):.2f} and {max(values):.2f} over {len(values)} scored"
    if result.best is not None and result.best.score is not None:
        return f"{result.best.score.value:.2f} for this one, {spread}"
    return spread


def cost(result: Result) -> str:
    """Tokens, candidates and seconds on one line."""
    usage = result.usage
    verifier = f" + {usage.verifier_tokens:,} verifier" if usage.verifier_tokens else ""
    drawn = len(result.candidates)
    noun = "candidate" if drawn == 1 else "candidates"
    return f"{usage.generated_tokens:,} tokens{verifier}, {drawn} {noun}, {usage.seconds:.1f} s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: int) -> str:
    """Aligned columns, the last `right` of them flush right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    left = len(head) - right
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def code_of(result: Result) -> int:
    """Exit code a single result stands for."""
    if result.stopped is Stopped.ERROR:
        return 3
    if result.stopped is Stopped.INTERRUPTED:
        return 130
    ran_out = result.stopped in (Stopped.BUDGET, Stopped.DEADLINE)
    return 5 if ran_out and result.answer is None else 0


def _candidate(candidate: Candidate, result: Result) -> dict[str, object]:
    node = candidate.node
    return {
        "text": node.solution,
        "answer": candidate.answer,
        "score": None if node.score is None else node.score.value,
        "tokens": node.drawn,
        "logprob": node.mean_logprob if node.drawn else None,
        "class": candidate.answer_class,
        "selected": _selected(candidate, result),
    }


def _selected(candidate: Candidate, result: Result) -> bool:
    return result.best is not None and candidate.node.key == result.best.key


def _said(members: list[Candidate], result: Result) -> str | None:
    """How a class is written: as the selected solution has it, else as its first member does."""
    if any(_selected(member, result) for member in members):
        return result.answer
    return members[0].answer


def _finite(value: object) -> object:
    """JSON's own types only, without NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
