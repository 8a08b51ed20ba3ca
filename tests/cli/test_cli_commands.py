"""compare, list, models, doctor and demo on the toy policy."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from flyweight import __version__, api
from flyweight.testing import Draft, ToyPolicy
from tests.cli_kit import KEYS, QUESTION, Command, UsePolicy, solve

KINDS = (("--kind", "text"), ())


def test_compare_puts_strategies_in_one_table(flyweight: Command) -> None:
    done = flyweight(
        "compare",
        QUESTION,
        "--model",
        "toy",
        "--strategies",
        "greedy,self_consistency,beam_search:n=4:width=2",
        "-n",
        "8",
    )
    head, *rows = done.out.splitlines()
    assert done.code == 0
    assert head.split() == ["strategy", "answer", "votes", "confidence", "tokens", "verifier", "seconds"]
    assert [row.split("  ")[0] for row in rows] == ["greedy", "self_consistency n=8", "beam_search n=4"]
    assert len({len(line) for line in [head, *rows]}) == 1
    same = flyweight("compare", QUESTION, "--model", "toy", "-s", "greedy,self_consistency", "-n", "8", "--json")
    facts = [json.loads(line) for line in same.out.splitlines()]
    assert [list(row) for row in facts] == [KEYS, KEYS]
    alone = flyweight(*solve(QUESTION, "-n", "8", "--json")).json
    assert [c["text"] for c in facts[1]["candidates"]] == [c["text"] for c in alone["candidates"]]


def test_compare_goes_about_answers_as_their_kind_is(flyweight: Command) -> None:
    facts = [flyweight("compare", QUESTION, "-m", "toy", "-s", "auto", "--json", *kind).json for kind in KINDS]
    assert [row["parameters"]["calibration"] for row in facts] == ["published", ""]


def test_list_shows_every_parameter_with_its_default(flyweight: Command) -> None:
    facts = flyweight("list", "--json").json
    assert set(facts) == {"strategies", "verifiers", "policies", "tasks"}
    beam = next(row for row in facts["strategies"] if row["name"] == "beam_search")
    assert {"name": "width", "type": "int", "default": 4, "allowed": "a whole number from 1 to 4096"} in beam[
        "parameters"
    ]
    assert "2408.03314" in beam["source"] and beam["cost"] and beam["use"]
    composition = {"verifier": "", "policy": "", "of": "", "lead": 0.0, "enough": 0.0}
    for row in facts["strategies"]:
        assert {parameter["name"]: parameter["default"] for parameter in row["composition"]} == composition
    text = flyweight("list").out
    for heading, rows in facts.items():
        assert heading.capitalize() in text.splitlines()
        assert all(f"  {row['name']}" in text.splitlines() for row in rows)
    assert "Verifiers" not in flyweight("list", "strategies").out.splitlines()


def test_models_are_listed_found_and_deleted(
    flyweight: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLYWEIGHT_HOME", str(tmp_path))
    rows = flyweight("models", "ls", "--json").json
    assert [row["name"] for row in rows if row["default"]] == ["qwen2.5-coder-0.5b"]
    assert not any(row["pulled"] for row in rows)
    assert "491 MB" in flyweight("models", "ls").out
    assert flyweight("models", "path").code == 3
    assert flyweight("models", "rm", "smollm2-135m").code == 3
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF....")
    assert flyweight("models", "path", str(own)).out == f"{own}\n"
    assert flyweight("models", "pull", str(own)).out == f"{own}\n"
    assert flyweight("models", "rm", str(own)).code == 2


def test_a_pull_draws_sparse_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from flyweight.cli.models import Bar

    with Bar() as bar:
        for done in range(0, 101, 10):
            bar("m\x1b", done * 10**6, 100 * 10**6)
    assert capsys.readouterr().err.splitlines() == ["m\\x1b: 0 of 100 MB", "m\\x1b: 100 of 100 MB"]


def test_doctor_says_how_to_fix_what_fails(flyweight: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flyweight.cli import doctor

    monkeypatch.setenv("FLYWEIGHT_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "_engine", lambda: iter([doctor.Check("engine", "ok", "fake")]))
    monkeypatch.setattr(doctor, "_worker", lambda: 1 / 0)
    done = flyweight("doctor", "--json")
    assert done.code == 3 and done.json["able"] is False
    failing = [check for check in done.json["checks"] if check["status"] == "fail"]
    assert [(check["name"], check["fix"]) for check in failing] == [
        ("default model", "flyweight models pull qwen2.5-coder-0.5b")
    ]
    assert "cannot be checked: ZeroDivisionError" in next(
        c["detail"] for c in done.json["checks"] if c["status"] == "warn"
    )
    text = flyweight("doctor")
    assert text.code == 3 and "fix: flyweight models pull" in text.out
    assert text.out.endswith("The main job cannot run yet.\n")


@pytest.mark.parametrize(
    ("direct", "tag", "built"),
    [
        ("", "py3-none-linux_x86_64", "built here"),
        ('{"url": "file:///cache/x.whl"}', "py3-none-linux_x86_64", "built here"),
        ("garbage", "py3-none-macosx_14_0_arm64", "built here"),
        ("[]", "py3-none-manylinux_2_17_x86_64", "prebuilt (manylinux)"),
        (
            '{"url": "https://example.org/x/llama_cpp_python-1-py3-none-manylinux_2_17_x86_64.whl"}',
            "py3-none-manylinux_2_17_x86_64",
            "prebuilt (llama_cpp_python-1-py3-none-manylinux_2_17_x86_64.whl)",
        ),
    ],
)
def test_doctor_reads_where_the_engine_was_built(tmp_path: Path, direct: str, tag: str, built: str) -> None:
    from flyweight.cli import doctor

    (tmp_path / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")
    if direct:
        (tmp_path / "direct_url.json").write_text(direct)
    assert doctor._built(Distribution.at(tmp_path)) == built


@pytest.mark.parametrize(
    ("uses", "built", "status", "told"),
    [
        ("AVX2 = 1 | AVX512_BF16 = 1", "built here", "ok", "built here; uses AVX2 AVX512_BF16"),
        ("AVX2 = 1", "built here", "ok", "built here; uses AVX2"),
        ("AVX2 = 1", "prebuilt (x.whl)", "ok", "make demo compiles one that also uses AVX512_BF16"),
        ("SSE3 = 1", "prebuilt (x.whl)", "warn", "this processor could do AVX2"),
    ],
)
def test_doctor_says_what_the_engine_leaves_unused(
    monkeypatch: pytest.MonkeyPatch, uses: str, built: str, status: str, told: str
) -> None:
    from flyweight.cli import doctor

    monkeypatch.setattr(doctor, "_built", lambda installed: built)
    monkeypatch.setattr(doctor, "_flags", lambda: {"avx2", "avx512_bf16"})
    answer = subprocess.CompletedProcess([], 0, f"CPU : {uses} |\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: answer)
    (check,) = doctor._engine()
    assert check.status == status and check.detail.endswith(told)


def test_demo_grades_both_ways_and_adds_up(flyweight: Command) -> None:
    facts = flyweight("demo", "--model", "toy", "--json").json
    greedy, searched = facts["summary"]
    assert [row["known"] for row in facts["questions"]] == ["80", "160", "13", "10", "80"]
    for position, row in enumerate((greedy, searched)):
        results = [question["results"][position] for question in facts["questions"]]
        assert row["right"] == sum(result["grade"] == "correct" for result in results)
        assert row["tokens"] == sum(r["usage"]["generated_tokens"] + r["usage"]["verifier_tokens"] for r in results)
        for question, result in zip(facts["questions"], results, strict=True):
            assert (result["grade"] == "correct") == (result["answer"] == question["known"])
    assert (greedy["strategy"], searched["strategy"]) == ("greedy", api.DEFAULT_STRATEGY)
    text = flyweight("demo", "--model", "toy").out
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("known answer: ") == 5 and text.count("votes: ") == 5
    assert f"{greedy['right']} of 5" in text and f"{searched['tokens']:,}" in text


def test_demo_is_honest_whichever_way_it_went(flyweight: Command, policy: UsePolicy) -> None:
    known = {"120 pages": 80, "Jenny": 160, "Cheryl": 13, "machines": 10, "Rudy": 80}

    def knows(when_greedy: bool) -> ToyPolicy:
        def write(question: str, so_far: str, rng: object, sampling: Any) -> Draft:
            answer = next(value for words, value in known.items() if words in question)
            right = (sampling.temperature == 0) == when_greedy
            return Draft(f"\\boxed{{{answer if right else -1}}}")

        return ToyPolicy(write)

    policy(knows(when_greedy=True))
    assert "Search got 5 questions fewer right" in flyweight("demo", "--model", "toy").out
    policy(knows(when_greedy=False))
    assert "Search got 5 more questions right" in flyweight("demo", "--model", "toy").out


def test_demo_shows_the_measured_figures_where_there_are_any(
    flyweight: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flyweight.cli import demo

    row = {"strategy": "greedy", "right": 21, "low": 0.24, "value": 0.35, "high": 0.476, "tokens": 221.4}
    monkeypatch.setattr(demo, "_figures", lambda: {"questions": 60, "model": "m", "rows": [row]})
    out = flyweight("demo", "--model", "toy").out
    assert "Measured over 60 such questions, m:" in out
    assert out.splitlines()[-1].split() == ["greedy", "21", "of", "60", "35", "%", "24", "to", "48", "%", "221"]
    monkeypatch.setattr(demo, "_figures", lambda: None)
    assert "Measured over" not in flyweight("demo", "--model", "toy").out


def test_version_and_bare_commands(flyweight: Command) -> None:
    assert flyweight("--version") == (0, f"flyweight {__version__}\n", "")
    for arguments, start in (([], "Usage: flyweight "), (["models"], "Usage: flyweight models ")):
        done = flyweight(*arguments)
        assert (done.code, done.err) == (0, "") and done.out.startswith(start)
