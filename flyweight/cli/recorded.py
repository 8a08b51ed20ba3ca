"""What the commands that read runs print: facts for programs, text for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from flyweight import stats
from flyweight.bench import counted, graded
from flyweight.bench.counted import STRATA, Counted, Question
from flyweight.bench.graded import NOT_GRADED, GradedSample, GradedSearch, Recorded
from flyweight.cli import render
from flyweight.errors import ConfigError
from flyweight.store import RunInfo, Store
from flyweight.types import Grade, Node, Result, Stopped

__all__ = [
    "Counted",
    "difference_facts",
    "difference_text",
    "listing",
    "problem_table",
    "question_facts",
    "run_facts",
    "run_text",
    "samples",
    "search",
    "search_facts",
    "search_text",
    "summary",
]

ORDER = ("task", "split", "data", "settings", "select", "problems_sha256", "model", "strategy", "parameters")
"""How a configuration is shown: these first."""


def search(store: Store, info: RunInfo, problem: str) -> tuple[GradedSearch, list[Node]]:
    """The search of a problem, graded, and its tree."""
    try:
        found = store.search(info.id, problem)
    except ConfigError as error:
        known = [result.problem.id for result in store.results(info.id)]
        close = difflib.get_close_matches(problem, known, n=1, cutoff=0.4)
        raise ConfigError(f"{error}{f'; did you mean {close[0]!r}?' if close else ''}") from error
    return graded.one(found, Recorded(store, info.configuration)), found.tree


# A run -------------------------------------------------------------------------------------------------------------


def summary(store: Store, info: RunInfo) -> dict[str, Any]:
    """A run in one line."""
    run = Counted.of(store, info)
    configuration = info.configuration
    return {
        "run": info.id,
        "task": configuration.get("task"),
        "strategy": _label(info),
        "verifier": configuration.get("verifier"),
        "model": configuration.get("model"),
        "state": _state(info),
        "problems": len(run.questions),
        "graded": not run.missing,
        "accuracy": None if run.missing else _interval(counted.accuracy(run.questions)),
    }


def listing(runs: Sequence[Mapping[str, Any]]) -> str:
    """Summaries, one a line."""
    head = ("run", "task", "strategy", "verifier", "model", "state", "problems", "right (95 %)")
    rows = [
        [
            *(_cell(run[name], 32) for name in ("run", "task", "strategy", "verifier", "model", "state")),
            f"{run['problems']:,}",
            "-" if run["accuracy"] is None else _percent(run["accuracy"]),
        ]
        for run in runs
    ]
    return render.table(head, rows, right=2)


def run_facts(info: RunInfo, run: Counted) -> dict[str, Any]:
    """What a run was and what came of it; what needs grades is None while one is missing."""
    questions = run.questions
    draws = [draw for question in questions for draw in question.draws]
    right = {
        "accuracy": _interval(counted.accuracy(questions)),
        "random_choice": _interval(counted.random_choice(questions)),
        "coverage": _interval(counted.coverage(questions)),
        "undecided": sum(question.grade.value == "undecided" for question in questions),
        "undecided_candidates": sum(draw.undecided for draw in draws),
        "by": {name: {value: _part(group) for value, group in groups.items()} for name, groups in run.strata().items()},
    }
    return {
        "run": info.id,
        "state": _state(info),
        "started": info.started,
        "finished": info.finished,
        "configuration": info.configuration,
        "models": info.models,
        "versions": info.versions,
        "problems": len(questions),
        "interrupted": run.interrupted,
        "errors": sum(question.stopped is Stopped.ERROR for question in questions),
        "candidates": len(draws),
        "candidates_each": _spread(questions),
        "truncated_candidates": sum(draw.truncated for draw in draws),
        "generated_tokens": sum(question.tokens for question in questions),
        "graded": not run.missing,
        **(dict.fromkeys(right) if run.missing else right),
    }


def run_text(info: RunInfo, run: Counted) -> str:
    """The same, for people."""
    facts = run_facts(info, run)
    configuration = dict.fromkeys(name for name in ORDER if name in info.configuration) | dict(info.configuration)
    rows = [("Run", f"{info.id}, {facts['state']}"), ("Begun", _clock(info.started))]
    if info.finished is not None:
        rows.append(("Finished", _clock(info.finished)))
    for name, value in configuration.items():
        if (said := _value(value)) != "-":
            rows.append((name.replace("_", " ").capitalize(), said))
    rows += [("Drawn from", f"{name}: {what}") for name, what in info.models.items()]
    rows += [("With", _value(versions)) for versions in info.versions]
    problems = [f"{facts['problems']:,}"]
    problems += [f"{facts['errors']:,} ended in an error"] if facts["errors"] else []
    problems += [f"{run.interrupted:,} more interrupted and not counted"] if run.interrupted else []
    rows.append(("Problems", ", ".join(problems)))
    candidates, n = facts["candidates"], facts["candidates_each"]
    if run.missing:
        rows.append(("Accuracy", _not_graded(info)))
    elif run.questions:
        rows.append(("Accuracy", _percent(facts["accuracy"])))
        if facts["random_choice"] is not None:
            rows.append(("Random choice", f"{_percent(facts['random_choice'])}: a candidate taken blindly"))
            rows.append(("Coverage", f"{_percent(facts['coverage'])}: pass@{n}, some candidate is right"))
        undecided = f"{facts['undecided']:,} of {len(run.questions):,} selected"
        rows.append(("Undecided", f"{undecided}, {facts['undecided_candidates']:,} of {candidates:,} candidates"))
    rows.append(("Truncated", f"{facts['truncated_candidates']:,} of {candidates:,} candidates"))
    if run.questions:
        tokens = facts["generated_tokens"]
        rows.append(("Tokens", f"{tokens:,} generated, {tokens / len(run.questions):,.0f} a problem"))
    text = "\n".join(f"{render.oneline(name):<15} {render.oneline(value)}" for name, value in rows)
    for name, groups in (facts["by"] or {}).items():
        lines = [(_cell(v, 40), f"{g['problems']:,}", _percent(g["accuracy"])) for v, g in groups.items()]
        text += "\n\n" + render.table((name, "problems", "right (95 %)"), lines, right=2)
    return text


def problem_table(run: Counted) -> str:
    """One line per problem."""
    head = ("problem", "grade", "answer", "known", "stopped", "right", "tokens")
    rows = [
        (
            _cell(question.problem.id, 40),
            _cell(_graded_as(question.grade)),
            render.short(question.answer),
            render.short(question.problem.answer),
            question.stopped.value,
            f"{sum(draw.right for draw in question.draws)}/{len(question.draws)}",
            f"{question.tokens:,}",
        )
        for question in run.questions
    ]
    return render.table(head, rows, right=2)


def question_facts(question: Question) -> dict[str, Any]:
    """A problem of a run."""
    return {
        "problem_id": question.problem.id,
        "grade": _graded_as(question.grade),
        "reason": question.grade.reason,
        "answer": question.answer,
        "known": question.problem.answer,
        "stopped": question.stopped.value,
        "candidates": len(question.draws),
        "right_candidates": sum(draw.right for draw in question.draws),
        "generated_tokens": question.tokens,
    }


# One search --------------------------------------------------------------------------------------------------------


def search_facts(info: RunInfo, search: GradedSearch, tree: list[Node]) -> dict[str, Any]:
    """A search: candidates with votes, scores and grades, and every node."""
    result = search.result
    return {
        "run": info.id,
        "problem_id": result.problem.id,
        "prompt": result.problem.prompt,
        "known": result.problem.answer,
        "meta": result.problem.meta,
        "answer": result.answer,
        "grade": _graded_as(search.grade),
        "reason": search.grade.reason,
        "confidence": result.confidence,
        "calibrated": result.calibrated,
        "sure": result.sure,
        "stopped": result.stopped.value,
        "error": result.error,
        "usage": asdict(result.usage),
        "candidates": [_sample(result, each) for each in search.samples],
        "tree": [
            {
                "draws": node.order,
                "text": node.text,
                "finish": node.finish,
                "tokens": len(node.tokens or ()),
                "score": None if node.score is None else node.score.value,
                "selected": _selected(result, node),
            }
            for node in tree
        ],
    }


def search_text(info: RunInfo, search: GradedSearch, tree: list[Node]) -> str:
    """The same, for people."""
    result = search.result
    known = "none" if result.problem.answer is None else render.short(result.problem.answer, 200)
    reason = f": {search.grade.reason}" if search.grade.reason else ""
    rows = [
        ("Run", f"{info.id}, {_label(info)}"),
        ("Problem", result.problem.id),
        ("Known answer", known),
        ("Selected", render.short(result.answer, 200)),
        ("Grade", _not_graded(info) if search.grade is NOT_GRADED else search.grade.value + reason),
    ]
    if len(result.candidates) > 1:
        rows.append(("Votes", render.votes(result)))
    if any(sample.scores for sample, _ in search.samples):
        rows.append(("Scores", render.scores(result)))
    rows += render.sureness(result)
    rows += [("Cost", render.cost(result)), ("Stopped", result.stopped.value)]
    if result.error is not None:
        rows.append(("Error", result.error))
    parts = [render.clean(result.problem.prompt).strip()]
    parts.append("\n".join(f"{name:<13} {render.oneline(value)}" for name, value in rows))
    if search.samples:
        parts.append(_candidates(search))
    if any(node.parent is not None and node.parent.parent is not None for node in tree):
        parts.append("\n".join(_tree(result, tree)))
    if result.text.strip():
        parts.append(render.clean(result.text).strip())
    return "\n\n".join(parts)


def _candidates(search: GradedSearch) -> str:
    verifiers = list(dict.fromkeys(score.kind for sample, _ in search.samples for score in sample.scores))
    head = ("", "answer", "class", "grade", "finish", "tokens", "logprob", *(_cell(name) for name in verifiers))
    rows = []
    for each in search.samples:
        facts = _sample(search.result, each)
        numbers = [facts["mean_logprob"], *(facts["scores"].get(name) for name in verifiers)]
        rows.append(
            (
                f"{'*' if facts['selected'] else ' '}{facts['sample']}",
                render.short(facts["answer"]),
                _cell(facts["answer_class"]),
                _cell(facts["grade"]),
                _cell(facts["finish"]),
                f"{facts['tokens']:,}",
                *("-" if number is None else f"{number:.3f}" for number in numbers),
            )
        )
    return render.table(head, rows, right=2 + len(verifiers))


def _tree(result: Result, tree: Sequence[Node]) -> Iterator[str]:
    """Every step below the one it continues, in the order drawn."""
    below: dict[str | None, list[Node]] = {}
    for node in tree:
        below.setdefault(None if node.parent is None else node.parent.key, []).append(node)
    path = set() if result.best is None else {step.key for step in result.best.steps}
    waiting = [(0, node) for node in reversed(below.get(None, ()))]
    while waiting:
        depth, node = waiting.pop()
        if node.parent is not None:
            score = "" if node.score is None else f" {node.score.value:.3f}"
            mark = "*" if node.key in path else " "
            yield f"{mark} {'  ' * (depth - 1)}{node.draw}{score} {node.finish or '-'}: {render.short(node.text, 72)}"
        waiting += [(depth + 1, child) for child in reversed(below.get(node.key, ()))]


# Samples -----------------------------------------------------------------------------------------------------------


def samples(store: Store, info: RunInfo) -> Iterator[dict[str, Any]]:
    """A row for every candidate, by problem id and draw."""
    for search in graded.read(store, info.id, Recorded(store, info.configuration)):
        problem = search.result.problem
        strata = {name: problem.meta[name] for name in STRATA if name in problem.meta}
        for each in search.samples:
            row = {"run": info.id, "problem_id": problem.id, **_sample(search.result, each)}
            yield row | {"prompt": problem.prompt, "known": problem.answer, **strata}


def _sample(result: Result, graded: GradedSample) -> dict[str, Any]:
    sample, grade = graded
    node = sample.node
    return {
        "sample": sample.sample,
        "text": node.solution,
        "answer": sample.answer,
        "answer_class": sample.answer_class,
        "grade": _graded_as(grade),
        "reason": grade.reason,
        "finish": node.finish,
        "tokens": node.drawn,
        "mean_logprob": node.mean_logprob if node.drawn else None,
        "selected": _selected(result, node),
        "scores": {score.kind: score.value for score in sample.scores},
    }


def _selected(result: Result, node: Node) -> bool:
    return result.best is not None and node.key == result.best.key


# Two runs ----------------------------------------------------------------------------------------------------------


def difference_facts(store: Store, a: RunInfo, b: RunInfo) -> dict[str, Any]:
    """What separates two runs. ConfigError if one is not graded, or if they have no problem in common."""
    both = []
    for info in (a, b):
        both.append(Counted.of(store, info))
        if both[-1].missing:
            raise ConfigError(f"run {info.id} is {_not_graded(info)}")
    found = counted.difference(*both)
    pairs = list(zip(found.a, found.b, strict=True))
    return {
        "a": {"run": a.id, "strategy": _label(a), "model": a.configuration.get("model")},
        "b": {"run": b.id, "strategy": _label(b), "model": b.configuration.get("model")},
        "problems": len(pairs),
        "only_in_a": found.only_in_a,
        "only_in_b": found.only_in_b,
        "changed": found.changed,
        "accuracy_a": _interval(counted.accuracy(found.a)),
        "accuracy_b": _interval(counted.accuracy(found.b)),
        "difference": _interval(found.interval),
        "p": found.p,
        "right_in_a_only": [_answers(one, other) for one, other in pairs if one.right and not other.right],
        "right_in_b_only": [_answers(one, other) for one, other in pairs if other.right and not one.right],
    }


def _answers(a: Question, b: Question) -> dict[str, str | None]:
    return {"problem_id": a.problem.id, "a": a.answer, "b": b.answer, "known": a.problem.answer}


def difference_text(facts: Mapping[str, Any]) -> str:
    """The same, for people."""
    low, value, high = (100 * facts["difference"][name] for name in ("low", "value", "high"))
    told = "" if low > 0 or high < 0 else "; the interval holds 0: these problems do not tell A and B apart"
    lines = [
        *(
            f"{which.upper()}  {facts[which]['run']}  {_cell(facts[which]['strategy'], 60)}, "
            f"{_cell(facts[which]['model'], 40)}: {_percent(facts[f'accuracy_{which}'])}"
            for which in ("a", "b")
        ),
        f"B − A: {value:+.1f} points ({low:+.1f} to {high:+.1f}), McNemar p = {facts['p']:.3g}{told}",
    ]
    uneven = [
        f"{facts['only_in_a']:,} problems that only A has" if facts["only_in_a"] else "",
        f"{facts['only_in_b']:,} that only B has" if facts["only_in_b"] else "",
        f"{facts['changed']:,} that are not the same in both" if facts["changed"] else "",
    ]
    left_out = ", ".join(filter(None, uneven))
    lines.append(f"Over {facts['problems']:,} problems{f', without {left_out}' if left_out else ''}.")
    for which, other in (("a", "b"), ("b", "a")):
        rows = [
            (_cell(row["problem_id"], 40), *(render.short(row[name]) for name in (which, other, "known")))
            for row in facts[f"right_in_{which}_only"]
        ]
        if rows:
            head = (f"right in {which.upper()} only: {len(rows)}", which.upper(), other.upper(), "known")
            lines += ["", render.table(head, rows, right=0)]
    return "\n".join(lines)


# Words -------------------------------------------------------------------------------------------------------------


def _label(info: RunInfo) -> str:
    """The strategy with its n."""
    name, parameters = info.configuration.get("strategy"), info.configuration.get("parameters")
    return f"{name} n={parameters['n']}" if isinstance(parameters, Mapping) and "n" in parameters else str(name)


def _state(info: RunInfo) -> str:
    return "unfinished" if info.finished is None else "finished"


def _not_graded(info: RunInfo) -> str:
    return f"not graded: flyweight bench grade {info.id}"


def _graded_as(grade: Grade) -> str | None:
    """The grade's value; None where there is none on record."""
    return None if grade is NOT_GRADED else grade.value


def _spread(questions: Sequence[Question]) -> str:
    """How many candidates the searches have: "16", or "4–16"."""
    counts = sorted({len(question.draws) for question in questions}) or [0]
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _part(questions: Sequence[Question]) -> dict[str, Any]:
    return {"problems": len(questions), "accuracy": _interval(counted.accuracy(questions))}


def _interval(share: stats.Interval | None) -> dict[str, float] | None:
    return None if share is None else share._asdict()


def _percent(share: Mapping[str, float]) -> str:
    """With its interval, in percent."""
    return f"{100 * share['value']:.1f} % ({100 * share['low']:.1f}–{100 * share['high']:.1f})"


def _value(value: object) -> str:
    """A value of a configuration, for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items() if item is not None) or "-"
    return "-" if value is None else str(value)


def _cell(value: object, width: int = 24) -> str:
    return "-" if value is None else render.short(str(value), width)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
