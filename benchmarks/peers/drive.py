"""Runs one peer on all questions, in the peers' environment: the child process of `python -m benchmarks.peers`.

Reads a job (JSON) from its first argument and writes one JSON object a line: {"ready": true} once everything is
imported, {"id", "text"} for an answer, {"id", "error"} for a question that failed, {"done": true}.

Each peer runs the way its authors run it: search-and-learn's beam search one question at a time (its configuration
refuses anything else) and its DVTS all questions in one batch; its_hub all questions at once in one event loop;
optillm, which is called from a threaded server, in one thread a question.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import sys
import threading
import types
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers import vllm_shim
from flyweight.types import Node, Problem, Score
from flyweight.verifiers.arithmetic import Arithmetic

__all__ = ["Job", "path_of"]

_LOCK = threading.Lock()


class Job(NamedTuple):
    """What the child is asked to do."""

    system: str
    strategy: str
    url: str
    sal: str
    """Checkout of search-and-learn."""
    questions: list[tuple[str, str]]
    """Id and text."""
    prompt: str
    """The system prompt."""
    n: int
    width: int
    temperature: float
    max_tokens: int


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    work = PEERS[job.system](job)
    say(ready=True)
    work()
    say(done=True)


def say(**facts: object) -> None:
    with _LOCK:
        print(json.dumps(facts), flush=True)


def path_of(text: str) -> Node:
    """A solution as the path of its steps, cut at blank lines as Flyweight cuts them."""
    node = Node()
    pieces = text.split("\n\n")
    for number, piece in enumerate(pieces, 1):
        step = piece + ("\n\n" if number < len(pieces) else "")
        if step:
            node = Node(parent=node, text=step)
    return node


async def judged(question: str, texts: Sequence[str]) -> list[Score]:
    problem = Problem(id="", prompt=question)
    return await Arithmetic().score(problem, [path_of(text) for text in texts], None)  # type: ignore[arg-type]


def attempt(id: str, call: Callable[[], str]) -> None:
    """One question; its failure is its result."""
    try:
        say(id=id, text=call())
    except Exception as error:
        say(id=id, error=f"{type(error).__name__}: {error}")


# search-and-learn


class ArithmeticPRM:
    """Flyweight's arithmetic verifier behind search-and-learn's PRM interface."""

    def score(self, questions: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[list[float]]]:
        """Per question, per output: one score a step, and one where there is no step."""
        result = []
        for question, texts in zip(questions, outputs, strict=True):
            scores = asyncio.run(judged(question, texts))
            result.append([list(score.steps) or [score.value] for score in scores])
        return result


def search_and_learn(job: Job) -> Callable[[], None]:
    sys.modules["vllm"] = vllm_shim
    # Imported at the top of its files for reward models on a GPU, data sets and grading; the searches use none of it.
    for name in ("huggingface_hub", "datasets", "sal.models.reward_models", "sal.utils.hub", "sal.utils.math"):
        sys.modules[name] = Absent(name)
    sys.path.insert(0, str(Path(job.sal) / "src"))
    search: Any = importlib.import_module("sal.search")
    make: Any = importlib.import_module("sal.config").Config
    config = make(
        approach=job.strategy, n=job.n, beam_width=job.width, temperature=job.temperature, max_tokens=job.max_tokens,
        system_prompt=job.prompt, custom_chat_template=None,
        search_batch_size=1 if job.strategy == "beam_search" else 25,
    )  # fmt: skip
    llm = vllm_shim.LLM(job.url, max_tokens=job.max_tokens)
    run = getattr(search, job.strategy)

    def batch(texts: list[str]) -> list[str]:
        return list(run({"problem": texts}, config, llm, ArithmeticPRM())["pred"])

    def one_by_one() -> None:
        for id, text in job.questions:
            attempt(id, lambda text=text: batch([text])[0])  # type: ignore[misc]

    def together() -> None:
        for (id, _), text in zip(job.questions, batch([text for _, text in job.questions]), strict=True):
            say(id=id, text=text)

    return one_by_one if job.strategy == "beam_search" else together


class Absent(types.ModuleType):
    """Stands for a module whose names are imported and never used."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


# its_hub


def its_hub(job: Job) -> Callable[[], None]:
    hub: Any = importlib.import_module("its_hub")
    voting: Any = importlib.import_module("its_hub.core.algorithms.self_consistency")

    class Judge(hub.AbstractOutcomeRewardModel):  # type: ignore[misc]
        def score(self, messages: Any, **_: Any) -> list[float]:
            return asyncio.run(self.ascore(messages))

        async def ascore(self, messages: Any, orchestrator: Any = None, **_: Any) -> list[float]:
            scores = []
            for conversation in messages:
                scores += await judged(conversation[-2].content, [conversation[-1].content or ""])
            return [score.value for score in scores]

    lm = hub.OpenAICompatibleLanguageModel(
        endpoint=f"{job.url}/v1", api_key="none", model_name="local", system_prompt=job.prompt,
        max_completion_tokens=job.max_tokens, temperature=job.temperature,
    )  # fmt: skip
    algorithm = (
        hub.BestOfN(Judge())
        if job.strategy == "best_of_n"
        else hub.SelfConsistency(voting.create_regex_projection_function(r"\\boxed\{([^}]+)\}"))
    )

    async def one(id: str, question: str) -> None:
        try:
            message = await algorithm.ainfer(lm, question, job.n)
            say(id=id, text=message["content"] or "")
        except Exception as error:
            say(id=id, error=f"{type(error).__name__}: {error}")

    async def everything() -> None:
        await asyncio.gather(*(one(id, text) for id, text in job.questions))
        await lm.close()

    return lambda: asyncio.run(everything())


# optillm


def optillm(job: Job) -> Callable[[], None]:
    # Its package imports the whole server with torch and a dozen clients; the strategies' own files need none of it.
    shell = types.ModuleType("optillm")
    spec = importlib.util.find_spec("optillm")
    assert spec is not None and spec.submodule_search_locations is not None
    shell.__path__ = list(spec.submodule_search_locations)
    sys.modules["optillm"] = shell
    openai: Any = importlib.import_module("openai")
    client = openai.OpenAI(base_url=f"{job.url}/v1", api_key="none", timeout=3600, max_retries=0)
    config = {"max_tokens": job.max_tokens}

    def best_of_n(text: str) -> str:
        sample: Any = importlib.import_module("optillm.bon").best_of_n_sampling
        return str(sample(job.prompt, text, client, "local", n=job.n, request_config=config)[0])

    def self_consistency(text: str) -> str:
        make: Any = importlib.import_module("optillm.self_consistency").AdvancedSelfConsistency
        found = make(client, "local", num_samples=job.n, request_config=config).evaluate(job.prompt, text)
        clusters = found["aggregated_result"]["clusters"]
        return str(clusters[0]["answer"]) if clusters else ""

    run = best_of_n if job.strategy == "best_of_n" else self_consistency
    importlib.import_module("optillm.bon")
    importlib.import_module("optillm.self_consistency")

    def work() -> None:
        with ThreadPoolExecutor(len(job.questions)) as pool:
            for id, text in job.questions:
                pool.submit(attempt, id, lambda text=text: run(text))  # type: ignore[misc]

    return work


PEERS = {"search-and-learn": search_and_learn, "its_hub": its_hub, "optillm": optillm}

if __name__ == "__main__":
    main()
