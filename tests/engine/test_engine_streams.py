"""Bookkeeping of streams against a naive model: what is held, what is found, what was computed twice."""

from __future__ import annotations

import random

import pytest

from flyweight.policies.llamacpp.history import History, common_prefix
from flyweight.policies.llamacpp.seats import window
from flyweight.policies.llamacpp.streams import WORTH_PARKING, Streams

Blob = tuple[int, ...]


class Cells:
    """KV that remembers which tokens were put where."""

    def __init__(self, count: int) -> None:
        self.content: list[list[int]] = [[] for _ in range(count)]
        self.copies = 0

    def save(self, stream: int) -> Blob:
        self.copies += 1
        return tuple(self.content[stream])

    def load(self, stream: int, blob: Blob) -> None:
        self.content[stream] = list(blob)

    def truncate(self, stream: int, length: int) -> None:
        del self.content[stream][length:]


def make(count: int, parked: int = 10_000) -> tuple[Streams[Blob], Cells]:
    cells = Cells(count)
    return Streams(count, cells, token_bytes=1, parked_bytes=parked), cells


def compute(streams: Streams[Blob], cells: Cells, stream: int, tokens: list[int]) -> None:
    streams.held[stream] += tokens
    cells.content[stream] += tokens


PROMPT = list(range(100, 140))


def test_common_prefix_by_hand() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4], 9) == 2
    assert common_prefix([1, 2, 3], [1, 2, 3, 4], 9) == 3
    assert common_prefix([1, 2, 3], [1, 2, 3], 2) == 2
    assert common_prefix([], [1], 9) == common_prefix([2], [1], 9) == 0


def test_window_keeps_the_most_weight_and_the_lowest_start() -> None:
    assert window(6, 2, [0, 1, 0, 2, 2, 0]) == 3
    assert window(6, 3, [0] * 6) == 0
    assert window(4, 4, [1, 0, 0, 1]) == 0


def test_a_path_is_continued_in_place_without_a_copy() -> None:
    streams, cells = make(2)
    streams.take(1, PROMPT, len(PROMPT) - 1)
    compute(streams, cells, 1, PROMPT)
    taken = streams.take(1, [*PROMPT, 7], len(PROMPT))
    assert taken.cached == len(PROMPT)
    assert cells.copies == 0


def test_a_fork_leaves_its_source_alone() -> None:
    streams, cells = make(3)
    compute(streams, cells, 0, PROMPT)
    assert streams.take(2, [*PROMPT, 7], len(PROMPT)).cached == len(PROMPT)
    compute(streams, cells, 2, [7, 8])
    assert cells.content == [PROMPT, [], [*PROMPT, 7, 8]] == streams.held


def test_what_stands_in_the_way_is_parked_and_found_again() -> None:
    streams, cells = make(1)
    first = [*PROMPT, *[1] * 20]
    compute(streams, cells, 0, first)
    assert streams.take(0, [*PROMPT, 2], len(PROMPT)).cached == len(PROMPT)
    compute(streams, cells, 0, [2])
    again = streams.take(0, [*first, 3], len(first))
    assert again == (len(first), 0)
    assert cells.content == [first]


def test_eviction_is_counted_when_the_path_comes_back() -> None:
    streams, cells = make(1, parked=50)
    a, b, c = ([token] * 40 for token in (1, 2, 3))
    for path in (a, b, c):
        assert streams.take(0, path, 39) == (0, 0)
        compute(streams, cells, 0, path)
    # b is parked, a was evicted to make room for it.
    assert streams.take(0, [*a, 9], 40) == (0, 40)
    assert streams.take(0, [*b, 9], 40).evicted == 40


def test_a_prefix_of_a_parked_path_is_not_parked_as_well() -> None:
    streams, cells = make(1)
    compute(streams, cells, 0, PROMPT)
    streams.park(0)
    compute(streams, cells, 0, [1] * 20)
    streams.park(0)
    assert streams.bytes == 2 * (len(PROMPT) + 20)
    streams.park(0)
    assert streams.bytes == 2 * (len(PROMPT) + 20)


def parked_in_order(streams: Streams[Blob], cells: Cells, *paths: list[int]) -> None:
    """Each path through stream 0, so that it is parked by the next one."""
    for path in [*paths, [0]]:
        streams.park(0)
        streams.forget(0)
        compute(streams, cells, 0, path)


def still_there(streams: Streams[Blob], *paths: list[int]) -> list[bool]:
    return [streams.find(path, len(path))[0] == len(path) for path in paths]


def test_an_expected_path_is_evicted_last() -> None:
    a, b, c = ([token] * 40 for token in (1, 2, 3))
    streams, cells = make(1, parked=80)
    parked_in_order(streams, cells, a, b)
    streams.expect([*a, 9])
    parked_in_order(streams, cells, c)
    assert still_there(streams, a, b, c) == [True, False, True]


def test_a_problem_s_new_round_gives_up_what_it_does_not_ask_for() -> None:
    other, kept, lost, new = [7] * 40, [*PROMPT, *[1] * 10], [*PROMPT, *[2] * 10], [8] * 50
    streams, cells = make(1, parked=140)
    parked_in_order(streams, cells, other, kept, lost)
    streams.retire(PROMPT)
    streams.expect([*kept, 9])
    parked_in_order(streams, cells, new)
    assert still_there(streams, other, kept, lost, new) == [True, True, False, True]


def test_a_path_goes_home_to_the_idle_stream_that_loses_least() -> None:
    streams, cells = make(4)
    for stream, tail in enumerate(([1] * 5, [2] * 9, [3] * 2)):
        compute(streams, cells, stream, [*PROMPT, *tail])
    path = [*PROMPT, 4, 5]
    assert streams.home(path, len(path) - 1, (0, 1, 2, 3)) == 2
    assert streams.home(path, len(path) - 1, (0, 1, 3)) == 0
    assert streams.home(path, len(path) - 1, (3,)) is None
    # More of it is in stream 1 than in any idle one.
    assert streams.home([*PROMPT, 2, 2, 7], len(PROMPT) + 2, (0, 2)) is None
    assert streams.home([9, 9], 1, (0, 1, 2, 3)) is None


def test_a_trimmed_tail_counts_as_evicted() -> None:
    streams, cells = make(1)
    compute(streams, cells, 0, [*PROMPT, 1, 2, 3])
    streams.trim(0, len(PROMPT))
    assert cells.content == [PROMPT] == streams.held
    assert streams.take(0, [*PROMPT, 1, 2, 9], len(PROMPT) + 2) == (len(PROMPT), 2)


@pytest.mark.parametrize("seed", range(4))
def test_history_matches_a_naive_set_of_prefixes(seed: int) -> None:
    rng = random.Random(seed)
    history, paths = History(), [[0]]
    naive: set[tuple[int, ...]] = {()}
    for _ in range(200):
        base = rng.choice(paths)
        path = base[: rng.randint(0, len(base))] + [rng.randrange(3) for _ in range(rng.randint(0, 12))]
        limit = rng.randint(0, len(path))
        assert history.longest(path, limit) == max(n for n in range(limit + 1) if tuple(path[:n]) in naive)
        history.add(path)
        naive.update(tuple(path[:n]) for n in range(len(path) + 1))
        paths.append(path)


def test_history_forgets_the_oldest_and_only_beyond_its_size() -> None:
    history = History(remembered=100)
    for token in range(13):
        history.add([token] * 20)
    # Six paths pass 100 tokens: the seventh begins a second tree, the thirteenth a third instead of the first.
    assert [history.longest([token] * 20, 20) for token in range(13)] == [0] * 6 + [20] * 7


@pytest.mark.parametrize("seed", range(12))
def test_random_histories_match_a_naive_model(seed: int) -> None:
    """Every token sequence ever resident is remembered naively; Streams must agree on each number it reports."""
    rng = random.Random(seed)
    count, parked = rng.randint(1, 5), rng.choice([0, 60, 300, 10_000])
    streams, cells = make(count, parked)
    ever: set[tuple[int, ...]] = set()
    paths: list[list[int]] = [[]]
    for _ in range(250):
        stream = rng.randrange(count)
        if rng.random() < 0.15:
            others = [s for s in range(count) if s != stream]
            targets = rng.sample(others, rng.randint(0, len(others)))
            streams.fork(stream, targets)
            assert all(streams.held[t] == streams.held[stream] for t in targets)
        else:
            base = rng.choice(paths)
            path = base[: rng.randint(0, len(base))] + [rng.randrange(3) for _ in range(rng.randint(1, 30))]
            limit = len(path) - 1
            resident = [*streams.held, *(entry.tokens for entry in streams._parked)]
            best = max(common_prefix(tokens, path, limit) for tokens in resident)
            taken = streams.take(stream, path, limit)
            assert taken.cached == best
            assert streams.held[stream] == path[:best]
            known = sum(tuple(path[:n]) in ever for n in range(best + 1, limit + 1))
            assert taken.evicted == known
            compute(streams, cells, stream, path[best:])
            ever.update(tuple(path[: n + 1]) for n in range(len(path)))
            paths.append(path)
        assert cells.content == streams.held
        assert streams.bytes - sum(map(len, streams.held)) <= parked
        assert all(len(entry.tokens) >= WORTH_PARKING for entry in streams._parked)
