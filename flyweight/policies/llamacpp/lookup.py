"""Drafts without a second model: what followed the last tokens when the text last came by them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Lookup"]

GRAMS = (2, 1)
"""How many of the last tokens are looked up, until something is found."""


class Lookup:
    """A growing text that proposes how it goes on.

    Source: Saxena 2023, prompt lookup decoding; Yang et al. 2023, Inference with Reference (2304.04487), section 3.
    Deviations: only the latest occurrence is looked at, and of two tokens before that of one.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        """The last place that some tokens were followed at."""
        self.learn(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def learn(self, tokens: Sequence[int]) -> None:
        """The text goes on with these."""
        for token in tokens:
            place = len(self._tokens)
            for k in GRAMS:
                if place >= k:
                    self._after[tuple(self._tokens[place - k :])] = place
            self._tokens.append(token)

    def draft(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none where the last token is new."""
        for k in GRAMS:
            place = self._after.get(tuple(self._tokens[-k:]))
            if place is not None:
                return self._tokens[place : place + most]
        return []
