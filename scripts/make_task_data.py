"""Makes the compressed files of flyweight/tasks/data from the originals, unchanged.

    python scripts/make_task_data.py FOLDER

FOLDER holds gsm8k_test.jsonl, math500.jsonl, humaneval.jsonl.gz and mbpp.jsonl as their sources publish them (see
flyweight/tasks/data/README.md). A file whose sha256 is not the one the package holds it to is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

from flyweight.tasks import gsm8k, humaneval, math500, mbpp

TARGET = Path(__file__).parent.parent / "flyweight" / "tasks" / "data"
FILES = (gsm8k.TEST, math500.TEST, humaneval.DATA, mbpp.DATA)


def packed(content: bytes) -> bytes:
    """The content gzipped, without a name or time in it."""
    return gzip.compress(content, 9, mtime=0)


def main(folder: Path) -> None:
    for file in FILES:
        plain = folder / file.name.removesuffix(".gz")
        content = plain.read_bytes() if plain.exists() else gzip.decompress((folder / file.name).read_bytes())
        found = hashlib.sha256(content).hexdigest()
        if found != file.sha256:
            sys.exit(f"{plain.name}: sha256 {found}, expected {file.sha256}")
        (TARGET / file.name).write_bytes(packed(content))
        print(f"{file.name}: {len(content.splitlines())} rows, {(TARGET / file.name).stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/make_task_data.py FOLDER")
    main(Path(sys.argv[1]))
