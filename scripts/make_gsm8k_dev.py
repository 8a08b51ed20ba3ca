"""Makes flyweight/tasks/data/gsm8k_dev.jsonl from OpenAI's train.jsonl.

    python scripts/make_gsm8k_dev.py path/to/train.jsonl

Development questions are those whose sha256 is 9 mod 10; they are ordered by that hash, and the first 200 are
kept. Nobody picks. Prints the row count and sha256 that flyweight/tasks/gsm8k.py must hold.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from flyweight.tasks.gsm8k import DEV, split_answer

SPLIT = 9


def digest(question: str) -> str:
    """Hex sha256 of the question's UTF-8 bytes."""
    return hashlib.sha256(question.encode()).hexdigest()


def development(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The first development questions by hash, in the package's format."""
    chosen = sorted((digest(row["question"]), row) for row in rows if int(digest(row["question"]), 16) % 10 == SPLIT)
    made = []
    for sha, row in chosen[: DEV.rows]:
        solution, answer = split_answer(row["answer"])
        made.append(
            {"id": f"gsm8k-train-{sha[:8]}", "question": row["question"], "answer": answer, "solution": solution}
        )
    return made


def main(source: str) -> None:
    """Write the file; the same source gives the same bytes."""
    with open(source, encoding="utf-8") as lines:
        rows = development([json.loads(line) for line in lines])
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    target = Path(__file__).parent.parent / "flyweight" / "tasks" / "data" / DEV.name
    target.write_bytes(content)
    print(f"{target.name}: {len(rows)} rows, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/make_gsm8k_dev.py path/to/train.jsonl")
    main(sys.argv[1])
