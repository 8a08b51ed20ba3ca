"""What reward models behind a URL are asked, and how their scores are read: five APIs of vLLM and TEI.

Everything here is a function of recipes and JSON; nothing is sent. An answer that does not have exactly one finite
number for everything that was asked is an error, never filled up or cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from flyweight.errors import BackendError, ConfigError
from flyweight.policies.openai.prompt import SPECIAL, plain
from flyweight.verifiers.recipes import Recipe, RewardRecipe
from flyweight.wire.client import finite

__all__ = ["APIS", "Api", "Ask", "Row", "asks", "fits", "rows", "tokens"]

Api = Literal["pooling", "classify", "score", "rerank", "predict"]
APIS: tuple[Api, ...] = get_args(Api)
Json = dict[str, Any]
Row = tuple[float, ...]
"""The numbers for one step, or for one whole solution: one of a value head, several classes."""


class Ask(NamedTuple):
    """One request."""

    body: Json
    wanted: tuple[int, ...]
    """Rows expected for each of its solutions."""


def fits(api: Api, recipe: Recipe | RewardRecipe) -> None:
    """ConfigError if solutions in the recipe's form cannot be sent to the API."""
    if isinstance(recipe, Recipe):
        if not isinstance(recipe.step, str) or recipe.ask:
            raise ConfigError(
                f"the recipe {recipe.name} asks about every step in a turn of its own, which {api} cannot read: use "
                f"prm:{recipe.name}@MODEL, or another recipe"
            )
    elif api == "classify" and not recipe.turns:
        raise ConfigError(f"the recipe {recipe.name} is a pair of texts, and classify reads conversations: use score")
    elif api in ("score", "rerank", "predict") and recipe.pair is None:
        raise ConfigError(f"the recipe {recipe.name} is a conversation, and {api} reads pairs of texts: use classify")


def asks(
    api: Api, recipe: Recipe | RewardRecipe, model: str, question: str, solutions: Sequence[str], batch: int
) -> list[Ask]:
    """The requests for these solutions, in their order; where the API takes several, `batch` at a time.

    A string that some model takes for a special token, and the recipe's own tag, get a space inside: none is forged.
    """
    named: Json = {"model": model} if model else {}
    question = _safe(recipe, question)
    if isinstance(recipe, Recipe):
        return [_process(recipe, named, question, solution) for solution in solutions]
    solutions = [_safe(recipe, solution) for solution in solutions]
    if api == "classify":
        turns = [[{"role": r, "content": recipe.fill(t, question, s)} for r, t in recipe.turns] for s in solutions]
        return [Ask({**named, "messages": each, "add_generation_prompt": False}, (1,)) for each in turns]
    assert recipe.pair is not None
    first, second = recipe.pair
    made = []
    for begin in range(0, len(solutions), batch):
        chunk = solutions[begin : begin + batch]
        pairs = [[recipe.fill(first, question, each), recipe.fill(second, question, each)] for each in chunk]
        made.append(Ask({**named, **_pairs(api, pairs)}, (1,) * len(chunk)))
    return made


def _process(recipe: Recipe, named: Json, question: str, solution: str) -> Ask:
    steps = [_safe(recipe, step) for step in recipe.steps(solution)]

    def fill(text: str, step: str = "", number: int = 0) -> str:
        values = {"question": question, "step": step, "number": str(number)}
        return re.sub(r"\{(question|step|number)\}", lambda found: values[found[1]], text)

    parts = [recipe.step if i or recipe.first is None else recipe.first for i in range(len(steps))]
    said = "".join(fill(str(part), step, i) for i, (part, step) in enumerate(zip(parts, steps, strict=True), 1))
    body: Json = {**named, "encoding_format": "float", "task": "token_classify"}
    if isinstance(recipe.prompt, str):
        body["input"] = fill(recipe.prompt) + said
    else:
        turns = [{"role": role, "content": fill(text)} for role, text in recipe.prompt]
        body |= {"messages": [*turns, {"role": "assistant", "content": said}], "add_generation_prompt": False}
    return Ask(body, (len(steps),))


def _pairs(api: Api, pairs: list[list[str]]) -> Json:
    if api == "predict":
        return {"inputs": pairs, "raw_scores": False, "truncate": False}
    queries = {query for query, _ in pairs}
    if len(queries) > 1:
        raise ConfigError(f"the first text of the recipe holds the solution, and {api} has one for all: use predict")
    [query], texts = queries, [text for _, text in pairs]
    if api == "score":
        return {"text_1": query, "text_2": texts}
    # TEI calls them texts, vLLM and others documents; each ignores what it does not know.
    return {"query": query, "documents": texts, "texts": texts, "raw_scores": False, "return_text": False}


def rows(api: Api, answer: object, ask: Ask, label: str) -> list[list[Row]]:
    """The numbers for each solution of a request: one row per step or for the whole.

    BackendError for a wrong number of anything, something said twice, or a number that is not finite.
    """
    try:
        found = _found(api, answer, label)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise BackendError(f"the answer is not in the form of {api}: is it this API that the server has?") from None
    if len(found) != len(ask.wanted):
        raise BackendError(f"{len(ask.wanted)} solutions were sent, and scores of {len(found)} came back")
    for each, wanted in zip(found, ask.wanted, strict=True):
        if len(each) != wanted:
            raise BackendError(f"{wanted} steps were sent, and scores of {len(each)} came back")
        for number in (number for row in each for number in row):
            if finite(number) is None:
                what = number if isinstance(number, float) else type(number).__name__
                raise BackendError(f"a score is {what}, which is no finite number")
    widths = {len(row) for each in found for row in each}
    if len(widths) > 1 or 0 in widths:
        raise BackendError(f"scores have different numbers of classes: {sorted(widths)}")
    return found


def _found(api: Api, answer: Any, label: str) -> list[list[Row]]:
    if api == "pooling":
        [only] = answer["data"]
        return [[tuple(row) if isinstance(row, list) else (row,) for row in only["data"]]]
    if api == "predict":
        several = answer if isinstance(answer[0], list) else [answer]
        return [[(_labelled(each, label),)] for each in several]
    if api == "classify":
        return [[tuple(entry["probs"])] for entry in _ordered(answer["data"])]
    if api == "score":
        return [[(entry["score"],)] for entry in _ordered(answer["data"])]
    results = answer if isinstance(answer, list) else answer["results"]
    return [[(entry["relevance_score" if "relevance_score" in entry else "score"],)] for entry in _ordered(results)]


def _ordered(entries: Sequence[Json]) -> list[Json]:
    """Entries by their index, which must be 0, 1, ... each once."""
    indices = sorted(entry["index"] for entry in entries)
    if indices != list(range(len(entries))):
        raise BackendError(f"scores came back for the places {indices[:20]}, not once for each of {len(entries)}")
    return sorted(entries, key=lambda entry: int(entry["index"]))


def _labelled(entries: Sequence[Json], label: str) -> Any:
    """The score of the good class of a classifier that names its classes."""
    if len(entries) == 1 and not label:
        return entries[0]["score"]
    names = {f"LABEL_{label}", label} if label.isdigit() else {label or "LABEL_1"}
    fitting = [entry["score"] for entry in entries if entry["label"] in names]
    if len(fitting) != 1:
        known = ", ".join(str(entry["label"]) for entry in entries[:8])
        raise BackendError(f"the classes are {known}: say which is the good one, as label=NAME")
    return fitting[0]


def tokens(answer: object, most: int) -> int | None:
    """Tokens that were computed, at most so many; None where the server does not say, or what cannot be."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    count = (usage.get("prompt_tokens") or usage.get("total_tokens")) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and 0 < count <= most else None


def _safe(recipe: Recipe | RewardRecipe, text: str) -> str:
    text = SPECIAL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", plain(text))
    tag = recipe.tag.strip() if isinstance(recipe, Recipe) else ""
    return text.replace(tag, f"{tag[0]} {tag[1:]}") if tag else text
