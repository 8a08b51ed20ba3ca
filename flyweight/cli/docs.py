"""The reference page of the command line, made of the help texts.

python -m flyweight.cli.docs > docs/cli.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from flyweight.cli.main import app

__all__ = ["page"]

INTRODUCTION = """# The command line

What every command says about itself under `--help`. Made by `python -m flyweight.cli.docs > docs/cli.md`; a test
fails when it is out of date.

`--json` objects of `solve` and `compare` hold: `answer`, `text` (the selected solution), `strategy`, `parameters`
(all of them, defaults included), `model`, `verifier` (the one at hand; `usage.verifier_calls` tells whether it was
asked), `seed`, `stopped` (done, budget, deadline, confident, interrupted or error), `error`, `confidence` (null with
fewer than two votes), `calibrated` (true: that is the probability that the answer is right; false: that it leads its
vote), `sure` (false below `--confidence`), `usage` (prompt_tokens, cached_tokens, generated_tokens, verifier_tokens,
policy_calls, verifier_calls, seconds, flops, peak_kv_bytes) and `candidates`, each with `text`, `answer`, `score` (null
when not scored), `tokens`, `logprob` (mean natural-log probability of its tokens), `class` (which answers are equal, 0
for the largest class; null when it could not vote) and `selected`. With `--file`, `id` and `question` come first.

With `auto`, the default, three more stand before `usage`: `chosen` (the strategy it chose, as one word;
probe where it ended before that), `difficulty` (estimated pass@1, so that 1 is the easiest; without a calibration the
share of the first samples that agree; null where it ended before that) and `line` (both, and the cost, for people).

The JSON is ASCII: control characters and lone surrogates in model output arrive as escapes and lose nothing. In the
text shown to people, characters a terminal would obey are replaced by their visible escapes, such as `\\x1b`.

`--trace FILE` writes every event of the search as it happens, one JSON object a line; `flyweight.trace.read` gives
the results back. What the file held is replaced, unless it is a store or a file that the command reads.

Ctrl-C (or SIGTERM) stops the search at its next step and prints what is known so far, with `stopped: interrupted`;
a second one ends the program at once.
"""


def page() -> str:
    """The whole page."""
    sections = [f"## {path}\n\n```text\n{text}\n```\n" for path, text in _helps(typer.main.get_command(app), None)]
    return "\n".join([INTRODUCTION, *sections])


def _helps(command: Any, parent: Any) -> Iterator[tuple[str, str]]:
    """(path, help) of a command and all below it, as a terminal of 80 columns shows it."""
    context = command.make_context(command.name, [], parent, resilient_parsing=True, terminal_width=78)
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield context.command_path, text
    for child in getattr(command, "commands", {}).values():
        yield from _helps(child, context)


if __name__ == "__main__":
    typer.echo(page(), nl=False)
