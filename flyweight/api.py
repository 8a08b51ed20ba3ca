"""The Python interface: `solve` for one question, `Session` to keep a model warm for many."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

from flyweight import abstain, strategies
from flyweight.abstain import ConfidenceMap
from flyweight.errors import ConfigError
from flyweight.protocols import Answers, Policy, Search, Strategy, Verifier
from flyweight.runner import Runner
from flyweight.strategies import Value
from flyweight.types import BOXED, Budget, Event, Message, Node, Problem, Result, Sampling, digest

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_STRATEGY",
    "DEFAULT_VERIFIER",
    "AnswersOf",
    "Loading",
    "Session",
    "check_named",
    "find_maps",
    "find_policy",
    "for_kind",
    "problem",
    "solve",
]

DEFAULT_MODEL = "qwen2.5-coder-0.5b"
DEFAULT_STRATEGY = "auto"
DEFAULT_VERIFIER = "self"

T = TypeVar("T")
StrategyFunction = Callable[..., Coroutine[object, object, Node | None]]


class Session:
    """A model kept in memory with a verifier, ready to search.

    ```python
    with Session("qwen2.5-coder-0.5b") as session:
        result = session.solve("What is 12 * 17?", strategy="self_consistency", n=8)
        print(result.answer, result.usage.generated_tokens)
    ```
    """

    def __init__(
        self,
        model: str | Policy = DEFAULT_MODEL,
        *,
        verifier: str | Verifier | Callable[[str, str], float] = DEFAULT_VERIFIER,
        kind: str = "math",
        answers: Answers | None = None,
        max_tokens: int = 512,
        context: int = 2048,
        weights: str = "auto",
        slots: int = 32,
        seed: int = 0,
        confidence_map: Path | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Load the model: a catalog name, a path to a GGUF file, `hf:org/repo/file`, "toy", or any Policy.

        `verifier` is a name, `module:function`, a Verifier or a function of (question, solution). `kind` says how
        answers are read (see `flyweight.answers.extract`); `answers` replaces that layer altogether. `context` is the
        longest prompt plus answer in tokens, `max_tokens` the longest answer. `weights` ("auto", "file", "packed",
        "bf16") and `slots`, how many answers are written together, are the embedded engine's: fewer slots take less
        memory. `confidence_map` is a file made by `flyweight bench calibrate`, instead of the maps that come with the
        package. Raises ModelError or ConfigError.
        """
        if max_tokens < 1:
            raise ConfigError(f"max_tokens={max_tokens} is not allowed: a whole number from 1")
        # The model last: what is wrong with the rest is said before anyone waits for it.
        self.verifier = _verifier(verifier)
        reader = answers or AnswersOf(kind)
        # How often answers that are read in another way are right, nobody has counted.
        maps = find_maps(model, kind, confidence_map) if answers is None or confidence_map is not None else ()
        self.seed = seed
        self.kind = kind

        def load(name: str) -> Policy:
            return find_policy(name, context=context, weights=weights, slots=slots)()

        self.policy = load(model) if isinstance(model, str) else model
        self.runner = Runner(
            Loading({self.policy.name: self.policy}, load),
            Loading({self.verifier.name: self.verifier}, _verifier),
            answers=reader,
            sampling=Sampling(max_tokens=max_tokens),
            seed=seed,
            maps=maps,
            on_event=on_event,
        )

    def solve(
        self,
        question: str | Problem | Sequence[Message],
        *,
        strategy: str | StrategyFunction = DEFAULT_STRATEGY,
        budget: Budget | None = None,
        system: str | None = BOXED,
        **parameters: Value,
    ) -> Result:
        """Search one question with a strategy and its parameters. Always returns; see `Result.stopped` and `error`.

        A strategy may be made of others (`flyweight.strategies.compose`): `strategy="best_of_n", of="beam_search"`.
        Further verifiers and models that it names are loaded when they are first asked for. Raises ConfigError for an
        unknown strategy or parameter, SandboxError where code has to run and cannot.
        """
        asked = question if isinstance(question, Problem) else problem(question, system)
        bound = self._strategy(strategy, parameters, public="public" in asked.meta)
        return self.runner.solve(asked, bound, budget)

    def run(
        self,
        problems: Iterable[Problem],
        *,
        strategy: str | StrategyFunction = DEFAULT_STRATEGY,
        budget: Budget | None = None,
        in_flight: int = 64,
        **parameters: Value,
    ) -> Iterator[Result]:
        """Search many problems at once; results in order of completion."""
        bare, shown = (self._strategy(strategy, parameters, public=public) for public in (False, True))
        asked = ((problem, shown if "public" in problem.meta else bare) for problem in problems)
        return self.runner.run_each(asked, budget, in_flight=in_flight)

    def _strategy(self, strategy: str | StrategyFunction, parameters: Mapping[str, Value], *, public: bool) -> Strategy:
        if isinstance(strategy, str):
            parameters = for_kind(strategy, parameters, self.kind, public=public)
        return _strategy(strategy, parameters, (self.policy.name, self.verifier.name))

    def close(self) -> None:
        """Release the model."""
        self.runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def solve(
    question: str | Problem | Sequence[Message],
    *,
    model: str | Policy = DEFAULT_MODEL,
    strategy: str | StrategyFunction = DEFAULT_STRATEGY,
    verifier: str | Verifier | Callable[[str, str], float] = DEFAULT_VERIFIER,
    kind: str = "math",
    budget: Budget | None = None,
    seed: int = 0,
    system: str | None = BOXED,
    max_tokens: int = 512,
    on_event: Callable[[Event], None] | None = None,
    **parameters: Value,
) -> Result:
    """Load a model, search one question, release the model. For several questions use a `Session`."""
    asked = question if isinstance(question, Problem) else problem(question, system)
    if isinstance(strategy, str):
        parameters = dict(for_kind(strategy, parameters, kind, public="public" in asked.meta))
    bound = _strategy(strategy, parameters, [str(getattr(held, "name", "")) for held in (model, verifier)])
    with Session(model, verifier=verifier, kind=kind, seed=seed, max_tokens=max_tokens, on_event=on_event) as session:
        return session.runner.solve(asked, bound, budget)


def problem(question: str | Sequence[Message], system: str | None = BOXED) -> Problem:
    """A Problem from a question or a conversation; its id is a hash of what is asked.

    `system` is put in front unless the conversation brings its own system turn.
    """
    turns = (Message("user", question),) if isinstance(question, str) else tuple(question)
    if not turns or not turns[-1].content.strip():
        raise ConfigError("the question is empty: pass some text")
    if system and turns[0].role != "system":
        turns = (Message("system", system), *turns)
    return Problem(id=digest(turns)[:16], prompt=turns[-1].content, messages=turns)


def _strategy(strategy: str | StrategyFunction, parameters: Mapping[str, Value], held: Collection[str]) -> Strategy:
    if isinstance(strategy, str):
        check_named(strategies.normal(strategy, parameters)[0], held)
        return strategies.bind(strategy, parameters)
    if not callable(strategy):
        raise ConfigError(f"strategy={strategy!r} is neither a name nor an async def: flyweight list shows the names")
    try:
        inspect.signature(strategy).bind(None, **parameters)
    except TypeError as mistake:
        name = getattr(strategy, "__name__", "strategy")
        raise ConfigError(f"{name}{inspect.signature(strategy)}: {mistake}") from None
    return cast("Callable[[Search], Coroutine[object, object, Node | None]]", functools.partial(strategy, **parameters))


def for_kind(strategy: str, parameters: Mapping[str, Value], kind: str, *, public: bool = True) -> Mapping[str, Value]:
    """The parameters; for `auto` without a calibration where answers are read in a way that none was fitted for.

    Those of code are for problems that bring `public` tests.
    """
    name, given = strategies.normal(strategy, parameters)
    fitted = kind == "math" or (kind == "code" and public) or "calibration" in given or name.partition(":")[0] != "auto"
    return parameters if fitted else {**parameters, "calibration": "published"}


def check_named(strategy: str, held: Collection[str] = ()) -> None:
    """Raise ConfigError or ModelError for a verifier or a model named in a strategy that is not there.

    Those called as in `held` are.
    """
    for name in set(strategies.named(strategy, "verifier")) - set(held):
        _verifier(name)
    for name in set(strategies.named(strategy, "policy")) - set(held):
        find_policy(name)


class Loading(Mapping[str, T]):
    """What there is by name; what is not there yet is loaded when it is first asked for."""

    def __init__(self, held: Mapping[str, T], load: Callable[[str], T]) -> None:
        """`load` raises what is to be raised for a name it does not know."""
        self._held = dict(held)
        self._load = load

    def __getitem__(self, name: str) -> T:
        if name not in self._held:
            self._held[name] = self._load(name)
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._held))  # more may come while somebody goes through them

    def __len__(self) -> int:
        return len(self._held)


def find_policy(model: str, *, context: int = 2048, weights: str = "auto", slots: int = 32) -> Callable[[], Policy]:
    """What loads a model, without loading it: raises ConfigError or ModelError now if there is no such model."""
    from flyweight import models, policies

    if model == "toy":
        from flyweight.testing import ToyPolicy

        return ToyPolicy
    if (make := policies.plugin(model, context=context, slots=slots)) is not None:
        return make
    path = models.resolve(model)

    def load() -> Policy:
        from flyweight.policies.llamacpp import LlamaCpp

        return LlamaCpp(path, name=model, context=context, weights=weights, slots=slots)

    return load


def find_maps(model: str | Policy, kind: str, file: Path | None = None) -> tuple[ConfidenceMap, ...]:
    """The confidence maps of a model and a kind of answers: of the file, or for None of those in the package.

    A policy that was made already goes by its name. ConfigError for a file that has none of them, or cannot be read.
    """
    from flyweight import models

    reference = model if isinstance(model, str) else model.name
    listed = models.catalog().get(reference)
    if file is None and listed is None:
        return ()  # ours are of models in the catalog, and hashing a file of the user's own may take seconds
    found = _fitted() if file is None else _held(file)
    sha256 = "" if listed is None else listed.sha256
    if listed is None and isinstance(model, str):
        from flyweight.bench.engine import file_of

        sha256 = (file_of(model) or "").removeprefix("sha256:")
    fitting = tuple(each for each in found if each.of(reference, sha256, kind))
    if file is not None and not fitting:
        held = ", ".join(sorted({f"{each.model} ({each.kind})" for each in found})) or "nothing"
        raise ConfigError(
            f"{file} holds for {held}, not for {reference} ({kind}): fit one with flyweight bench calibrate"
        )
    return fitting


def _fitted() -> tuple[ConfidenceMap, ...]:
    from flyweight.optimal import calibration

    return (*abstain.shipped(), *calibration.maps(calibration.shipped()))


def _held(file: Path) -> tuple[ConfidenceMap, ...]:
    """Those of a file of maps, or of one that `flyweight calibrate` wrote."""
    from flyweight.optimal import calibration

    try:
        return abstain.read(file)
    except ConfigError as error:
        try:
            return calibration.maps(calibration.read(file), str(file))
        except ConfigError:
            raise error from None


def _verifier(verifier: str | Verifier | Callable[[str, str], float]) -> Verifier:
    from flyweight import verifiers
    from flyweight.verifiers.function import Function

    if isinstance(verifier, str):
        return verifiers.load(verifier)
    if hasattr(verifier, "score"):
        return cast(Verifier, verifier)
    return Function(verifier)


class AnswersOf:
    """The answer layer for one kind of answer."""

    def __init__(self, kind: str) -> None:
        from flyweight import answers
        from flyweight.answers.behaviour import Behaviour

        self._kind = kind
        self._answers = answers
        self._code = Behaviour() if kind == "code" else None
        answers.extract("", kind)  # refuses an unknown kind now rather than in the middle of a search

    def extract(self, text: str) -> str | None:
        return self._answers.extract(text, self._kind)

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        return self._code.classes(answers, problem) if self._code else self._answers.classes(answers, self._kind)
