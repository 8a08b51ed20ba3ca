"""What to make of the choices: the frontier, one recommendation and its reason, and what would change it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flyweight.errors import ConfigError
from flyweight.optimal.bigger import BreakEven, Exchange, break_even, exchanges
from flyweight.optimal.planner import Choice, Options, billed, busy
from flyweight.optimal.units import dollars, duration, size, tick
from flyweight.optimal.words import interval, share

__all__ = ["Verdict", "frontier", "judge"]

NORMAL = 1.96
"""Standard errors in half an interval of 95 %."""
EQUAL = 1.05


@dataclass(frozen=True)
class Verdict:
    """Everything a plan says."""

    frontier: tuple[Choice, ...]
    """No other choice, within the limits for the recommended one, is as often right, as fast and as small at once."""
    recommendation: Choice
    reason: str
    changes: tuple[str, ...]
    even: tuple[BreakEven, ...]
    exchanges: tuple[Exchange, ...]
    assumptions: tuple[str, ...]
    considered: int

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "frontier": [choice.as_dict() for choice in self.frontier],
            "recommendation": {**self.recommendation.as_dict(), "reason": self.reason, "changes": list(self.changes)},
            "assumptions": list(self.assumptions),
            "break_even": [each._asdict() for each in self.even],
            "flops_matched": [
                {
                    **each._asdict(),
                    "choice": each.choice.as_dict() if each.choice else None,
                    "bigger": each.bigger.as_dict(),
                }
                for each in self.exchanges
            ],
            "considered": self.considered,
        }


def judge(options: Options, choices: Sequence[Choice]) -> Verdict:
    """The verdict. ConfigError, saying what is missing, where nothing keeps the limits."""
    fitting = [choice for choice in choices if all(limit(choice) for _, limit in _limits(options))]
    if not fitting:
        raise ConfigError(_impossible(options, choices))
    best, reason = _best(options, fitting)
    kept = frontier(choices)
    if best not in kept:  # what is hardly slower or larger, and more often right, breaks a limit
        kept = sorted([*kept, best], key=_order)
    return Verdict(
        tuple(kept),
        best,
        reason,
        tuple(_changes(options, choices, best)),
        tuple(break_even(counted(choices))),
        tuple(exchanges(options, counted(choices))),
        tuple(_assumptions(options, choices)),
        len(choices),
    )


def counted(choices: Sequence[Choice]) -> Sequence[Choice]:
    """Those that were measured, or all where none was."""
    return [choice for choice in choices if not choice.published] or choices


def frontier(choices: Sequence[Choice]) -> list[Choice]:
    """Choices that no other beats: none is as often right, as fast and as small, the fastest first.

    Costs within 5 % of each other count as equal, since they are predicted. Dollars count where everything has a price.
    A published figure never beats a measured one.
    """
    priced = all(choice.dollars is not None for choice in choices)

    def costs(choice: Choice) -> tuple[float, ...]:
        return (choice.seconds, choice.memory, *((choice.dollars or 0.0,) if priced else ()))

    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: (choice.published, -choice.accuracy, *costs(choice))):
        beaten = any(
            other.accuracy >= choice.accuracy
            and all(theirs <= EQUAL * mine for theirs, mine in zip(costs(other), costs(choice), strict=True))
            for other in kept
        )
        if not beaten:
            kept.append(choice)
    return sorted(kept, key=_order)


def _order(choice: Choice) -> tuple[float, float]:
    return choice.seconds, choice.memory


# The recommendation ---------------------------------------------------------------------------------------------------


Limit = tuple[str, Callable[[Choice], bool]]


def _limits(options: Options) -> list[Limit]:
    """By name, what a choice has to keep."""
    found: list[Limit] = []
    if options.memory is not None:
        memory = options.memory
        found.append(("memory", lambda choice: choice.memory <= memory))
    if options.latency is not None:
        latency = options.latency
        found.append(("latency", lambda choice: choice.seconds <= latency))
    if options.accuracy is not None:
        accuracy = options.accuracy
        found.append(("accuracy", lambda choice: choice.accuracy >= accuracy))
    if options.tokens_per_day is not None:
        found.append(("tokens-per-day", lambda choice: choice.remote or _busy(options, choice) <= 1))
    return found


def _busy(options: Options, choice: Choice) -> float:
    """Share of the day this machine works to answer what is asked."""
    return busy(options, choice.answer, choice.together)


def _price(choices: Sequence[Choice]) -> Callable[[Choice], tuple[float, ...]]:
    """What is to be little: dollars where everything has a price, else seconds."""
    if all(choice.dollars is not None for choice in choices):
        return lambda choice: (choice.dollars or 0.0, choice.seconds, choice.memory, -choice.accuracy)
    return lambda choice: (choice.seconds, choice.memory, -choice.accuracy)


def _best(options: Options, choices: Sequence[Choice]) -> tuple[Choice, str]:
    """With an accuracy to reach, the cheapest that does; else the cheapest that can hardly be told from the best.

    "Hardly": within one standard error of the most accurate, the rule of Breiman et al. 1984 (Classification and
    Regression Trees, section 3.4.3): the most accurate of many measured ones is partly the luckiest. Nothing is
    recommended that another one beats, costs within 5 % counting as equal; and somebody else's figures decide only
    where there are no others.
    """
    fitting = counted(choices)
    unbeaten = frontier(fitting)
    cost = _price(fitting)
    cheap = "cheapest" if all(choice.dollars is not None for choice in fitting) else "fastest"
    kept = ", ".join(name for name, _ in _limits(options) if name != "accuracy")
    within = f" within the limits ({kept})" if kept else ""
    if options.accuracy is not None:
        best = min(unbeaten, key=cost)
        low = best.evidence.accuracy.low
        sure = "" if low >= options.accuracy else f"; its interval begins at {share(low)}, so that is likely, not sure"
        return best, f"the {cheap} of {len(fitting)} that reach {share(options.accuracy)}{within}{sure}"
    top = max(fitting, key=lambda choice: (choice.accuracy, [-part for part in cost(choice)]))
    error = (top.evidence.accuracy.high - top.evidence.accuracy.low) / (2 * NORMAL)
    near = [choice for choice in fitting if choice.accuracy >= top.accuracy - error]
    best = min((choice for choice in unbeaten if choice in near), key=cost)
    if best is top:
        rest = "" if len(near) == 1 else f", and the {cheap} of the {len(near)} within one standard error of it"
        return best, f"the most accurate of {len(fitting)}{within}{rest}"
    return best, (
        f"the {cheap} of the {len(near)} within one standard error ({100 * error:.1f} points) of the most accurate"
        f"{within}, {top.label} ({interval(top.evidence.accuracy)}, {duration(top.seconds)})"
    )


def _impossible(options: Options, choices: Sequence[Choice]) -> str:
    """Which limit nothing keeps, and what the nearest choice needs."""
    for name, limit in _limits(options):
        if any(limit(choice) for choice in choices):
            continue
        if name == "memory":
            least = min(choices, key=lambda choice: choice.memory)
            assert options.memory is not None
            return (
                f"nothing fits --memory {size(options.memory)}: the smallest, {least.label}, needs {size(least.memory)}"
                f", of it {size(least.kv)} for --context {least.context}"
            )
        if name == "latency":
            least = min(choices, key=lambda choice: choice.seconds)
            assert options.latency is not None
            return (
                f"nothing answers within --latency {duration(options.latency)}: the fastest, {least.label}, takes "
                f"{duration(least.seconds)}"
            )
        if name == "accuracy":
            most = max(choices, key=lambda choice: choice.accuracy)
            assert options.accuracy is not None
            return (
                f"nothing is known to reach --accuracy {options.accuracy:g}: the most accurate, {most.label}, is right "
                f"on {interval(most.evidence.accuracy)}"
            )
        least = min(choices, key=lambda choice: _busy(options, choice))
        return (
            f"this machine cannot write --tokens-per-day {options.tokens_per_day:,.0f}: even {least.label} would keep "
            f"{_busy(options, least):.3g} such machines busy"
        )
    names = " and ".join(f"--{name}" for name, _ in _limits(options))
    loosest = max(choices, key=lambda choice: (sum(limit(choice) for _, limit in _limits(options)), choice.accuracy))
    return (
        f"nothing keeps {names} together: {loosest.label} has {share(loosest.accuracy)}, {duration(loosest.seconds)}, "
        f"{size(loosest.memory)}; give up one of them"
    )


def _changes(options: Options, choices: Sequence[Choice], best: Choice) -> list[str]:
    """The nearest facts under which the recommendation would be another: each line is what `judge` would then say."""
    said: list[str] = []

    def instead(asked: Options, *tests: Callable[[Choice], bool]) -> Choice | None:
        """What would be recommended then; None for the same or nothing."""
        kept = [*(test for _, test in _limits(asked)), *tests]
        left = [choice for choice in choices if all(test(choice) for test in kept)]
        other = _best(asked, left)[0] if left else best
        return None if other is best else other

    def wider(kinds: Iterable[Options], shown: Callable[[Options], str]) -> None:
        """The first of ever wider limits under which it is another."""
        if (found := next(((wide, other) for wide in kinds if (other := instead(wide)) is not None), None)) is not None:
            said.append(f"with {shown(found[0])}: {_told(found[1])}")

    if (memory := options.memory) is not None:
        needs = sorted({need for choice in choices if (need := _up(choice.memory, 1e7)) > memory})
        wider((replace(options, memory=need) for need in needs), lambda wide: f"--memory of {size(wide.memory or 0)}")
    if (latency := options.latency) is not None:
        needs = sorted({need for choice in choices if (need := _up(choice.seconds, tick(choice.seconds))) > latency})
        waits = (replace(options, latency=need) for need in needs)
        wider(waits, lambda wide: f"--latency of {duration(wide.latency or 0)}")
    if options.tokens_per_day and (other := instead(replace(options, tokens_per_day=None))) is not None:
        said.append(f"with a machine that keeps up: {_told(other)}")
    more = replace(options, accuracy=best.accuracy)
    if (other := instead(more, lambda choice: choice.accuracy > best.accuracy)) is not None:
        said.append(f"with --accuracy above {share(best.accuracy)}: {_told(other)}")
    if (other := instead(options, lambda choice: choice.seconds < best.seconds)) is not None:
        apart = other.evidence.accuracy.high < best.evidence.accuracy.low
        told = "" if apart else "; not told apart on the questions there are"
        said.append(f"with --latency below {duration(best.seconds)}: {_told(other)}{told}")
    if (other := instead(options, lambda choice: choice.memory < best.memory)) is not None:
        said.append(f"with --memory below {size(best.memory)}: {_told(other)}")
    said += _prices(options, choices, best)
    return said or ["no limit alone: nothing else on record would then be recommended"]


def _up(value: float, step: float) -> float:
    """The next whole number of steps, so that what is printed is enough."""
    return math.ceil(value / step - 1e-9) * step


def _told(choice: Choice) -> str:
    """A choice with what it takes, on one line."""
    held = f", {size(choice.memory)}" if choice.memory else ""
    source = " published" if choice.published else ""
    return f"{choice.label} ({share(choice.accuracy)}{source}, {duration(choice.seconds)}{held})"


def _prices(options: Options, choices: Sequence[Choice], best: Choice) -> list[str]:
    """At which price of an hour of this machine the other side of the interface would be cheaper."""
    tests = [test for _, test in _limits(options)]
    rivals = [
        choice
        for choice in counted(choices)
        if choice.remote != best.remote and choice.accuracy >= best.accuracy and all(test(choice) for test in tests)
    ]
    if not rivals:
        return []
    if best.remote:
        other = min(rivals, key=lambda choice: billed(options, choice))
        hour = 3600 * (best.dollars or 0.0) / billed(options, other)
        return [f"an hour of this machine below {dollars(hour)}: {other.label} costs no more than {best.label}"]
    other = min(rivals, key=lambda choice: choice.dollars or 0.0)
    hour = 3600 * (other.dollars or 0.0) / billed(options, best)
    return [f"an hour of this machine above {dollars(hour)}: {other.label} costs less per question"]


def _assumptions(options: Options, choices: Sequence[Choice]) -> list[str]:
    """What the figures rest on."""
    many = options.tokens_per_day is not None
    slots = "n, or more to keep up with --tokens-per-day" if many else "rows in its largest round"
    said = [
        "seconds: one question alone on a warm model; steps by rows from recorded searches, times this machine's speed",
        f"memory: a process with --slots as many as {slots} (at most 32), --context {options.context}, after "
        f"{options.questions:,} questions",
        "accuracy: 95 % intervals over questions; what was measured in one form of the weights is taken for the others,"
        " which hold the same numbers (docs/performance.md)",
        "FLOPs: 2 x parameters x tokens computed, verifiers included",
    ]
    if options.hour is not None:
        among = "among many, in these slots" if many else "alone"
        said.append(f"price here: an hour of the machine x the time of one question {among}")
    said += sorted({f"{choice.model}: {note}" for choice in choices for note in choice.notes})
    counted = sorted({choice.evidence.questions for choice in choices if choice.evidence.questions})
    if len(counted) > 1:
        said.append(f"not all were measured on the same questions ({', '.join(map(str, counted))} of them)")
    if any(choice.published for choice in choices):
        said.append("published figures come from other prompts and graders: they decide only where nothing is measured")
    if options.tokens_per_day is not None:
        said.append(f"R: {options.tokens_per_day:,.0f} tokens a day for {options.days:g} days")
    return said
