"""AIME 2024: the 30 questions of the American Invitational Mathematics Examination."""

from __future__ import annotations

from flyweight.tasks.competition import Competition

__all__ = ["AIME24"]


class AIME24(Competition):
    """The 30 questions of the American Invitational Mathematics Examination of 2024, papers I and II.

    Split: test. `data` is required: 30 lines with problem (or question, prompt) and answer. Prompt: the question,
    asked to reason step by step and box the answer. Answer: a whole number from 0 to 999, compared as mathematics.
    Licence: the Mathematical Association of America's; not bundled.

    Source: MAA, AIME 2024.
    """

    name = "aime24"
    rows = 30
    allowed = range(1000)
