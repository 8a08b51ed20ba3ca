"""The verbs of `Search` are enough: five strategies of the literature, each in under 40 lines, and what they do.

They are proofs, not products. Each uses `search` alone, the pure functions of `select`, and nothing else of Flyweight.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import random
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flyweight.protocols import Growth, Models, Search
from flyweight.runner import Runner
from flyweight.select import aggregate, finished, top
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy, check_strategy
from flyweight.types import Finish, Message, Node, Problem, Result, Sampling, Score

Q = Problem("q", "a question")


async def self_refine(search: Search, *, rounds: int = 3) -> Node | None:
    """Critique and revise until accepted, a text comes back, or the rounds are over (Madaan et al. 2023, 2303.17651).

    Cost: 1 + 2 * rounds completions at most. Never worse than the first answer in the verifier's own eyes.
    """
    versions = await search.score(finished(await search.complete([search.root])))
    if not versions:
        return None
    floor = aggregate(versions[0].score)
    seen = {versions[0].solution}
    for _ in range(rounds):
        talk = [*search.problem.conversation, Message("assistant", versions[-1].solution)]
        talk.append(Message("user", "What is wrong with this? Say ACCEPTED if nothing is."))
        [critique] = await search.ask(talk)
        if "ACCEPTED" in critique.solution:
            break
        talk += [Message("assistant", critique.solution), Message("user", "Revise your answer.")]
        [revision] = await search.score(await search.ask(talk))
        if revision.solution in seen:
            break
        seen.add(revision.solution)
        versions.append(revision)
    return [version for version in versions if aggregate(version.score) >= floor][-1]


async def budget_forcing(search: Search, *, most: int = 60, least: int = 40, waits: int = 2) -> Node:
    """Think for `least` to `most` tokens, then answer (Muennighoff et al. 2025, s1, 2501.19393).

    Cost: 2 + waits calls at most.
    """
    node, thought = search.root, 0
    while True:
        start = node
        [node] = await search.extend([start], stop=("</think>",), max_tokens=most - thought)
        thought += len(node.tokens or ())
        if node.finish is not Finish.STOP or thought >= least or waits == 0:
            break
        waits -= 1
        node = search.append(start, node.text.removesuffix("</think>") + "Wait, ")
    if node.finish is Finish.END:
        return node
    closing = "" if node.finish is Finish.STOP else "</think>"
    [answer] = await search.complete([search.append(node, f"{closing}\nFinal answer: ")])
    return answer


async def confident_voting(search: Search, *, n: int = 12, warmup: int = 4, window: int = 8) -> Node | None:
    """Cut samples whose windowed certainty falls below the warm-up's median, vote by certainty (DeepConf, 2508.15260).

    Cost: less than n completions, as those that are cut cost only what they had grown to.
    """

    def weakest(certainty: Sequence[float]) -> float:
        ends = range(min(window, len(certainty)), len(certainty) + 1)
        return min(sum(certainty[max(0, end - window) : end]) / min(window, end) for end in ends)

    def fading(growth: Growth) -> bool:
        return len(growth.certainty) >= window and sum(growth.certainty[-window:]) / window < bar

    first = await search.complete([search.root], warmup)
    bar = sorted(weakest(node.certainty) for node in first)[len(first) // 2]
    rest = await search.complete([search.root], n - warmup, until=fading)
    groups = await search.classes([node for node in [*first, *rest] if weakest(node.certainty) >= bar])
    heaviest = max(groups, key=lambda group: sum(weakest(node.certainty) for node in group), default=None)
    return max(heaviest, key=lambda node: weakest(node.certainty)) if heaviest else None


async def tournament(search: Search, *, n: int = 6, pivots: int = 2) -> Node | None:
    """Everyone plays his neighbour, the best become pivots, everyone plays the pivots; the best win rate wins.

    Cost: n completions, n + pivots * (n - pivots) + pivots * (pivots - 1) / 2 comparisons.
    """
    players = finished(await search.complete([search.root], n))
    won = dict.fromkeys(players, 0.0)
    played = dict.fromkeys(players, 0)

    async def match(a: Node, b: Node) -> None:
        for player, share in zip((a, b), [p := await search.compare(a, b), 1 - p], strict=True):
            won[player] += share
            played[player] += 1

    def standing(player: Node) -> tuple[float, int]:
        return (won[player] / played[player], -player.draw)

    await search.parallel(*(match(a, b) for a, b in zip(players, players[1:] + players[:1], strict=True)))
    best = sorted(players, key=standing, reverse=True)[:pivots]
    others = [player for player in players if player not in best]
    pairs = [*itertools.product(others, best), *itertools.combinations(best, 2)]
    await search.parallel(*(match(a, b) for a, b in pairs))
    return max(players, key=standing, default=None)


async def draft_and_finish(search: Search, *, n: int = 4) -> Node:
    """A small model drafts n first steps, the verifier picks one, a larger model finishes it.

    Cost: n steps of the drafter, n verifications, 1 completion of the finisher.
    """
    drafts = await search.extend([search.root], n, policy="drafter")
    [best] = top(await search.score(finished(drafts)), 1)
    [answer] = await search.complete([best], temperature=0, policy="finisher")
    return answer


PROOFS = [self_refine, budget_forcing, confident_voting, tournament, draft_and_finish]


@pytest.mark.parametrize("strategy", PROOFS, ids=lambda f: f.__name__)
def test_under_forty_lines_and_nothing_but_the_vocabulary(strategy: Callable[..., object]) -> None:
    source = textwrap.dedent(inspect.getsource(strategy))
    assert len(source.splitlines()) < 40
    verbs = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "search"
    }
    assert verbs and verbs <= {name for name in vars(Search) if not name.startswith("_")}


def solve(strategy: Any, write: Any = None, rule: Any = None, policies: Any = None, **parameters: int) -> Result:
    async def bound(search: Search) -> Node | None:
        found: Node | None = await strategy(search, **parameters)
        return found

    judge = rule if hasattr(rule, "score") else RuleVerifier(rule or (lambda question, solution: 0.5))
    runner = Runner(policies or ToyPolicy(write), {"judge": judge}, answers=BoxedAnswers())
    result = runner.solve(Q, bound)
    assert result.error is None, result.error
    return result


def in_turn(*texts: str | Draft) -> Callable[..., Draft]:
    """Says one text after another, whatever is asked; a request too many fails."""
    supply = iter(texts)

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        said = next(supply)
        return said if isinstance(said, Draft) else Draft(said)

    return write


# Self-refine

VALUES = {"\\boxed{1}": 0.5, "\\boxed{2}": 0.7, "\\boxed{3}": 0.2}


def refine(*texts: str, rounds: int = 3) -> tuple[str | None, int]:
    result = solve(self_refine, in_turn(*texts), lambda question, solution: VALUES[solution], rounds=rounds)
    return result.answer, result.usage.policy_calls


def test_self_refine_stops_when_accepted() -> None:
    assert refine("\\boxed{1}", "ACCEPTED") == ("1", 2)
    assert refine("\\boxed{1}", "no", "\\boxed{2}", "ACCEPTED") == ("2", 4)


def test_self_refine_stops_at_a_fixpoint_and_in_a_cycle() -> None:
    assert refine("\\boxed{1}", "no", "\\boxed{1}") == ("1", 3)
    assert refine("\\boxed{1}", "no", "\\boxed{2}", "no", "\\boxed{1}") == ("2", 5)


def test_self_refine_stops_after_its_rounds() -> None:
    assert refine("\\boxed{1}", "no", "\\boxed{2}", rounds=1) == ("2", 1 + 2 * 1)
    assert refine("\\boxed{1}", rounds=0) == ("1", 1)


def test_self_refine_never_returns_less_than_the_first_answer() -> None:
    assert refine("\\boxed{1}", "no", "\\boxed{3}", "ACCEPTED") == ("1", 4)


def test_a_revision_sees_the_whole_conversation_and_is_a_candidate() -> None:
    seen: list[str] = []
    say = in_turn("\\boxed{1}", "a sum is off", "\\boxed{2}", "ACCEPTED")

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        seen.append(question)
        return say(question, so_far, rng, sampling)

    result = solve(self_refine, write, lambda question, solution: VALUES[solution])
    assert seen[0] == Q.prompt and "What is wrong" in seen[1] and seen[2] == "Revise your answer."
    assert result.best is not None
    asked = [message.content for message in result.best.root.messages]
    assert asked[:2] == [Q.prompt, "\\boxed{1}"] and asked[3] == "a sum is off"
    assert {c.answer for c in result.candidates} == {"1", "2"}, "critiques are no candidates"


# Budget forcing


def test_thinking_is_cut_at_most() -> None:
    result = solve(budget_forcing, in_turn("x" * 100, "\\boxed{1}"))
    assert result.text == "x" * 60 + "</think>\nFinal answer: \\boxed{1}"
    assert result.usage.generated_tokens == 60 + len("\\boxed{1}") + 1


def test_thinking_goes_on_until_least() -> None:
    result = solve(budget_forcing, in_turn("a" * 10 + "</think>", "b" * 20 + "</think>!", "\\boxed{1}"))
    assert result.text == "a" * 10 + "Wait, " + "b" * 20 + "</think>\nFinal answer: \\boxed{1}"
    assert result.usage.policy_calls == 3
    assert [c.answer for c in result.candidates] == ["1"], "a thought is no candidate"


def test_waiting_has_an_end() -> None:
    result = solve(budget_forcing, in_turn(*["</think>"] * 3, "\\boxed{1}"), waits=2)
    assert (result.text, result.usage.policy_calls) == ("Wait, Wait, </think>\nFinal answer: \\boxed{1}", 4)


def test_a_model_that_answers_without_thinking_is_left_alone() -> None:
    assert solve(budget_forcing, in_turn("\\boxed{1}")).text == "\\boxed{1}"


# Confidence-cut voting


def test_fading_samples_are_cut_early_and_do_not_vote() -> None:
    sure, unsure = Draft("thinking hard: \\boxed{1}", -2.0), Draft("a long ramble about \\boxed{2}", -0.1)
    warmup = [sure, unsure, sure, unsure]
    result = solve(confident_voting, in_turn(*warmup, *[unsure] * 6, *[sure] * 2), n=12)
    assert (result.answer, result.usage.policy_calls) == ("1", 12)
    finishes = Counter(candidate.node.finish for candidate in result.candidates)
    assert finishes == {Finish.END: 6, Finish.CUT: 6}
    assert {len(c.node.tokens or ()) for c in result.candidates if c.node.finish is Finish.CUT} == {8}
    whole = 4 * (len(sure.text) + 1) + 2 * (len(unsure.text) + 1)
    assert result.usage.generated_tokens == whole + 6 * 8, "less than 12 whole samples"


def test_votes_weigh_what_they_are_sure_of() -> None:
    drafts = [Draft("\\boxed{1}", -1.0)] * 5 + [Draft("\\boxed{2}", -9.0)]
    assert solve(confident_voting, in_turn(*drafts), n=6).answer == "2", "9 beats 5 times 1"


# Tournament


class Stronger:
    """A judge of pairs: the larger answer wins three times out of four."""

    name, params, sees_answer = "stronger", 0, False

    def __init__(self) -> None:
        self.matches: list[tuple[str, str]] = []

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        raise AssertionError("only compares")

    async def compare(self, problem: Problem, a: Node, b: Node, models: Models) -> float:
        self.matches.append((a.solution, b.solution))
        return 0.75 if a.solution > b.solution else 0.25


@pytest.mark.parametrize(("n", "pivots"), [(3, 1), (6, 2), (8, 3), (5, 5)])
def test_the_strongest_wins_whatever_the_draw(n: int, pivots: int) -> None:
    rng = random.Random(n)
    for _ in range(10):
        judge = Stronger()
        texts = [f"\\boxed{{{i}}}" for i in rng.sample(range(n), n)]
        result = solve(tournament, in_turn(*texts), judge, n=n, pivots=pivots)
        assert result.answer == str(n - 1)
        matches = n + pivots * (n - pivots) + pivots * (pivots - 1) // 2
        assert len(judge.matches) == matches
        assert (result.usage.policy_calls, result.usage.verifier_calls) == (n, 2 * matches)


def test_a_verifier_of_single_texts_can_judge_pairs() -> None:
    texts = [f"\\boxed{{{i}}}" for i in range(6)]
    result = solve(tournament, in_turn(*texts), lambda question, solution: 0.1 + 0.1 * texts.index(solution))
    assert result.answer == "5"


# Drafter and finisher


def test_two_models_work_on_one_path() -> None:
    drafter = ToyPolicy(in_turn("bad\n\n", "good\n\n", "poor\n\n", "fair\n\n"), name="drafter", params=10)
    finisher = ToyPolicy(in_turn("and so \\boxed{7}"), name="finisher", params=1000)
    policies = {"drafter": drafter, "finisher": finisher}
    marks = {"bad": 0.1, "good": 0.9, "poor": 0.2, "fair": 0.6}
    result = solve(draft_and_finish, None, lambda question, solution: marks[solution.strip()], policies)
    assert result.text == "good\n\nand so \\boxed{7}"
    assert result.best is not None
    assert [step.policy for step in result.best.steps] == ["drafter", "finisher"]
    small, large = drafter.counters, finisher.counters
    assert (small.generated_tokens, large.generated_tokens) == (5 + 6 + 6 + 6, 16 + 1)
    assert result.usage.generated_tokens == small.generated_tokens + large.generated_tokens
    spent = [10 * (small.prompt_tokens + small.generated_tokens), 1000 * (large.prompt_tokens + large.generated_tokens)]
    assert result.usage.flops == 2 * sum(spent), "each model's tokens at its own price"


def test_the_proofs_keep_to_budgets_and_company() -> None:
    check_strategy(tournament)
    check_strategy(confident_voting)
    check_strategy(self_refine)
