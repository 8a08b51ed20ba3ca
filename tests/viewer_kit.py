"""Stores for the viewer's tests and benchmark: recorded searches of any size, made without a model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from flyweight.bench.graded import identity
from flyweight.store import Store
from flyweight.types import Candidate, Event, Finish, Grade, Node, Problem, Result, Score, Usage, digest

SENTENCE = "Since the train covers {} km in {} hours, we divide: $\\frac{{{}}}{{{}}}$ km per hour. "


def problem(index: int) -> Problem:
    """A question whose answer is its number."""
    level = f"Level {1 + index % 5}"
    return Problem(
        f"q-{index:05}", f"What is {index} + 0? Show $x = {index}$.", answer=str(index), meta={"level": level}
    )


def solved(asked: Problem, n: int, seed: int = 0, sentences: int = 6) -> list[Event]:
    """The events of a best-of-n on that problem."""
    rng = random.Random(f"{asked.id} {seed}")
    hardness = rng.random()
    root = Node(messages=asked.conversation, key=digest("root", asked.id)[:32])
    events = [Event(asked.id, "start", 0.0, root, {"prompt": asked.prompt, "answer": asked.answer})]
    drawn, answers = [], []
    for draw in range(n):
        answer = asked.answer if rng.random() > hardness else str(rng.randrange(40))
        body = "".join(SENTENCE.format(*(rng.randrange(2, 99) for _ in range(4))) for _ in range(sentences))
        text = f"{body}\n\nThe answer is \\boxed{{{answer}}}."
        tokens = tuple(rng.randrange(150_000) for _ in range(len(text) // 4))
        logprobs = tuple(-rng.random() for _ in tokens)
        key = digest(root.key, draw)[:32]
        node = Node(root, text, tokens, logprobs, (), Finish.END, key=key, draw=draw, policy="toy")
        drawn.append(node)
        answers.append(answer)
        events.append(Event(asked.id, "node", 0.1 * (draw + 1), node))
    scored = []
    for node, answer in zip(drawn, answers, strict=True):
        value = min(1.0, max(0.0, rng.gauss(0.65 if answer == asked.answer else 0.4, 0.2)))
        score = Score(value, (value,), "self")
        scored.append(replace(node, score=score))
        events.append(Event(asked.id, "score", 0.1 * n + 1, scored[-1]))
    groups = sorted(set(answers), key=lambda answer: (-answers.count(answer), answers.index(answer)))
    best = max(scored, key=lambda node: node.score.value if node.score else 0.0)
    tokens_drawn = sum(len(node.tokens or ()) for node in drawn)
    result = Result(
        asked,
        best,
        answers[scored.index(best)],
        tuple(Candidate(node, answer, groups.index(answer)) for node, answer in zip(scored, answers, strict=True)),
        Usage(40, 40 * (n - 1), tokens_drawn, 0, n, n, 0.1 * n + 1, 1e9 * tokens_drawn, 1 << 22),
        confidence=rng.random(),
    )
    return [*events, Event(asked.id, "end", 0.1 * n + 1, None, {"result": result})]


def record(store: Store, problems: Sequence[Problem], n: int = 4, seed: int = 0, **asked: object) -> str:
    """A finished and graded run of these problems; its id."""
    configuration = {
        "task": "kit",
        "model": "toy",
        "strategy": "best_of_n",
        "verifier": "self",
        "parameters": {"n": n},
        "seed": seed,
        **asked,
    }
    run = store.run(configuration)
    for each in problems:
        for event in solved(each, n, seed):
            run(event)
    run.finish()
    graded(store, run.id, configuration)
    return run.id


def graded(store: Store, run_id: str, configuration: dict[str, object]) -> None:
    """Put the grade of everything in the run on record."""
    grader = store.grader(grade, identity(configuration))
    for search in store.searches(run_id):
        grader.grades(search.result.problem, [c.node for c in search.result.candidates])


def grade(asked: Problem, text: str) -> Grade:
    """Whether the box holds the answer."""
    return Grade("correct" if f"\\boxed{{{asked.answer}}}" in text else "wrong", "compared as text")


def grown(nodes: int, branch: int = 3) -> Iterator[Event]:
    """The events of a tree search with that many nodes, the last of which are candidates."""
    rng = random.Random(nodes)
    asked = problem(nodes)
    root = Node(messages=asked.conversation, key="root")
    yield Event(asked.id, "start", 0.0, root, {"prompt": asked.prompt, "answer": asked.answer})
    level, made = [root], 0
    leaves: list[Node] = []
    while made < nodes:
        below: list[Node] = []
        for parent in level:
            for draw in range(branch):
                if made == nodes:
                    break
                made += 1
                ends = nodes - made < nodes // 3
                text = f"Step {made}: $x_{{{made}}} = {rng.randrange(99)}$.\n\n" + (f"\\boxed{{{made % 5}}}" * ends)
                key = digest(parent.key, made)[:32]
                finish = Finish.END if ends else Finish.STOP
                score = Score(rng.random(), (), "self")
                node = Node(parent, text, tuple(range(12)), (), (), finish, score, key, draw, "toy")
                yield Event(asked.id, "node", made / 50, node)
                (leaves if ends else below).append(node)
        level = rng.sample(below, max(1, len(below) // 2)) if below else level
    found = tuple(Candidate(node, node.text[-2], int(node.text[-2])) for node in leaves)
    result = Result(asked, leaves[0], leaves[0].text[-2], found, Usage(generated_tokens=12 * made))
    yield Event(asked.id, "end", made / 50, None, {"result": result})


def trap(index: int, text: str) -> list[Event]:
    """The events of a search with that text in every place a model or a file may have written."""
    asked = Problem(
        f"{index}: {text}", f"{text}\n\nquestion {index}", answer=text, meta={"level": text, "subject": text}
    )
    root = Node(messages=asked.conversation, key=f"root {index}")
    step = Node(root, f"{text}\n\n", (1, 2), (-1.0, -1.0), (), Finish.STOP, Score(0.5, (), text), f"{index}a", 0, text)
    call = f'```json\n{{"name": "{text}", "arguments": "{text}"}}\n```\n**{text}** `{text}`\n\\boxed{{{text}}} $x$'
    end = Node(step, call, (3,), (-0.5,), (), Finish.END, Score(0.9, (), text), f"{index}b", 0, text)
    result = Result(
        asked,
        end,
        text,
        (Candidate(end, text, 0),),
        Usage(prompt_tokens=9, generated_tokens=3),
        error=text,
        confidence=0.5,
    )
    return [
        Event(asked.id, "start", 0.0, root, {"prompt": asked.prompt, "answer": text}),
        Event(asked.id, "node", 0.1, step),
        Event(asked.id, "node", 0.2, end),
        Event(asked.id, "score", 0.3, end),
        Event(asked.id, "note", 0.4, None, {text: text}),
        Event(asked.id, "end", 0.5, None, {"result": result}),
    ]


def trapped(texts: Sequence[str]) -> list[Event]:
    """The events of a search whose steps are all those texts, one after another, and whose answers are they too."""
    asked = Problem("all", "All of them.", answer="none", meta={"level": "1", "subject": "x"})
    root = node = Node(messages=asked.conversation, key="all")
    events = [Event(asked.id, "start", 0.0, root, {"prompt": asked.prompt, "answer": asked.answer})]
    candidates = []
    for index, text in enumerate(texts):
        score = Score(0.5, (), "self")
        leaf = Node(node, text, (1,), (-1.0,), (), Finish.END, score, f"all {index} answer", 1, "toy")
        node = Node(node, f"{text}\n\n", (1,), (-1.0,), (), Finish.STOP, score, f"all {index}", 0, "toy")
        candidates.append(Candidate(leaf, text, index))
        events += [Event(asked.id, "node", index / 10, leaf), Event(asked.id, "node", index / 10, node)]
    best = Node(node, "done", (1,), (-1.0,), (), Finish.END, None, "all best", 0, "toy")
    result = Result(asked, best, "done", (*candidates, Candidate(best, "done", len(texts))), Usage(generated_tokens=9))
    return [*events, Event(asked.id, "node", 9.0, best), Event(asked.id, "end", 10.0, None, {"result": result})]


def traps(store: Store, texts: Sequence[str], **asked: object) -> str:
    """A run of such searches; its id."""
    configuration = {"task": "kit", "model": "toy", "strategy": "best_of_n", "parameters": {"n": 1}, **asked}
    run = store.run(configuration, models={"toy": "sha256:0"})
    for events in (trapped(texts), *(trap(index, text) for index, text in enumerate(texts))):
        for event in events:
            run(event)
    run.finish()
    graded(store, run.id, configuration)
    return run.id
