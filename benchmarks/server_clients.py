"""Do LiteLLM, lm-eval and inspect work with the server as docs/server.md says? Each in an environment of its own.

python -m benchmarks.server_clients [--folder DIR]      installs them with pip, in DIR where they then stay
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.conformance import CALL, CLOCK, USE
from benchmarks.server import keep
from benchmarks.server_kit import served
from flyweight.testing import Draft, ToyPolicy

__all__ = ["main"]

MODEL = "toy@best_of_n:n=4"
SUMS = {"Add 3 and 4.": "7", "Add 10 and 5.": "15", "Add 1 and 2 and 3.": "6"}

LITELLM = """
import asyncio, json, sys
import litellm
url, use, clock = sys.argv[1], *map(json.loads, sys.argv[2:])
to = {"api_base": url, "api_key": "none"}
ask = [{"role": "user", "content": "Add 3 and 4."}]
def right(answer): return "boxed{7}" in answer.choices[0].message.content and answer.usage.total_tokens > 0
held = {}
for name in ("toy", "toy@self_consistency", "toy@best_of_n:n=4,budget=4096"):
    held[name] = right(litellm.completion(model="openai/" + name, messages=ask, **to))
parts = list(litellm.completion(model="openai/toy@best_of_n:n=4", messages=ask, stream=True, **to))
held["stream"] = "boxed{7}" in "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
more = {"extra_body": {"flyweight": {"strategy": "best_of_n", "n": 3}}}
answer = asyncio.run(litellm.acompletion(model="openai/toy", messages=ask, **more, **to))
held["async, field flyweight"] = right(answer) and answer.model_extra["flyweight"]["candidates"] == 3
answer = litellm.completion(model="openai/toy@self_consistency:n=4", messages=use, tools=[clock], **to)
held["tools"] = answer.choices[0].message.tool_calls[0].function.name == "clock"
answer = litellm.text_completion(model="text-completion-openai/toy", prompt="Add 3 and 4.", max_tokens=30, **to)
held["text"] = "boxed{7}" in answer.choices[0].text
try:
    litellm.completion(model="openai/toy@nothing", messages=ask, **to)
except litellm.BadRequestError:
    held["unknown strategy"] = True
print(json.dumps(held))
"""

LM_EVAL = """
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Question:"], do_sample: false, temperature: 0.0, max_gen_toks: 100}
filter_list:
  - {name: boxed, filter: [{function: regex, regex_pattern: 'boxed\\{(-?\\d+)\\}'}, {function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""

INSPECT = """
import json
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def sums():
    return Task(dataset=[Sample(q, target=a) for q, a in SUMS.items()], solver=generate(), scorer=includes())
"""


class Client(NamedTuple):
    """What is installed, and what is tried; how much of it holds and how much there is."""

    packages: tuple[str, ...]
    check: Callable[[Path, str, Path], tuple[int, int]]
    """(programs of its environment, URL, a folder for files)"""


def right(question: str, so_far: str, *_: object) -> Draft:
    """The sum of the numbers, or a call where one is asked for."""
    numbers = re.findall(r"\d+", question)
    return Draft(CALL if question == USE[0]["content"] else f"It is \\boxed{{{sum(map(int, numbers))}}}.")


def litellm(bin: Path, url: str, folder: Path) -> tuple[int, int]:
    """Models, a stream, asyncio, tools, text, an error."""
    command = [bin / "python", "-c", LITELLM, f"{url}/v1", json.dumps(USE), json.dumps(CLOCK)]
    held = json.loads(_output(command, folder, LITELLM_LOCAL_MODEL_COST_MAP="True").splitlines()[-1])
    return sum(held.values()), 8


def lm_eval(bin: Path, url: str, folder: Path) -> tuple[int, int]:
    """Three questions, the model given as text and, for more than one setting, as JSON."""
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in SUMS.items()))
    (folder / "sums.yaml").write_text(LM_EVAL.replace("FILE", str(questions)))
    where = f"{url}/v1/chat/completions"
    spelled = [f"base_url={where},model={MODEL}", json.dumps({"base_url": where, "model": f"{MODEL},budget=4096"})]
    correct = 0
    for number, arguments in enumerate(spelled):
        out = folder / f"out{number}"
        command = [bin / "lm_eval", "--model", "local-chat-completions", "--model_args", arguments]
        command += ["--apply_chat_template", "--tasks", "sums", "--include_path", folder, "--output_path", out]
        _output(command, folder, HF_HOME=str(folder / "hf"), HF_HUB_OFFLINE="1")
        found = json.loads(next(out.rglob("results_*.json")).read_text())
        correct += round(found["results"]["sums"]["exact_match,boxed"] * len(SUMS))
    return correct, 2 * len(SUMS)


def inspect(bin: Path, url: str, folder: Path) -> tuple[int, int]:
    """Three questions through the provider for servers of this kind."""
    (folder / "sums.py").write_text(INSPECT.replace("SUMS", repr(SUMS)))
    command = [bin / "inspect", "eval", "sums.py", "--model", f"openai-api/flyweight/{MODEL}"]
    command += ["--log-dir", folder / "logs", "--log-format", "json", "--display", "none"]
    _output(command, folder, FLYWEIGHT_BASE_URL=f"{url}/v1", FLYWEIGHT_API_KEY="none")
    log = json.loads(next((folder / "logs").glob("*.json")).read_text())
    accuracy = log["results"]["scores"][0]["metrics"]["accuracy"]["value"]
    return round(accuracy * len(SUMS)), len(SUMS)


CLIENTS = {
    "litellm": Client(("litellm", "mcp"), litellm),  # 1.106 asks for mcp only once it is used
    "lm_eval": Client(("lm_eval[api]",), lm_eval),
    "inspect_ai": Client(("inspect_ai", "openai"), inspect),
}


def _output(command: list[Any], folder: Path | None = None, **environment: str) -> str:
    inherited = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=inherited, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(
            f"{Path(command[0]).name} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-3000:]}"
        )
    return done.stdout


def tried(name: str, folder: Path) -> str:
    """Its version and how many of its checks hold."""
    client, home = CLIENTS[name], folder / name
    if not (home / "bin" / "python").exists():
        venv.create(home, with_pip=True)
    _output([home / "bin" / "python", "-m", "pip", "install", "--quiet", *client.packages])
    find = f"import importlib.metadata as m; print(m.version({name!r}))"
    version = _output([home / "bin" / "python", "-c", find]).strip()
    with served(ToyPolicy(right)) as (url, _), tempfile.TemporaryDirectory() as files:
        held, checks = client.check(home / "bin", url, Path(files))
    return f"{version}: {held}/{checks}"


def main() -> int:
    """Try all of them, and add what was found to results/server.json; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to install them (default: a folder that is removed)")
    parser.add_argument("--no-save", action="store_true", help="only print")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        found = {name: tried(name, (options.folder or Path(passing)).resolve()) for name in CLIENTS}
    met = all(held == checks for held, checks in (line.split(": ")[1].split("/") for line in found.values()))
    print(json.dumps(found, indent=2))
    if not options.no_save:
        keep("clients", {**found, "target": "all of each", "met": met})
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
