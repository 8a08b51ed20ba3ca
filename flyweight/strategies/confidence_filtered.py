from __future__ import annotations

import math
from contextlib import suppress
from itertools import accumulate

from flyweight.errors import BudgetSpent
from flyweight.protocols import Growth, Search
from flyweight.select import finished
from flyweight.types import Finish, Node


async def confidence_filtered(
    search: Search,
    *,
    n: int = 16,
    warmup: int = 8,
    keep: float = 0.9,
    window: int = 32,
    online: bool = True,
    temperature: float = 0.7,
) -> Node | None:
    """Majority vote weighted by confidence among the samples that never became too unsure of themselves.

    A sample is as confident as its least certain stretch of `window` tokens. Online, the first `warmup` samples run
    to their end and set the bar, above which a share `keep` of them lies; each later one is cut as soon as it falls
    below. Offline (online=false) all run to their end and set the bar. A note tells the bar and the tokens saved.

    Use: as `self_consistency`, for models that get unsure where they go wrong; online it saves tokens.
    Source: Fu et al. 2025, "Deep Think with Confidence", arXiv 2508.15260, section 3.
    Cost: n completions offline; online less, as those that are cut cost only what they had grown to.
    Deviations: certainty is taken over the whole vocabulary (KL from uniform), the paper's over the likeliest tokens;
    windows are as short as small models' answers; the stop on consensus is any strategy's `lead`.
    """
    wanted = min(warmup, n) if online else n
    traces = await search.complete([search.root], wanted, temperature=temperature)
    ranked = sorted((least(node, window) for node in finished(traces)), reverse=True)
    bar = ranked[math.ceil(keep * len(ranked)) - 1] if ranked else 0.0

    def fading(growth: Growth) -> bool:
        return len(growth.certainty) >= window and round(math.fsum(growth.certainty[-window:]) / window, 6) < bar

    if wanted < n:
        with suppress(BudgetSpent):  # then what was drawn has the vote
            traces += await search.complete([search.root], n - wanted, temperature=temperature, until=fading)
    cut = [node for node in traces if node.finish is Finish.CUT]
    whole = [node.drawn for node in finished(traces)]
    saved = sum(max(0.0, sum(whole) / len(whole) - node.drawn) for node in cut) if whole else 0.0
    sure = {node: least(node, window) for node in finished(traces)}
    told = {node.key: value for node, value in sure.items()}
    search.note(bar=bar, cut=len(cut), saved_tokens=round(saved), least=told)
    groups = await search.classes([node for node in sure if sure[node] >= bar])
    if not groups:
        return None
    heaviest = max(groups, key=lambda group: round(math.fsum(sure[node] for node in group), 9))
    return max(heaviest, key=lambda node: sure[node])


def least(node: Node, window: int) -> float:
    """Mean certainty, in nats, of the path's least certain `window` tokens in a row; of all where there are fewer."""
    certainty = [value for step in node.steps for value in step.certainty]
    if len(certainty) <= window:
        return round(math.fsum(certainty) / max(1, len(certainty)), 6)
    sums = [0.0, *accumulate(certainty)]
    return round(min(sums[end] - sums[end - window] for end in range(window, len(sums))) / window, 6)
