"""What a report keeps of a run: verdicts, scores and costs, no texts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flyweight.bench.counted import STRATA
from flyweight.bench.graded import GradedSample, GradedSearch, truncated
from flyweight.report.words import plain
from flyweight.select import aggregate
from flyweight.store import RunInfo
from flyweight.types import Result, Stopped, Usage, digest

__all__ = ["Draw", "Outcome", "Recorded", "file", "identity", "names", "natural", "recorded", "speed"]


@dataclass(frozen=True, slots=True)
class Draw:
    """A candidate."""

    id: str
    """Of its place in the search and its text: equal in two runs that share the draw."""
    right: bool
    undecided: bool
    """Whether grading could not tell."""
    truncated: bool
    group: int | None
    """Its answer class; None when it could not vote."""
    score: float | None
    """What the run's verifier said, aggregated as the strategy does; in [0, 1]."""
    logprob: float
    """Mean natural-log probability per token."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A search."""

    right: bool
    """Whether what was selected is correct; undecided is not."""
    undecided: bool
    complete: bool
    """False for a search that ended in an error."""
    confidence: float | None
    usage: Usage
    draws: tuple[Draw, ...]
    strata: Mapping[str, str]


@dataclass(frozen=True)
class Recorded:
    """A run."""

    info: RunInfo
    name: str
    """Of the model, as it is shown."""
    outcomes: Mapping[str, Outcome]
    """By problem id, in its order; without searches that were interrupted, which are as good as not begun."""
    speed: float | None
    """Tokens per second; see `speed`."""

    @property
    def id(self) -> str:
        """The run's id."""
        return self.info.id

    @property
    def configuration(self) -> Mapping[str, Any]:
        """What was asked for."""
        return self.info.configuration

    @property
    def strategy(self) -> str:
        """Name of the strategy."""
        return plain(str(self.configuration["strategy"]))

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The strategy's."""
        return self.configuration.get("parameters") or {}

    @property
    def n(self) -> int:
        """Samples or beams asked for; 1 for a strategy without the parameter."""
        return int(self.parameters.get("n", 1))

    @property
    def verifier(self) -> str | None:
        """The verifier, with its aggregation unless that is `last`; None where the strategy asked none."""
        name = self.configuration.get("verifier")
        aggregation = self.parameters.get("aggregation", "last")
        return None if name is None else plain(str(name) if aggregation == "last" else f"{name}, {aggregation}")

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.info.finished is not None

    @property
    def task(self) -> tuple[str, str, str]:
        """Task, split and digest of the problems: runs that agree in it belong together."""
        asked = self.configuration
        problems = asked.get("problems_sha256") or digest(*sorted(self.outcomes))
        return plain(str(asked["task"])), plain(str(asked.get("split") or "")), plain(str(problems))


def recorded(info: RunInfo, name: str, searches: Iterable[GradedSearch], others: Iterable[RunInfo] = ()) -> Recorded:
    """The run, without its texts. `others` are the runs of its store, which may tell how fast its model draws."""
    aggregation = str((info.configuration.get("parameters") or {}).get("aggregation", "last"))
    outcomes = {
        search.result.problem.id: _outcome(search, aggregation)
        for search in searches
        if search.result.stopped is not Stopped.INTERRUPTED
    }
    generated = sum(outcome.usage.generated_tokens for outcome in outcomes.values())
    return Recorded(info, name, dict(sorted(outcomes.items())), speed(info, generated, others))


def speed(info: RunInfo, generated: int, others: Iterable[RunInfo]) -> float | None:
    """Tokens per second of wall time with many questions in flight; None where nothing was measured.

    A search that finds its samples in the store takes no time to draw them, so its own seconds say nothing. Measured is
    what was drawn: by the run itself if that was most of its tokens, else by runs of the same model and strategy, else
    by any run of the model.
    """
    drawn, seconds = _drawn([info])
    if seconds and 2 * drawn > generated:
        return drawn / seconds
    same = [other for other in others if identity(other) == identity(info)]
    alike = [other for other in same if other.configuration["strategy"] == info.configuration["strategy"]]
    for runs in (alike, same):
        drawn, seconds = _drawn(runs)
        if drawn and seconds:
            return drawn / seconds
    return None


def _drawn(runs: Iterable[RunInfo]) -> tuple[float, float]:
    """Tokens drawn anew for these runs, and the seconds that took."""
    facts = [
        (tokens, float(each["seconds"]))
        for run in runs
        for each in run.versions
        # Where nothing was drawn, the seconds went into reading for a verifier.
        if "seconds" in each and (tokens := float(each.get("generated_tokens", 0)))
    ]
    return math.fsum(tokens for tokens, _ in facts), math.fsum(seconds for _, seconds in facts)


def names(infos: Iterable[RunInfo]) -> dict[tuple[str, str], str]:
    """Identity of every run's model -> what it is called: its name, and of several with one name also its weights."""
    found = sorted({identity(info) for info in infos})
    shared = {name for name in dict(found) if sum(name == other for other, _ in found) > 1}
    return {key: plain(f"{key[0]} ({_weights(key[1])})" if key[0] in shared else key[0]) for key in found}


def identity(info: RunInfo) -> tuple[str, str]:
    """Name of the run's model, a file's without its folder, and what identifies its weights."""
    model = str(info.configuration["model"])
    return file(model), str(info.models.get(model, ""))


def file(reference: str) -> str:
    """A path without its folders; anything else as it is."""
    return reference if reference.startswith("hf:") else re.split(r"[/\\]", reference)[-1]


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts "9" before "10"."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def _weights(identifies: str) -> str:
    """What identifies the weights, in short."""
    sha, _, encoding = identifies.removeprefix("sha256:").partition(" ")
    return f"{sha[:8]} {encoding}".strip() or "unknown weights"


def _outcome(search: GradedSearch, aggregation: str) -> Outcome:
    result: Result = search.result
    return Outcome(
        right=search.grade.value == "correct",
        undecided=search.grade.value == "undecided",
        complete=result.stopped is not Stopped.ERROR,
        confidence=result.confidence,
        usage=result.usage,
        draws=tuple(_draw(sample, aggregation) for sample in search.samples),
        strata={name: plain(str(result.problem.meta[name])) for name in STRATA if name in result.problem.meta},
    )


def _draw(graded: GradedSample, aggregation: str) -> Draw:
    node = graded.sample.node
    return Draw(
        id=digest(node.key, node.solution)[:32],
        right=graded.grade.value == "correct",
        undecided=graded.grade.value == "undecided",
        truncated=truncated(node),
        group=graded.sample.answer_class,
        score=None if node.score is None else aggregate(node.score, aggregation),
        logprob=node.mean_logprob,
    )
