"""Running untrusted code: in bubblewrap's namespaces, under limits, as nobody, compared outside.

`run` runs a program, `check` grades one by tests whose expected values it never sees, `evaluate` collects what it makes
of inputs. Nothing ever runs without the sandbox.
"""

from flyweight.sandbox.cell import Ended, allowed, mechanism, working
from flyweight.sandbox.checking import Checked, Outcome, check, evaluate
from flyweight.sandbox.meta import program, public, read_public
from flyweight.sandbox.running import CANNOT_START, SandboxResult, execute, run
from flyweight.sandbox.tests import Call, Statements, Stdin, Test, asserts, read_tests
from flyweight.sandbox.wire import canonical

__all__ = [
    "CANNOT_START",
    "Call",
    "Checked",
    "Ended",
    "Outcome",
    "SandboxResult",
    "Statements",
    "Stdin",
    "Test",
    "allowed",
    "asserts",
    "canonical",
    "check",
    "evaluate",
    "execute",
    "mechanism",
    "program",
    "public",
    "read_public",
    "read_tests",
    "run",
    "working",
]
