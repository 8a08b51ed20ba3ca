"""`flyweight chat` through a pipe."""

from __future__ import annotations

from flyweight.protocols import Request
from flyweight.testing import Draft, ToyPolicy
from tests.cli_kit import Command, UsePolicy


def test_chat_keeps_the_conversation_and_obeys_commands(flyweight: Command, policy: UsePolicy) -> None:
    heard: list[int] = []

    def write(question: str, so_far: str, rng: object, sampling: object) -> Draft:
        return Draft(f"You said {question}. \\boxed{{1}}")

    class Listening(ToyPolicy):
        def add(self, request: Request) -> None:
            heard.append(len(request.node.root.messages))
            super().add(request)

    policy(Listening(write))
    script = "hello\nagain\n/strateg\n/strategy best_of_n n=3\n/verifier arithmetic\nthird\n/n x\n"
    script += "/reset\n/system off\nnew\n/usage\n"
    done = flyweight("chat", "--model", "toy", "-s", "greedy", stdin=script + "/quit\nnever\n")
    assert done.code == 0
    assert [line for line in done.out.splitlines() if line.startswith("You")] == [
        f"You said {word}. \\boxed{{1}}" for word in ("hello", "again", "third", "new")
    ]
    # system + turns so far; greedy draws once, best_of_n thrice; after the reset only the new turn is left.
    assert heard == [2, 4, 6, 6, 6, 1, 1, 1]
    errors = [line for line in done.err.splitlines() if line.startswith("Error")]
    assert "did you mean '/strategy'?" in errors[0] and "n='x' is not allowed" in errors[1] and len(errors) == 2
    assert done.out.splitlines()[-1].startswith("4 turns: ")


def test_a_chat_s_answers_are_gone_about_as_their_kind_is(flyweight: Command) -> None:
    """`auto` was fitted on numbers, and says what it goes by; so it is after the strategy was changed."""
    script = "/strategy auto\n/n 4\n/quit\n"
    first, second = [
        [line for line in flyweight("chat", "-m", "toy", *kind, stdin=script).err.splitlines() if "verifier" in line]
        for kind in (("--kind", "text"), ())
    ]
    assert len(first) == 2 and all("calibration=published" in line for line in first)
    assert len(second) == 2 and not any("published" in line for line in second)


def test_chat_survives_a_failing_reply(flyweight: Command, policy: UsePolicy) -> None:
    policy(ToyPolicy(fault=lambda request: "no" if "bad" in request.node.root.messages[-1].content else None))
    done = flyweight("chat", "--model", "toy", "-q", stdin="Add 1 and 1.\nbad\nAdd 2 and 2.\n")
    assert done.code == 3 and done.err == "Error: no\n"
    assert "\\boxed{2}" in done.out and "\\boxed{4}" in done.out
