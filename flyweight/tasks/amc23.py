"""AMC 2023: 40 questions of the American Mathematics Competitions 12."""

from __future__ import annotations

from flyweight.tasks.competition import Competition

__all__ = ["AMC23"]


class AMC23(Competition):
    """40 questions of the American Mathematics Competitions 12 A and B of 2023, without their choices.

    Split: test. `data` is required: 40 lines with problem (or question, prompt) and answer. Prompt: the question,
    asked to reason step by step and box the answer. Answer: a whole number, compared as mathematics. Licence: the
    Mathematical Association of America's; not bundled.

    Source: MAA, AMC 12 2023, those with whole-number answers.
    """

    name = "amc23"
    rows = 40
    allowed = range(-10_000, 10_001)
