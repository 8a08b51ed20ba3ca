"""Compute-optimal test-time scaling: which strategy at which difficulty and budget, for one's own model and verifier.

difficulty.py   how hard a question is, from many samples or from a few
pools.py        what was recorded of a question, and what any strategy would have made of it
fit.py          the choice per difficulty and budget, and what it gains on questions set aside
calibration.py  the outcome, as a file
controller.py   the strategy `auto`, which acts on it
"""
