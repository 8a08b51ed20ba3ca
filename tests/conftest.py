"""Options shared by all tests."""

from __future__ import annotations

import os

import hypothesis

# Fixed seeds: a failure in CI is a failure here. No deadline: other processes share the machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

os.environ.setdefault("TERM", "dumb")  # help texts and tables look the same on every terminal
