"""Makes the environment of the peers: their packages and the llama.cpp server, apart from the project's own.

    python -m benchmarks.peers.setup

benchmarks/peers/.venv gets the packages of requirements.txt, benchmarks/peers/.sources the published code of
search-and-learn, which no registry has. Delete either to start afresh.
"""

from __future__ import annotations

import subprocess
import sys
import venv

from benchmarks.llama_server import PYTHON, VENV

SOURCES = VENV.parent / ".sources"
SAL = SOURCES / "search-and-learn"
SAL_URL = "https://github.com/huggingface/search-and-learn"
SAL_COMMIT = "6f81cac"


def main() -> None:
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    requirements = VENV.parent / "requirements.txt"
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", requirements], check=True)
    try:
        if not SAL.exists():
            subprocess.run(["git", "clone", "--quiet", SAL_URL, SAL], check=True)
        subprocess.run(["git", "-C", SAL, "checkout", "--quiet", SAL_COMMIT], check=True)
    except (OSError, subprocess.CalledProcessError):
        print(f"no search-and-learn: clone {SAL_URL} and give --sal PATH, or set SAL_SOURCE", file=sys.stderr)


if __name__ == "__main__":
    main()
