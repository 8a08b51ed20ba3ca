from __future__ import annotations

import math
import re
from collections.abc import Sequence

from flyweight import sandbox
from flyweight.answers import extract
from flyweight.answers.behaviour import inputs
from flyweight.errors import BudgetSpent
from flyweight.protocols import Search
from flyweight.sandbox import Call, Stdin
from flyweight.select import finished, majority
from flyweight.types import Message, Node
from flyweight.verifiers.execution import beside
from flyweight.verifiers.written import asked, results, write_tests

LETTER = re.compile(r"\W{0,20}([AB])(?![A-Za-z])")
LONGEST = 200
"""Characters of an output that are compared and shown."""
SECONDS = 2.0
"""Wall time of a program on one input."""


async def code_agreement(
    search: Search, *, n: int = 8, tests: int = 8, probes: int = 2, temperature: float = 0.7
) -> Node | None:
    """Programs and tests, both written by the model, back each other: the largest agreement of the two wins.

    Programs that pass the same tests are a cluster, which is worth its programs times the tests they pass. The two
    leading clusters are then told apart by inputs on which they differ: the model says which of the two outputs is
    right, asked in both orders. Without tests, or without programs, the majority decides.

    Use: programs, where there are too few tests to select by.
    Source: Chen et al. 2022, CodeT, arXiv 2207.10397, section 2.2 (dual agreement); Li et al. 2025, S*, arXiv
    2502.14382, section 3.2 (distinguishing inputs).
    Cost: n completions, 1 with the tests, at most 2 * probes of one letter; the programs are run in the sandbox.
    Deviations: inputs are the tests' own and mutations of them, where S* has the model write them; only the two
    leading clusters meet; what the model has no clear opinion on leaves the larger agreement in front.
    """
    drawn = finished(await search.complete([search.root], n, temperature=temperature))
    codes = {node: code for node in drawn if (code := extract(node.solution, "code")) is not None}
    written = await write_tests(search.problem, search, n=tests) if codes else []
    if not written:
        return majority(await search.classes(drawn))

    def run(node: Node) -> tuple[bool, ...]:
        return tuple(results(search.problem, node, written, seconds=SECONDS))

    different = {code: node for node, code in codes.items()}
    passed_by = dict(zip(different, await beside(run, different.values(), search), strict=True))
    clusters: dict[tuple[bool, ...], list[Node]] = {}
    for node, code in codes.items():
        clusters.setdefault(passed_by[code], []).append(node)

    def worth(passed: tuple[bool, ...]) -> tuple[float, ...]:
        cluster = clusters[passed]
        return (len(cluster) * sum(passed), len(cluster), round(math.fsum(n.mean_logprob for n in cluster), 9))

    ranked = sorted(clusters, key=worth, reverse=True)
    search.note(
        tests=written,
        clusters=[(len(clusters[passed]), sum(passed)) for passed in ranked],
        agreement={node.key: worth(passed)[0] for passed in ranked for node in clusters[passed]},
    )
    leaders = [majority([clusters[passed]]) for passed in ranked[:2]]
    first, second = [*leaders, None][:2]
    if first is None or second is None:
        return first
    try:
        return second if await _prefers(search, second, first, written, probes) else first
    except BudgetSpent:
        return first


async def _prefers(search: Search, a: Node, b: Node, tests: Sequence[str], probes: int) -> bool:
    """Whether the model finds the outputs of `a` right more often than those of `b`, where they differ."""
    given = inputs(sandbox.asserts("\n".join(tests), entry=asked(search.problem)))
    mine, other = (_outputs(search, node, given) for node in (a, b))
    differing = [i for i, pair in enumerate(zip(mine, other, strict=True)) if pair[0] != pair[1]]
    votes = 0
    for i in differing[:probes]:
        for letter, shown in (("A", (mine[i], other[i])), ("B", (other[i], mine[i]))):
            question = (
                f"{search.problem.prompt}\n\nWhat should this give?\n{_shown(given[i])}\n"
                f"A: {shown[0]}\nB: {shown[1]}\nReply with one letter, A or B."
            )
            [reply] = await search.ask([Message("user", question)], temperature=0, max_tokens=4)
            said = LETTER.match(reply.solution)
            votes += 0 if said is None else 1 if said[1] == letter else -1
    search.note(differing=len(differing), votes=votes)
    return votes > 0


def _outputs(search: Search, node: Node, given: Sequence[Call | Stdin]) -> list[str]:
    """What the node's program makes of every input, as text that is equal for equal values."""
    code = extract(node.solution, "code") or ""
    made = sandbox.evaluate(sandbox.program(search.problem.meta, code), given, seconds=SECONDS)
    return [sandbox.canonical(each.value)[:LONGEST] if each.kind == "value" else f"({each.kind})" for each in made]


def _shown(given: Call | Stdin) -> str:
    return given.expression if isinstance(given, Call) else given.stdin
