"""Strategies that revise, think, filter and judge: the contract, how they describe themselves, their golden traces."""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping
from pathlib import Path

import pytest

from flyweight import strategies
from flyweight.errors import ConfigError
from flyweight.strategies import Value
from flyweight.testing import check_strategy
from tests.strategies.kit import by_hash, interrupted, play

ROOT = Path(__file__).resolve().parent.parent.parent
MINE = [
    "sequential_revision",
    "hybrid",
    "self_refine",
    "budget_forcing",
    "confidence_filtered",
    "code_agreement",
    "tournament",
    "medoid",
]


@pytest.mark.parametrize("name", MINE)
def test_the_contract(name: str) -> None:
    check_strategy(strategies.bind(name))


@pytest.mark.parametrize("name", MINE)
def test_it_describes_itself(name: str) -> None:
    said = strategies.describe(name)
    assert said.summary.endswith(".") and len(said.summary) < 130
    assert re.search(r"arXiv \d{4}\.\d{5}", said.source), said.source
    assert re.match(r"(n completions|1 completion|1 \+ 2 \* rounds)", said.cost), said.cost
    for parameter in said.parameters:
        bound = strategies.bind(name, {parameter.name: str(parameter.default)})
        assert bound.keywords[parameter.name] == parameter.default  # type: ignore[attr-defined]
        assert parameter.kind is str or re.match("true or false|last, min|a (whole )?number from", parameter.allowed)


MISTAKES: list[tuple[str, Mapping[str, Value], str]] = [
    ("hybrid", {"chains": 0}, "chains=0 is not allowed: a whole number from 1 to 4096"),
    ("self_refine", {"rounds": -1}, "rounds=-1 is not allowed: a whole number from 0"),
    ("self_refine", {"n": 4}, "unknown parameter of self_refine 'n'"),
    ("confidence_filtered", {"keep": 0}, "keep=0 is not allowed: a number from 0.01 to 1"),
    ("budget_forcing", {"think_tokens": 0}, "think_tokens=0 is not allowed"),
    ("tournament", {"pivots": "some"}, "pivots='some' is not allowed"),
]


@pytest.mark.parametrize(("name", "parameters", "message"), MISTAKES)
def test_mistakes_get_one_clear_line(name: str, parameters: Mapping[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        strategies.bind(name, parameters)


@pytest.mark.parametrize("name", MINE)
def test_an_answer_is_there_from_the_first_one_on(name: str) -> None:
    """Interrupted right after any answer was drawn, the search has a choice to show."""
    for played in interrupted(lambda stopped: play(name, scores=by_hash, stopped=stopped), "node"):
        assert played.result.best is not None


@pytest.mark.parametrize("name", MINE)
def test_the_trace_is_the_golden_one(name: str) -> None:
    """If the change is wanted: `python scripts/make_golden.py`, and read the diff."""
    script = runpy.run_path(str(ROOT / "scripts" / "make_golden.py"))
    assert script["search"](name).splitlines() == (script["GOLDEN"] / f"{name}.jsonl").read_text("utf-8").splitlines()
