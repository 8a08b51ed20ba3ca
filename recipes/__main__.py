"""Lists the recipes, shows one, or carries it out.

    python -m recipes
    python -m recipes llama-3b-over-70b --gpu h100
    python -m recipes llama-3b-over-70b --run --set aime24=aime24.jsonl -- --ray --workers 8

What stands behind -- is added to every command.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from flyweight.cli import render
from flyweight.cli.main import run
from recipes.plan import GPUS, find, names, need

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 2 for a mistake, else that of the first command that fails."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    more = given[given.index("--") + 1 :] if "--" in given else []
    parser = argparse.ArgumentParser(prog="python -m recipes", description="Published runs, ready to launch.")
    parser.add_argument("name", nargs="?", choices=names())
    parser.add_argument("--gpu", choices=GPUS, default="a100", help="for the prediction")
    parser.add_argument("--price", type=float, help="US dollars an hour, instead of the assumed one")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another value of a placeholder"
    )
    parser.add_argument("--run", action="store_true", help="carry the commands out")
    options = parser.parse_args(given[: len(given) - len(more) - 1] if "--" in given else given)
    gpu = GPUS[options.gpu]
    if options.name is None:
        if options.run:
            parser.error(f"--run needs the name of a recipe: one of {', '.join(names())}")
        rows = []
        for name in names():
            its = need(find(name), gpu, options.price)
            rows.append((name, f"{its.memory / 1e9:.0f} GB", f"{its.rows}", f"{its.hours:,.1f} h", f"${its.cost:,.0f}"))
        print(f"On one {gpu.name} at ${gpu.price if options.price is None else options.price:g} an hour, predicted:\n")
        print(render.table(("recipe", "memory", "rows", "time", "cost"), rows, right=4))
        return 0
    recipe = find(options.name)
    known = {*recipe.scale, "policy", "verifiers"}
    if wrong := [pair for pair in options.set if "=" not in pair or pair.partition("=")[0] not in known]:
        parser.error(f"--set {wrong[0]}: write KEY=VALUE with one of {', '.join(sorted(known))}")
    others = dict(pair.split("=", 1) for pair in options.set)
    commands = [[*command, *more] for command in recipe.commands(**others)]
    if options.run:
        for command in commands:
            print(shlex.join(command), file=sys.stderr)
            if code := run(command[1:]):
                return code
        return 0
    its = need(recipe, gpu, options.price)
    print(f"{recipe.title}\n\n{recipe.claim}\nSource: {recipe.source}\n")
    print("\n".join(shlex.join(command) for command in commands))
    print(
        f"\nOn one {gpu.name}: {its.memory / 1e9:.0f} GB with {its.rows} rows at a time, {its.policy_hours:,.1f} h of "
        f"drawing and {its.verifier_hours:,.1f} h of scoring, ${its.cost:,.0f}\n\nPublished:"
    )
    head = ("task", "model and method", "accuracy", "source")
    print(
        render.table(
            head,
            [(row["task"], row["method"], f"{row['accuracy']:g} %", row["source"]) for row in recipe.expected],
            right=0,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
