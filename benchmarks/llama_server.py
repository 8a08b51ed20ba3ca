"""llama.cpp's own HTTP server as a yardstick, from the package xllamacpp in an environment of its own.

    with LlamaServer(path, slots=32, context=1024) as server:
        ...  # POST to f"{server.url}/completion"

`python -m benchmarks.peers.setup` makes that environment. The server keeps its stock settings: continuous batching,
prompt caching in every slot, KV in f16, flash attention where it sees fit; only the number of slots, their context and
the /metrics page are set. The wheel for x86-64 Linux is built for AVX2, FMA, F16C and BMI2 and never uses AVX-512
(`LlamaServer.system_info` is what it says of itself): a llama.cpp built for the machine can be faster.

This file is also the program of the child process, where only the standard library and xllamacpp can be imported.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Self

__all__ = ["PYTHON", "VENV", "LlamaServer", "require_environment"]

VENV = Path(__file__).parent / "peers" / ".venv"
PYTHON = VENV / "bin" / "python"
READY = "ready "
"""Starts the child's line that holds its address."""


class LlamaServer:
    """The server in a child process for as long as the `with` block lasts.

    `slots` requests run side by side with `context` tokens each, prompt and answer together; `threads` None leaves
    the choice to llama.cpp. The child ends with the block, and with this process however that ends.
    """

    url: str
    """Such as http://127.0.0.1:41375, without a slash at the end."""
    system_info: str
    """The instructions the server's build uses, in llama.cpp's words."""

    def __init__(self, model: Path | str, *, slots: int = 32, context: int = 1024, threads: int | None = None) -> None:
        """Nothing is started yet."""
        self._settings = {"model": str(model), "slots": slots, "context": context, "threads": threads}

    def __enter__(self) -> Self:
        """SystemExit with one line if the environment is missing or the model does not load."""
        require_environment()
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._child = subprocess.Popen(
            [PYTHON, __file__, json.dumps(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            # Importing the engine sets this for its own threads; a stock server goes without.
            env={name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"},
        )
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith(READY):
                ready = json.loads(line.removeprefix(READY))
                self.url, self.system_info = ready["url"], ready["system_info"]
                break
        else:
            self._log.seek(0)
            last = self._log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise SystemExit(f"llama-server ended before it was ready: {last}")
        while not self.healthy() and self._child.poll() is None:
            time.sleep(0.05)

    def healthy(self) -> bool:
        """Whether the model is loaded and requests are served."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, TimeoutError):
            return False

    def __exit__(self, *_: object) -> None:
        self._child.kill()  # it has nothing to save, and a busy server takes its time over a polite end
        self._child.communicate()
        self._log.close()


def require_environment() -> None:
    """SystemExit with the command that helps when the peers' environment is missing."""
    if not PYTHON.exists():
        raise SystemExit("the peers' environment is missing: run `python -m benchmarks.peers.setup`")


def serve(model: str, slots: int, context: int, threads: int | None) -> None:
    """The child: serves until its standard input ends, which it does with the parent."""
    llama = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path = model
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.endpoint_metrics = True
    if threads is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = llama.Server(params)
    ready = {"url": server.listening_address, "system_info": llama.get_system_info()}
    print(READY + json.dumps(ready), flush=True)
    sys.stdin.read()
    os._exit(0)  # the server's own shutdown takes seconds, and there is nothing to save


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1]))
