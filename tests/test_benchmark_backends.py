"""The benchmark of backends on figures worked out by hand, and on a backend without weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import backends as benchmark
from benchmarks.backends_asked import Conversation, of_file, of_folder, of_server, said, understood
from benchmarks.rig import Figures
from flyweight.types import Message
from tests import tiny
from tests.fake_endpoint import Endpoint

TALK: list[Conversation] = [
    (Message("user", "2 + 2 – “è”?"),),
    (Message("system", "Be short."), Message("user", "a\nb")),
]


def row(*answers: str | None, right: int = 0, **more: Any) -> Figures:
    """What a backend answered to questions a, b, c, ...: the first `right` of them right."""
    return {
        "ids": list("abcdefghijklmnopqrstuvwxyz"[: len(answers)]),
        "right": [index < right for index in range(len(answers))],
        "answers": list(answers),
        "texts": [str(answer) for answer in answers],
        "asked": "some",
        "asked_tokens": [40, 30],
        "counted_tokens": [40.0, 30.0],
        "form": "file",
        "model": "m",
        "generated_tokens": 1200,
        "new_tokens": 1200,
        "seconds": 12.4,
        **more,
    }


def test_only_the_model_differs() -> None:
    greedy, voting = (benchmark.arguments(kind, 7) for kind in ("greedy", "voting"))
    assert greedy == ["bench", "run", "gsm8k", "--split", "test", "--limit", "7", "--strategies", "greedy"]
    assert voting == [*greedy[:-1], "self_consistency", "-n", "4"]


def test_answers_agree_by_value() -> None:
    assert benchmark.agreeing(row("1,200", "3", None, "4", None), row("1200", "3.0", None, "5", "6")) == 3


def test_intervals_overlap_if_all_have_a_point_in_common() -> None:
    few, some, many = (row(*"x" * 20, right=right) for right in (2, 8, 16))
    assert benchmark.overlapping([few, some]) and benchmark.overlapping([some, many])
    assert not benchmark.overlapping([few, some, many])


@pytest.mark.parametrize("other", [{"asked": "others"}, {"counted_tokens": [30, 40]}, {"ids": ["z"]}])
def test_other_tokens_are_noticed(other: Figures) -> None:
    assert benchmark.alike([row("1"), row("2")])
    assert not benchmark.alike([row("1"), row("1", **other)])


def test_the_page_says_what_was_found() -> None:
    rows = {"embedded": row(*"11", right=2), "vllm": row("1", "2", right=1, new_tokens=5)}
    told = benchmark.text("greedy", rows)
    ours, theirs = ([cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines()[4:6])
    assert ours[0] == "embedded" and ours[3].startswith("100.0 % (") and ours[4:] == ["", "", "1,200", "12"]
    assert theirs[0] == "vllm" and theirs[3].startswith("50.0 % (")
    assert theirs[4:] == ["1 of 2", "1 of 2", "1,200", ""], "of a run that was stopped the time is not known"
    assert told.endswith(
        "All intervals overlap; all were asked the same 70 prompt tokens, by their own tokenizers and their own counts."
    )
    bad = {"embedded": row(*"1" * 9, right=9), "vllm": row(*"2" * 9, counted_tokens=[40, 29])}
    told = benchmark.text("voting", bad)
    assert "**Not all intervals overlap**; **not all were asked" in told and "self_consistency -n 4" in told


def test_the_prediction_leaves_out_what_is_done() -> None:
    kinds = {"greedy": 50, "voting": 12}
    told = benchmark.predicted({"embedded": [], "vllm": ["greedy", "voting"]}, kinds)
    minutes = ((50 + 48) * benchmark.SECONDS["vllm"] + 2 * benchmark.LOADING["vllm"]) / 60
    assert told.startswith(f"about {minutes:.0f} minutes") and "embedded is done" in told


def test_a_run_is_read_back_from_the_store(tmp_path: Path) -> None:
    asked: list[Conversation] = []

    def characters(conversations: Sequence[Conversation]) -> list[list[int]]:
        asked.extend(conversations)
        return [[ord(letter) for message in each for letter in message.content] for each in conversations]

    backend = benchmark.Backend(Path(sys.executable), "toy", "TOY", characters, {"toy": "1"})
    found = benchmark.measure(backend, "greedy", 3, tmp_path)
    assert len(found["ids"]) == len(asked) == 3 and found["model"] == "TOY" and found["versions"] == {"toy": "1"}
    assert all(each[-1].role == "user" and each[-1].content for each in asked)
    assert found["asked_tokens"] == [sum(len(m.content) for m in each) for each in asked]
    assert found["new_tokens"] == found["generated_tokens"] > 0
    again = benchmark.measure(backend, "greedy", 3, tmp_path)
    assert again["texts"] == found["texts"] and again["new_tokens"] == 0
    with pytest.raises(SystemExit, match="GONE: all searches failed, exit code 3"):
        benchmark.measure(backend._replace(model="transformers:gone", shown="GONE"), "greedy", 3, tmp_path)


def test_file_and_folder_read_the_same_tokens(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests import tiny_hf

    ids = of_file(tiny.make(tmp_path / "tiny.gguf"))(TALK)
    assert ids == of_folder(tiny_hf.make(tmp_path / "tiny"))(TALK)
    assert ids[0][0] == tiny.START and ids[1].count(tiny.START) == 3 and ids[1].count(tiny.END) == 2


def test_a_server_reads_what_it_is_sent() -> None:
    def rendered(body: Any) -> object:
        return {"prompt": "".join(f"[{message['role']}]{message['content']}" for message in body["messages"])}

    def read(body: Any) -> object:
        assert body["add_special"] and body["parse_special"]
        return {"tokens": [ord(letter) for letter in body["content"]]}

    with Endpoint(kind="llamacpp", routes={"/apply-template": rendered, "/tokenize": read}) as server:
        ids = of_server(server.url.removesuffix("/v1"))(TALK)
    assert ["".join(map(chr, each)) for each in ids] == ["[user]2 + 2 – “è”?", "[system]Be short.[user]a\nb"]


def test_conversations_travel() -> None:
    assert understood(said(TALK)) == TALK
