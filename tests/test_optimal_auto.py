"""The strategy auto: what it draws, chooses, refuses and says."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyweight import api, strategies
from flyweight.api import Session
from flyweight.candidates import Candidates
from flyweight.errors import ConfigError
from flyweight.optimal import calibration, controller
from flyweight.optimal.calibration import Calibration
from flyweight.optimal.difficulty import FEATURES, Estimator
from flyweight.protocols import Request
from flyweight.runner import Runner
from flyweight.strategies import Value
from flyweight.testing import BoxedAnswers, RuleVerifier, ToyPolicy, check_strategy
from flyweight.types import Budget, Event, Finish, Node, Problem, Result, Score, Stopped
from tests.strategies.registry_kit import Instant, box, grow
from tests.test_optimal_fit import made

SHA = "a" * 64
AGREEMENT = Estimator(4, (0.5, *[0.0] * 7), (1.0,) * len(FEATURES), (10.0, *[0.0] * 7), 0.0)
"""Looks at agreement alone: hard below a half."""


class Policy(ToyPolicy):
    """A model of a file."""

    sha256 = SHA


def fitted(hard: str, easy: str, *, k: int = 4, greedy: bool = False, **changes: Any) -> Calibration:
    """One row: `hard` where fewer than half of the probe agree, `easy` elsewhere."""
    base = made(SHA, verifier="rule")
    row = base.rows[0]
    cells = tuple(replace(row.cells[0], strategy=word) for word in (hard, easy))
    row = replace(row, budget=256, greedy=greedy, estimator=replace(AGREEMENT, k=k), edges=(0.5,), cells=cells)
    changes = {"judge": changes.get("verifier", "rule"), **changes}
    return replace(base, rows=(row,), **changes)


def file(folder: Path, *held: Calibration) -> str:
    path = folder / "fitted.json"
    calibration.write(path, held)
    return str(path)


def right(question: str, solution: str) -> float:
    return 0.9 if "= 8" in solution or "50" in solution else 0.2


def search(
    parameters: dict[str, Value],
    *,
    name: str = "auto",
    policy: ToyPolicy | Instant | None = None,
    budget: Budget | None = None,
    others: tuple[ToyPolicy | Instant, ...] = (),
    seed: int = 0,
    events: list[Event] | None = None,
    problem: Problem | None = None,
) -> Result:
    writer = policy or Policy()
    runner = Runner(
        {each.name: each for each in (writer, *others)},
        {"rule": RuleVerifier(right)},
        answers=BoxedAnswers(),
        seed=seed,
        on_event=None if events is None else events.append,
    )
    asked = problem or Problem("sum", "Add 17 and 25 and 8 and 9 and 4.")
    return runner.solve(asked, strategies.bind(name, parameters), budget)


def answering(*answers: object) -> Instant:
    """Gives these answers one after the other, then the last for ever."""
    left = list(answers)

    def write(request: Request) -> str:
        return f"{random.Random(request.seed).random()} {box(left.pop(0) if len(left) > 1 else left[0])}"

    policy = Instant(write)
    policy.sha256 = SHA  # type: ignore[attr-defined]
    return policy


def test_it_keeps_the_contract_with_and_without_a_calibration(tmp_path: Path) -> None:
    check_strategy(strategies.bind("auto"))
    reference = file(tmp_path, fitted("beam_search:n=4:width=2", "weighted_best_of_n:n=8:lead=0.95", greedy=True))
    check_strategy(strategies.bind("auto", {"calibration": reference, "any_model": True, "n": 8}))


@pytest.mark.parametrize("word", ["weighted_best_of_n:n=8", "self_consistency:n=16:lead=0.8", "best_of_n:n=4"])
def test_no_token_is_drawn_twice(word: str, tmp_path: Path) -> None:
    """It costs what the chosen strategy costs alone, draws the same and finds the same."""
    reference = file(tmp_path, fitted(word, word))
    for seed in range(5):
        found = search({"calibration": reference}, seed=seed)
        alone = search({}, name=word, seed=seed)
        assert found.error is None and found.usage.generated_tokens == alone.usage.generated_tokens
        assert found.usage.policy_calls == alone.usage.policy_calls
        assert found.text == alone.text
        drawn = [candidate.node.key for candidate in found.candidates]
        assert drawn == [candidate.node.key for candidate in alone.candidates]


def test_nothing_is_scored_twice(tmp_path: Path) -> None:
    judge = RuleVerifier(right)
    runner = Runner(Policy(), {"rule": judge}, answers=BoxedAnswers())
    reference = file(tmp_path, fitted("weighted_best_of_n:n=8", "best_of_n:n=8"))
    result = runner.solve(Problem("sum", "Add 1 and 2 and 3."), strategies.bind("auto", {"calibration": reference}))
    assert len(judge.scored) == result.usage.verifier_calls == 8


def test_difficulty_decides(tmp_path: Path) -> None:
    reference = file(tmp_path, fitted("self_consistency:n=16", "best_of_n:n=4"))
    easy = search({"calibration": reference}, policy=answering(1, 1, 1, 1, 2))
    assert easy.explained["chosen"] == "best_of_n:n=4:temperature=0.7" and easy.usage.policy_calls == 4
    hard = search({"calibration": reference}, policy=answering(1, 2, 3, 4, 5))
    assert hard.explained["chosen"] == "self_consistency:n=16:temperature=0.7" and hard.usage.policy_calls == 16
    assert hard.answer == "5"
    assert (hard.explained["band"], easy.explained["band"]) == ("hard", "easy")


def test_the_most_likely_answer_comes_first_where_that_was_fitted(tmp_path: Path) -> None:
    policy = answering(1)
    search({"calibration": file(tmp_path, fitted("sample", "sample", k=3, greedy=True))}, policy=policy)
    assert [request.sampling.temperature for request in policy.asked] == [0, 0.7, 0.7]


def test_the_samples_of_the_probe_stand_for_election_in_a_tree(tmp_path: Path) -> None:
    result = search({"calibration": file(tmp_path, fitted("dvts:n=4:width=2", "dvts:n=4:width=2"))})
    assert result.error is None
    assert str(result.explained["chosen"]).startswith("dvts:n=4:width=2")
    whole = [c for c in result.candidates if c.node.parent is not None and c.node.parent.parent is None]
    assert len(whole) >= 4 and all(c.answer_class is not None for c in whole)


def test_n_is_the_most_that_is_drawn(tmp_path: Path) -> None:
    reference = file(tmp_path, fitted("self_consistency:n=16", "best_of_n:n=16"))
    for n in (1, 2, 5):
        assert search({"calibration": reference, "n": n}).usage.policy_calls == n


def test_the_budget_is_never_exceeded(tmp_path: Path) -> None:
    reference = file(tmp_path, fitted("beam_search:n=8:width=4", "weighted_best_of_n:n=16", greedy=True))
    for seed in range(20):
        rng = random.Random(seed)
        budget = Budget(tokens=rng.randint(1, 900), confidence=rng.choice((None, 0.99)))
        result = search({"calibration": reference}, budget=budget, seed=seed)
        assert result.error is None and result.usage.generated_tokens <= (budget.tokens or 0)
        assert result.best is not None or not any(candidate.node.complete for candidate in result.candidates)


CELLS = [
    "sample",
    "best_of_n:n=4:verifier=other",
    "self_consistency:n=16:lead=0.8",
    "beam_search:n=8:width=4",
    "mcts:n=4",
    "code_agreement:n=8",
]


@pytest.mark.parametrize("seed", range(60))
def test_no_limit_makes_it_fail_overspend_or_lose_an_answer(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    code = rng.random() < 0.4
    held = fitted(*rng.choices(CELLS, k=2), k=rng.choice((1, 2, 8)), greedy=rng.random() < 0.5)
    held = replace(held, kind="code" if code else "maths", confidence=rng.choice((None, held.confidence)))
    write = rng.choice((grow, lambda request: "x" * 600, lambda request: "", lambda request: box(request.seed % 3)))
    writer, bigger = Instant(write), answering(7)
    writer.sha256, bigger.name = SHA, "bigger"  # type: ignore[attr-defined]
    budget = Budget(
        tokens=rng.choice((None, 1, 5, 60, 300)),
        verifications=rng.choice((None, 0, 1, 3)),
        confidence=rng.choice((None, 0.5, 0.99)),
        seconds=rng.choice((None, None, 1e-4)),
    )
    parameters: dict[str, Value] = {"n": rng.choice((1, 3, 16)), "tokens": rng.choice((1, 50, 4096))}
    parameters |= {"bigger": rng.choice(("", "bigger")), "calibration": file(tmp_path, held)}
    judges = {name: RuleVerifier(right, name=name) for name in ("rule", "other")}
    runner = Runner({each.name: each for each in (writer, bigger)}, judges, answers=BoxedAnswers(), seed=seed)
    meta = {"public": ("assert f(1) == 2",), "entry": "f"} if code else {}
    result = runner.solve(Problem("p", "Add 17 and 25.", meta=meta), strategies.bind("auto", parameters), budget)
    assert result.error is None and result.explained["line"]
    assert budget.tokens is None or result.usage.generated_tokens <= budget.tokens
    assert budget.verifications is None or result.usage.verifier_calls <= budget.verifications
    assert result.answer is not None or all(candidate.answer is None for candidate in result.candidates)


def test_the_row_is_that_of_the_budget(tmp_path: Path) -> None:
    low, high = fitted("sample", "sample").rows[0], fitted("best_of_n:n=8", "best_of_n:n=8").rows[0]
    both = replace(fitted("sample", "sample"), rows=(low, replace(high, budget=5000)))
    reference = file(tmp_path, both)
    assert str(search({"calibration": reference}).explained["chosen"]).startswith("sample")
    assert str(search({"calibration": reference, "tokens": 5000}).explained["chosen"]).startswith("best_of_n")
    small = search({"calibration": reference, "tokens": 5000}, budget=Budget(tokens=4999))
    assert str(small.explained["chosen"]).startswith("sample")


# Going on while in doubt ---------------------------------------------------------------------------------------------


def test_it_goes_on_until_it_is_sure(tmp_path: Path) -> None:
    reference = file(tmp_path, fitted("best_of_n:n=4", "best_of_n:n=4", confidence=None))
    sure = search({"calibration": reference}, policy=answering(1), budget=Budget(confidence=0.9))
    assert sure.usage.policy_calls <= 4 and sure.sure
    doubtful = search(
        {"calibration": reference, "n": 16}, policy=answering(*[1, 2] * 20), budget=Budget(confidence=0.9)
    )
    assert doubtful.usage.policy_calls > 16, "a search was tried after all samples"
    assert not doubtful.sure and doubtful.stopped is Stopped.DONE


def test_a_bigger_model_is_asked_last(tmp_path: Path) -> None:
    reference = file(tmp_path, fitted("self_consistency:n=4", "self_consistency:n=4", confidence=None))
    bigger = answering(7)
    bigger.name = "bigger"
    parameters: dict[str, Value] = {"calibration": reference, "bigger": "bigger", "n": 4}
    doubtful = search(parameters, policy=answering(1, 2, 3, 4), others=(bigger,))
    assert (doubtful.answer, len(bigger.asked)) == ("7", 1)
    assert doubtful.explained["chosen"] == "greedy:policy=bigger"
    again = answering(7)
    again.name = "bigger"
    sure = search(parameters, policy=answering(1), others=(again,))
    assert (sure.answer, len(again.asked)) == ("1", 0)


@pytest.mark.parametrize(("said", "calibrated"), [(box(7), False), ("nothing", True)])
def test_a_bigger_models_answer_gets_no_probability_of_the_small_ones(
    said: str, calibrated: bool, tmp_path: Path
) -> None:
    """Where it states none, the small model's answer keeps its own."""
    bigger = Instant(lambda request: said)
    bigger.name = "bigger"
    held = fitted("self_consistency:n=4", "self_consistency:n=4", confidence=(-5.0, 0.0, 0.0))
    parameters: dict[str, Value] = {"calibration": file(tmp_path, held), "bigger": "bigger", "n": 4}
    found = search(parameters, policy=answering(1, 2, 3, 7), others=(bigger,))
    assert found.explained["chosen"] == "greedy:policy=bigger" and len(bigger.asked) == 1
    assert found.explained["calibrated"] == calibrated == str(found.explained["line"]).endswith(" % sure")
    assert (found.explained["confidence"] is None) == (found.answer == "7") == (not calibrated)


# What it goes by -----------------------------------------------------------------------------------------------------


def test_without_a_calibration_it_does_what_is_published_and_says_so() -> None:
    result = search({}, policy=answering(1, 1, 1, 1))
    assert result.explained["chosen"] == "weighted_best_of_n:n=16" and result.usage.policy_calls == 16
    assert "published defaults" in str(result.explained["line"])


def test_published_defaults_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "shipped", lambda: (fitted("sample", "sample"),))
    assert str(search({}).explained["chosen"]).startswith("sample")
    assert search({"calibration": "published"}).explained["chosen"] == "weighted_best_of_n:n=16"


def test_with_a_process_verifier_hard_questions_are_searched() -> None:
    class Steps(RuleVerifier):
        pass

    judge = Steps(lambda question, solution: [0.5] * max(1, solution.count("\n\n")))
    problem = Problem("sum", "Add 17 and 25 and 8.")
    runner = Runner(answering(1, 2, 3, 4), {"rule": judge}, answers=BoxedAnswers())
    assert runner.solve(problem, strategies.bind("auto")).explained["chosen"] == "beam_search:n=16:width=4"
    runner = Runner(answering(1), {"rule": judge}, answers=BoxedAnswers())
    assert runner.solve(problem, strategies.bind("auto")).explained["chosen"] == "best_of_n:n=16"


def test_another_models_calibration_is_refused(tmp_path: Path) -> None:
    reference = file(tmp_path, replace(fitted("sample", "sample"), sha256="b" * 64))
    refused = search({"calibration": reference})
    assert refused.stopped is Stopped.ERROR and refused.usage.generated_tokens == 0
    assert "was fitted on m (bbbbbbbbbbbb), not on the model in use (aaaaaaaaaaaa)" in str(refused.error)
    assert search({"calibration": reference, "any_model": "true"}).error is None


def test_another_verifiers_calibration_is_refused(tmp_path: Path) -> None:
    reference = file(tmp_path, fitted("sample", "sample", verifier="probe"))
    assert "was fitted with the verifier probe, not rule" in str(search({"calibration": reference}).error)


def test_of_a_file_the_one_for_the_kind_of_problem_counts(tmp_path: Path) -> None:
    reference = file(tmp_path, replace(fitted("sample", "sample"), kind="code"))
    assert controller.resolve(reference, SHA, "maths") is None
    assert controller.resolve(reference, SHA, "code") is not None
    with pytest.raises(ConfigError, match="cannot read"):
        controller.resolve(str(tmp_path / "none.json"), SHA, "maths")


def test_code_gets_no_probability(tmp_path: Path) -> None:
    """Its samples are many where none passes the public tests: one that all of them agree on is wrong, not sure."""
    held = replace(fitted("best_of_n:n=16:enough=0.5", "best_of_n:n=16:enough=0.5"), kind="code")
    assert held.confidence is not None and held.confidence_map() is None, "a file may hold one from before"
    assert replace(held, kind="maths").confidence_map() is not None
    problem = Problem("c", "Write a function f.", meta={"public": (), "entry": "f"})
    policy = answering(1)
    policy.write = lambda request: box(1)
    found = search({"calibration": file(tmp_path, held)}, policy=policy, problem=problem)
    assert found.usage.policy_calls == 16, "all agree, none passes"
    assert found.explained["calibrated"] is False and found.explained["confidence"] == found.confidence
    assert str(found.explained["line"]).endswith("sure that it leads")


def test_it_explains_itself_on_one_line(tmp_path: Path) -> None:
    events: list[Event] = []
    reference = file(tmp_path, fitted("self_consistency:n=8", "self_consistency:n=8"))
    result = search({"calibration": reference}, policy=answering(1, 1, 1, 2), events=events)
    said = result.explained
    assert said["strategy"] == "auto" and said["calibrated"] is True
    assert said["difficulty"] == pytest.approx(1 / (1 + 2.718281828 ** -(10 * (0.75 - 0.5))), abs=1e-3)
    line = str(said["line"])
    assert line.startswith("easy (p≈0.92): self_consistency n=8, ") and line.endswith(" % sure") and "\n" not in line
    assert any(event.facts.get("explained") == said for event in events)


def test_an_interrupted_search_has_been_explained() -> None:
    found: list[Result] = []
    runner = Runner(Policy(), {"rule": RuleVerifier(right)}, answers=BoxedAnswers())
    runner.on_event = lambda event: runner.interrupt() if event.kind == "start" else None
    found.append(runner.solve(Problem("sum", "Add 1 and 2."), strategies.bind("auto")))
    assert found[0].stopped is Stopped.INTERRUPTED and found[0].explained["chosen"] == "probe"


def test_what_was_fitted_on_numbers_says_nothing_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "shipped", lambda: (fitted("sample", "sample"),))
    for kind, chosen in (("math", "sample"), ("text", "weighted_best_of_n:n=16")):
        with Session(answering(1), verifier=RuleVerifier(right), kind=kind) as session:
            found = session.solve("Add 1 and 2.", strategy="auto")
        assert str(found.explained["chosen"]).startswith(chosen), kind
    assert api.for_kind("auto:calibration=mine.json", {}, "text") == {}
    assert api.for_kind("best_of_n", {"n": 2}, "text") == {"n": 2}


def test_more_samples_come_before_a_search_where_a_stop_rule_ended_the_plan(tmp_path: Path) -> None:
    """And all of them at the temperature that was fitted."""
    held = fitted("weighted_best_of_n:n=16:lead=0.8", "weighted_best_of_n:n=16:lead=0.8", confidence=None)
    held = replace(held, rows=(replace(held.rows[0], temperature=0.4),))
    policy = answering(1, 1, 1, 2, *[1] * 40)
    found = search({"calibration": file(tmp_path, held), "n": 16}, policy=policy, budget=Budget(confidence=0.99))
    assert found.sure and 4 < found.usage.policy_calls <= 16
    assert {request.sampling.temperature for request in policy.asked} == {0.4}


def test_code_in_doubt_is_searched_as_code(tmp_path: Path) -> None:
    held = replace(fitted("sample", "sample", confidence=None), kind="code")
    problem = Problem("c", "Write a function f.", meta={"public": (), "entry": "f"})
    found = search(
        {"calibration": file(tmp_path, held), "n": 8},
        policy=answering(*range(40)),
        problem=problem,
        budget=Budget(confidence=0.99),
    )
    assert found.error is None and str(found.explained["chosen"]).startswith("code_agreement:n=8")


def test_what_was_found_outlives_a_budget_that_ends_while_it_goes_on(tmp_path: Path) -> None:
    held = fitted("best_of_n:n=4", "best_of_n:n=4", confidence=None)
    policy = answering(1, 2, 1, 2, *["x" * 50] * 40)
    probe = sum(len(f"{0.1234567890123456} {box(1)}") + 1 for _ in range(4))
    budget = Budget(tokens=probe + 30, confidence=0.99)
    found = search({"calibration": file(tmp_path, held), "n": 4}, policy=policy, budget=budget)
    assert found.answer in ("1", "2") and found.usage.generated_tokens <= probe + 30
    assert found.explained["chosen"] != "probe" and found.explained["confidence"] is not None


def test_an_answer_of_the_probe_stands_in_for_a_choice_that_has_none(tmp_path: Path) -> None:
    policy = answering("", 8, 8, 8)
    write = policy.write
    policy.write = lambda request: text if "boxed{}" not in (text := write(request)) else "nothing said"
    found = search({"calibration": file(tmp_path, fitted("sample", "sample"))}, policy=policy)
    assert found.answer == "8" and found.usage.policy_calls == 4


def test_a_verifier_made_of_others_is_the_one_it_was_fitted_with(tmp_path: Path) -> None:
    reference = file(tmp_path, fitted("sample", "sample", verifier="weighted:arithmetic=3:form=1", judge="weighted"))
    asked: dict[str, Any] = {"strategy": "auto", "calibration": reference}
    with Session(answering(1), verifier="weighted:arithmetic=3:form=1") as session:
        assert str(session.solve("Add 1 and 2.", **asked).explained["chosen"]).startswith("sample")
    with Session(answering(1), verifier="arithmetic") as session:
        refused = session.solve("Add 1 and 2.", **asked)
    assert "was fitted with the verifier weighted:arithmetic=3:form=1, not arithmetic" in str(refused.error)


def test_how_sure_it_is_is_calibrated_whatever_chose(tmp_path: Path) -> None:
    """Also where the vote took a sample that the probe's verifier had not seen."""
    reference = file(tmp_path, fitted("self_consistency:n=8", "self_consistency:n=8", verifier="form", judge="form"))
    (held,) = calibration.read(Path(reference))
    confidence = held.confidence_map(reference)
    assert confidence is not None
    writer = answering(1, 2, 3, 4, 9, 9, 9, 9)
    runner = Runner(writer, {"form": RuleVerifier(right, name="form")}, answers=BoxedAnswers(), maps=(confidence,))
    found = runner.solve(Problem("sum", "Add."), strategies.bind("auto", {"calibration": reference}))
    assert found.answer == "9" and found.calibrated and found.confidence == found.explained["confidence"]


def test_code_without_public_tests_is_not_what_code_was_fitted_on() -> None:
    assert api.for_kind("auto", {}, "code") == {}
    assert api.for_kind("auto", {}, "code", public=False) == {"calibration": "published"}
    assert api.for_kind("auto", {}, "math", public=False) == {}


def test_problems_that_are_run_together_each_have_their_own_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    held = tuple(fitted("sample", "sample", kind=kind) for kind in ("maths", "code"))
    monkeypatch.setattr(calibration, "shipped", lambda: held)
    tested = Problem("tested", "Write f.", meta={"public": ("assert f() == 1",)})
    bare = Problem("bare", "Write g.")
    with Session(answering(1), verifier=RuleVerifier(right), kind="code", answers=BoxedAnswers()) as session:
        alone = {asked.id: session.solve(asked).explained["chosen"] for asked in (tested, bare)}
        together = {found.problem.id: found.explained["chosen"] for found in session.run([tested, bare])}
    assert together == alone
    assert str(together["tested"]).startswith("sample") and not str(together["bare"]).startswith("sample")


def test_another_model_is_not_what_the_first_was_fitted_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = Policy(name="other")
    other.sha256 = "b" * 64
    monkeypatch.setattr(calibration, "shipped", lambda: (fitted("sample", "sample"),))
    assert str(search({}).explained["chosen"]).startswith("sample")
    found = search({}, name="auto:policy=other", others=(other,))
    assert {candidate.node.policy for candidate in found.candidates} == {"other"}
    assert "published defaults" in str(found.explained["calibration"]) and not found.calibrated
    reference = file(tmp_path, fitted("sample", "sample"))
    refused = search({"calibration": reference}, name="auto:policy=other", others=(other,))
    assert "not on the model in use (bbbbbbbbbbbb)" in str(refused.error)
    theirs = file(tmp_path, replace(fitted("sample", "sample"), sha256=other.sha256))
    assert search({"calibration": theirs}, name="auto:policy=other", others=(other,)).error is None


def test_a_text_solved_at_once_is_not_gone_about_as_numbers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "shipped", lambda: (fitted("sample", "sample"),))
    found = api.solve("Say it.", model=answering(1), strategy="auto", verifier=RuleVerifier(right), kind="text")
    assert found.explained["chosen"] == "weighted_best_of_n:n=16"


def test_an_answer_comes_before_a_scored_text_that_states_none() -> None:
    """Whatever ended the search, and whether or not the answer has been scored by then."""
    candidates = Candidates(Problem("p", "Add."), BoxedAnswers(), None)
    [silent, said] = [
        Node(Node(messages=()), text=text, tokens=(1,), logprobs=(-0.1,), finish=Finish.END, key=text)
        for text in ("nothing said", box(8))
    ]
    candidates.keep(replace(silent, score=Score(0.9, (), "rule")))
    assert (candidates.best() or said).text == "nothing said"
    candidates.keep(said)
    assert candidates.best() == said
