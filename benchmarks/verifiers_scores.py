"""Scores of verifiers on recorded samples, made once and kept in results/verifiers: a small file for every pool.

A pool is the largest set of samples that a store of results/pools holds of the small model, or the recording of
development questions (results/dev60). Samples are drawn again from the record, so no model is needed for what a
verifier reads off them; one that asks a model for what is not on record has it loaded, and what it was told is kept in
--runs.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import default_strategy as dev
from benchmarks.cassette import Cassette
from benchmarks.cassette import Recorded as Replayed
from benchmarks.rig import ROOT, Figures
from flyweight import api, bench, strategies, tasks, verifiers
from flyweight.bench.engine import Engine, recorded
from flyweight.bench.graded import Recorded, truncated
from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Answers, Policy, Search, Verifier
from flyweight.runner import Runner
from flyweight.select import aggregate, finished
from flyweight.store import RunInfo, Store
from flyweight.types import Node, Problem, Result, Sampling, digest

__all__ = ["DEV", "FREE", "KEPT", "POOLS", "Kept", "Source", "free", "keep", "names", "opened", "score", "score_states"]

KEPT = ROOT / "results" / "verifiers"
POOLS = ROOT / "results" / "pools"
DEV = "dev60"
"""The pool of development questions."""
DEV_SAMPLES = 8
"""As many as its recording has readings of."""
ANYTHING = ("confidence", "confidence-window", "self-certainty", "repetition")
MATHS = ("arithmetic", *ANYTHING, "form")
CODE = ("tests", *ANYTHING, "form:kind=code")
FREE = frozenset((*MATHS, *CODE))
"""Verifiers that need no model."""
IN_FLIGHT = 4
"""Questions at a time: whoever stops a slow verifier loses the scores of no more."""
EVERY = 20.0
"""Seconds between two writings of what was scored."""


class Kept:
    """What is known of a pool's samples, and what verifiers said of them.

    `questions` holds by problem id, one value per sample in the order drawn: `right`, `group` (its answer class, None
    where it cannot vote), `logprob` (mean per token), `ended` (0 where it was cut short), and `scores` by verifier,
    None where a sample cannot be chosen.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one."""
        self.about: Figures = {}
        self.questions: dict[str, Figures] = {}
        self._path = path
        if path.exists():
            with gzip.open(path, "rt", encoding="utf-8") as file:
                read = json.load(file)
            self.about, self.questions = read["about"], read["questions"]

    @property
    def whole(self) -> list[str]:
        """Verifiers that scored every question, in the order of the first one's."""
        first: Figures = next(iter(self.questions.values()), {"scores": {}})
        return [name for name in first["scores"] if self.scored(name) == len(self.questions)]

    @property
    def parts(self) -> dict[str, int]:
        """Verifiers that have scored some questions only, and how many."""
        found = dict.fromkeys(name for question in self.questions.values() for name in question["scores"])
        return {name: self.scored(name) for name in found if name not in self.whole}

    def scored(self, name: str) -> int:
        """How many questions a verifier has scored."""
        return sum(name in question["scores"] for question in self.questions.values())

    def take(self, about: Figures, facts: Mapping[str, Figures]) -> None:
        """The pool as it is now: questions whose samples are still the same keep their scores."""
        kept = self.questions
        self.about = about
        self.questions = {}
        for id, fact in sorted(facts.items()):
            same = id in kept and kept[id]["draws"] == fact["draws"]
            self.questions[id] = {**fact, "scores": kept[id]["scores"] if same else {}}

    def write(self) -> None:
        """Equal contents give equal bytes; the file is there whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        order = dict.fromkeys(name for question in self.questions.values() for name in question["scores"])
        for question in self.questions.values():
            question["scores"] = {name: question["scores"][name] for name in order if name in question["scores"]}
        text = json.dumps({"about": self.about, "questions": self.questions}, separators=(",", ":")) + "\n"
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            packed.write(text.encode("utf-8"))
        os.replace(partial, self._path)


@dataclass(frozen=True)
class Source:
    """A pool, ready to be drawn again."""

    about: Figures
    answers: Answers
    problems: Sequence[Problem]
    policy: Policy
    """Answers from the record."""
    sampling: Sampling
    facts: Callable[[], dict[str, Figures]]
    """By problem id, what is known of its samples."""
    remember: Callable[[Verifier], Verifier]
    """The verifier, asked only for what is not on record."""
    load: Callable[[], Policy]
    """The model itself."""

    def runner(self, policy: Policy, *judges: Verifier) -> Runner:
        """Draws what was drawn."""
        named = {judge.name: judge for judge in judges}
        answers = Ungrouped(self.answers)
        return Runner(policy, named, answers=answers, sampling=self.sampling, seed=self.about["seed"])

    def strategy(self, name: str) -> Any:
        """The strategy with as many samples as were drawn, drawn as they were."""
        return strategies.bind(name, {"n": self.about["n"], "temperature": self.sampling.temperature})


class Ungrouped:
    """Answers read and not compared, which takes long for code: only the scores matter here."""

    def __init__(self, answers: Answers) -> None:
        self.extract = answers.extract

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        """None."""
        return []


def fact(samples: Sequence[tuple[Node, int | None, bool]]) -> Figures:
    """What is kept of a question's samples: (path, answer class, whether it is right) of each."""
    return {
        "draws": digest(*(part for node, _, _ in samples for part in (node.key, node.solution)))[:16],
        "right": [int(right) for _, _, right in samples],
        "group": [group for _, group, _ in samples],
        "logprob": [round(node.mean_logprob, 6) for node, _, _ in samples],
        "ended": [int(not truncated(node)) for node, _, _ in samples],
    }


def names() -> list[str]:
    """Every pool: the development questions, then those of results/pools."""
    return [DEV, *sorted(path.name.removesuffix(".jsonl.xz") for path in POOLS.glob("*.jsonl.xz"))]


def free(source: Source) -> tuple[str, ...]:
    """Verifiers that need no model and say something about the pool's questions."""
    return CODE if "public" in source.problems[0].meta else MATHS


@contextmanager
def opened(name: str, runs: Path, *, draw: bool) -> Iterator[Source]:
    """The pool of that name; its store is made under `runs`. Without `draw` what is not on record is a mistake."""
    if name == DEV:
        yield development()
        return
    path, pool = runs / name / "flyweight.db", POOLS / f"{name}.jsonl.xz"
    taken = path.with_name("taken")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Store(path) as store:
        if not taken.exists() or taken.stat().st_mtime < pool.stat().st_mtime:
            store.load(pool)
            taken.touch()
        info = largest(store)
        configuration = info.configuration
        (job,) = bench.check([bench.plan_of(configuration)], grade=False)
        plan = job.plan
        known = recorded(store, configuration)
        engine = Engine(store, plan.model, plan.context, known, load=late if draw else refuse)

        def facts() -> dict[str, Figures]:
            grader = Recorded(store, configuration)
            found = {
                search.result.problem.id: fact(
                    [
                        (each.sample.node, each.sample.answer_class, each.grade.value == "correct")
                        for each in search.samples
                    ]
                )
                for search in bench.read(store, info.id, grader)
            }
            if grader.missing:
                raise SystemExit(f"results/pools/{name}.jsonl.xz lacks {grader.missing} grades")
            return found

        def remember(verifier: Verifier) -> Verifier:
            with suppress(ConfigError):  # one that cannot be told from others is asked again
                return store.verifier(verifier)
            return verifier

        about = {
            "task": plan.task,
            "split": plan.split,
            "model": plan.model,
            "n": configuration["parameters"]["n"],
            "temperature": configuration["parameters"]["temperature"],
            "seed": plan.seed,
            "run": info.id,
        }
        sampling = Sampling(temperature=about["temperature"], max_tokens=plan.max_tokens)
        try:
            yield Source(
                about,
                job.task,
                job.problems,
                engine.stored,
                sampling,
                facts,
                remember,
                late(plan.model, plan.context, "auto"),
            )
        finally:
            engine.close()


def development() -> Source:
    """The recording of development questions; what it lacks is not drawn."""
    task = tasks.load("gsm8k")
    policy = Replayed(dev.SMALL, 0, Cassette(dev.RECORDINGS / f"{dev.SMALL}-pool.jsonl.xz"))
    sampling = Sampling(max_tokens=dev.MAX_TOKENS)
    about = {
        "task": "gsm8k",
        "split": "train, development",
        "model": dev.SMALL,
        "n": DEV_SAMPLES,
        "temperature": sampling.temperature,
        "seed": 0,
        "run": DEV,
    }
    problems = task.problems()[: dev.QUESTIONS]

    def facts() -> dict[str, Figures]:
        runner = Runner(policy, answers=task, sampling=sampling)
        return {
            result.problem.id: fact(
                [
                    (each.node, each.answer_class, task.grade(result.problem, each.node.solution).value == "correct")
                    for each in sound(result).candidates
                ]
            )
            for result in runner.run(problems, strategies.bind("self_consistency", {"n": DEV_SAMPLES}))
        }

    return Source(
        about,
        task,
        problems,
        policy,
        sampling,
        facts,
        lambda verifier: verifier,
        dev.load(dev.SMALL),
    )


def largest(store: Store) -> RunInfo:
    """The finished run with most samples of the small model, drawn for their answers rather than their speed."""

    def size(info: RunInfo) -> int:
        asked = info.configuration
        drawn = asked["strategy"] in strategies.SAMPLING and asked["model"] == dev.SMALL and not asked["seed"]
        whole = drawn and info.finished is not None and not asked["budget"]
        return int(asked["parameters"]["n"]) * (info.problems or 0) if whole else 0

    found = max(sorted(store.runs(), key=lambda info: info.id), key=size)
    if not size(found):
        raise SystemExit(f"{store.path}: no finished run of {dev.SMALL} that draws samples")
    return found


def late(model: str, context: int, weights: str) -> Callable[[], Policy]:
    """Looks for the model when it is needed, so that one that is not there is no mistake before."""
    return lambda: api.find_policy(model, context=context, weights=weights)()


def refuse(model: str, context: int, weights: str) -> Callable[[], Policy]:
    """What is missing is not drawn by accident."""

    def missing() -> Policy:
        raise SystemExit(f"results/pools lacks draws of {model} that a free verifier reads")

    return missing


def score(kept: Kept, source: Source, name: str) -> str:
    """Have a verifier score the questions it has not; what is wrong if it cannot, else nothing."""
    judge = verifiers.load(name)
    missing = [problem for problem in source.problems if name not in kept.questions[problem.id]["scores"]]

    def values(result: Result) -> list[float | None]:
        nodes = [candidate.node for candidate in result.candidates]
        return [None if node.score is None else round(aggregate(node.score), 9) for node in nodes]

    runner = source.runner(source.policy, source.remember(judge))
    results = runner.run(missing, source.strategy("best_of_n"), in_flight=IN_FLIGHT)
    return keep(kept, {name: values}, results)


def score_states(kept: Kept, source: Source, names: Sequence[str]) -> str:
    """Have verifiers that read hidden states score the questions they have not, so that a text is read again once."""
    judges = {name: source.remember(verifiers.load(name)) for name in names}
    missing = [
        problem
        for problem in source.problems
        if any(name not in kept.questions[problem.id]["scores"] for name in names)
    ]
    said: dict[str, dict[str, list[float | None]]] = {}

    async def strategy(search: Search) -> Node | None:
        nodes = await search.complete([search.root], source.about["n"], temperature=source.sampling.temperature)
        for name in names:
            scored = {node.key: node for node in await search.score(finished(nodes), verifier=name)}
            said.setdefault(search.problem.id, {})[name] = [
                round(aggregate(scored[node.key].score), 9) if node.key in scored else None for node in nodes
            ]
        return None

    runner = source.runner(source.policy, *judges.values())
    results = runner.run(missing, strategy, in_flight=IN_FLIGHT)
    scores = {name: (lambda result, name=name: said[result.problem.id][name]) for name in names}
    return keep(kept, scores, results)


def keep(
    kept: Kept, values: Mapping[str, Callable[[Result], Sequence[float | None]]], results: Iterator[Result]
) -> str:
    """Take in verifiers' scores as they come; what is wrong if one cannot give them, else nothing.

    Written every `EVERY` seconds and when it ends, however it does.
    """

    def tell() -> None:
        kept.write()
        for name in values:
            print(f"{name}: {kept.scored(name)} of {len(kept.questions)}", flush=True)

    written = time.monotonic()
    with closing(results):  # type: ignore[type-var]
        try:
            for result in results:
                if result.error is not None:
                    return result.error
                for name, of in values.items():
                    kept.questions[result.problem.id]["scores"][name] = list(of(result))
                if time.monotonic() - written > EVERY:
                    tell()
                    written = time.monotonic()
        finally:
            tell()
    return ""


def sound(result: Result) -> Result:
    """The result, unless its search failed."""
    if result.error is not None:
        raise BackendError(f"{result.problem.id}: {result.error}")
    return result
