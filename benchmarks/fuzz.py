"""schemathesis against a server on the toy policy: every route of its OpenAPI document, thousands of cases, no 5xx.

pip install schemathesis (or name its program), then: python -m benchmarks.fuzz [--examples 400] [--program PATH]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.server import keep
from benchmarks.server_kit import served
from flyweight.testing import ToyPolicy

__all__ = ["main"]


def main() -> int:
    """Run it, and add what was found to results/server.json; 1 for a server error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=400, help="most generated cases of each operation")
    parser.add_argument("--program", default=shutil.which("schemathesis"), help="schemathesis' own command")
    parser.add_argument("--no-save", action="store_true", help="only print")
    options = parser.parse_args()
    if not options.program:
        parser.error("schemathesis is not installed: pip install schemathesis")
    with served(ToyPolicy(), max_tokens=16) as (url, _), tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "events.ndjson"
        command = [options.program, "run", f"{url}/openapi.json", "--seed", "1", "--no-color"]
        command += ["--checks", "not_a_server_error", "--max-examples", str(options.examples), "--workers", "1"]
        command += ["--report", "ndjson", "--report-ndjson-path", str(report), "--continue-on-failure"]
        done = subprocess.run(command, check=False)
        statuses = counted(report)
    found: dict[str, Any] = {
        "cases": sum(statuses.values()),
        "statuses": dict(sorted(statuses.items())),
        "target": ">= 2,000 cases, no 5xx",
        "met": sum(statuses.values()) >= 2000 and max(statuses) < 500,
    }
    print(json.dumps(found, indent=2))
    if not options.no_save:
        keep("fuzz", found)
    return int(done.returncode != 0 or any(status >= 500 for status in statuses))


def counted(report: Path) -> dict[int, int]:
    """How many responses had each status, from schemathesis' own record."""
    statuses: dict[int, int] = {}

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if "status_code" in value and "headers" in value:
                statuses[value["status_code"]] = statuses.get(value["status_code"], 0) + 1
            for item in value.values():
                look(item)
        elif isinstance(value, list):
            for item in value:
                look(item)

    with report.open(encoding="utf-8") as lines:
        for line in lines:
            look(json.loads(line))
    return statuses


if __name__ == "__main__":
    sys.exit(main())
