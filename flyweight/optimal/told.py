"""What others say of models and how often they are right: papers, model cards, the user's own file.

Figures from papers are labelled as such (`published.toml`) and stand back wherever something was measured.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from flyweight import stats, strategies, tasks, verifiers
from flyweight.errors import ConfigError, unknown
from flyweight.optimal.evidence import QUESTION, Evidence, Known, Source, usual
from flyweight.stats import Interval

__all__ = ["published", "read_models"]


@functools.cache
def published() -> tuple[Known, ...]:
    """Models and figures out of papers and model cards, each with its source."""
    text = resources.files("flyweight.optimal").joinpath("published.toml").read_text("utf-8")
    return tuple(_models(tomllib.loads(text), "published.toml", "published"))


def read_models(path: Path) -> list[Known]:
    """Models of a user's TOML file (docs/plan.md). ConfigError for what cannot be read or is not meant."""
    try:
        facts = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"--models {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--models {path} is not TOML: {' '.join(str(error).split())}") from error
    found = list(_models(facts, f"--models {path}", "given"))
    if not found:
        raise ConfigError(f"--models {path} holds no [[model]]: see docs/plan.md")
    names = [known.name for known in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"--models {path}: {twice} is there twice: write all that is known of it in one [[model]]")
    return found


NUMBERS = ("parameters", "bytes", "kv_bytes", "pretraining_tokens", "seconds")
TEXTS = ("path", "quantisation", "note")
MODEL = ("name", *TEXTS, *NUMBERS)
RESULT = ("task", "strategy", "n", "verifier", "accuracy", "questions", "low", "high", "note", "generated", "prompt")


def _models(facts: Mapping[str, Any], where: str, source: Source) -> Iterator[Known]:
    _known(facts, ("model",), where)
    rows = facts.get("model", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{where}: write each model as a table [[model]]")
    for row in rows:
        name = row.get("name")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{where}: a [[model]] has no name")
        here = f"{where}: model {name}"
        _known(row, (*MODEL, "price", "result"), here)
        price = row.get("price")
        if price is not None and not (isinstance(price, list) and len(price) == 2 and all(map(_positive, price))):
            raise ConfigError(f"{here}: price {price!r} is not [US$ per million tokens read, written]")
        _texts(row, TEXTS, here)
        for key in NUMBERS:
            if key in row and not (_positive(row[key]) and row[key] > 0):
                raise ConfigError(f"{here}: {key} {row[key]!r} is not a number above 0")
        if price is not None and "seconds" not in row:
            raise ConfigError(f"{here} has a price and no seconds: add how long an answer takes")
        results = row.get("result", [])
        if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
            raise ConfigError(f"{here}: write each figure as a table [[model.result]]")
        yield Known(
            **{key: row[key] for key in MODEL if key in row},
            price=None if price is None else (float(price[0]), float(price[1])),
            results=tuple(_result(name, one, here, source) for one in results),
        )


def _result(model: str, row: Mapping[str, Any], where: str, source: Source) -> Evidence:
    _known(row, RESULT, f"{where}: result")
    accuracy, questions = row.get("accuracy"), row.get("questions", 0)
    for key in ("task", "note") if source == "published" else ("task",):
        if key not in row:
            raise ConfigError(f"{where}: a result has no {key}")
    _texts(row, ("task", "strategy", "verifier", "note"), where)
    if not _positive(accuracy) or float(accuracy) > 1:  # type: ignore[arg-type]
        raise ConfigError(f"{where}: accuracy {accuracy!r} is not a share between 0 and 1")
    if not _whole(questions) or questions < 0:
        raise ConfigError(f"{where}: questions {questions!r} is not a whole number")
    n = row.get("n")
    if n is not None and (not _whole(n) or n < 1):
        raise ConfigError(f"{where}: n {n!r} is not a whole number from 1")
    parameters = {} if n is None else {"n": n}
    strategy = row.get("strategy", "greedy" if n is None else "best_of_n")
    try:
        tasks.factory(row["task"])
        strategies.bind(strategy, parameters)
        if (judge := row.get("verifier")) is not None and judge not in verifiers.names() and ":" not in judge:
            raise unknown("verifier", judge, verifiers.names())
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    value = float(accuracy)  # type: ignore[arg-type]
    limits = [row[key] for key in ("low", "high") if key in row]
    if limits:
        if len(limits) != 2 or not all(map(_positive, limits)) or not limits[0] <= value <= limits[1] <= 1:
            raise ConfigError(f"{where}: low and high {limits} do not enclose the accuracy {value:g}")
        interval = Interval(float(limits[0]), value, float(limits[1]))
    elif questions:
        interval = stats.wilson(round(value * questions), questions)._replace(value=value)
    else:
        interval = Interval(0.0, value, 1.0)
    for key in ("generated", "prompt"):
        if not _positive(row.get(key, 0)):
            raise ConfigError(f"{where}: {key} {row[key]!r} is not a number of tokens")
    if "prompt" in row and not row.get("generated"):
        raise ConfigError(f"{where}: a result has a prompt and no generated: add the tokens drawn per question")
    work = usual(n or 1, row["generated"], row.get("prompt", QUESTION)) if row.get("generated") else None
    return Evidence(
        row["task"],
        model,
        strategy,
        parameters,
        judge,
        interval,
        questions,
        source,
        row.get("note", "said by the user"),
        work,
    )


def _known(row: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    for key in row:
        if key not in allowed:
            raise ConfigError(f"{where} has an unknown key {key!r} (one of: {', '.join(allowed)})")


def _texts(row: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in keys:
        if key in row and not (isinstance(row[key], str) and row[key]):
            raise ConfigError(f"{where}: {key} {row[key]!r} is not a text")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
