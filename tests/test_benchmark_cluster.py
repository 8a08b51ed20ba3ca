"""The simulated cluster: the real coordinator on a clock of its own."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path

import pytest

from benchmarks.cluster import durations, replayed


def job(count: int = 1319) -> dict[str, float]:
    rng = random.Random(1)
    return {f"q{number}": 1e5 * rng.triangular(0.3, 3.0, 0.7) for number in range(count)}


def test_sixteen_workers_are_busy_nine_tenths_of_the_time() -> None:
    alone, sixteen = (replayed(job(), workers, seats=4, taking=0.0) for workers in (1, 16))
    assert alone.efficiency > 0.98 and 0.9 <= sixteen.efficiency <= 1
    assert sixteen.seconds >= sixteen.work / 64


def test_what_can_be_worked_out_by_hand() -> None:
    # Two workers with one seat, and one question that waits behind it: 3 then 4, 2 then 1.
    found = replayed({"a": 3e6, "b": 2e6, "c": 4e6, "d": 1e6}, 2, seats=1, taking=0.0)
    assert found.seconds == pytest.approx(7e6, rel=1e-4)
    assert found.efficiency == pytest.approx(10 / 14, rel=1e-4)
    charged = replayed({"a": 3e6, "b": 2e6}, 1, seats=1, taking=1e6)
    assert charged.driver == pytest.approx(2e6, rel=1e-4)


@pytest.mark.parametrize("lost", [1, 5])
def test_lost_workers_cost_time_and_nothing_else(lost: int) -> None:
    whole, broken = (replayed(job(200), 4, seats=2, taking=0.0, lost=number) for number in (0, lost))
    assert broken.lost == lost and broken.seconds > whole.seconds


def test_durations_are_those_of_the_searches_that_were_made(tmp_path: Path) -> None:
    lines: list[object] = [{"flyweight": "store"}]
    for run, strategy, problems in (("r1", "beam_search", 60), ("r2", "best_of_n", 60), ("r3", "dvts", 4)):
        lines.append({"run": run, "configuration": {"strategy": strategy}, "problems": problems})
    for run, seconds in (("r1", 1.5), ("r2", 9.0), ("r3", 9.0), ("r1", 2.5)):
        lines.append({"search": run, "record": {"result": {"usage": {"seconds": seconds}}}})
    path = tmp_path / "pool.jsonl.xz"
    with lzma.open(path, "wt") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    assert durations(path) == [1.5, 2.5]
