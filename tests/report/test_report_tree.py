"""Trees of searches: folded from events, kept as JSON, drawn as SVG."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from flyweight import strategies
from flyweight.protocols import Search
from flyweight.report.branches import svg
from flyweight.report.tree import Step, Tree
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, RuleVerifier, ToyPolicy
from flyweight.types import Event, Message, Node, Problem

SPACE = "{http://www.w3.org/2000/svg}"
PROBLEM = Problem("sum", "Add 17 and 25 and 8 and 31.", answer="81")


def searched(name: str, **parameters: int) -> Tree:
    """One search on the toy policy."""
    events: list[Event] = []
    judge = RuleVerifier(lambda question, solution: 0.9 if "81" in solution else 0.3)
    runner = Runner(ToyPolicy(), {judge.name: judge}, answers=BoxedAnswers(), on_event=events.append)
    known = {parameter.name for parameter in strategies.describe(name).parameters}
    own = {key: value for key, value in parameters.items() if key in known}
    assert runner.solve(PROBLEM, strategies.bind(name, own)).error is None
    return Tree.of(events, name, "weighted", right=lambda solution: "boxed{81}" in solution)


BUILT_IN = [name for name in strategies.names() if name != "auto"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_strategy_makes_a_tree_that_survives_json_and_a_picture_that_is_xml(name: str) -> None:
    tree = searched(name, n=6, width=2)
    assert Tree.read(json.loads(json.dumps(tree.as_dict()))) == tree
    assert all(step.parent < i for i, step in enumerate(tree.steps)), "what is followed comes first"
    assert 0 <= tree.chosen < len(tree.steps) and tree.steps[tree.chosen].candidate
    drawn = svg(tree)
    assert drawn == svg(tree)
    picture = ElementTree.fromstring(drawn)
    lines = [line for line in picture.iter(f"{SPACE}path") if line.find(f"{SPACE}title") is not None]
    assert len(lines) == len(tree.steps), "a line for every step"
    path, at = set(), tree.chosen
    while at >= 0:
        path.add(at)
        at = tree.steps[at].parent
    assert sum("c" in line.get("class", "").split() for line in lines) == len(path), "the selected path is marked"
    width, height = (float(picture.get(side, "0")) for side in ("width", "height"))
    for mark in (*picture.iter(f"{SPACE}circle"), *picture.iter(f"{SPACE}text")):
        x, y = (float(mark.get(side) or mark.get(f"c{side}") or 0) for side in "xy")
        assert 0 <= x <= width and 0 <= y <= height


TREE = Tree(
    "by hand",
    (
        Step(-1, "first", 10, 0.5, "stop"),
        Step(0, "good", 30, 0.9, "end", "7", 0, True, True),
        Step(0, "same", 20, 0.4, "end", "7", 0, True, True),
        Step(-1, "other", 40, 0.8, "end", "8", 1, True),
        Step(-1, "dropped", 5, 0.1, "stop"),
    ),
    chosen=1,
    votes="weighted",
)


def test_a_line_is_as_long_as_the_tokens_it_took() -> None:
    ends = [
        (float(x[1]), float(x[2])) for x in re.finditer(r'd="M([\d.]+) [\d.]+(?:V[\d.]+)?H([\d.]+)"><title>', svg(TREE))
    ]
    lengths = sorted(round(to - at) for at, to in ends)
    assert lengths == [60, 120, 240, 360, 480], "5, 10, 20, 30 and 40 tokens, of a path of 40 at most"


def test_votes_are_sums_of_scores_and_the_selected_class_is_bold() -> None:
    drawn = svg(TREE)
    assert "7 ✓ (2 · 1.30)" in drawn and "8 (1 · 0.80)" in drawn
    assert re.search(r'class="b">7 ✓ \(2', drawn) and not re.search(r'class="b">8 \(1', drawn)
    assert "(2 · " not in svg(Tree("by hand", TREE.steps, 1)), "no votes where nobody voted"
    counted = svg(Tree("by hand", TREE.steps, 1, votes="counted"))
    assert "7 ✓ (2)" in counted


def test_of_many_only_the_best_vote() -> None:
    drawn = svg(Tree("by hand", TREE.steps, 1, votes="weighted", most=2))
    assert "7 ✓ (1 · 0.90)" in drawn and "8 (1 · 0.80)" in drawn


def test_visits_weigh_a_vote_and_what_was_not_come_to_has_none() -> None:
    visited = svg(Tree("by hand", TREE.steps, 1, visits={0: 3, 1: 3, 3: 1}, votes="weighted"))
    assert "7 ✓ (3 · 2.70)" in visited and "8 (1 · 0.80)" in visited


def test_below_the_floor_there_is_no_vote() -> None:
    drawn = svg(Tree("by hand", TREE.steps, 1, "certainty", {1: 12.0, 2: 8.0, 3: 11.0}, floor=10.0, votes="weighted"))
    assert "7 ✓ (1 · 12.00)" in drawn and "8 (1 · 11.00)" in drawn and ">certainty<" in drawn


def test_texts_cannot_leave_their_place() -> None:
    step = Step(-1, "</title><script>", 3, None, "end", '<b>"&', 0, True)
    picture = ElementTree.fromstring(svg(Tree("<title> & more", (step,), 0, notes=("<i>: 1",))))
    assert not list(picture.iter(f"{SPACE}script"))


def test_what_is_asked_behind_an_answer_goes_on_from_it() -> None:
    async def twice(search: Search) -> Node:
        [first] = await search.complete([search.root])
        talk = [*search.problem.conversation, Message("assistant", first.solution), Message("user", "Again.")]
        [second] = await search.ask(talk)
        [alone] = await search.ask([Message("user", "Something else.")])
        search.note(asked=2, share=0.5)
        await search.classes([first, second])
        return second if alone else first

    events: list[Event] = []
    Runner(ToyPolicy(), answers=BoxedAnswers(), on_event=events.append).solve(PROBLEM, twice)
    tree = Tree.of(events, "twice")
    assert [step.parent for step in tree.steps] == [-1, 0, -1] and tree.chosen == 1
    assert [step.candidate for step in tree.steps] == [True, True, False]
    assert tree.notes == ("asked: 2", "share: 0.5")
