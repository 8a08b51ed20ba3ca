"""Who gets a slot with whom, what happens when one is given up, and whose paths are computed in which pass."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from flyweight.errors import BackendError
from flyweight.policies.llamacpp.admission import admit, leave
from flyweight.policies.llamacpp.history import common_prefix
from flyweight.policies.llamacpp.prefill import SHARED_WORTH, packs
from flyweight.policies.llamacpp.row import Row, Writer, reason
from flyweight.protocols import Request, Response
from flyweight.types import Finish, Node
from tests.engine_kit import Engines, draw, prompt

A, B = prompt("one"), prompt("another")


def admitted(engines: Engines, requests: Sequence[Request], *, slots: int = 8, twins: bool = True) -> list[Row]:
    """The rows of requests none of which ends at once."""
    engine, rows = engines(), list[Row]()
    ended = admit(iter(requests), rows, slots, model=engine._model, tokens=engine._tokens, context=256, twins=twins)
    assert not ended
    return rows


def company(rows: Sequence[Row]) -> list[tuple[int, int | None]]:
    """Per row its id and that of the row it waits for."""
    for row in rows:
        assert all(twin.leader is row for twin in row.twins)
        assert row.leader is None or row in row.leader.twins
    return [(row.request.id, row.leader.request.id if row.leader is not None else None) for row in rows]


def test_consecutive_requests_for_one_node_are_twins_of_the_first(engines: Engines) -> None:
    requests = [draw(id, node) for id, node in enumerate([A, A, A, B, A, A])]
    rows = admitted(engines, requests)
    assert company(rows) == [(0, None), (1, 0), (2, 0), (3, None), (4, None), (5, 4)]
    assert all(twin.path is rows[0].path for twin in rows[0].twins)
    assert company(admitted(engines, requests, twins=False)) == [(id, None) for id in range(6)]


def test_a_path_that_is_read_again_is_nobodys_twin_and_parts_no_twins(engines: Engines) -> None:
    again = [replace(draw(id, A), reread=True) for id in (0, 2, 3)]
    rows = admitted(engines, [again[0], draw(1, A), *again[1:], draw(4, A)])
    assert company(rows) == [(0, None), (1, None), (2, None), (3, None), (4, 1)]


def test_no_more_is_taken_than_there_are_slots_and_what_fails_takes_none(engines: Engines) -> None:
    engine, rows = engines(), list[Row]()
    full = Node(parent=A, text="x" * 300)
    requests = [draw(0, A), draw(1, A, temperature=-1.0), draw(2, A), draw(3, full), draw(4, B), draw(5, B)]
    waiting = iter(requests)
    ended = admit(waiting, rows, 3, model=None, tokens=engine._tokens, context=64)
    assert ended == [
        Response(1, error="temperature=-1.0: must be 0 or more"),
        Response(3, finish=Finish.LENGTH),
    ]
    assert company(rows) == [(0, None), (2, 0), (4, None)]
    assert admit(waiting, rows, 3, model=None, tokens=engine._tokens, context=64) == []
    assert [request.id for request in waiting] == [5]


def test_who_leaves_frees_the_slots_of_those_that_wait_for_it(engines: Engines) -> None:
    grammar = "root ::= [a-z]+"
    rows = admitted(engines, [draw(id, A, grammar=grammar) for id in range(4)] + [draw(4, B)])
    first, second, *twins = rows[:4]
    assert leave(second, rows) == []
    assert company(rows) == [(0, None), (2, 0), (3, 0), (4, None)]
    assert [request.id for request in leave(first, rows)] == [2, 3]
    assert company(rows) == [(4, None)]
    for row, closed in ((first, False), (second, False), *((twin, True) for twin in twins)):
        assert row.grammar is not None and (row.grammar._sampler is None) == closed
        row.close()


def waits(id: int, path: Sequence[int], *, stream: int = -1, reread: range | None = None) -> Row:
    """A row of which nothing has been computed."""
    return Row(draw(id, A), list(path), Writer(()), random.Random(0), stream=stream, reread=reread)


class Passes:
    """Computes what `packs` asks for, and keeps it: per pass the ids of its rows and how many tokens of each."""

    def __init__(self, rows: Sequence[Row], refused: int = -1) -> None:
        self.rows = list(rows)
        self._refused = refused
        self._kept: list[list[int]] = []

    def resident(self, row: Row) -> int:
        return max((common_prefix(row.path, kept, row.reusable) for kept in self._kept), default=0)

    def start(self, row: Row) -> None:
        if row.request.id == self._refused:
            self.rows.remove(row)
            return
        row.started, row.done = True, self.resident(row)

    def compute(self, room: int, *, alone: bool = False) -> list[list[tuple[int, int]]]:
        passes = []
        for parts in packs(self.rows, room, start=self.start, resident=self.resident, alone=alone):
            for row, tokens in parts:
                assert tokens == row.path[row.done : row.done + len(tokens)]
                row.done += len(tokens)
                self._kept.append(row.path[: row.done])
                if row.reread is not None and not row.left:
                    self.rows.remove(row)
            passes.append([(row.request.id, len(tokens)) for row, tokens in parts])
        return passes


def test_paths_are_computed_up_to_their_last_token_within_the_room() -> None:
    passes = Passes([waits(i, range(100 * i, 100 * i + 11), stream=2 - i) for i in range(3)])
    assert passes.compute(25) == [[(2, 10), (1, 10), (0, 5)]]
    assert passes.compute(25) == [[(0, 5)]]
    assert all(row.ready for row in passes.rows) and passes.compute(25) == []


@pytest.mark.parametrize("common", [SHARED_WORTH - 1, SHARED_WORTH])
def test_a_path_waits_for_what_another_one_is_about_to_compute(common: int) -> None:
    begin = range(common)
    rows = [waits(0, [*begin, *range(500, 506)]), waits(1, [*begin, *range(600, 603)])]
    whole = [(0, common + 5), (1, common + 2)]
    shared = [[(0, common + 5)], [(1, 2)]]
    assert Passes(rows).compute(1000) == (shared if common >= SHARED_WORTH else [whole])


def test_a_path_does_not_wait_for_what_is_resident() -> None:
    begin = range(SHARED_WORTH)
    passes = Passes([waits(0, [*begin, 500])])
    passes.compute(1000)
    begun = waits(1, [*begin, 700, 701])
    begun.started = True  # before the first was there to be shared
    passes.rows = [begun, waits(2, [*begin, 500, 501, 502]), waits(3, [*begin, 600, 601])]
    assert passes.compute(1000) == [[(1, len(begin) + 1), (2, 2), (3, 1)]]


def test_a_path_that_is_read_again_can_have_a_pass_of_its_own() -> None:
    def rows() -> list[Row]:
        again = [waits(i, range(100 * i, 100 * i + 9), reread=range(4, 9)) for i in (1, 2)]
        return [waits(0, range(6)), *again, waits(3, range(300, 304))]

    assert Passes(rows()).compute(1000) == [[(0, 5), (1, 9), (2, 9), (3, 3)]]
    assert Passes(rows()).compute(1000, alone=True) == [[(0, 5), (3, 3)], [(1, 9)], [(2, 9)]]
    assert Passes(rows()[1:]).compute(1000, alone=True) == [[(1, 9)], [(2, 9)], [(3, 3)]]


def test_a_row_that_cannot_be_started_holds_up_nobody() -> None:
    passes = Passes([waits(0, range(5)), waits(1, range(100, 105))], refused=0)
    assert passes.compute(1000) == [[(1, 4)]]
    assert Passes([waits(0, range(5))], refused=0).compute(1000) == []


def test_a_reason_is_one_line_and_of_a_strangers_words_the_first() -> None:
    assert reason(BackendError("our own\n" + "x" * 400)) == "our own " + "x" * 400
    assert reason(ValueError("no\nidea")) == "ValueError: no idea"
    assert reason(ValueError("x" * 400)) == "ValueError: " + "x" * 300
