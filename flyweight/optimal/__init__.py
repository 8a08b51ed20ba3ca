"""Compute-optimal test-time scaling: which strategy at which difficulty and budget, for one's own model and verifier.

difficulty.py   how hard a question is, from many samples or from a few
pools.py        what was recorded of a question, and what any strategy would have made of it
recorded.py     the same, read from a store
record.py       recording all of it, and fitting
fit.py          the choice per difficulty and budget, and what it gains on questions set aside
calibration.py  the outcome, as a file
controller.py   the strategy `auto`, which acts on it
quality.py      budgets by name, and the seconds they take here

The planner, which compares models as well:

evidence.py     how often which configuration is right, and where that is known from
told.py         what papers and the user say of that
work.py         what a search makes an engine do, whatever the machine
speed.py        what that takes on this machine
planner.py      every choice there is for a task, with its seconds, bytes and accuracy
bigger.py       a small model many times against a big one once
verdict.py      the frontier, one recommendation and what would change it
picture.py      the same as a picture
units.py        amounts as people write them
words.py        shares and intervals for people
"""
