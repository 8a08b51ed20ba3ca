"""Every strategy on the same questions with the same model and verifier, at about 2,000 generated tokens a question.

    python -m benchmarks.strategies                    # docs/strategies.md from results/strategies: no model, seconds
    python -m benchmarks.strategies --draw --limit 20  # draw what is missing of 20 + 20 questions: over an hour
    python -m benchmarks.strategies --draw             # of all 40 + 40
    python -m benchmarks.strategies --draw --final     # the two best and best_of_n on 150 test questions of GSM8K
    python -m benchmarks.strategies --draw --only mcts # strategies of this name alone; best_of_n draws the shared pool
    python -m benchmarks.strategies --draw --limit 2   # a trial: prints, keeps nothing
    python -m benchmarks.strategies --pictures         # one search by every strategy, drawn from what is recorded

Questions: the first of GSM8K's development split by the hash of their ids, and Countdown puzzles of 3, 4 and 5 numbers
in turns (results/strategies/countdown.jsonl); every setting in `SETTINGS` was fixed beforehand. What came of every
question is kept in results/strategies/outcomes.json.gz, so a run that was stopped goes on where it was; the texts are
in the stores under --runs, a store for each strategy and one for all that choose among the same samples, which is
written back to results/strategies/pool.jsonl.xz.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from benchmarks.results import BIG, SMALL
from benchmarks.rig import ROOT, Figures, machine
from flyweight import bench, strategies, tasks
from flyweight.bench import Plan, Progress
from flyweight.errors import ConfigError
from flyweight.report import grader, records
from flyweight.store import Store
from flyweight.store.values import Precision
from flyweight.strategies import Value
from flyweight.types import Budget

__all__ = ["BASELINE", "BLOCK", "FOLDER", "POOL", "SETTINGS", "Block", "Kept", "Outcome", "blocks", "finalists"]

FOLDER = ROOT / "results" / "strategies"
OUTCOMES = FOLDER / "outcomes.json.gz"
DECISION = FOLDER / "final.json"
PUZZLES = FOLDER / "countdown.jsonl"
POOL_FILE = FOLDER / "pool.jsonl.xz"
FINAL_FILE = FOLDER / "final.jsonl.xz"

BASELINE = "best_of_n"
"""What the others are compared with; the first to draw, as it has its samples scored while it draws them."""
POOL = (
    BASELINE,
    "sample",
    "greedy",
    "self_consistency",
    "adaptive_consistency",
    "weighted_best_of_n",
    "confidence_filtered",
    "tournament",
    "medoid",
    "code_agreement",
)
"""They choose among the same samples, in one store; `BIG`'s first answer is kept there too."""

LONGEST = 512
"""Tokens of a sample."""
LIMIT = Budget(tokens=8 * LONGEST)
"""Of every search: what eight samples take at most. Without it, paths that never end would take several times that."""
STEPS = 16
SETTINGS: Mapping[str, Mapping[str, Value]] = {
    # Answers take about 250 tokens, in steps of 30 to 40: eight answers are 2,000.
    **{name: {"n": 8} for name in POOL if name not in ("greedy", "sample")},
    "confidence_filtered": {"n": 8, "online": False},
    "confidence_filtered:online=true": {"n": 9, "warmup": 4},  # of the later five, some are cut half-way
    # Eight steps a round, as many rounds as an answer has steps; `STEPS` of them are as long as the longest sample.
    "beam_search": {"n": 8, "width": 4, "max_steps": STEPS},
    "dvts": {"n": 8, "width": 4, "max_steps": STEPS},
    "lookahead_search": {"n": 4, "width": 2, "k": 1, "max_steps": STEPS},  # every step is drawn with one more behind it
    "rebase": {"n": 8, "max_steps": STEPS},
    "particle_filter": {"n": 8, "max_steps": STEPS},
    "particle_gibbs": {"n": 4, "iterations": 2, "max_steps": STEPS},  # its n counts for each iteration
    "mcts": {"n": 4, "branch": 3, "max_steps": STEPS},  # `branch` steps at every new node: many at first, fewer later
    "sequential_revision": {"n": 8, "memory": 2},  # two attempts and a third fit the context
    "hybrid": {"n": 8, "chains": 4, "memory": 2},
    "self_refine": {"rounds": 4},  # four critiques of 200 tokens and four revisions behind the first answer
    "auto": {"n": 8, "tokens": 2000},
    "budget_forcing": {"think_tokens": 1500, "waits": 8},  # the longest that the context holds
}
"""Parameters by strategy, fixed before anything was drawn. One that is not named here runs with its defaults."""

BLOCK = 20
"""Questions of a task that are searched together: a run over more goes on from one over fewer."""
DIFFICULTIES = (3, 4, 5)
MOST = 40
FINAL_QUESTIONS = 150
EXPECTED_TOKENS, EXPECTED_SPEED = 2000.0, 300.0
"""What is predicted before anything was measured: tokens a question, tokens a second."""


class Block(NamedTuple):
    """Questions that are searched together."""

    part: str
    """gsm8k, countdown or final."""
    plan: Plan
    questions: int

    @property
    def name(self) -> str:
        return f"{self.part} {self.plan.limit}"


class Outcome(NamedTuple):
    """What a search came to, and what it took."""

    right: bool
    candidates: int
    right_candidates: int
    tokens: int
    """Generated."""
    prompt_tokens: int
    verifier_tokens: int
    flops: float


def blocks(limit: int) -> list[Block]:
    """The first `limit` questions of both tasks, GSM8K's before Countdown's."""
    gsm8k = Plan("gsm8k", split="development", verifier="self", model=SMALL, max_tokens=LONGEST, budget=LIMIT)
    countdown = replace(gsm8k, task="countdown", split=None, data=str(PUZZLES.relative_to(ROOT)))
    found = []
    for first in range(1, limit + 1, BLOCK):
        last = min(first + BLOCK - 1, limit)
        found += [
            Block(plan.task, replace(plan, limit=f"{first}-{last}"), last - first + 1) for plan in (gsm8k, countdown)
        ]
    return found


def final_block() -> Block:
    """Test questions, the first by the hash of their ids."""
    plan = replace(blocks(1)[0].plan, split="test", limit=f"1-{FINAL_QUESTIONS}")
    return Block("final", plan, FINAL_QUESTIONS)


def puzzles() -> str:
    """The Countdown puzzles as a file: of every difficulty the first of its development split, in turns.

    They stand in the order of their ids' hash, in which `--limit` takes them, so that any number of them holds as many
    of each difficulty.
    """
    made = {n: list(tasks.load("countdown", numbers=n, count=MOST * 5).problems()) for n in DIFFICULTIES}
    turn = (DIFFICULTIES[i % len(DIFFICULTIES)] for i in range(MOST))
    chosen: list[str] = []
    last = ""
    for numbers in turn:
        # The next in that order of this difficulty: leaving some out is what keeps the turns.
        problem = min((p for p in made[numbers] if _place(p.id) > last), key=lambda p: _place(p.id))
        last = _place(problem.id)
        chosen.append(json.dumps({name: problem.meta[name] for name in ("numbers", "target")}))
    return "\n".join(chosen) + "\n"


def _place(id: str) -> str:
    return tasks.files.sha(id)


class Kept:
    """Outcomes by block and strategy, in a file that is written as they come."""

    def __init__(self, path: Path | None) -> None:
        """Without a path nothing is read or written."""
        self._path = path
        self.runs: dict[str, Figures] = {}
        if path is not None and path.is_file():
            self.runs = json.loads(gzip.decompress(path.read_bytes()))

    def known(self, block: Block, strategy: str, model: str = SMALL) -> Figures | None:
        """The run of these settings, if it is there."""
        run = self.runs.get(_name(block, strategy, model))
        return run if run is not None and run["parameters"] == dict(SETTINGS.get(strategy, {})) else None

    def outcomes(self, part: str, strategy: str, model: str = SMALL) -> dict[str, Outcome]:
        """By question id, of all blocks of a part."""
        names = [name for name in self.runs if _parts(name)[0] == part and _parts(name)[2:] == (strategy, model)]
        return {id: Outcome(*row) for name in names for id, row in self.runs[name]["questions"].items()}

    def total(self, part: str, strategy: str, fact: str, model: str = SMALL) -> float | None:
        """The sum of a fact over the blocks of a part that were drawn for this strategy; None if none was."""
        names = [name for name in self.runs if _parts(name)[0] == part and _parts(name)[2:] == (strategy, model)]
        values = [self.runs[name][fact] for name in names if self.runs[name][fact] is not None]
        return sum(values) if values else None

    def add(self, block: Block, strategy: str, model: str, run: Figures) -> None:
        """Keep a run, at once."""
        self.runs[_name(block, strategy, model)] = run
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(dict(sorted(self.runs.items())), sort_keys=True)
            partial = self._path.with_suffix(".partial")
            partial.write_bytes(gzip.compress(text.encode(), mtime=0))
            partial.replace(self._path)


def _name(block: Block, strategy: str, model: str) -> str:
    return f"{block.part}|{block.plan.limit}|{strategy}|{model}"


def _parts(name: str) -> tuple[str, str, str, str]:
    part, limit, strategy, model = name.split("|")
    return part, limit, strategy, model


def names() -> list[str]:
    """Everything that is run: the baseline first, then what shares its samples, then the others."""
    known = [*SETTINGS, *strategies.names()]
    return list(dict.fromkeys([*POOL, *known]))


def finalists(kept: Kept) -> list[str]:
    """The two strategies that got most of the 80 questions right, of several the one that takes fewer FLOPs.

    The baseline is not among them: it runs anyway. ConfigError where not all have been searched.
    """

    def worth(name: str) -> tuple[float, float]:
        found = [each for part in ("gsm8k", "countdown") for each in kept.outcomes(part, name).values()]
        if len(found) < 2 * MOST:
            raise ConfigError(f"{name} has searched {len(found)} of {2 * MOST} questions: --draw the others first")
        return sum(each.right for each in found), -sum(each.flops for each in found)

    return sorted((name for name in names() if name != BASELINE), key=worth, reverse=True)[:2]


def draw(kept: Kept, block: Block, strategy: str, model: str, runs: Path) -> None:
    """Search the block's questions, and keep what came of it."""
    shared = strategy in POOL
    folder = runs / (f"{block.part}-pool" if shared else f"{block.part}-{strategy.replace(':', '-')}")
    folder.mkdir(parents=True, exist_ok=True)
    plan = replace(block.plan, strategy=strategy, parameters=dict(SETTINGS.get(strategy, {})), model=model)
    with Store(folder / "flyweight.db") as store:
        if not any(store.runs()) and shared and POOL_FILE.exists() and block.part != "final":
            store.load(POOL_FILE)
        [summary] = bench.execute(store, [plan], on_progress=_Shown())
        if summary.ending != "finished":
            raise SystemExit(f"{strategy} on {block.name} was stopped: the same command goes on with it")
        info = next(info for info in store.runs() if info.id == summary.run)
        others = [other for other in store.runs() if other.configuration.keys() >= {"task", "model", "strategy"}]
        read = records.recorded(info, model, bench.read(store, info.id, grader(store, info)), others)
        facts = [each for each in info.versions if "recomputed_tokens" in each]
        speed = read.speed or EXPECTED_SPEED
        tokens = sum(outcome.usage.generated_tokens for outcome in read.outcomes.values())
        kept.add(
            block,
            strategy,
            model,
            {
                "parameters": dict(SETTINGS.get(strategy, {})),
                "seconds": tokens / speed,
                "recomputed": sum(int(each["recomputed_tokens"]) for each in facts) if facts else None,
                "failed": sum(not outcome.complete for outcome in read.outcomes.values()),
                "machine": machine(),
                "questions": {id: _outcome(outcome) for id, outcome in read.outcomes.items()},
            },
        )


class _Shown:
    """Prints how many questions have been searched, whenever there is one more."""

    def __init__(self) -> None:
        self._searched = 0

    def __call__(self, progress: Progress) -> None:
        if progress.tally.searched > self._searched:
            self._searched = progress.tally.searched
            left = "" if progress.left is None else f", {progress.left:.0f} s left"
            print(f"  {self._searched}/{len(progress.job.problems)}, {progress.tally.correct} right{left}", flush=True)


def _outcome(outcome: records.Outcome) -> Outcome:
    usage = outcome.usage
    right = sum(draw.right for draw in outcome.draws)
    tokens = (usage.generated_tokens, usage.prompt_tokens, usage.verifier_tokens)
    return Outcome(outcome.right, len(outcome.draws), right, *tokens, usage.flops)


def missing(kept: Kept, chosen: Sequence[Block], only: str) -> Iterator[tuple[Block, str, str]]:
    """(block, strategy, model) of what is to be drawn, in that order."""
    for block in chosen:
        wanted = decided(kept) if block.part == "final" else [name for name in names() if only in name]
        if any(name in POOL for name in wanted):
            wanted = [BASELINE, *(name for name in wanted if name != BASELINE)]
        for name in wanted:
            if kept.known(block, name) is None:
                yield block, name, SMALL
        if kept.known(block, "greedy", BIG) is None and not only:
            yield block, "greedy", BIG


def decided(kept: Kept) -> list[str]:
    """Who runs on the test questions: decided once, by the table of the development questions, and written down."""
    if not DECISION.exists():
        try:
            best = finalists(kept)
        except ConfigError as error:
            raise SystemExit(f"nothing is decided yet: {error}") from error
        DECISION.write_text(json.dumps({"final": best}) + "\n", "utf-8")
    return [BASELINE, *cast("list[str]", json.loads(DECISION.read_text("utf-8"))["final"])]


def predicted(kept: Kept, wanted: Sequence[tuple[Block, str, str]]) -> float:
    """Minutes that drawing them takes, by what the same strategies took so far."""
    seconds = 0.0
    for block, strategy, model in wanted:
        known = [run for name, run in kept.runs.items() if _parts(name)[2:] == (strategy, model)]
        taken = sum(run["seconds"] for run in known) / max(1, sum(len(run["questions"]) for run in known))
        free = strategy in POOL and strategy != BASELINE and model == SMALL
        usual = 0.2 if free else EXPECTED_TOKENS / EXPECTED_SPEED
        seconds += block.questions * (0.2 if free else taken or usual)
    return seconds / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="run the model for what is not on record")
    parser.add_argument("--limit", type=int, default=MOST, help="questions of each task: 20 or 40; fewer are a trial")
    parser.add_argument("--only", default="", help="only strategies whose name contains this")
    parser.add_argument("--final", action="store_true", help="the two best and best_of_n on test questions")
    parser.add_argument("--pictures", action="store_true", help="record one search by every strategy that lacks one")
    parser.add_argument("--runs", type=Path, default=Path("runs/strategies"), help="folder of the stores")
    given = parser.parse_args()
    if not 1 <= given.limit <= MOST:
        raise SystemExit(f"--limit {given.limit} is not allowed: a whole number from 1 to {MOST}")
    from benchmarks import strategies_page as page
    from benchmarks import strategies_pictures as pictures

    if given.pictures:
        pictures.record(given.only)
    trial = bool(given.limit % BLOCK)
    kept = Kept(None if trial else OUTCOMES)
    if given.draw:
        chosen = [final_block()] if given.final else blocks(given.limit)
        wanted = list(missing(kept, chosen, given.only))
        print(f"{len(wanted)} runs to draw, about {predicted(kept, wanted):.0f} minutes")
        with tempfile.TemporaryDirectory() as temporary:
            runs = Path(temporary) if trial else given.runs
            for number, (block, strategy, model) in enumerate(wanted, 1):
                print(f"{number}/{len(wanted)} {block.name} {model} {strategy}")
                draw(kept, block, strategy, model, runs)
            if given.final:
                _pack(sorted(runs.glob("final-*")), FINAL_FILE, "none")  # to read: nothing else is drawn from there
            elif not trial and wanted:
                _pack([runs / "gsm8k-pool", runs / "countdown-pool"], POOL_FILE, "float16")
    if trial:
        print(page.tables(kept))
        return
    page.write(kept)


def _pack(runs: Sequence[Path], file: Path, precision: Precision) -> None:
    """The stores in these folders, in one file."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "flyweight.db") as together:
        for run in runs:
            with Store(run / "flyweight.db") as store:
                store.dump(Path(folder) / "part.jsonl.gz", precision)
            together.load(Path(folder) / "part.jsonl.gz")
        together.dump(file, precision)


if __name__ == "__main__":
    main()
