"""What every registered strategy owes its users: the contract, a description, its golden trace."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from flyweight import strategies
from flyweight.testing import check_strategy
from tests.strategies.registry_kit import NAMES, fitting
from tests.test_strategies import EVERY

NEW = [name for name in NAMES if name not in EVERY]
"""Those that tests/test_strategies.py does not name."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", NEW)
def test_the_contract(name: str) -> None:
    check_strategy(strategies.bind(name, fitting(name, {"n": 4, "width": 2, "branch": 2})))


@pytest.mark.parametrize("name", NEW)
def test_a_strategy_describes_itself(name: str) -> None:
    said = strategies.describe(name)
    assert said.summary.endswith((".", ";")) or said.summary
    assert said.cost and re.search(r"(19|20)\d\d", said.source), (said.cost, said.source)
    for parameter in said.parameters:
        assert parameter.allowed
        strategies.bind(name, {parameter.name: parameter.default})
        strategies.bind(name, {parameter.name: str(parameter.default)})


@pytest.mark.parametrize("name", NEW)
def test_the_trace_is_the_golden_one(name: str) -> None:
    """If the change is wanted: `python scripts/make_golden.py`, and read the diff."""
    script = runpy.run_path(str(ROOT / "scripts" / "make_golden.py"))
    assert script["search"](name).splitlines() == (script["GOLDEN"] / f"{name}.jsonl").read_text("utf-8").splitlines()
