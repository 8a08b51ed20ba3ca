"""The strategy `auto`: compute-optimal scaling at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from flyweight import strategies
from flyweight.errors import BudgetSpent, ConfigError
from flyweight.optimal import calibration as files
from flyweight.optimal.calibration import Calibration
from flyweight.optimal.difficulty import Draw, band, features
from flyweight.protocols import Search
from flyweight.select import aggregate, confidence, finished, majority, weighted_vote
from flyweight.strategies import SAMPLING, Value, compose
from flyweight.types import Node
from flyweight.verifiers.self_verifier import kind_of

__all__ = ["auto", "resolve"]

PROBE = 4
"""Samples of the probe where nothing was fitted."""
PUBLISHED = "published"
"""Names the defaults that were found by others, also where there is a calibration."""
DOUBT = 0.6
"""Below it a bigger model is asked, where one was named and no confidence was."""
SEARCH: Mapping[str, str] = {"maths": "beam_search:n=8:width=4", "code": "code_agreement:n=8"}
"""Tried when more samples have left the answer in doubt, by kind of problem."""


async def auto(
    search: Search,
    *,
    n: int = 16,
    tokens: int = 4096,
    calibration: str = "",
    any_model: bool = False,
    bigger: str = "",
) -> Node | None:
    """The strategy that suits the question: a few samples tell how hard it is, a calibration what is best then.

    The samples that told it are the first of those that the chosen strategy uses. Where a confidence is asked for and
    not reached, it goes on: up to n samples, then a search, then the model `bigger`; without one asked for, `bigger`
    answers where the answer found is less than 60 % sure. `tokens` is what it plans with where there is no budget. The
    calibration is that of the model's file, of those that come with the package, unless a file is named
    (`flyweight calibrate`); one of another model or verifier is refused without any_model. Without a calibration, or
    with calibration=published, it does what Liu et al. found best for most models, and says so.

    Use: whenever you do not know how hard the questions are.
    Source: Snell et al. 2024, arXiv 2408.03314, section 3 (compute-optimal scaling); Liu et al. 2025, arXiv 2502.06703,
    section 4 (what is done without a calibration).
    Cost: the strategy that is chosen, and what the probe's samples exceed it by.
    Deviations: difficulty is estimated from at most 8 samples, which count as a part of the search; the paper's
    estimate takes 2048, which do not.
    """
    kind = kind_of(search.problem)
    found = resolve(calibration, search.weights(), kind, any_model=any_model)
    planned = tokens if search.budget.tokens is None else search.budget.tokens
    row = None if found is None else found.row(planned)
    usual: dict[str, Value] = {} if row is None else {"temperature": row.temperature}
    bank = _Bank(search, greedy=row is not None and row.greedy)
    k = min(n, PROBE if row is None else row.estimator.k)
    _explain(search, chosen="probe", line=f"ended within the probe of {k} samples, before anything was chosen")
    await bank.probe(k, usual)
    params = search.usage.flops / max(1, 2 * (search.usage.prompt_tokens + search.usage.generated_tokens))
    with suppress(BudgetSpent):  # then the choice is made without scores
        await bank.score(finished(bank.leaves))
    said = [node.score for node in bank.scored() if node.score is not None]
    if found is not None and said and said[0].kind != found.judge and not any_model:
        if calibration:
            raise ConfigError(
                f"{calibration} was fitted with the verifier {found.verifier}, not {said[0].kind}: take that one, or "
                "the calibration all the same with --set any_model=true"
            )
        found = row = None
    groups = await search.classes(bank.leaves)
    if row is None:
        agreeing = max(map(len, groups), default=0) / max(1, len(bank.leaves))
        view = _View(agreeing, files.published(params, any(score.steps for score in said), band(agreeing)), None)
    else:
        passed = row.estimator(features(_seen(bank, groups), len(search.problem.prompt)))
        view = _View(passed, row.cell(passed).strategy, found)
    plan = _fitted(view.chosen, n, usual)
    best = await _run(bank, plan, view)
    wanted = search.budget.confidence or (DOUBT if bigger else None)
    if wanted is None:
        return best
    for more in _escalation(plan, n, kind, usual):
        if await _sure(bank, best, view) >= wanted or search.usage.generated_tokens >= planned:
            return best
        best = await _run(bank, more, view) or best
    if bigger and await _sure(bank, best, view) < wanted and search.usage.generated_tokens < planned:
        best = await _ask(bank, bigger, best, view) or best
    return best


def resolve(reference: str, sha256: str, kind: str, *, any_model: bool = False) -> Calibration | None:
    """The calibration that `auto` goes by for a model file and a kind of problem; None for the published defaults.

    `reference` is a file, `published`, or empty for those that come with the package. ConfigError for a file that
    cannot be read, or that holds none of the model (unless any_model).
    """
    if reference == PUBLISHED:
        return None
    if not reference:
        return files.find(files.shipped(), sha256, kind)
    held = files.read(Path(reference))
    mine = held if any_model else [each for each in held if each.sha256 == sha256]
    if not mine:
        models = ", ".join(sorted({f"{each.model} ({each.sha256[:12] or 'no file'})" for each in held}))
        raise ConfigError(
            f"{reference} was fitted on {models}, not on the model in use ({sha256[:12] or 'no file'}): fit one with "
            "flyweight calibrate, or take it all the same with --set any_model=true"
        )
    return next((each for each in mine if each.kind == kind), None)


@dataclass(frozen=True)
class _View:
    """What the probe has come to."""

    passed: float
    """Estimated pass@1; without a calibration the share of samples that agree."""
    chosen: str
    """A strategy, as one word."""
    found: Calibration | None

    def surely(self, lead: float) -> tuple[float, bool]:
        """Probability that an answer with this lead is right where it was fitted, else the lead itself; and which."""
        known = None if self.found is None else self.found.confidence_map()
        return (lead, False) if known is None else (known(lead), True)


class _Bank(compose.Remembering):
    """The search with what was drawn already in front: whole samples are handed out before any is drawn anew.

    In a tree's final vote the samples stand for election too.
    """

    def __init__(self, search: Search, *, greedy: bool) -> None:
        """With `greedy` the most likely answer is the first of them."""
        super().__init__(search)
        self._greedy = greedy
        self.leaves: list[Node] = []
        """Every whole sample so far, in the order drawn."""
        self.tree = False
        """Whether the strategy that is run now draws steps."""
        self._next = 0

    async def probe(self, k: int, how: Mapping[str, Value]) -> None:
        """Draw the first k samples, fewer where the budget ends. BudgetSpent where it does not allow for one."""
        if self._greedy:
            await self.complete([self._search.root], 1, temperature=0)
        if more := k - len(self.leaves):
            with suppress(BudgetSpent) if self.leaves else nullcontext():
                await self.complete([self._search.root], more, **how)

    def rewind(self, strategy: str) -> None:
        """From here on the leaves are handed out from the first.

        What was recorded by itself, and not played from samples, knew of no most likely answer among them.
        """
        name = compose.spelled(strategy)[0]
        self.tree = strategies.stepwise(name)
        self._next = int(self._greedy and name not in ("greedy", "sample", *SAMPLING))

    async def complete(self, nodes: Sequence[Node], n: int = 1, **how: Any) -> list[Node]:
        plain = how.get("policy") is None and how.get("until") is None and how.get("stop") is None
        if not plain or any(node is not self._search.root for node in nodes):
            return await self._search.complete(nodes, n, **how)
        wanted = n * len(nodes)
        had = self.leaves[self._next : self._next + wanted]
        self._next += len(had)
        if len(had) == wanted:
            return had
        try:
            drawn = await self._search.complete([self._search.root], wanted - len(had), **how)
        except BudgetSpent:
            if not had:
                raise
            return had
        self.leaves += drawn
        self._next += len(drawn)
        return had + drawn

    async def classes(self, nodes: Sequence[Node]) -> list[list[Node]]:
        keys = {node.key for node in nodes}
        others = [node for node in self.scored() if node.key not in keys] if self.tree else []
        return await self._search.classes([*nodes, *others])

    def ended(self) -> list[Node]:
        """Whole texts, steps or not, that the verifier of the run has scored."""
        whole = {leaf.key for leaf in self.leaves}
        scored = [node for (_, judge), node in self._scores.items() if judge is None]
        return [node for node in scored if node.complete or node.key in whole]

    def scored(self) -> list[Node]:
        """The leaves that the verifier of the run has scored."""
        return [self._scores[leaf.key, None] for leaf in self.leaves if (leaf.key, None) in self._scores]


def _seen(bank: _Bank, groups: Sequence[Sequence[Node]]) -> list[Draw]:
    place = {node.key: number for number, group in enumerate(groups) for node in group}
    scores = {node.key: aggregate(node.score) for node in bank.scored()}
    # The token that ends a text is drawn, too, though it is not among the node's.
    tokens = [leaf.drawn + leaf.complete for leaf in bank.leaves]
    return [
        Draw(place.get(leaf.key), scores.get(leaf.key), leaf.mean_logprob, count)
        for leaf, count in zip(bank.leaves, tokens, strict=True)
    ]


def _fitted(chosen: str, n: int, usual: Mapping[str, Value]) -> str:
    """The strategy with at most n samples, drawn as the probe was where it does not say how."""
    name, settings = compose.spelled(chosen)
    known = {parameter.name: parameter.default for parameter in strategies.describe(name).parameters}
    if not strategies.stepwise(name):
        settings = {**{key: value for key, value in usual.items() if key in known}, **settings}
    if "n" in known:
        most = min(n, int(settings.get("n", known["n"])))
        if "width" in known:
            width = min(most, int(settings.get("width", known["width"])))
            settings["width"] = width
            most -= most % width
        settings["n"] = most
    order = [*known, *settings]  # as `flyweight list` has them
    return compose.spell(name, dict(sorted(settings.items(), key=lambda item: order.index(item[0]))))


async def _run(bank: _Bank, chosen: str, view: _View) -> Node | None:
    bank.rewind(chosen)
    _tell(bank, chosen, None, view, [])
    best = None
    try:
        best = await strategies.bind(chosen)(cast(Search, bank))
    except BudgetSpent:
        pass  # then what there is by now is left
    except ConfigError:
        if not bank.tree:
            raise
        # Tools, forms and stop strings are for answers drawn in one piece: it was refused before its first step.
        return await _run(bank, f"weighted_best_of_n:n={compose.spelled(chosen)[1]['n']}", view)
    best = await _stated(bank, best)
    _tell(bank, chosen, best, view, await bank._search.classes(finished(bank.leaves)))
    return best


async def _stated(bank: _Bank, best: Node | None) -> Node | None:
    """The choice; where it states no answer and others do, the vote of what was scored, or of all.

    How sure it is is told by the verifier the calibration is of, which scores it if it has not yet.
    """
    if best is None or not await bank._search.classes([best]):
        scored = weighted_vote(await bank._search.classes(bank.ended()))
        best = scored or majority(await bank._search.classes(bank.leaves)) or best
    if best is None or not finished([best]):
        return best
    with suppress(BudgetSpent):
        best = (await bank.score([best]))[0]
    return best


async def _ask(bank: _Bank, bigger: str, best: Node | None, view: _View) -> Node | None:
    """The bigger model's first answer, where it states one."""
    try:
        drawn = finished(await bank._search.complete([bank.root], 1, temperature=0, policy=bigger))
    except BudgetSpent:
        return None
    groups = await bank._search.classes([*finished(bank.leaves), *drawn])
    answered = [node for node in drawn if any(node in group for group in groups)]
    # How the small model votes says nothing of how often the bigger one is right.
    _tell(bank, f"greedy:policy={bigger}", None if answered else best, view, groups)
    return answered[0] if answered else None


async def _sure(bank: _Bank, best: Node | None, view: _View) -> float:
    """How sure the answer is; 0 without one, or with nothing to compare it with."""
    if best is None:
        return 0.0
    lead = confidence(await bank._search.classes(finished(bank.leaves)), best)
    return 0.0 if lead is None else view.surely(lead)[0]


def _escalation(plan: str, n: int, kind: str, usual: Mapping[str, Value]) -> list[str]:
    """What is tried, one after the other, when the plan has left the answer in doubt: what is drawn is not lost."""
    whole, search = (_fitted(word, n, usual) for word in (f"weighted_best_of_n:n={n}", SEARCH[kind]))
    names = {compose.spelled(word)[0] for word in (plan, search)}
    searched = len(names) == 1 or all(map(strategies.stepwise, names)) or n < 8
    return [*([] if plan == whole else [whole]), *([] if searched else [search])]


def _tell(bank: _Bank, chosen: str, best: Node | None, view: _View, groups: Sequence[Sequence[Node]]) -> None:
    """Say what was chosen and why, on one line too."""
    lead = None if best is None else confidence(groups, best)
    sure, calibrated = (None, False) if lead is None else view.surely(lead)
    name = " ".join(part for part in compose.parts(chosen, ":") if not part.startswith("temperature="))
    spent = bank.usage.generated_tokens
    parts = [f"{band(view.passed)} (p≈{view.passed:.2g}): {name}", _thousands(spent)]
    if sure is not None:
        parts.append(f"{min(99, round(100 * sure))} % sure" + ("" if calibrated else " that it leads"))
    if view.found is None:
        basis = "published defaults, no calibration of this model and verifier"
        parts.append(basis)
    else:
        basis = ", ".join(f"{each.task} {each.split}, {each.questions} questions" for each in view.found.sources)
    _explain(
        bank._search,
        chosen=chosen,
        difficulty=round(view.passed, 4),
        band=band(view.passed),
        confidence=sure,
        calibrated=calibrated,
        calibration=basis,
        line=", ".join(parts),
    )


def _thousands(tokens: int) -> str:
    return f"{tokens} tokens" if tokens < 1000 else f"{tokens / 1000:.1f}k tokens"


def _explain(search: Search, **facts: object) -> None:
    search.note(explained={"strategy": "auto", **facts})
