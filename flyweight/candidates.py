"""What one search has found so far: its candidates, the answers they state, which is best, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from flyweight import select
from flyweight.abstain import ConfidenceMap
from flyweight.protocols import Answers
from flyweight.types import Finish, Node, Problem

__all__ = ["Candidates"]


class Candidates:
    """The nodes that may be chosen, each as it was last seen, with its score if it has one."""

    def __init__(
        self, problem: Problem, answers: Answers, map: ConfidenceMap | None, aggregation: str = "last"
    ) -> None:
        """`map` is the confidence map that holds, if any; `aggregation` that of the strategy.

        Raises what `Answers.classes` raises about no answers.
        """
        answers.classes((), problem)  # where answers cannot be told apart, nothing is spent on them
        self._problem = problem
        self._answers = answers
        self._map = map
        self._aggregation = aggregation
        self._nodes: dict[str, Node] = {}
        self._ended: dict[str, str] = {}
        """Node of white space -> the step that it ended."""
        self._stated: dict[str, str | None] = {}
        """The answer of each node that was asked for it."""

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: Node) -> bool:
        return node.key in self._nodes

    def keep(self, node: Node) -> None:
        """Add a node, or take its score. Of one that adds only white space, the step before it is the candidate."""
        step = select.voter(node)
        if step is not node:
            self._ended[node.key] = step.key
        if step.score is not None or step.key not in self._nodes:
            self._nodes[step.key] = step

    def clear(self) -> None:
        """Forget them all."""
        self._nodes.clear()

    def answer(self, node: Node) -> str | None:
        """The answer a node states; None for truncated text."""
        if node.finish in (Finish.LENGTH, Finish.CUT):
            return None
        if node.key not in self._stated:
            self._stated[node.key] = self._answers.extract(node.solution)
        return self._stated[node.key]

    def groups(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """Nodes by equal answer, largest group first, each in draw order; truncated and answerless ones left out."""
        ordered = sorted(nodes, key=_drawn)
        groups = self._answers.classes([self.answer(node) for node in ordered], self._problem)
        return [[ordered[i] for i in group] for group in groups]

    def best(self) -> Node | None:
        """Best complete candidate so far: heaviest class by score, else by votes; where none states an answer the text
        of the highest score, else the most confident one.
        """
        complete = select.finished(list(self._nodes.values()))
        scored = [n for n in complete if n.score is not None]
        weighted = select.weighted_vote(self.groups(scored), aggregation=self._aggregation)
        answered = weighted or select.majority(self.groups(complete))
        if answered is None and scored:
            return select.top(scored, 1, aggregation=self._aggregation)[0]
        return answered or max(complete, key=lambda n: n.mean_logprob, default=None)

    def confidence(self, groups: Sequence[Sequence[Node]], chosen: Node) -> tuple[float | None, bool]:
        """How sure `chosen` is, and whether that is calibrated: it is not where the map's verifier had no say."""
        value = select.confidence(groups, chosen)
        said = "" if chosen.score is None else chosen.score.kind
        if value is None or self._map is None or said != self._map.verifier:
            return value, False
        return self._map(value), True

    def sure(self, wanted: float) -> bool:
        """Whether the leading answer has reached a confidence."""
        groups = self.groups(self.ends(None))
        value, calibrated = self.confidence(groups, groups[0][0]) if groups else (None, False)
        # Where a map holds, what it does not hold for yet is not compared with the dial.
        return value is not None and calibrated == (self._map is not None) and value >= wanted

    def settle(self, chosen: Node) -> Node:
        """The chosen node, or the step that it ended, with the score it has here; a candidate from now on."""
        chosen = select.voter(chosen)
        known = self._nodes.setdefault(chosen.key, chosen)
        return known if chosen.score is None else chosen

    def ends(self, chosen: Node | None) -> list[Node]:
        """Those that no other one continues, in draw order; the chosen one for those that go on from its whole text."""
        above = {key: {step.key for step in node.steps[:-1]} for key, node in self._nodes.items()}
        continued = set().union(*above.values())
        # A beam may end at a step that others went on from.
        continued -= {step for blank, step in self._ended.items() if blank not in continued}
        if chosen is not None:
            continued.discard(chosen.key)
            if chosen.finish is not Finish.STOP:  # what goes on from a whole text is the same line
                continued |= {key for key, steps in above.items() if chosen.key in steps}
        return sorted((node for key, node in self._nodes.items() if key not in continued), key=_drawn)


def _drawn(node: Node) -> tuple[tuple[int, ...], str]:
    return node.order, node.key
