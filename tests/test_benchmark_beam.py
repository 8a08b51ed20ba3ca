"""What a search gains over choosing among whole answers: choices by hand, and which rows a table has."""

from __future__ import annotations

from benchmarks import verifiers_beam as beam
from benchmarks.verifiers_beam import Searched
from flyweight.abstain import Sample


def test_choices_among_samples_by_hand() -> None:
    drawn = [Sample(0, False, 0.5, -1.0), Sample(1, True, 0.5, -0.5), Sample(None, True, 0.9), Sample(0, False, 0.4)]
    assert beam._best(drawn), "of equal scores the more confident; what cannot vote is not chosen"
    assert not beam._best(drawn[:1]) and not beam._majority(drawn), "two of three say 0"
    assert not beam._majority(drawn[:3]), "of equally large classes the first"
    assert not beam._best([Sample(None, True)]) and not beam._majority([])


def test_a_search_is_set_beside_the_same_questions_only() -> None:
    ours = {"a": Searched(True, 10), "b": Searched(True, 30)}
    theirs = {"a": Searched(False, 20), "b": Searched(True, 20), "c": Searched(True, 999)}
    [row] = beam._rows("words", {"dvts": ours, "best_of_n": theirs, "self_consistency": theirs})
    assert row[:2] == ["2 of words", "`dvts`"] and row[2].startswith("100.0 %") and row[3].startswith("+50.0")
    assert row[-2:] == ["20", "20"]
    assert beam._rows("words", {"dvts": ours, "best_of_n": {"a": theirs["a"]}, "self_consistency": theirs}) == []
