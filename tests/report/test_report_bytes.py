"""The same runs give the same bytes in every format."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from flyweight.report import plots
from flyweight.store import Store
from tests.report.report_kit import opened, report, small


def digests(folder: Path) -> list[str]:
    """Of every format, of the runs in a folder."""
    with Store(folder / "flyweight.db", readonly=True) as store:
        made = report(store)
    pictures = [made.svg().encode(), made.png()] if plots.available() else []
    texts = [made.markdown(), made.terminal(), made.html(), made.json()]
    return [hashlib.sha256(content).hexdigest() for content in (*map(str.encode, texts), *pictures)]


def test_the_same_bytes_in_another_process_with_other_hashes_and_order(tmp_path: Path) -> None:
    """Also with the runs written the other way round, into another folder."""
    found = []
    for seed, backwards in (("1", False), ("2", True)):
        folder = tmp_path / seed
        folder.mkdir()
        with opened(folder) as store:
            small(store, backwards=backwards)
            report(store)  # the grades are made
        if seed == "1":
            found.append(digests(folder))
            continue
        code = f"from pathlib import Path; from tests.report.test_report_bytes import digests; " \
               f"print(*digests(Path({str(folder)!r})))"  # fmt: skip
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(done.stdout.split())
    assert found[0] == found[1]
