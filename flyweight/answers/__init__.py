"""Answers: read from solutions, compared, grouped into classes and graded.

One layer shared by voting, weighting and grading. No algebra system is ever imported into the calling process.
"""

from flyweight.answers.canonical import canonical
from flyweight.answers.classes import classes
from flyweight.answers.client import warm
from flyweight.answers.compare import compare, grade
from flyweight.answers.extract import extract

__all__ = ["canonical", "classes", "compare", "extract", "grade", "warm"]
