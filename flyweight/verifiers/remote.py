"""Reward models behind a URL: vLLM's /pooling, /classify, /score and /rerank, TEI's /predict and /rerank.

`remote:URL:api=pooling:recipe=qwen2.5-math-prm` names one on the command line (docs/remote.md). While it scores, the
policies and other searches go on.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import weakref
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast, get_args

from flyweight.errors import BackendError, ConfigError, FlyweightError, unknown
from flyweight.policies.openai.probe import size
from flyweight.policies.openai.usage import Estimate
from flyweight.protocols import Models
from flyweight.types import Node, Problem, Score
from flyweight.verifiers import remote_apis as apis
from flyweight.verifiers.recipes import Recipe, RewardRecipe, find
from flyweight.verifiers.trained import whole
from flyweight.wire.address import addresses, key
from flyweight.wire.background import Background, lease
from flyweight.wire.client import Client, Failure, Timeouts
from flyweight.wire.pool import Endpoint, Pool

__all__ = ["Remote"]

FORM = "remote:URL[,URL...]:api=pooling:recipe=qwen2.5-math-prm"
Squash = Literal["auto", "none", "sigmoid", "softmax"]
TEMPLATE_TOKENS = 4096
"""Most that a server's template may add to a solution; a count beyond that and the bytes sent is wrong."""
NEAR = 0.01
"""How far from 1 the sum of probabilities may be that a server has rounded."""


class _Serving(NamedTuple):
    """What a server says of itself."""

    model: str = ""
    """What to call its model in requests; empty where it has no need of a name."""
    weights: str = ""
    """Which model that is; empty where nobody says."""


class _Wire(NamedTuple):
    background: Background
    pool: Pool


class Remote:
    """A reward model's scores over the wire: of every step from a process model, of the whole from an outcome model.

    Solutions are put in the form of a recipe (docs/prm.md) and sent to one or several URLs. Before the first score a
    right and a wrong solution are, and a server that does not return a number for each of their steps, or prefers the
    wrong one, is an error; so is every answer without exactly one finite score for all that was sent. A path without
    text scores 0 and is not sent. Costs the tokens that the server counts, else a quarter of the bytes sent, of every
    answer that came, be it of use or not.

    Source: Lightman et al. 2023 (2305.20050) and Cobbe et al. 2021 (2110.14168); APIs of vLLM and Hugging Face's TEI.
    """

    sees_answer = False

    def __init__(
        self,
        url: str = "",
        *,
        api: str = "",
        recipe: str = "",
        model: str = "",
        label: str = "",
        squash: str = "auto",
        batch: int = 16,
        in_flight: int = 16,
        retries: int = 4,
        first: float = 120.0,
        patience: float = 30.0,
        key: str = "",
        params: float = 0,
    ) -> None:
        """`api`: pooling, classify, score, rerank or predict. `recipe`: a name or FILE.toml; chat and pair by default.

        model: which of the server's. label: the good class, where the recipe does not know. squash: what is still to be
        done to the numbers; auto finds out. batch: solutions in one request. in_flight: requests at each URL. first:
        seconds until an answer. patience: seconds that all URLs may be down. key: the environment variable with the
        key. params: for FLOPs, else read off the model's name. Raises ConfigError for values that are not allowed.
        """
        if not url:
            raise ConfigError(f"remote names no endpoint: write {FORM}")
        if api not in apis.APIS:
            raise unknown("api of a remote verifier", api, apis.APIS)
        if squash not in get_args(Squash):
            raise unknown("squash", squash, get_args(Squash))
        self.api, self.model, self.label, self.squash = api, model, label, cast(Squash, squash)
        self.recipe: Recipe | RewardRecipe
        if api == "pooling":
            if not recipe:
                raise ConfigError(f"api=pooling needs the recipe of the process reward model: {FORM}")
            self.recipe = find(Recipe, recipe)
        else:
            self.recipe = find(RewardRecipe, recipe or ("chat" if api == "classify" else "pair"))
        apis.fits(self.api, self.recipe)
        self.name = f"remote:{self.recipe.name}"
        self.urls = addresses(url, FORM)
        self.batch, self.retries = whole("batch", batch, 1), whole("retries", retries, 0)
        self.in_flight = whole("in_flight", in_flight, 1)
        for name, seconds in (("first", first), ("patience", patience)):
            if not 0 < seconds < math.inf:
                raise ConfigError(f"{name}={seconds!r} is not allowed: a number of seconds above 0")
        self.first, self.patience, self.key = first, patience, key
        self.params = int(params)
        self._secret()
        self._wire: _Wire | None = None
        self._estimate = Estimate()
        self._raw: bool | None = None
        """Whether numbers are still to be squashed; known once the server has been tried."""
        self._trying: asyncio.Lock | None = None
        self._tried: tuple[float, float] | None = None
        self._serving: _Serving | None = None

    @property
    def identity(self) -> str:
        """What its scores are filed under: the model and how it is read, wherever it runs.

        Without `model` the server is asked; one that does not tell is known by its address. BackendError if none is
        there.
        """
        try:
            serving = self._connected().background.start(self._described()).result()
        except Failure as failure:
            raise self._error(failure) from None
        return f"remote {(serving.weights or self.urls, self.api, repr(self.recipe), self.label, self.squash)!r}"

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node. BackendError if the server cannot say."""
        began = time.perf_counter()
        solutions = [node.solution for node in nodes]
        bill: list[int] = []
        try:
            scores = await models.wait(self._connected().background.start(self._rate(problem.prompt, solutions, bill)))
        finally:
            models.spent(sum(bill))
        models.note(verifier=self.name, scored=len(nodes), seconds=time.perf_counter() - began)
        return scores

    def example(self) -> tuple[float, float]:
        """Values of the right and the wrong solution of the recipe's example, asked for now. BackendError as above."""
        try:
            return self._connected().background.start(self._example()).result()
        except (Failure, FlyweightError) as failure:
            raise self._error(failure) from None

    def close(self) -> None:
        """Release the connections; they are made again when a score is asked for."""
        if self._wire is not None:
            self._release()
        self._wire = self._trying = self._tried = self._serving = self._raw = None

    # In the background ---------------------------------------------------------------------------------------

    async def _rate(self, question: str, solutions: Sequence[str], bill: list[int]) -> list[Score]:
        """The scores of every solution, and on the bill what they cost; equal solutions are sent once."""
        sent = list(dict.fromkeys(solution for solution in solutions if solution.strip()))
        try:
            if sent:
                await self._example()
            found = dict(zip(sent, await self._values(question, sent, bill), strict=True))
        except (Failure, FlyweightError) as failure:
            raise self._error(failure) from None
        return [found.get(solution, Score(0.0, (), self.name)) for solution in solutions]

    def _error(self, failure: Exception) -> BackendError:
        """What failed, for people: what it quotes of the server without the key."""
        return BackendError(f"{self.name}: {self._connected().pool.endpoints[0].client.shown(str(failure), 600)}")

    async def _example(self) -> tuple[float, float]:
        """Try the server, once: the values of a right and a wrong solution, which it must tell apart."""
        self._trying = self._trying or asyncio.Lock()
        async with self._trying:
            if self._tried is None:
                await self._described()
                example = self.recipe.example
                good, bad = await self._values(example.question, [example.good, example.bad], [])
                if good.value <= bad.value:
                    raise BackendError(
                        f"the model gives a right solution {good.value:.3f} and a wrong one {bad.value:.3f}: it "
                        "does not fit the recipe, or another label is the good one"
                    )
                self._tried = good.value, bad.value
        return self._tried

    async def _described(self) -> _Serving:
        """Which model it is, as a server tells where nobody has said."""
        if self._serving is None:
            pool = self._connected().pool
            found = _Serving(self.model, self.model) if self.model else await pool.send(_serving)
            self.params = self.params or size(found.model)
            self._serving = found
        return self._serving

    async def _values(self, question: str, solutions: Sequence[str], bill: list[int]) -> list[Score]:
        model = (await self._described()).model
        asked = apis.asks(self.api, self.recipe, model, question, solutions, self.batch)
        try:
            async with asyncio.TaskGroup() as group:  # the others end with the first that fails
                answers = [group.create_task(self._send(ask, bill)) for ask in asked]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        found: list[list[apis.Row]] = []
        for ask, answer in zip(asked, answers, strict=True):
            found += apis.rows(self.api, answer.result(), ask, self.label)
        if self._raw is None:
            self._raw = self._unsquashed([row for rows in found for row in rows])
        scores = []
        for rows in found:
            values = tuple(self._squashed(row) for row in rows)
            process = isinstance(self.recipe, Recipe)
            scores.append(Score(values[-1] if values else 0.0, values if process else (), self.name))
        return scores

    async def _send(self, ask: apis.Ask, bill: list[int]) -> Any:
        bytes = len(json.dumps(ask.body, ensure_ascii=False).encode())
        most = bytes + TEMPLATE_TOKENS * len(ask.wanted)

        async def once(endpoint: Endpoint, attempt: int) -> Any:
            answer = await endpoint.client.post(f"/{self.api}", ask.body, root=True)
            bill.append(apis.tokens(answer, most) or self._estimate.tokens(bytes))
            return answer

        return await self._connected().pool.send(once)

    def _unsquashed(self, rows: Sequence[apis.Row]) -> bool:
        """Whether these are logits rather than probabilities."""
        if self.squash != "auto":
            return self.squash != "none"
        inside = all(0 <= number <= 1 for row in rows for number in row)
        return not (inside and all(len(row) == 1 or abs(math.fsum(row) - 1) < NEAR for row in rows))

    def _squashed(self, row: apis.Row) -> float:
        """The score in [0, 1] from a row of numbers."""
        label = self._place(len(row))
        if not self._raw:
            value = row[label]
        elif self.squash == "sigmoid" or (self.squash == "auto" and len(row) == 1):
            value = 1 / (1 + math.exp(-row[label])) if row[label] > -700 else 0.0
        else:
            most = max(row)
            value = math.exp(row[label] - most) / math.fsum(math.exp(number - most) for number in row)
        if not 0 <= value <= 1:
            raise BackendError(f"a score is {value:g}, outside [0, 1]: if these are logits, say squash=sigmoid")
        return value

    def _place(self, classes: int) -> int:
        """Which of the classes is the good one."""
        if classes == 1:
            return 0
        if self.label.isdigit():
            place = int(self.label)
        else:  # the two tokens of a causal head are returned as they are named: good, bad
            place = 0 if isinstance(self.recipe, Recipe) and self.recipe.head == "causal" else self.recipe.label
        if place >= classes:
            raise BackendError(f"there are {classes} classes and no class {place}: say which is the good one, label=N")
        return place

    # Connections ---------------------------------------------------------------------------------------------

    def _secret(self) -> str:
        return key(self.key)

    def _connected(self) -> _Wire:
        if self._wire is None:
            timeouts = Timeouts(first=self.first, total=max(self.first, Timeouts().total))
            secret = self._secret()
            clients = [Client(url, secret, timeouts, self.in_flight) for url in self.urls]
            pool = Pool(clients, in_flight=self.in_flight, retries=self.retries, patience=self.patience)
            self._wire = _Wire(lease(), pool)
            self._release = weakref.finalize(self, _release, self._wire)  # at the latest when the process ends
        return self._wire


def _release(wire: _Wire) -> None:
    wire.background.leave(wire.pool.close())


async def _serving(endpoint: Endpoint, attempt: int) -> _Serving:
    """What a server says of its model, in OpenAI's list of models or as TEI does. Failure where asking may yet help."""
    client = endpoint.client
    try:
        name = str((await client.get("/models"))["data"][0]["id"])
        return _Serving(name, name)
    except Failure as failure:
        if failure.retry:
            raise
    except (LookupError, TypeError):
        pass
    try:
        said = await client.get("/info", root=True)
        return _Serving("", f"{said['model_id']} {said.get('model_sha')}")
    except Failure as failure:
        if failure.retry:
            raise
    except (LookupError, TypeError, AttributeError):
        pass
    return _Serving()
