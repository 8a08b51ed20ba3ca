from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from flyweight.protocols import Growth, Search
from flyweight.types import Finish, Node, digest


async def budget_forcing(
    search: Search,
    *,
    think_tokens: int = 512,
    answer_tokens: int = 128,
    waits: int = 2,
    temperature: float = 0.7,
    opening: str = "<think>",
    closing: str = "</think>",
    wait: str = "Wait",
    final: str = "Final answer:",
) -> Node | None:
    """One line of thought, as long as it may be: cut at the cap, gone on with while there is room, then answered.

    The thought ends at `closing`. If it ends by itself within `think_tokens`, it is followed by `wait` instead, up to
    `waits` times; at the cap the answer is forced by `closing` and `final`. `answer_tokens` of a token budget are kept
    for it. `opening` is what a thought begins with; empty where the model's prompt has it already. A model that does
    not open one has no such phase: then the answer itself is the thought, and the same texts but for the tags prompt
    it to go on and to conclude; a note says so.

    Use: a model with a thinking phase, whose length is to be bounded or stretched.
    Source: Muennighoff et al. 2025, "s1: Simple test-time scaling", arXiv 2501.19393, section 3.
    Cost: 1 completion, in at most 2 + waits calls on one KV.
    Deviations: the paper decodes greedily.
    """
    left = think_tokens
    if search.budget.tokens is not None:
        left = max(1, min(left, search.budget.tokens - search.usage.generated_tokens - answer_tokens))
    path, thinks = search.root, False
    while True:
        tape = Tape()
        [node] = await search.extend([path], temperature=temperature, stop=(closing,), max_tokens=left, until=tape)
        left -= len(node.tokens or ())
        closed = node.finish is Finish.STOP
        if path is search.root:
            thinks = closed or not opening or node.text.lstrip().startswith(opening)
            search.note(thinking="a phase of its own" if thinks else f"prompted: the model does not open {opening}")
        if node.finish is Finish.LENGTH or left <= 0 or waits == 0:
            break
        waits -= 1
        thought, rest = tape.before(node, closing) if closed else (node, "")
        gap = "" if (rest or thought.text).endswith("\n") else "\n"
        path = search.append(thought, f"{rest}{gap}{wait}")
    if closed:
        return (await search.complete([node], temperature=temperature))[0]
    if node.complete and not thinks:
        return node
    tail = f"\n{closing}\n\n{final}" if thinks else f"\n\n{final}"
    return (await search.complete([search.append(node, tail)], temperature=temperature))[0]


class Tape:
    """An `until` that never cuts, and notes where the text of every token ends."""

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}
        """Characters of the text by tokens drawn."""

    def __call__(self, growth: Growth) -> bool:
        self.ends[len(growth.tokens)] = len(growth.text)
        return False

    def before(self, node: Node, tag: str) -> tuple[Node, str]:
        """The drawn step without the tag and what follows it, as the tokens that end before it, and the text left over.

        So that the path goes on from what the model drew, on its KV and with its log-probabilities.
        """
        text = node.text.partition(tag)[0]
        kept = max((count for count, end in self.ends.items() if end <= len(text)), default=0)
        end = self.ends.get(kept, 0)
        cut = replace(
            node,
            text=text[:end],
            tokens=(node.tokens or ())[:kept],
            logprobs=node.logprobs[:kept],
            certainty=node.certainty[:kept],
            hidden=None if node.hidden is None else cast("Sequence[object]", node.hidden)[:kept],
            finish=Finish.CUT,
            key=digest(node.key, "before", tag)[:32],
        )
        return cut, text[end:]
