"""From scores to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

__all__ = ["platt"]


def platt(logits: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """(slope, shift) of the logistic regression of the outcomes on the logits.

    Source: Platt 1999, Probabilistic Outputs for Support Vector Machines; with his targets that keep off 0 and 1.
    """
    x, positive = np.asarray(logits, np.float64), np.asarray(right, bool)
    y = np.where(positive, (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2))
    # On standardised logits, so that their scale does not matter to the search.
    middle, spread = float(x.mean()), float(x.std()) or 1.0
    z = (x - middle) / spread

    def cost(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        said = w[0] * z + w[1]
        error = 1 / (1 + np.exp(-np.clip(said, -30, 30))) - y
        return float((np.logaddexp(0, said) - y * said).mean()), np.array([(error * z).mean(), error.mean()])

    slope, shift = minimize(cost, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-10}).x
    return float(slope / spread), float(shift - slope * middle / spread)
