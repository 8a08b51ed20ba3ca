"""`solve --strategy X` for every X there is, with its settings and with what every strategy may be made of."""

from __future__ import annotations

import pytest

from flyweight import strategies
from tests.cli_kit import KEYS, QUESTION, Command, solve


@pytest.mark.parametrize("name", strategies.names())
def test_every_strategy_answers(name: str, flyweight: Command) -> None:
    done = flyweight(*solve(QUESTION, "--strategy", name, "--json"))
    facts = done.json
    explained = ["chosen", "difficulty", "line"] if name == "auto" else []
    assert done.code == 0 and [key for key in facts if key not in explained] == KEYS
    assert [key for key in facts if key in explained] == explained
    assert facts["error"] is None and facts["answer"] and facts["text"] and facts["candidates"]
    own = {parameter.name for parameter in strategies.describe(name).parameters}
    few = [word for key, value in (("n", 4), ("width", 2)) if key in own for word in ("--set", f"{key}={value}")]
    fewer = flyweight(*solve(QUESTION, "--strategy", f"{name}:verifier=confidence", *few, "--json")).json
    assert fewer["error"] is None and fewer["answer"]
    assert fewer["usage"]["generated_tokens"] <= facts["usage"]["generated_tokens"]
