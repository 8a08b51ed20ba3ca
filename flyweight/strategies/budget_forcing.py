from __future__ import annotations

from flyweight.protocols import Search
from flyweight.types import Finish, Node


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

    Source: Muennighoff et al. 2025, "s1: Simple test-time scaling", arXiv 2501.19393, section 3.
    Cost: 1 completion, in at most 2 + waits calls on one KV.
    Deviations: the text before a `wait` that takes the place of `closing` is forced text from then on, without
    log-probabilities; the paper decodes greedily.
    """
    left = think_tokens
    if search.budget.tokens is not None:
        left = max(1, min(left, search.budget.tokens - search.usage.generated_tokens - answer_tokens))
    path, thinks = search.root, False
    while True:
        [node] = await search.extend([path], temperature=temperature, stop=(closing,), max_tokens=left)
        left -= len(node.tokens or ())
        closed = node.finish is Finish.STOP
        if path is search.root:
            thinks = closed or not opening or node.text.lstrip().startswith(opening)
            search.note(thinking="a phase of its own" if thinks else f"prompted: the model does not open {opening}")
        if node.finish is Finish.LENGTH or left <= 0 or waits == 0:
            break
        waits -= 1
        # What closed the thought must go from the text; an answer that ended is gone on with as it is.
        before = search.append(path, node.text.partition(closing)[0].rstrip()) if closed else node
        path = search.append(before, f"\n{wait}")
    if closed:
        return (await search.complete([node], temperature=temperature))[0]
    if node.complete and not thinks:
        return node
    tail = f"\n{closing}\n\n{final}" if thinks else f"\n\n{final}"
    return (await search.complete([search.append(node, tail)], temperature=temperature))[0]
