"""From scores to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["platt"]


def platt(logits: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """(slope, shift) of the logistic regression of the outcomes on the logits, by Newton's method.

    Source: Platt 1999, Probabilistic Outputs for Support Vector Machines; with his targets that keep off 0 and 1.
    """
    x, positive = np.asarray(logits, np.float64), np.asarray(right, bool)
    y = np.where(positive, (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2))
    design = np.stack([x, np.ones_like(x)])
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(weights @ design, -30, 30)))
        hessian = (design * (p * (1 - p))) @ design.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, design @ (p - y))
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])
