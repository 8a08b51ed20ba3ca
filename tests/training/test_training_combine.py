"""Fitting `self`: what tells right from wrong counts, noise does not; the file, and what is left of a broken one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from flyweight.errors import ConfigError
from flyweight.testing import NoModels, ToyPolicy, arithmetic, drive
from flyweight.training import combine
from flyweight.training.calibrate import platt
from flyweight.training.combine import Scored
from flyweight.training.pool import NOTHING
from flyweight.types import Finish, Node, Problem
from flyweight.verifiers.self_verifier import Combination, SelfVerifier, kind_of, logit


def pool(questions: int = 80, n: int = 8, seed: int = 0) -> list[Scored]:
    """Part a knows, part b knows something else, part c knows how hard the question is, d nothing."""
    rng = np.random.default_rng(seed)
    found = []
    for q in range(questions):
        hard = rng.normal()
        right = [bool(x) for x in rng.random(n) < 1 / (1 + math.exp(hard))]
        signs = np.array([1 if r else -1 for r in right])

        def scores(of: object) -> list[float]:
            return [float(x) for x in 1 / (1 + np.exp(-np.asarray(of)))]

        rows = {
            "a": scores(signs + rng.normal(size=n)),
            "b": scores(0.7 * signs + rng.normal(size=n)),
            "c": scores(np.full(n, -hard)),
            "d": scores(rng.normal(size=n)),
        }
        found.append(Scored(str(q), "maths", rows, right))
    return found


def test_parts_that_know_something_count_and_beat_each_alone() -> None:
    fitted = combine.fit(pool())
    assert list(fitted.weights) == ["a", "b"]
    alone = fitted.facts["parts_alone"]
    assert isinstance(alone, dict) and isinstance(fitted.facts["auc_within"], float)
    assert fitted.facts["auc_within"] > max(alone.values())
    assert fitted.weights["a"] > fitted.weights["b"] > 0


@pytest.mark.parametrize(
    "questions", [[], [Scored("1", "maths", {"a": []}, [])], [Scored("1", "maths", {"a": [0.5]}, [True])]]
)
def test_answers_that_teach_nothing_are_said_in_a_line(questions: list[Scored]) -> None:
    with pytest.raises(ConfigError, match=f"^{len(questions)} questions: {NOTHING}"):
        combine.fit(questions)


def test_labels_that_mean_nothing_give_nothing() -> None:
    rng = np.random.default_rng(1)
    blind = [each._replace(right=[bool(rng.integers(2)) for _ in each.right]) for each in pool(120)]
    value = combine.fit(blind).facts["auc_within"]
    assert isinstance(value, float) and abs(value - 0.5) < 0.08


def test_the_order_of_answers_changes_nothing() -> None:
    questions = pool(30)
    turned = [
        each._replace(scores={k: list(v)[::-1] for k, v in each.scores.items()}, right=list(each.right)[::-1])
        for each in questions
    ]
    one, other = combine.fit(questions), combine.fit(turned)
    assert one.weights == pytest.approx(other.weights, abs=1e-4) and one.offset == pytest.approx(other.offset, abs=1e-4)


def test_probabilities_are_calibrated() -> None:
    fitted = combine.fit(pool(400))
    whole = Combination(fitted.weights, fitted.offset)
    fresh = pool(400, seed=9)
    values = [whole.value([each.scores[name][i] for name in fitted.weights]) for each in fresh for i in range(8)]
    right = [r for each in fresh for r in each.right]
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = [(v, r) for v, r in zip(values, right, strict=True) if low <= v < low + 0.25]
        claimed, true = np.mean([v for v, _ in inside]), np.mean([r for _, r in inside])
        assert abs(claimed - true) < 0.06


def test_platt_is_the_maximum_of_the_likelihood() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=300)
    y = rng.random(300) < 1 / (1 + np.exp(-(1.7 * x - 0.4)))
    slope, shift = platt(list(x), list(y))
    t = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))

    def cost(a: float, b: float) -> float:
        z = a * x + b
        return float(np.sum(np.logaddexp(0, z) - t * z))

    best = cost(slope, shift)
    for da, db in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert cost(slope + da, shift + db) > best


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e3])
def test_platt_finds_it_however_large_the_logits_are(scale: float) -> None:
    """A head says what it likes before it is calibrated; steps that are too long for it would run away."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=2000) + rng.normal(size=2000) ** 3
    y = rng.random(2000) < 1 / (1 + np.exp(-(0.4 * x - 1.5)))
    slope, shift = platt(list(x), list(y))
    far = platt(list(scale * x + 7 * scale), list(y))
    assert far[0] * scale == pytest.approx(slope, rel=1e-4)
    assert far[1] + 7 * scale * far[0] == pytest.approx(shift, rel=1e-4)


def test_saved_it_is_what_self_computes(tmp_path: Path) -> None:
    file = tmp_path / "self.json"
    combine.save(file, "", {"maths": combine.Fitted({"arithmetic": 1.5}, -0.25, {})})
    node = Node(Node(), "2 + 2 = 4. 3 + 3 = 6.", tokens=(1,), logprobs=(-0.1,), finish=Finish.END)
    [score] = drive(SelfVerifier(combination=str(file)).score(Problem("p", "q"), [node], NoModels()))
    assert score.value == pytest.approx(1 / (1 + math.exp(-(1.5 * logit(0.75) - 0.25))))
    # Of a kind it was not fitted for, and of a model without one, the free part is left.
    for verifier in (SelfVerifier(),):
        [free] = drive(verifier.score(Problem("p", "q"), [node], NoModels()))
        assert free.value == 0.75 and free.kind == "self"
    assert kind_of(Problem("p", "q", meta={"public": ""})) == "code"


def test_steps_are_combined_where_all_parts_say_something_of_each(tmp_path: Path) -> None:
    one = Node(Node(), "2 + 2 = 4.", tokens=(1,), logprobs=(-0.1,), finish=Finish.STOP)
    two = Node(one, "3 + 3 = 7.", tokens=(2,), logprobs=(-2.0,), finish=Finish.END)
    combine.save(tmp_path / "a.json", "", {"maths": combine.Fitted({"arithmetic": 1.0}, 0.0, {})})
    [score] = drive(SelfVerifier(combination=str(tmp_path / "a.json")).score(Problem("p", "q"), [two], NoModels()))
    assert score.steps == pytest.approx((2 / 3, 1 / 4)) and score.steps[-1] == score.value
    # repetition speaks of whole paths alone, so nothing can be said of the steps.
    both = combine.Fitted({"arithmetic": 1.0, "repetition": 1.0}, 0.0, {})
    combine.save(tmp_path / "b.json", "", {"maths": both})
    [score] = drive(SelfVerifier(combination=str(tmp_path / "b.json")).score(Problem("p", "q"), [two], NoModels()))
    assert score.steps == () and 0 < score.value < 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1, "sha256": "a", "kinds": {"maths": {}}}'])
def test_a_file_that_is_none_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ConfigError, match="is not a combination") as error:
        SelfVerifier(combination=str(tmp_path / "s.json"))
    assert "\n" not in str(error.value)


def test_another_models_combination_is_refused(tmp_path: Path) -> None:
    combine.save(tmp_path / "s.json", "f" * 64, {"maths": combine.Fitted({"arithmetic": 1.0}, 0.0, {})})
    node = Node(Node(), "x", tokens=(1,), logprobs=(-0.1,), finish=Finish.END)
    with pytest.raises(ConfigError, match="was fitted for the model ffff"):
        drive(SelfVerifier(combination=str(tmp_path / "s.json")).score(Problem("p", "q"), [node], NoModels()))


def test_collecting_goes_on_where_it_was(tmp_path: Path) -> None:
    from flyweight import tasks, verifiers

    questions = [{"id": str(i), "question": f"{i} + 2 = ?", "answer": str(i + 2)} for i in range(6)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    task = tasks.load("jsonl", tmp_path / "q.jsonl")
    parts = {"arithmetic": verifiers.load("arithmetic"), "confidence": verifiers.load("confidence")}
    file = tmp_path / "out.jsonl"
    policy = ToyPolicy(write=arithmetic)
    first = list(combine.collect(policy, task, task.problems()[:3], parts, file, n=4))
    with file.open("a") as stream:
        stream.write('{"id": "5", "kind": "ma')  # killed while it wrote
    assert len(first) == 3 and len(combine.load(file)) == 3
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines()))
    rest = list(combine.collect(policy, task, task.problems(), parts, file, n=4))
    assert len(rest) == 3
    rows = combine.load(file)
    assert sorted(row.id for row in rows) == [str(i) for i in range(6)]
    for row in rows:
        assert set(row.scores) == {"arithmetic", "confidence"}
        assert all(len(scores) == len(row.right) for scores in row.scores.values())
