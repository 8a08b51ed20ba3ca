"""Makes the environment of the peers: their packages and the llama.cpp server, apart from the project's own.

    python -m benchmarks.peers.setup

benchmarks/peers/.venv holds the packages of requirements.txt; delete it to start afresh.
"""

from __future__ import annotations

import subprocess
import sys
import venv

from benchmarks.llama_server import PYTHON, VENV


def main() -> None:
    if not PYTHON.exists():
        print(f"making {VENV.relative_to(VENV.parents[2])}", file=sys.stderr)
        venv.create(VENV, with_pip=True)
    requirements = VENV.parent / "requirements.txt"
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)


if __name__ == "__main__":
    main()
