"""All and weighted: values by hand, order, what is skipped, what is refused; on a command line and in Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest

from flyweight import api, verifiers
from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Models, Verifier
from flyweight.testing import RuleVerifier, ToyPolicy, check_verifier
from flyweight.types import Finish, Node, Problem, Score
from flyweight.verifiers import compose
from tests.test_verifiers import PROBLEM, score


def fixed(value: float, name: str = "") -> RuleVerifier:
    return RuleVerifier(lambda question, solution: value, name=name or f"fixed-{value}")


def made(name: str, **settings: object) -> Verifier:
    return verifiers.load(name, **settings)


def half(question: str, solution: str) -> float:
    """A verifier as `module:function`."""
    return 0.5


def one(verifier: Verifier, text: str = "2 + 2 = 4") -> float:
    [got] = score(verifier, Node(Node(), text, finish=Finish.END))
    assert got.kind == verifier.name and got.steps == ()
    return got.value


def test_all_is_the_product_or_the_least() -> None:
    parts = [fixed(0.5), fixed(0.4), fixed(1.0)]
    assert one(made("all", parts=parts)) == pytest.approx(0.2)
    assert one(made("all", parts=parts, by="min")) == 0.4


def test_weighted_is_the_mean_by_weight_only() -> None:
    parts = [(fixed(0.5), 2.0), (fixed(0.2), 1.0)]
    assert one(made("weighted", parts=parts)) == pytest.approx(0.4)
    assert one(made("weighted", parts=[(part, 10 * weight) for part, weight in parts])) == pytest.approx(0.4)
    assert one(made("weighted", parts=[(fixed(1.0), 0.1), (fixed(1.0, "b"), 0.7), (fixed(1.0, "c"), 0.2)])) <= 1


@pytest.mark.parametrize("order", list(itertools.permutations((0.5, 0.25, 0.0))))
def test_the_order_of_the_parts_changes_no_score(order: tuple[float, ...]) -> None:
    assert one(made("all", parts=[fixed(value) for value in order])) == 0
    assert one(made("weighted", parts=[(fixed(value), 1 + value) for value in order])) == pytest.approx(
        (0.75 + 0.3125) / 3.75
    )


def test_what_parts_have_loaded_is_released_with_them() -> None:
    class Loaded(RuleVerifier):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    heavy, light = Loaded(lambda question, solution: 0.5), RuleVerifier(lambda question, solution: 0.5)
    for both in (compose.All(parts=(heavy, light)), compose.Weighted(parts=((light, 1.0), (heavy, 2.0)))):
        both.close()
    assert heavy.closed == 2


def test_a_part_sees_only_what_no_part_before_it_refused() -> None:
    seen = fixed(0.5)
    gate = RuleVerifier(lambda question, solution: float("=" in solution))
    nodes = [Node(Node(), text) for text in ("a", "b = 1", "c", "d = 2")]
    got = score(made("all", parts=[gate, seen]), *nodes)
    assert [each.value for each in got] == [0, 0.5, 0, 0.5] and seen.scored == ["b = 1", "d = 2"]
    none = fixed(0.5)
    assert [each.value for each in score(made("all", parts=[fixed(0.0), none]), *nodes)] == [
        0
    ] * 4 and none.scored == []
    both = fixed(0.5)
    score(made("weighted", parts=[(gate, 1), (both, 1)]), *nodes)
    assert len(both.scored) == 4, "a mean needs all of its parts"


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("composed", ["all", "weighted"])
def test_a_wrong_number_of_scores_is_an_error(count: int, composed: str) -> None:
    class Miscounting:
        name, params, sees_answer = "miscounting", 0, False

        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
            return [Score(0.5)] * count

    verifier = made("all", parts=[Miscounting()]) if composed == "all" else made("weighted", parts=[(Miscounting(), 1)])
    with pytest.raises(BackendError, match=f"miscounting returned {count} scores for 2 candidates"):
        score(verifier, Node(), Node())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.1, 1.1])
def test_a_score_out_of_range_is_an_error(bad: float) -> None:
    for verifier in (made("all", parts=[fixed(bad)]), made("weighted", parts=[(fixed(bad), 1)])):
        with pytest.raises(BackendError, match="must lie in"):
            one(verifier)


def test_the_answer_is_shown_to_those_alone_that_see_it() -> None:
    shown: list[tuple[str, str | None]] = []

    class Spy:
        params = 7

        def __init__(self, name: str, sees_answer: bool) -> None:
            self.name, self.sees_answer = name, sees_answer

        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
            shown.append((self.name, problem.answer))
            return [Score(1.0) for _ in nodes]

    verifier = made("all", parts=[Spy("blind", False), Spy("seeing", True)])
    assert verifier.sees_answer and verifier.params == 7 and not made("all", parts=["form"]).sees_answer
    score(verifier, Node(), problem=Problem("p", "?", answer="4"))
    assert shown == [("blind", None), ("seeing", "4")]
    for part in ("oracle", "form"):
        assert getattr(made("all", parts=[part]), "analysis_only", None) is (part == "oracle")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("all:form:arithmetic", 2 / 3),
        ("all:by=min:form:arithmetic:repetition", 2 / 3),
        ("weighted:arithmetic=2:form=1", (4 / 3 + 1) / 3),
        ("weighted:arithmetic=1:length(least=10:unit=words)=3", (2 / 3 + 3 * 0.3) / 4),
        ("weighted:all(form:regex(pattern=[0-9]=?(?:4)?))=1:arithmetic=1", (1 + 2 / 3) / 2),
        ("all:(tests.test_verifiers_compose:half):form", 0.5),
        ("all:weighted(form=1:length(least=6)=1)", 0.75),
    ],
)
def test_composed_on_a_command_line(name: str, value: float) -> None:
    assert one(verifiers.load(name)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("all", "all needs the verifiers it is made of: all:form:arithmetic"),
        ("weighted", "weighted:arithmetic=2:form=1"),
        ("all:", "a part of a composed verifier is empty"),
        ("all:form::units", "a part of a composed verifier is empty"),
        ("all:frm", "did you mean 'form'"),
        ("all:by=sum:form", "unknown way to combine 'sum'"),
        ("weighted:form", "'form' has no weight"),
        ("weighted:form=x", "'form=x' has no weight"),
        ("weighted:form=0", "form=0 is not allowed: a weight above 0"),
        ("weighted:form=-1:units=2", "form=-1 is not allowed"),
        ("weighted:form=inf", "form=inf is not allowed"),
        ("weighted:form=nan", "has no weight"),
        ("all:length(lest=3)", "did you mean 'least'"),
        ("all:length(least=3", "do not close"),
        ("all:length)least=3(", "do not close"),
        ("all:length(least=3)x", "nothing may follow"),
        ("all:" + "all(" * 20 + "form" + ")" * 20, "nested deeper than 8"),
    ],
)
def test_mistakes_give_one_line(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        verifiers.load(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_composed_keep_the_contract_with_models_in_them() -> None:
    policy = ToyPolicy(read=lambda text, choice: math.log(0.9 if choice == " Yes" else 0.1))
    check_verifier(verifiers.load("all:form:p_true"), policy=policy)
    check_verifier(verifiers.load("weighted:p_true=1:confidence=1:form=1"), policy=ToyPolicy())


def test_a_session_takes_the_same_words() -> None:
    with api.Session("toy", verifier="all:form:weighted(arithmetic=2:repetition=1)") as session:
        result = session.solve("Add 3 and 4 and 5.", strategy="best_of_n", n=8)
    assert result.error is None and result.answer == "12"
    assert result.usage.verifier_calls == 8 and result.usage.verifier_tokens == 0


def test_the_batch_and_its_order_change_no_score() -> None:
    verifier = verifiers.load("weighted:form=1:repetition=2:arithmetic=1")
    nodes = [Node(Node(), text) for text in ("2 + 2 = 4", "4 4 4 4 4 4 4", "2 + 2 = 5", "", "so \\boxed{4}")]
    alone = {node.text: score(verifier, node, problem=PROBLEM)[0].value for node in nodes}
    for order in itertools.permutations(nodes):
        assert [each.value for each in score(verifier, *order)] == [alone[node.text] for node in order]
