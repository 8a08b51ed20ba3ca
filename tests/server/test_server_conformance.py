"""The forty checks by plain HTTP and by openai-python's stream; the benchmark runs them by all five clients."""

from __future__ import annotations

from benchmarks import conformance


def test_forty_checks_hold() -> None:
    assert len(conformance.CHECKS) == 40
    found = conformance.run(("plain", "stream"))
    assert len(found) == 80 and [row for row in found if row[2]] == []
