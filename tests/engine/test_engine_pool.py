"""Pools for training: what is written is what was drawn, values are shares, and an interrupted collection goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.policies.llamacpp import LlamaCpp
from flyweight.protocols import Response
from flyweight.testing import BoxedAnswers, Draft, ToyPolicy
from flyweight.training import pool
from flyweight.types import Grade, Message, Problem, Result
from tests.engine_kit import Engines

PROBLEMS = [Problem(f"p{i}", f"question {i}", (Message("user", f"question {i}"),)) for i in range(4)]


class Even(BoxedAnswers):
    """A text is right if it has an even number of letters."""

    name = "even"

    def problems(self) -> Sequence[Problem]:
        return PROBLEMS

    def grade(self, problem: Problem, text: str) -> Grade:
        return Grade("correct" if len(text) % 2 == 0 else "wrong")


def collected(engine: LlamaCpp, folder: Path, problems: Sequence[Problem] = PROBLEMS, **more: Any) -> list[Result]:
    return list(
        pool.collect(engine, Even(), problems, folder, n=4, rollouts=8, max_tokens=120, temperature=1.3, **more)
    )


@pytest.fixture
def engine(engines: Engines) -> LlamaCpp:
    return engines(slots=8, boundary=("e", "a", "o", " "))


def test_what_is_written_is_what_was_drawn(engine: LlamaCpp, tmp_path: Path) -> None:
    results = collected(engine, tmp_path)
    assert not [result.error for result in results if result.error]
    rolled = 0
    for result in results:
        leaves = [each.node for each in result.candidates if each.node.complete]
        [path] = pool.recorded(tmp_path, [result.problem])
        question = pool.load(path)
        assert question.id == result.problem.id and len(question.chains) == len(leaves)
        for leaf, chain in zip(leaves, question.chains, strict=True):
            states = np.concatenate([np.asarray(step.hidden) for step in leaf.steps])
            assert np.array_equal(chain.states, states)
            assert len(states) == leaf.drawn + 1  # the end, too, was drawn from a state
            assert chain.right is (len(leaf.solution) % 2 == 0)
            np.testing.assert_allclose(chain.logprobs, [lp for step in leaf.steps for lp in step.logprobs], rtol=1e-6)
            # A value is the share of right texts among those that go through the step.
            for step, value, end in zip(leaf.steps, chain.values, chain.ends, strict=True):
                through = [other for other in leaves if step.key in {each.key for each in other.steps}]
                expected = np.mean([len(t.solution) % 2 == 0 for t in through]) if len(through) > 1 else -1
                assert value == pytest.approx(expected)
                rolled += len(through) > 1
                assert 0 < end <= len(states)
            assert chain.ends[-1] == len(states)
        assert len(question.prompt) == len(engine._tokens.path(leaves[0].root)) - 1 if leaves else True
    assert rolled  # some steps were continued several times


def test_a_collection_goes_on_where_it_was(engines: Engines, engine: LlamaCpp, tmp_path: Path) -> None:
    collected(engine, tmp_path, PROBLEMS[:2])
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "p2.partial").write_bytes(b"killed while it wrote")
    rest = collected(engines(slots=8, boundary=("e", "a", "o", " ")), tmp_path)
    assert {result.problem.id for result in rest} == {"p2", "p3"}
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in times.items())
    assert [path.stem for path in pool.recorded(tmp_path, PROBLEMS)] == ["p0", "p1", "p2", "p3"]


def test_another_versions_file_is_refused(engine: LlamaCpp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collected(engine, tmp_path, PROBLEMS[:1])
    monkeypatch.setattr(pool, "VERSION", 99)
    with pytest.raises(ValueError, match="another version"):
        pool.load(tmp_path / "p0.npz")


def test_a_question_that_fails_leaves_no_file(engine: LlamaCpp, tmp_path: Path) -> None:
    long = Problem("long", "x" * 9000)
    [result] = collected(engine, tmp_path, [long])
    assert result.error is not None and not list(tmp_path.glob("*.npz"))


def test_every_text_is_written_also_where_many_end_at_one_step(tmp_path: Path) -> None:
    class Toy(ToyPolicy):
        def step(self) -> list[Response]:
            states = np.zeros((1, 1, 1), np.float16)
            return [replace(response, hidden=states) for response in super().step()]

    policy = Toy(lambda question, so_far, rng, sampling: Draft("" if so_far else "a\n\n"))
    list(pool.collect(policy, Even(), PROBLEMS[:1], tmp_path, n=4, rollouts=8))
    [path] = pool.recorded(tmp_path, PROBLEMS)
    chains = pool.load(path).chains
    assert len(chains) == 4 + 8
    assert sum(chain.values[0] != -1 for chain in chains) == 1 + 8, "one step has a chain and its rollouts below it"


def test_no_id_leads_out_of_the_folder(engine: LlamaCpp, tmp_path: Path) -> None:
    ids = ["HumanEval/0", "../../x", "..", "p" * 300, "/x", "plain-1.2"]
    problems = [Problem(id, f"question {i}", (Message("user", f"question {i}"),)) for i, id in enumerate(ids)]
    folder = tmp_path / "work" / "deep"
    assert not [result.error for result in collected(engine, folder, problems) if result.error]
    files = pool.recorded(folder, problems)
    assert [pool.load(path).id for path in files] == ids and set(files) == set(folder.iterdir())
    assert files[-1].name == "plain-1.2.npz" and [path.name for path in tmp_path.iterdir()] == ["work"]
