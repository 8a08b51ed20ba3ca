"""MATH-500: competition maths with free-form answers, in five levels and seven subjects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flyweight.tasks import files, maths
from flyweight.types import Problem

__all__ = ["MATH500", "TEST"]

TEST = files.Bundled("math500.jsonl.gz", 500, "5a424d924a5f09323bb008b487e6971210dc5b2846db0699c777cd53982f08eb")


class MATH500(maths.Maths):
    """Competition maths: the 500 test questions of PRM800K's split of MATH, each with level (1-5) and subject.

    Splits: test (bundled), and by the hash of the question (files.hash_split) train, calibration and development,
    which need `data`, a file with rows of problem, level, solution (which boxes the answer) and type or subject, as
    that of the other 4,500 test questions of MATH. Without a split all its questions are taken. A test question stays
    one in whatever file it stands.

    Prompt: the problem, asked to reason step by step and box the answer. Answer: a formula, compared as mathematics.
    `meta` holds level and subject. Licence: MIT.

    Source: Hendrycks et al. 2021, Measuring Mathematical Problem Solving With the MATH Dataset (2103.03874); the
    split: Lightman et al. 2023, Let's Verify Step by Step (2305.20050), appendix C.
    """

    name = "math500"
    splits = ("test", *files.TRAINING)

    def __init__(self, *, data: Path | None = None, split: str | None = None) -> None:
        """ConfigError if the file cannot be read, is not what it should be, or has no question of the split."""
        files.check_split(self.name, split, self.splits)
        if data is not None:
            what = 'a MATH row, which is {"problem": ..., "level": "Level 2", "solution": "... \\boxed{42}", ...}'
            found = list(files.parsed(Path(data), what, _row).values())
            rows = files.chosen(found, split, lambda p: files.split_beside(TEST, "problem", p.prompt), Path(data))
        elif split in (None, "test"):
            rows = [_row(row)[1] for row in files.bundled(TEST)]
        else:
            raise files.needs_data(self.name, str(split), "MATH questions outside the 500")
        super().__init__(rows)


def _row(row: Mapping[str, object]) -> tuple[str, Problem]:
    """(id, problem). The 500 are named after their files in MATH, the others by their hash."""
    question, answer = row["problem"], row.get("answer")
    subject, level = row.get("subject", row.get("type")), str(row["level"]).removeprefix("Level ")
    if answer is None:
        from flyweight import answers

        answer = answers.extract(str(row["solution"]), "math")
    if not all(isinstance(text, str) and text.strip() for text in (question, answer, subject)):
        raise ValueError("needs a problem, a subject or type, and an answer or a solution that boxes it")
    name = row.get("unique_id")
    if isinstance(name, str):
        id = f"math-{name.removesuffix('.json').replace('/', '-')}"
    else:
        id = f"math-{files.sha(str(question))[:8]}"
    # MATH has two questions whose level is "Level ?".
    meta = {"level": int(level) if level.isdecimal() else 0, "subject": subject}
    return id, maths.problem(id, str(question), str(answer), meta)
