"""`flyweight solve --verifier X` for every X that needs no weights of its own, and docs/verifiers.md against them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flyweight import verifiers
from tests.cli_kit import QUESTION, Command, solve

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "verifiers.md").read_text("utf-8")
INSTRUCTIONS = [{"instruction": "keywords:existence", "keywords": ["answer"]}]
SETTINGS = {
    "regex": r"regex:pattern=\d+\}\.",
    "schema": "schema:file=schema.json",
    "instructions": "instructions:file=wanted.json",
    "judge": "judge:kind=math",
    "critique": "critique:kind=math:tokens=16",
    "all": "all:form:weighted(arithmetic=2:judge(kind=math:criteria=general)=1)",
    "weighted": "weighted:arithmetic=2:form=1",
}
"""How a verifier is written that does not do without settings."""
ELSEWHERE = {"probe", "lora", "prm", "reward", "remote", "tests", "oracle"}
"""Need weights, a server, a sandbox or known answers, and are tested where those are."""
PLAIN = [name for name in verifiers.names() if name not in ELSEWHERE]


@pytest.mark.parametrize("name", PLAIN)
def test_solve_with_every_verifier(
    name: str, flyweight: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("schema.json").write_text('{"type": "number"}')
    Path("wanted.json").write_text(json.dumps(INSTRUCTIONS))
    written = SETTINGS.get(name, name)
    done = flyweight(*solve(QUESTION, "-s", "best_of_n", "-n", "4", "--verifier", written, "--json", "--quiet"))
    assert done.code == 0, done.err
    assert done.json["verifier"] == written and done.json["usage"]["verifier_calls"] == 4
    assert all(0 <= each["score"] <= 1 for each in done.json["candidates"])
    asks = name in ("p_true", "judge", "critique", "all")
    assert (done.json["usage"]["verifier_tokens"] > 0) is asks


def test_a_mistake_in_settings_is_one_line_before_any_model(flyweight: Command, no_model: None) -> None:
    done = flyweight(*solve(QUESTION, "--verifier", "weighted:arithmetic=2:frm=1"))
    assert done.code == 2 and done.err.count("\n") == 1 and "did you mean 'form'" in done.err


# --- the page


def rows() -> dict[str, list[str]]:
    """Name -> cells of the page's table."""
    table = PAGE[PAGE.index("| verifier |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]
    return {each[0].strip("` "): each for each in cells}


def test_the_table_has_every_verifier_with_its_source() -> None:
    described = {row.name: row for row in verifiers.describe()}
    assert list(rows()) == list(described), "a row for each, in the order of `flyweight list verifiers`"
    for name, cells in rows().items():
        assert len(cells) == 5 and all(cells), name
        for paper in re.findall(r"\d{4}\.\d{4,5}", cells[4]):
            assert paper in described[name].source, f"{name}: {paper} is not the source it names itself"


@pytest.mark.parametrize(
    "written", re.findall(r"--verifier '?((?:all|weighted|length|regex|judge|form|units)[^\s']*)", PAGE)
)
def test_examples_on_the_page_load(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("criteria.txt").write_text("salt: it tastes of salt")
    assert verifiers.load(written)


def test_the_code_on_the_page_says_what_stands_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n([^`]*?import failures\n.*?)```\n\n", PAGE, re.DOTALL)
    exec(compile(block, "verifiers.md", "exec"), {})
    assert capsys.readouterr().out == block.rpartition("  # ")[2]


def test_the_page_has_examples() -> None:
    assert len(re.findall("--verifier", PAGE)) >= 6
