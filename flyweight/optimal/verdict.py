"""What to make of the choices: the frontier, one recommendation and its reason, and what would change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flyweight.errors import ConfigError
from flyweight.optimal.bigger import BreakEven, Exchange, break_even, exchanges
from flyweight.optimal.planner import DAY, Choice, Options
from flyweight.optimal.units import dollars, duration, size
from flyweight.optimal.words import interval, share

__all__ = ["Verdict", "frontier", "judge"]

NORMAL = 1.96
"""Standard errors in half an interval of 95 %."""
EQUAL = 1.05


@dataclass(frozen=True)
class Verdict:
    """Everything a plan says."""

    frontier: tuple[Choice, ...]
    """Nothing is more accurate, faster, smaller and cheaper at once than one of these."""
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
    # Somebody else's figures decide only where there are no others.
    best, reason = _best(options, counted(fitting))
    return Verdict(
        tuple(frontier(choices, options)),
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


def frontier(choices: Sequence[Choice], options: Options) -> list[Choice]:
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
    return sorted(kept, key=lambda choice: (choice.seconds, choice.memory))


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
    assert options.tokens_per_day is not None
    return options.tokens_per_day / _answer(choice) * choice.together / DAY


def _answer(choice: Choice) -> float:
    """Tokens of the one answer that is read."""
    return max(1.0, choice.work.generated / max(1.0, choice.evidence.n))


def _price(options: Options, choices: Sequence[Choice]) -> Callable[[Choice], tuple[float, ...]]:
    """What is to be little: dollars where everything has a price, else seconds."""
    if all(choice.dollars is not None for choice in choices):
        return lambda choice: (choice.dollars or 0.0, choice.seconds, choice.memory, -choice.accuracy)
    return lambda choice: (choice.seconds, choice.memory, -choice.accuracy)


def _best(options: Options, fitting: Sequence[Choice]) -> tuple[Choice, str]:
    """With an accuracy to reach, the cheapest that does; else the cheapest that can hardly be told from the best.

    "Hardly": within one standard error of the most accurate, the rule of Breiman et al. 1984 (Classification and
    Regression Trees, section 3.4.3): the most accurate of many measured ones is partly the luckiest.
    """
    cost = _price(options, fitting)
    cheap = "cheapest" if all(choice.dollars is not None for choice in fitting) else "fastest"
    kept = ", ".join(name for name, _ in _limits(options) if name != "accuracy")
    within = f" within the limits ({kept})" if kept else ""
    if options.accuracy is not None:
        best = min(fitting, key=cost)
        low = best.evidence.accuracy.low
        sure = "" if low >= options.accuracy else f"; its interval begins at {share(low)}, so that is likely, not sure"
        return best, f"the {cheap} of {len(fitting)} that reach {share(options.accuracy)}{within}{sure}"
    top = max(fitting, key=lambda choice: (choice.accuracy, [-part for part in cost(choice)]))
    error = (top.evidence.accuracy.high - top.evidence.accuracy.low) / (2 * NORMAL)
    near = [choice for choice in fitting if choice.accuracy >= top.accuracy - error]
    best = min(near, key=cost)
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
            f"this machine cannot write --tokens-per-day {options.tokens_per_day:,.0f}: with {least.label} it would "
            f"take {_busy(options, least):.1f} of it"
        )
    names = " and ".join(f"--{name}" for name, _ in _limits(options))
    loosest = max(choices, key=lambda choice: (sum(limit(choice) for _, limit in _limits(options)), choice.accuracy))
    return (
        f"nothing keeps {names} together: {loosest.label} has {share(loosest.accuracy)}, {duration(loosest.seconds)}, "
        f"{size(loosest.memory)}; give up one of them"
    )


def _changes(options: Options, choices: Sequence[Choice], best: Choice) -> list[str]:
    """The nearest facts under which the recommendation would be another."""
    said: list[str] = []
    limits = dict(_limits(options))
    for name in limits:
        others = [test for other, test in limits.items() if other != name]
        freed = [c for c in choices if all(test(c) for test in others) and not (c.published and not best.published)]
        if name == "accuracy" or not freed:
            continue
        other, _ = _best(options, freed)
        if other.label != best.label:
            amount = {
                "memory": f"--memory of {size(other.memory)}",
                "latency": f"--latency of {duration(other.seconds)}",
                "tokens-per-day": "a machine that keeps up",
            }[name]
            said.append(f"with {amount}: {other.label} ({share(other.accuracy)}, {duration(other.seconds)})")
    measured = counted(choices)
    reach = [choice for choice in measured if choice.accuracy > best.accuracy and choice.memory <= best.memory]
    if reach:
        other = min(reach, key=lambda choice: choice.seconds)
        said.append(
            f"an accuracy above {share(best.accuracy)} in the same memory: {other.label} ({share(other.accuracy)}, "
            f"{duration(other.seconds)})"
        )
    faster = [choice for choice in measured if choice.seconds < best.seconds and choice.weights in ("", best.weights)]
    if faster:
        other = max(faster, key=lambda choice: (choice.accuracy, -choice.seconds))
        apart = other.evidence.accuracy.high >= best.evidence.accuracy.low
        told = "; not told apart on the questions there are" if apart else ""
        said.append(
            f"--latency below {duration(best.seconds)}: {other.label} ({share(other.accuracy)}, "
            f"{duration(other.seconds)}{told})"
        )
    smaller = [choice for choice in measured if choice.memory < best.memory]
    if smaller:
        other = max(smaller, key=lambda choice: (choice.accuracy, -choice.seconds))
        said.append(
            f"--memory below {size(best.memory)}: {other.label} ({share(other.accuracy)}, {duration(other.seconds)}, "
            f"{size(other.memory)})"
        )
    said += _prices(options, measured, best)
    return said


def _prices(options: Options, choices: Sequence[Choice], best: Choice) -> list[str]:
    """At which price of an hour of this machine the other side of the interface would be cheaper."""
    remote = [choice for choice in choices if choice.remote]
    local = [choice for choice in choices if not choice.remote and choice.accuracy >= best.accuracy]
    if best.remote and local:
        other = min(local, key=lambda choice: choice.seconds)
        hour = 3600 * (best.dollars or 0.0) / other.seconds
        return [f"an hour of this machine below {dollars(hour)}: {other.label} costs no more than {best.model}"]
    rivals = [choice for choice in remote if choice.accuracy >= best.accuracy and choice.dollars is not None]
    if not best.remote and rivals:
        other = min(rivals, key=lambda choice: choice.dollars or 0.0)
        hour = 3600 * (other.dollars or 0.0) / best.seconds
        return [f"an hour of this machine above {dollars(hour)}: {other.label} costs less per question"]
    return []


def _assumptions(options: Options, choices: Sequence[Choice]) -> list[str]:
    """What the figures rest on."""
    said = [
        "seconds: one question alone on a warm model; steps by rows from recorded searches, times this machine's speed",
        f"memory: a process with --slots as many as n (at most 32), --context {options.context}, after "
        f"{options.questions:,} questions",
        "accuracy: 95 % intervals over questions; what was measured in one form of the weights is taken for the others,"
        " which hold the same numbers (docs/performance.md)",
        "FLOPs: 2 x parameters x tokens computed, verifiers included",
    ]
    said += sorted({f"{choice.model}: {note}" for choice in choices for note in choice.notes})
    counted = sorted({choice.evidence.questions for choice in choices if choice.evidence.questions})
    if len(counted) > 1:
        said.append(f"not all were measured on the same questions ({', '.join(map(str, counted))} of them)")
    if any(choice.published for choice in choices):
        said.append("published figures come from other prompts and graders: they decide only where nothing is measured")
    if options.tokens_per_day is not None:
        said.append(f"R: {options.tokens_per_day:,.0f} tokens a day for {options.days:g} days")
    return said
