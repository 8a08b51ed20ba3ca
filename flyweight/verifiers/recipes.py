"""How a reward model wants to be asked, as data: which text it reads, where its score is read, what squashes it.

A recipe is a table of `recipes.toml` or a TOML file of the user's own (docs/prm.md). Nothing in the package knows a
model by its name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flyweight import textfile
from flyweight.errors import ConfigError, ModelError, unknown
from flyweight.types import Message

if TYPE_CHECKING:
    from flyweight.policies.llamacpp.template import ChatTemplate

__all__ = ["Example", "Recipe", "RewardRecipe", "Vocabulary", "find", "shipped"]

Turn = tuple[Literal["system", "user", "assistant"], str]
Turns = tuple[Turn, ...]
Squash = Literal["softmax", "sigmoid"]
Kind = TypeVar("Kind", "Recipe", "RewardRecipe")


class Example(BaseModel):
    """A question with a right and a wrong solution, which a model that fits its recipe tells apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    question: str = "Tom has 3 apples and buys 4 more. He gives 2 away. How many apples does he have?"
    good: str = "Tom has 3 + 4 = 7 apples after buying more.\n\nHe gives 2 away, so 7 - 2 = 5.\n\nThe answer is 5."
    bad: str = "Tom has 3 + 4 = 9 apples after buying more.\n\nHe gives 2 away, so 9 + 2 = 12.\n\nThe answer is 12."


class Recipe(BaseModel):
    """How a process reward model is asked. See docs/prm.md for every key."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = ""
    source: str = ""
    model: str = ""
    """Where weights for it are, if none are named."""
    prompt: str | Turns
    """What stands before the first step: plain text, or turns that the model's chat template writes."""
    step: str | Turns
    """What a step adds: text that continues what is there, or turns."""
    first: str | Turns | None = None
    """Instead of `step`, for the first one."""
    ask: Turns = ()
    """Turns after the last step only; the steps before it are then one turn of the assistant."""
    tag: str = ""
    """The part of `step` at which its score is read; without one it is read at the step's end."""
    read: Literal["at", "before"] = "at"
    """At the last token of the tag, or at the token before it."""
    split: str = Field(default="\n\n", min_length=1)
    """Ends a step in a solution's text."""
    newline: str = "\n"
    """What a line break inside a step becomes."""
    pieces: bool = False
    """Whether prompt, step and what stands around it are tokenised each on its own."""
    bos: bool = False
    """Whether plain text begins with the model's first token even where its tokenizer does not put it there."""
    head: Literal["causal", "token-classification", "value"]
    good: str | int | None = None
    bad: str | int | None = None
    """Of a causal head: the two tokens, as text or as ids."""
    layers: tuple[str, ...] = ()
    """Of another head: its linear layers by their names in the weights, with ReLU between them."""
    squash: Squash | None = None
    label: int = Field(default=1, ge=0)
    """Which class of a softmax is the good one."""
    example: Example = Example()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        parts = [self.step] if self.first is None else [self.first, self.step]
        causal = self.head == "causal"
        if causal and (self.good is None or self.bad is None or self.good == self.bad):
            raise ValueError("a causal head needs the tokens good and bad, and they must differ")
        if causal and (self.layers or self.squash == "sigmoid"):
            raise ValueError("a causal head has no layers, and its squash is softmax")
        if not causal and (self.good is not None or self.bad is not None):
            raise ValueError(f"good and bad are for a causal head, and this one is {self.head}")
        if not any("{question}" in text for part in (self.prompt, parts[0]) for text in _texts(part)):
            raise ValueError("{question} must stand in prompt or first")
        if not all(any("{step}" in text for text in _texts(part)) for part in parts):
            raise ValueError("{step} must stand in step, and in first if there is one")
        if len({isinstance(part, str) for part in parts}) > 1:
            raise ValueError("first and step must both be text or both be turns")
        if isinstance(self.prompt, str) and (self.ask or not isinstance(self.step, str)):
            raise ValueError("a prompt of plain text goes with steps of plain text and no ask: write it as turns")
        for part in parts:
            self._check_tag(part)
        return self

    def _check_tag(self, part: str | Turns) -> None:
        if isinstance(part, str):
            if self.tag and self.tag not in part.rpartition("{step}")[2]:
                raise ValueError(f"the tag {self.tag!r} must stand behind {{step}}")
            if self.ask and self.tag:
                raise ValueError("with ask the score is read where the answer to it would begin: leave tag out")
            before = self.ask or self.prompt
        else:
            if self.ask:
                raise ValueError("ask goes with steps of plain text")
            if self.tag and (self.read != "before" or part[-1] != ("assistant", self.tag)):
                raise ValueError("where steps are turns the tag is the assistant's last one, and read is before")
            before = part[:-1] if self.tag else part
        if not isinstance(before, str) and (not before or before[-1][0] != "user"):
            raise ValueError("the turn before the one that is scored must be the user's")

    @property
    def squashing(self) -> Squash:
        """How logits become a score."""
        return self.squash or ("sigmoid" if self.head == "value" else "softmax")

    @property
    def linear(self) -> tuple[str, ...]:
        """Names of the head's layers."""
        return self.layers or (("v_head.summary",) if self.head == "value" else ("score",))

    def steps(self, solution: str) -> tuple[str, ...]:
        """The steps of a solution, without the blanks around them; blank ones, so also a trailing one, are none."""
        pieces = (piece.strip() for piece in solution.split(self.split))
        return tuple(piece.replace("\n", self.newline) for piece in pieces if piece)

    def ids(self, vocabulary: Vocabulary, question: str, steps: Sequence[str]) -> list[int]:
        """Token ids up to the one at which the last step's score is read."""
        question = vocabulary.plain(question)
        turns: list[Message] = []
        pieces: list[str] = []

        def fill(text: str, step: str = "", number: int = 0) -> str:
            values = {"question": question, "step": step, "number": str(number)}
            return re.sub(r"\{(question|step|number)\}", lambda found: values[found[1]], text)

        if isinstance(self.prompt, str):
            pieces.append(fill(self.prompt))
        else:
            turns += [Message(role, fill(text)) for role, text in self.prompt]
        for number, step in enumerate(map(vocabulary.plain, steps), 1):
            part = self.first if number == 1 and self.first is not None else self.step
            if isinstance(part, str):
                part = self._cut(part) if number == len(steps) else part
                pieces += [fill(piece, step, number) for piece in re.split(r"(\{step\})", part) if piece]
            else:
                part = part[:-1] if self.tag and number == len(steps) else part
                turns += [Message(role, fill(text, step, number)) for role, text in part]
        if self.ask:
            turns.append(Message("assistant", "".join(pieces).strip()))
            turns += [Message(role, fill(text, number=len(steps))) for role, text in self.ask]
            pieces = []
        begin: list[int] = []
        if isinstance(self.prompt, str):
            begin = vocabulary.start(always=self.bos)
        else:
            pieces.insert(0, vocabulary.chat(turns))
        pieces = pieces if self.pieces else ["".join(pieces)]
        return begin + [id for piece in pieces for id in vocabulary.encode(piece)]

    def _cut(self, part: str) -> str:
        """The last step's text up to where its score is read."""
        if not self.tag:
            return part
        before, tag, _ = part.rpartition(self.tag)
        return before + tag if self.read == "at" else before


class RewardRecipe(BaseModel):
    """How an outcome reward model is asked. See docs/prm.md for every key."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = ""
    source: str = ""
    model: str = ""
    """Where weights for it are, if none are named."""
    turns: Turns = ()
    """A conversation, which the model's chat template writes."""
    pair: tuple[str, str] | None = None
    """Or two texts, between which the tokenizer puts what belongs there."""
    squash: Squash
    """sigmoid of the one logit, or softmax over the classes."""
    label: int = Field(default=1, ge=0)
    """Which class of a softmax is the good one."""
    example: Example = Example()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.turns) == (self.pair is not None):
            raise ValueError("give either turns or a pair")
        texts = self.pair if self.pair is not None else [text for _, text in self.turns]
        for place in ("{question}", "{solution}"):
            if not any(place in text for text in texts):
                raise ValueError(f"{place} must stand somewhere in it")
        return self

    def fill(self, text: str, question: str, solution: str) -> str:
        """A text of the recipe with what it is about."""
        values = {"question": question, "solution": solution}
        return re.sub(r"\{(question|solution)\}", lambda found: values[found[1]], text)


class Vocabulary:
    """A model's tokens and chat template, whichever library holds them."""

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        *,
        size: int,
        specials: Iterable[str],
        template: str,
        bos: tuple[int, str] | None,
        eos: str,
        begins: bool,
    ) -> None:
        """`encode` adds nothing; `specials` are the strings it takes for tokens of their own; `begins`: whether the
        model's tokenizer puts `bos` (id, spelling) in front of a text."""
        self.encode = encode
        self._size = size
        self._special = re.compile(
            "|".join(map(re.escape, sorted(filter(None, specials), key=len, reverse=True))) or r"(?!)"
        )
        self._source = template
        self._templates: dict[bool, ChatTemplate] = {}
        self._bos = bos
        self._eos = eos
        self._begins = begins

    def plain(self, text: str) -> str:
        """The text with a space behind the first character of every special token's string: none can be forged."""
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def start(self, *, always: bool) -> list[int]:
        """What stands before a plain text."""
        return [self._bos[0]] if self._bos is not None and (always or self._begins) else []

    def chat(self, turns: Sequence[Message], *, finished: bool = False) -> str:
        """The turns as the model's template writes them, up to where the assistant speaks unless `finished`."""
        from flyweight.policies.llamacpp.template import ChatTemplate

        if not self._source:
            raise ModelError("the model has no chat template, and its recipe is made of turns")
        if finished not in self._templates:
            source = "{% set add_generation_prompt = false %}" + self._source if finished else self._source
            self._templates[finished] = ChatTemplate(source, bos=self._bos[1] if self._bos else "", eos=self._eos)
        return self._templates[finished].render(turns)

    def token(self, said: str | int) -> int:
        """Id of one token, given as it is or as the text it stands for. ModelError if there is no such token."""
        if isinstance(said, int):
            if not 0 <= said < self._size:
                raise ModelError(f"there is no token {said}: the model knows {self._size}")
            return said
        ids = self.encode(said)
        if len(ids) != 1:
            raise ModelError(f"{said!r} is {len(ids)} tokens to this model, not one: give the id in the recipe")
        return ids[0]


def find(kind: type[Kind], name: str) -> Kind:
    """The recipe of that name, or the one in the TOML file of that name. ConfigError for none or one with mistakes."""
    if name.endswith(".toml"):
        try:
            table: Mapping[str, object] = tomllib.loads(textfile.read(Path(name).expanduser()))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{name} is not TOML: {error}") from error
        return _made(kind, name, {"name": Path(name).stem, **table})
    tables = shipped(kind)
    if name not in tables:
        raise unknown("recipe", name, tables)
    return _made(kind, name, {"name": name, **tables[name]})


def shipped(kind: type[BaseModel]) -> dict[str, dict[str, object]]:
    """The tables that come with the package, by name."""
    return _toml()["reward" if kind is RewardRecipe else "prm"]


@cache
def _toml() -> dict[str, dict[str, dict[str, object]]]:
    return tomllib.loads(files("flyweight.verifiers").joinpath("recipes.toml").read_text("utf-8"))


def _made(kind: type[Kind], name: str, table: Mapping[str, object]) -> Kind:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            fields = kind.model_fields if len(first["loc"]) == 1 else Example.model_fields
            raise ConfigError(f"recipe {name}: {unknown('key', str(first['loc'][-1]), fields)}") from error
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"recipe {name}: {key + ': ' if key else ''}{said}") from error


def _texts(part: str | Turns) -> list[str]:
    return [part] if isinstance(part, str) else [text for _, text in part]
