"""What the Python interface refuses before it searches: limits, strategies and parameters that are none."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from flyweight import api
from flyweight.errors import ConfigError
from flyweight.protocols import Search
from flyweight.testing import ToyPolicy
from flyweight.types import Budget, Node, Result, Stopped


def solve(strategy: Any, budget: Budget | None = None, **settings: Any) -> Result:
    return api.solve("Add 3 and 4 and 5.", model=ToyPolicy(), strategy=strategy, budget=budget, **settings)


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        *(("tokens", -1), ("tokens", 1.5), ("tokens", "5"), ("verifications", -1), ("verifications", 2.0)),
        *(("seconds", -0.1), ("seconds", math.nan), ("confidence", 0), ("confidence", 1.01), ("confidence", math.nan)),
    ],
)
def test_a_limit_that_is_none(limit: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"Budget({limit}={value!r}) is not allowed")):
        solve("greedy", Budget(**{limit: value}))


def test_limits_at_their_edges_hold() -> None:
    assert solve("greedy", Budget(tokens=0)).usage.generated_tokens == 0
    assert solve("greedy", Budget(seconds=0)).stopped is Stopped.DEADLINE
    assert solve("best_of_n", Budget(verifications=0), n=2).usage.verifier_calls == 0
    assert solve("greedy", Budget(tokens=10**400, seconds=math.inf, confidence=1)).stopped is Stopped.DONE


async def own(search: Search, *, n: int = 3) -> Node | None:
    return (await search.complete([search.root], n))[0]


def plain(search: Search) -> None:
    return None


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        (None, {}, "strategy=None is neither a name nor an async def"),
        (plain, {}, "the strategy plain is no coroutine function: write it as async def"),
        (
            own,
            {"m": 5},
            "own(search: 'Search', *, n: 'int' = 3) -> 'Node | None': got an unexpected keyword argument 'm'",
        ),
        ("greedy", {"max_tokens": 0}, "max_tokens=0 is not allowed: a whole number from 1"),
    ],
)
def test_a_strategy_or_a_parameter_that_is_none(strategy: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        solve(strategy, **settings)


def test_a_function_of_ones_own_takes_its_parameters() -> None:
    assert solve(own, n=2).usage.policy_calls == 2
