"""Public fakes, and the contracts of policies, verifiers and strategies as functions that check them.

The fakes need no weights: `ToyPolicy` writes what a function tells it to, one character a token, and keeps exact
accounts. Use them to test a strategy of your own, and `check_policy`, `check_verifier`, `check_strategy` to hold a
plug-in to the contract. They raise AssertionError with what was expected.
"""

from flyweight.testing.contracts import check_policy, check_strategy, check_verifier
from flyweight.testing.fakes import BoxedAnswers, NoModels, RuleVerifier, drive
from flyweight.testing.toy import Draft, ToyPolicy, arithmetic

__all__ = [
    "BoxedAnswers",
    "Draft",
    "NoModels",
    "RuleVerifier",
    "ToyPolicy",
    "arithmetic",
    "check_policy",
    "check_strategy",
    "check_verifier",
    "drive",
]
