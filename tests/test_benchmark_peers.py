"""The peers benchmark without peers: what counts as recomputed, the shim's parameters, a row's arithmetic."""

from __future__ import annotations

import json
import random
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.llama_server import LlamaServer
from benchmarks.peers import __main__ as peers
from benchmarks.peers import recorder, rows, vllm_shim
from benchmarks.peers.account import Served, Tokens, recomputed, totals
from benchmarks.peers.drive import ArithmeticPRM, path_of
from flyweight import tasks


def served(prompt: str, computed: int, *answers: str) -> Served:
    return Served(prompt.encode(), computed, [(prompt + answer).encode() for answer in answers])


def test_recomputed_is_what_an_earlier_request_had_computed() -> None:
    assert recomputed([served("abcdef", 6, "xy")]) == 0
    assert recomputed([served("abcdef", 6, "xy")] * 16) == 15 * 6
    assert recomputed([served("abcdef", 6, "xy"), served("abcdef", 1, "xz")]) == 1
    assert recomputed([served("abcdef", 6), served("abcxyz", 6)]) == 3


def test_the_last_token_drawn_must_be_computed_by_whoever_continues() -> None:
    """ "xy" was drawn after "ab"; "y" has no keys and values yet, so of "abxyz" only "abx" can be recomputed."""
    first = served("ab", 2, "xy")
    assert recomputed([first, served("abxyz", 2)]) == 0
    assert recomputed([first, served("abxyz", 3)]) == 1
    assert recomputed([first, served("abxyz", 5)]) == 3


def test_recomputed_equals_a_naive_count_over_sets_of_prefixes() -> None:
    draw = random.Random(5)

    def text(longest: int) -> str:
        return "".join(draw.choices("ab", k=draw.randint(1, longest)))

    for _ in range(200):
        requests: list[Served] = []
        for _ in range(draw.randint(1, 8)):
            prompt = text(6)
            requests.append(served(prompt, draw.randint(1, len(prompt)), *(text(4) for _ in range(draw.randint(0, 2)))))
        assert recomputed(requests) == naive(requests)


def naive(requests: Sequence[Served]) -> int:
    seen: set[tuple[int, ...]] = set()
    total = 0
    for request in requests:
        new = len({tuple(request.prompt[:i]) for i in range(1, len(request.prompt) + 1)} - seen)
        total += max(0, request.computed - new)
        for path in [request.prompt, *(output[:-1] for output in request.outputs)]:
            seen |= {tuple(path[:i]) for i in range(1, len(path) + 1)}
    return total


def test_totals_count_a_prompt_once_for_each_completion() -> None:
    """Two completions of one request share its prefill: 5 of the 10 prompt tokens were cached."""
    run = [served("abcde", 5, "xx", "yy"), served("abcde", 2, "zz")]
    assert totals(run, computed=7, generated=6) == Tokens(computed=7, cached=8, recomputed=2, generated=6)


def test_sampling_params_become_server_parameters() -> None:
    params = vllm_shim.SamplingParams(temperature=0.8, max_tokens=2048, top_p=1.0, stop=["\n\n"])
    assert vllm_shim.body("Q", params, left=300) == {
        "prompt": "Q", "n_predict": 300, "temperature": 0.8, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "stop": ["\n\n"],
    }  # fmt: skip
    assert vllm_shim.body("Q", replace(params, max_tokens=9, stop=None), left=300)["n_predict"] == 9
    assert vllm_shim.body("Q", replace(params, stop=None), left=300)["stop"] == []
    with pytest.raises(ValueError, match="n=2"):
        vllm_shim.body("Q", replace(params, n=2), left=300)


@pytest.mark.parametrize(
    ("stop_type", "word", "kept", "expected"),
    [
        ("word", "\n\n", True, ("Step.\n\n", "\n\n")),
        ("word", "\n\n", False, ("Step.", "\n\n")),
        ("eos", "", True, ("Step.", None)),
        ("limit", "", True, ("Step.", None)),
    ],
)
def test_a_response_becomes_an_output(stop_type: str, word: str, kept: bool, expected: tuple[str, str | None]) -> None:
    response = {"content": "Step.", "stop_type": stop_type, "stopping_word": word}
    got = vllm_shim.output(response, vllm_shim.SamplingParams(include_stop_str_in_output=kept))
    assert (got.text, got.stop_reason) == expected


def test_the_limit_holds_over_the_steps_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def post(url: str, data: dict[str, int]) -> dict[str, object]:
        asked.append(data["n_predict"])
        return {"content": "step", "stop_type": "word", "stopping_word": "\n\n", "tokens_predicted": 4}

    monkeypatch.setattr(vllm_shim, "post", post)
    llm = vllm_shim.LLM("", max_tokens=10)
    prompt = "Q"
    params = vllm_shim.SamplingParams(max_tokens=8, stop=["\n\n"], include_stop_str_in_output=True)
    for _ in range(3):
        prompt += llm.generate([prompt], params)[0].outputs[0].text
    assert asked == [8, 6, 2]
    assert llm.generate([prompt], params)[0].outputs == [vllm_shim.CompletionOutput("", None)]
    assert len(asked) == 3


def test_conversations_are_written_once_and_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []

    def post(url: str, data: dict[str, object]) -> dict[str, object]:
        written.append(data["messages"])
        return {"prompt": "<user>Q<assistant>"}

    monkeypatch.setattr(vllm_shim, "post", post)
    user = {"role": "user", "content": "Q"}
    begun = {"role": "assistant", "content": "Step.\n\n"}
    texts = vllm_shim.Tokenizer("").apply_chat_template(
        [[user], [user, begun]], add_generation_prompt=False, continue_final_message=True, tokenize=False
    )
    assert texts == ["<user>Q<assistant>", "<user>Q<assistant>Step.\n\n"]
    assert written == [[user]]


def test_the_recorder_evens_out_the_sampling_and_leaves_what_was_asked() -> None:
    whole = {"top_k": 0, "min_p": 0.0, "top_p": 1.0}
    assert recorder.rewritten({"temperature": 1}, 0.8) == {**whole, "temperature": 0.8}
    assert recorder.rewritten({"temperature": 0.1, "top_p": 0.5}, 0.8) == {**whole, "top_p": 0.5, "temperature": 0.1}
    assert recorder.rewritten({}, 0.8)["temperature"] == 0.8


def test_the_recorder_passes_on_and_notes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def post(url: str, data: dict[str, object]) -> dict[str, object]:
        if url.endswith("/tokenize"):
            return {"tokens": list(str(data["content"]).encode())}
        return {"content": "four", "stopping_word": "\n\n", "timings": {"prompt_n": 3}}

    monkeypatch.setattr(recorder, "post", post)
    with recorder.Recorder("http://up", temperature=0.8, slots=1) as proxy:
        asked = urllib.request.Request(f"{proxy.url}/completion", b'{"prompt": "2+2"}')
        with urllib.request.urlopen(asked, timeout=10) as response:
            assert json.load(response)["content"] == "four"
        assert proxy.exchanges[0].request["temperature"] == 0.8
        assert proxy.served() == [Served(list(b"2+2"), 3, [list(b"2+2four\n\n")])]


def test_steps_end_at_blank_lines_and_lose_nothing() -> None:
    for text in ("", "a", "a\n\nb", "a\n\n", "\n\na\n\n\n\nb"):
        assert path_of(text).solution == text
    assert [step.text for step in path_of("a\n\nb").steps] == ["a\n\n", "b"]


def test_the_stand_in_reward_model_scores_every_step() -> None:
    """One right sum 2/3, then a wrong one 1/4; no sum at all 1/2, also for an empty answer."""
    texts = ["2 + 2 = 4\n\n3 + 3 = 7", "Hello", ""]
    assert ArithmeticPRM().score(["Q"], [texts]) == [[[2 / 3, 1 / 4], [0.5], [0.5]]]


ROW = rows.Row("flyweight", "dvts", 16, 4, {"model": "m"}, 10, 10, 4, 20.0, 100, 50, 10, 1000)
PEER = replace(
    ROW, system="search-and-learn", seconds=70.0, recomputed=25, cut=True, errors=("q1: refused",), build="AVX2 = 1"
)


def test_ratios_are_peer_over_ours() -> None:
    lines = rows.table([ROW, PEER]).splitlines()
    ours, theirs = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:4])
    assert (ours[4], ours[8]) == ("-", "-")
    assert (theirs[3], theirs[4], theirs[8]) == ("70.0 (cut)", "≥ 3.5", "≥ 2.5")
    assert theirs[10] == "4/10 [17, 69]"
    assert any("cut at 70 s with 10 of 10" in line for line in lines)
    assert any(line.endswith("q1: refused") for line in lines)
    assert lines[-1] == "- the peers' server: AVX2 = 1"


def test_ratios_need_the_same_work() -> None:
    other = replace(PEER, n=32, cut=False)
    cells = rows.table([ROW, other]).splitlines()[3].strip("|").split("|")
    assert (cells[4].strip(), cells[8].strip()) == ("-", "-")
    assert (rows.ratio(5, 0), rows.ratio(0, 0), rows.ratio(250, 1)) == ("∞", "-", "250")


def test_rows_on_file_are_used_only_for_the_same_settings(tmp_path: Path) -> None:
    rows.save(PEER, tmp_path)
    assert rows.load(replace(PEER, seconds=0, errors=()), tmp_path) == PEER
    assert rows.load(replace(PEER, settings={"model": "other"}), tmp_path) is None
    assert rows.load(replace(PEER, questions=9), tmp_path) is None
    assert rows.load(replace(PEER, n=32), tmp_path) is None


def test_answers_are_graded_and_missing_ones_are_not_right() -> None:
    problems = tasks.load("gsm8k").problems()[:3]
    texts = {problems[0].id: f"\\boxed{{{problems[0].answer}}}", problems[1].id: "\\boxed{-12345}"}
    row = peers.measured(ROW, problems, texts, ["x: y"], 1.234, Tokens(1, 2, 3, 4), cut=False)
    assert (row.answered, row.right, row.seconds, row.errors) == (2, 1, 1.23, ("x: y",))
    assert (row.computed, row.cached, row.recomputed, row.generated) == (1, 2, 3, 4)


def said(program: str, limit: float) -> list[dict[str, object]]:
    """What `child` makes of a program that says it is ready and goes on with `program`."""
    begun = "import time\nprint('{\"ready\": true}', flush=True)\n"
    return [fact for _, fact in peers.child([sys.executable, "-S", "-c", begun + program], limit)]


def test_a_crash_is_a_result() -> None:
    assert said("raise ValueError('no beams left')", limit=30)[1:] == [{"failed": "ValueError: no beams left"}]
    assert said("raise SystemExit(3)", limit=30)[1:] == [{"failed": "exit code 3"}]


def test_a_run_past_its_limit_is_ended() -> None:
    assert said("time.sleep(60)", limit=0.05) == [{"ready": True}, {"cut": True}]


def test_what_was_said_before_the_end_is_kept() -> None:
    facts = said('print(\'noise\')\nprint(\'{"id": "q", "text": "4"}\')\nprint(\'{"done": true}\')', limit=30)
    assert facts == [{"ready": True}, {}, {"id": "q", "text": "4"}, {"done": True}]


def test_the_table_replaces_only_what_is_between_the_markers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    monkeypatch.setattr(peers, "PAGE", page)
    peers.publish("table")
    assert not page.exists()
    page.write_text("before\n<!-- peers -->\nold\n<!-- /peers -->\nafter\n")
    peers.publish("table \\1")
    assert page.read_text() == "before\n<!-- peers -->\ntable \\1\n<!-- /peers -->\nafter\n"


def test_a_missing_environment_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.llama_server.PYTHON", tmp_path / "python")
    with pytest.raises(SystemExit, match=r"python -m benchmarks\.peers\.setup"), LlamaServer("model.gguf"):
        pass
