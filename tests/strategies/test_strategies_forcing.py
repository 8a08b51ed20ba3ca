"""Budget forcing by hand: cut, gone on with, forced to answer, on one path; and models without a thinking phase."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from flyweight import strategies
from flyweight.errors import ConfigError
from flyweight.protocols import Growth, Response
from flyweight.strategies.budget_forcing import Tape
from flyweight.testing import Draft, ToyPolicy
from flyweight.types import Budget, Finish, Node, Sampling, Stopped
from tests.strategies.kit import InTurn, box, interrupted, play

END = "</think>"


def test_a_thought_that_ends_is_gone_on_with_and_then_answered() -> None:
    write = InTurn("<think>one" + END, " two" + END, " three" + END, "\n\nIt is " + box(1))
    played = play("budget_forcing", write, waits=2)
    assert played.result.text == "<think>one\nWait two\nWait three</think>\n\nIt is " + box(1)
    assert played.result.usage.policy_calls == 2 + 2
    assert [sampling.stop for sampling in write.samplings] == [(END,)] * 3 + [()]
    spent = [len("<think>one</think>"), len(" two</think>")]
    assert [sampling.max_tokens for sampling in write.samplings] == [512, 512 - spent[0], 512 - sum(spent), 1024]
    assert played.notes == {"thinking": "a phase of its own"}
    assert [c.answer for c in played.result.candidates] == ["1"], "a thought is no candidate"


def test_without_a_tag_no_thought_would_end() -> None:
    with pytest.raises(ConfigError, match="closing='' is not allowed: text that is not empty"):
        strategies.bind("budget_forcing:closing=")
    texts = InTurn("one" + END, " two" + END, box(1))
    played = play("budget_forcing", texts, waits=1, opening="", wait="", final="")
    assert played.result.text == "one\n two</think>" + box(1), "the other texts may be empty"


def test_all_of_it_is_on_one_path() -> None:
    """Only what is new is computed: the prompt once, then what was forced, and each drawn token once."""
    texts = ["<think>one" + END, " two" + END, "\n\n" + box(1)]
    policy = ToyPolicy(InTurn(*texts), name="toy")
    played = play("budget_forcing", policies={"toy": policy}, waits=1)
    assert played.result.best is not None
    assert all(node.root is played.result.best.root for node in played.drawn)
    prompt = len("user: a question\n")
    forced = len("\nWait")
    # At every call the last token of what is known is computed again, for its logits.
    assert policy.counters.prompt_tokens == prompt + forced + 1


def test_the_path_keeps_what_the_model_drew() -> None:
    """Of a thought that is gone on with, only the tag is gone: its tokens and log-probabilities stay."""
    played = play("budget_forcing", InTurn("<think>one\n" + END, Draft(" two" + END, -0.25), box(1)), waits=1)
    best = played.result.best
    assert best is not None and best.solution == "<think>one\nWait two</think>" + box(1), "no second line break"
    first, wait, second, answer = best.steps
    assert (first.text, wait.text, second.text) == ("<think>one\n", "Wait", " two</think>")
    assert first.tokens == tuple(map(ord, first.text)) and len(first.logprobs) == len(first.certainty) == 11
    assert best.drawn == len("<think>one\n" + " two</think>" + box(1))
    assert first.key not in {node.key for node in played.drawn} and first.policy == "toy" and answer.complete


def test_a_token_that_holds_the_tag_and_more_is_dropped_whole_and_the_rest_forced() -> None:
    tape = Tape()
    for tokens, text in (([1], "abc"), ([1, 2], "abc xy</th"), ([1, 2, 3], "abc xy</think")):
        assert tape(Growth(text, tokens, [-0.5] * len(tokens), [0.5] * len(tokens))) is False
    drawn = Node(Node(), "abc xy</think>.", (1, 2, 3, 4), (-0.1, -0.2, -0.3, -0.4), (1, 2, 3, 4), Finish.STOP, key="k")
    kept, rest = tape.before(drawn, END)
    assert (kept.text, kept.tokens, kept.logprobs, kept.certainty, rest) == ("abc", (1,), (-0.1,), (1,), " xy")
    assert kept.parent is drawn.parent and kept.key != drawn.key
    nothing, rest = tape.before(replace(drawn, text="ab</think>"), END)
    assert (nothing.text, nothing.tokens, rest) == ("", (), "ab")
    seen, _ = tape.before(replace(drawn, hidden=[[1.0], [2.0], [3.0], [4.0]]), END)
    assert seen.hidden == [[1.0]]


def test_a_thought_is_cut_at_its_cap_and_the_answer_forced() -> None:
    write = InTurn("<think>" + "x" * 100, " " + box(1))
    played = play("budget_forcing", write, think_tokens=60)
    assert played.result.text == "<think>" + "x" * 53 + "\n</think>\n\nFinal answer: " + box(1)
    assert played.result.usage.generated_tokens == 60 + len(" " + box(1)) + 1
    assert [node.finish for node in played.drawn] == [Finish.LENGTH, Finish.END]


def test_waiting_does_not_lift_the_cap() -> None:
    write = InTurn("<think>" + "x" * 5 + END, "y" * 100, " " + box(1))
    played = play("budget_forcing", write, think_tokens=40, waits=9)
    assert played.result.text == f"<think>xxxxx\nWait{'y' * 20}\n</think>\n\nFinal answer: " + box(1)
    exactly = InTurn("<think>" + "x" * 5 + END, "\n" + box(1))
    played = play("budget_forcing", exactly, think_tokens=20, waits=9)
    assert played.result.text == "<think>xxxxx</think>\n" + box(1), "closed with its last token: nothing to wait for"


def test_without_waits_a_thinking_model_is_left_alone() -> None:
    played = play("budget_forcing", InTurn("<think>so" + END, "\n" + box(1)), waits=0)
    assert played.result.text == "<think>so</think>\n" + box(1)


def test_what_follows_the_closing_tag_in_its_token_goes_with_it() -> None:
    class Wide(ToyPolicy):
        """As from a vocabulary with a token that ends in more than the tag."""

        def step(self) -> list[Response]:
            came = super().step()
            return [replace(each, text=each.text + "!\n") if each.finish is Finish.STOP else each for each in came]

    policy = Wide(InTurn("<think>so" + END, " on" + END, box(1)), name="toy")
    assert (
        play("budget_forcing", policies={"toy": policy}, waits=1).result.text == f"<think>so\nWait on{END}!\n{box(1)}"
    )


def test_a_thought_that_ends_without_its_tag_is_closed() -> None:
    played = play("budget_forcing", InTurn("<think>so", " " + box(1)), waits=0)
    assert played.result.text == "<think>so\n</think>\n\nFinal answer: " + box(1)
    played = play("budget_forcing", InTurn("<think>so", " on" + END, box(1)), waits=1)
    assert played.result.text == "<think>so\nWait on</think>" + box(1)


def test_tags_and_texts_are_settings() -> None:
    texts = ["[T]so[/T]", " on and on", "42"]
    settings = {"opening": "[T]", "closing": "[/T]", "wait": "Hmm", "final": "ANSWER", "think_tokens": 14}
    played = play("budget_forcing", InTurn(*texts), **settings)  # type: ignore[arg-type]
    assert played.result.text == "[T]so\nHmm on a\n[/T]\n\nANSWER42"


def test_a_prompt_that_opens_the_thought_itself() -> None:
    played = play("budget_forcing", InTurn("x" * 30, box(1)), opening="", think_tokens=20)
    assert played.result.text == "x" * 20 + "\n</think>\n\nFinal answer:" + box(1)
    assert played.notes == {"thinking": "a phase of its own"}


# A model without a phase of its own


def test_a_model_that_does_not_think_is_prompted_and_a_note_says_so() -> None:
    write = InTurn("First " + box(1), " a moment: " + box(2), ", no: " + box(3))
    played = play("budget_forcing", write, waits=2)
    assert played.result.text == f"First {box(1)}\nWait a moment: {box(2)}\nWait, no: {box(3)}"
    assert played.notes == {"thinking": "prompted: the model does not open <think>"}
    assert (played.result.answer, played.result.usage.policy_calls) == ("3", 3)
    assert END not in played.result.text
    assert played.result.best is not None and played.result.best.drawn == sum(map(len, write.texts))


def test_its_answer_is_forced_at_the_cap_without_tags() -> None:
    played = play("budget_forcing", InTurn("x" * 100, " " + box(1)), think_tokens=20)
    assert played.result.text == "x" * 20 + "\n\nFinal answer: " + box(1)


def test_without_waits_it_is_one_sample() -> None:
    assert play("budget_forcing", waits=0).result.text == play("sample").result.text


# Budgets


def test_room_for_the_answer_is_kept_in_a_token_budget() -> None:
    for tokens in range(60, 200, 7):
        write = InTurn("<think>" + "x" * 1000, " " + box(1))
        played = play("budget_forcing", write, budget=Budget(tokens=tokens), answer_tokens=30)
        assert played.result.answer == "1"
        assert write.samplings[0].max_tokens == tokens - 30
        assert played.result.usage.generated_tokens <= tokens


@pytest.mark.parametrize("tokens", range(1, 60, 4))
def test_a_budget_is_never_exceeded(tokens: int) -> None:
    texts = ("<think>so" + END, " on" + END, "\n" + box(1))
    played = play("budget_forcing", InTurn(*texts), budget=Budget(tokens=tokens), waits=1, answer_tokens=12)
    assert played.result.usage.generated_tokens <= tokens
    if played.result.best is None:
        assert played.result.stopped is Stopped.BUDGET


def test_what_a_model_without_a_phase_has_answered_is_there_when_it_is_interrupted() -> None:
    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(box(so_far.count("Wait")))

    found = interrupted(lambda stopped: play("budget_forcing", write, stopped=stopped), "node")
    assert [played.result.answer for played in found] == ["2", "0", "0", "2"]


@pytest.mark.parametrize("confidence", [None, 0.8, 0.95])
def test_one_line_of_thought_is_one_voter(confidence: float | None) -> None:
    """Though it states its answer again after every wait."""

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(" so " + box(5), -0.1 if not so_far else -0.2)

    budget = Budget(confidence=confidence)
    result = play("budget_forcing", write, budget=budget, waits=6).result
    assert (result.stopped, result.usage.policy_calls) == (Stopped.DONE, 7)
    assert (result.answer, result.confidence, result.sure) == ("5", None, confidence is None)
    found = interrupted(lambda stopped: play("budget_forcing", write, stopped=stopped, waits=2), "node")
    assert [(p.result.text.count("Wait"), p.result.confidence, len(p.result.candidates)) for p in found] == [
        (2, None, 1), *[(0, None, 1)] * 2, (2, None, 1),
    ], "cut short, the most confident text of the line stands for it"  # fmt: skip
