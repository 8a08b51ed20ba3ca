from __future__ import annotations

from collections import Counter
from itertools import combinations

from flyweight.protocols import Search
from flyweight.select import finished
from flyweight.types import Node

GRAM = 4
"""Characters compared at a time."""


async def medoid(search: Search, *, n: int = 8, temperature: float = 0.7) -> Node | None:
    """The sample most like all the others: the majority vote of free text, where no two answers are equal.

    Likeness is the share of character 4-grams that two texts have in common, counted with repeats and without regard
    to case and spacing; no model is asked.

    Use: free text without any judge: the answer that says what most say.
    Source: Eikema, Aziz 2020, "Is MAP Decoding All You Need?", arXiv 2005.10283 (minimum Bayes risk); likeness in
    the manner of chrF (Popović 2015).
    Cost: n completions; n * (n - 1) / 2 likenesses of two texts.
    Deviations: truncated samples neither vote nor win.
    """
    samples = finished(await search.complete([search.root], n, temperature=temperature))
    grams = {node: _grams(node.solution) for node in samples}
    likeness = dict.fromkeys(samples, 0.0)
    for a, b in combinations(samples, 2):
        shared = 2 * (grams[a] & grams[b]).total() / max(1, grams[a].total() + grams[b].total())
        likeness[a] += shared
        likeness[b] += shared
    search.note(likeness={node.key: round(sum / max(1, len(samples) - 1), 9) for node, sum in likeness.items()})
    return min(
        samples, key=lambda node: (-round(likeness[node], 9), -node.mean_logprob, node.order, node.key), default=None
    )


def _grams(text: str) -> Counter[str]:
    """How often each run of GRAM characters occurs; the text itself where it is shorter."""
    plain = " ".join(text.casefold().split())
    return Counter(plain[i : i + GRAM] for i in range(max(1, len(plain) - GRAM + 1)))
