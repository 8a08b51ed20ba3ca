"""`flyweight chat`: a conversation with the model kept warm and the strategy switchable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace

import typer

from flyweight import api
from flyweight.cli import options, render
from flyweight.cli.progress import Progress
from flyweight.cli.solve import fitted
from flyweight.cli.stopping import Stop
from flyweight.cli.warm import every, record
from flyweight.errors import ConfigError, FlyweightError, unknown
from flyweight.strategies import Value
from flyweight.types import BOXED, Budget, Event, Message, Result, Stopped, Usage

__all__ = ["Chat", "register"]

HELP = """Talk to the model over several turns, every reply searched for.

\b
Examples:
  flyweight chat
  flyweight chat -s best_of_n -n 8 --verifier arithmetic
  printf 'What is 12 * 17?\\nAnd half of that?\\n' | flyweight chat --quiet

\b
In the chat:
  /strategy NAME [key=value ...]   search replies with another strategy
  /n 8                             samples or beams
  /verifier NAME                   what scores candidates
  /system TEXT                     the system prompt; "off" for none
  /usage                           what the chat has cost so far
  /reset                           forget the conversation
  /help  /quit                     this list; the end (also Ctrl-D)

Ctrl-C stops the search under way, not the chat. Replies go to stdout, costs to stderr.
"""

COMMANDS = HELP[HELP.index("  /strategy") : HELP.index("\n\nCtrl-C")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("chat", help=HELP, short_help="A conversation, every reply searched for.")(chat)


def chat(
    model: options.Model = api.DEFAULT_MODEL,
    strategy: options.StrategyName = api.DEFAULT_STRATEGY,
    n: options.N = None,
    set_: options.Set = None,
    verifier: options.VerifierName = api.DEFAULT_VERIFIER,
    budget_tokens: options.BudgetTokens = None,
    budget_verifications: options.BudgetVerifications = None,
    deadline: options.Deadline = None,
    confidence: options.Confidence = None,
    seed: options.Seed = 0,
    system: options.System = BOXED,
    kind: options.Kind = "math",
    max_tokens: options.MaxTokens = 512,
    context: options.Context = 4096,
    trace: options.TraceFile = None,
    quiet: options.Quiet = False,
) -> int:
    choice = options.choose(strategy, options.pairs(set_, n), kind)
    limits = options.budget(budget_tokens, budget_verifications, deadline, confidence)
    made_of = options.ModelOptions(model, verifier, kind, max_tokens, context, seed)
    options.apart(trace, model, *choice.parameters.values())
    made_of.check()
    made_of = replace(made_of, confidence_map=fitted(choice, model))
    with ExitStack() as stack:
        recorder = record(trace, stack)
        talk = Chat(made_of, choice, limits, system, recorder, quiet)
        stack.callback(talk.close)
        for line in lines("> "):
            if not talk.take(line):
                break
    return 3 if talk.failed and not sys.stdin.isatty() else 0


class Chat:
    """The state of a conversation. `take` one line after the other until it says False."""

    def __init__(
        self,
        made_of: options.ModelOptions,
        choice: options.Choice,
        limits: Budget,
        system: str,
        recorder: Callable[[Event], None],
        quiet: bool,
    ) -> None:
        self.made_of = made_of
        self.choice = choice
        self.limits = limits
        self.system = system
        self.history: list[Message] = []
        self.usage = Usage()
        self.turns = 0
        self.failed = False
        """Whether a reply could not be made."""
        self.stop = Stop()
        self.progress = Progress(quiet=quiet, kind=made_of.kind)
        self._watch = every(self.stop, recorder, self.progress)
        with self.stop, self.progress:
            self.progress.say(f"loading {made_of.model}")
            self.session = made_of.open(self._watch)
        self.stop.runner = self.session.runner
        self.progress.note(f"{made_of.model}, {choice.label}; /help lists what you can say, /quit leaves")

    def take(self, line: str) -> bool:
        """Answer a line or obey it; whether the chat goes on. Mistakes become one line, not the end."""
        line = line.strip()
        if not line:
            return True
        if not line.startswith("/"):
            self.reply(line)
            return True
        name, _, rest = line[1:].partition(" ")
        if name in ("quit", "exit"):
            return False
        commands: Mapping[str, Callable[[str], None]] = {
            "strategy": self.set_strategy,
            "n": lambda text: self.set_parameters({"n": text}),
            "verifier": self.set_verifier,
            "system": self.set_system,
            "usage": lambda text: typer.echo(self.spent()),
            "reset": lambda text: self.history.clear(),
            "help": lambda text: typer.echo(COMMANDS),
        }
        try:
            if name not in commands:
                raise unknown("command", f"/{name}", [f"/{known}" for known in (*commands, "quit")])
            commands[name](rest.strip())
        except FlyweightError as error:
            typer.echo(f"Error: {render.oneline(str(error))}", err=True)
        return True

    def reply(self, text: str) -> None:
        """Search for a reply, print it, and remember both."""
        asked = Message("user", text)
        problem = api.problem([*self.history, asked], self.system)
        n = self.choice.parameters.get("n")
        with self.stop, self.progress:
            self.progress.begin(self.choice.name, n if isinstance(n, int) else None)
            result = self.session.runner.solve(problem, self.choice.bound, self.limits)
        self.usage += result.usage
        self.turns += 1
        if result.text:
            self.history += [asked, Message("assistant", result.text)]
            typer.echo(render.clean(result.text).strip())
        elif result.error is None:
            typer.echo("(no reply)", err=True)
        if result.error is not None:
            self.failed = True
            typer.echo(f"Error: {render.oneline(result.error)}", err=True)
        self.progress.note(footer(self.choice, result))

    def set_strategy(self, text: str) -> None:
        """`NAME key=value ...`: n is kept if the strategy has one; nothing shows the present one."""
        name, *settings = text.split() or [""]
        if name:
            kept = {key: value for key, value in self.choice.parameters.items() if key == "n"}
            self._choose(name, {**options.fitting(name, kept), **options.pairs(settings)})
        self.show()

    def set_parameters(self, changes: Mapping[str, Value]) -> None:
        """The same strategy with other parameters."""
        self._choose(self.choice.name, {**self.choice.parameters, **changes})
        self.show()

    def _choose(self, name: str, parameters: Mapping[str, Value]) -> None:
        choice = options.choose(name, parameters, self.made_of.kind)
        made_of = replace(self.made_of, confidence_map=fitted(choice, self.made_of.model))
        maps = api.find_maps(made_of.model, made_of.kind, made_of.confidence_map)
        runner = self.session.runner
        runner.setting = replace(runner.setting, maps=maps)
        self.choice, self.made_of = choice, made_of

    def set_verifier(self, text: str) -> None:
        """Another verifier on the same warm model."""
        if text:
            made_of = replace(self.made_of, verifier=text)
            made_of.check()
            self.session = made_of.open(self._watch, policy=self.session.policy)
            self.made_of, self.stop.runner = made_of, self.session.runner
        self.show()

    def set_system(self, text: str) -> None:
        """Another system prompt, from the next turn on."""
        if text:
            self.system = "" if text == "off" else text
        typer.echo(f"system: {render.clean(self.system) or 'off'}", err=True)

    def show(self) -> None:
        """Say how replies are searched for now."""
        parameters = " ".join(f"{key}={value}" for key, value in self.choice.parameters.items())
        typer.echo(f"{self.choice.name} {parameters} (verifier {self.made_of.verifier})".replace("  ", " "), err=True)

    def spent(self) -> str:
        """What all turns cost together."""
        usage = self.usage
        turns = f"{self.turns} turn" + ("" if self.turns == 1 else "s")
        return (
            f"{turns}: {usage.generated_tokens:,} tokens generated, {usage.prompt_tokens:,} prompt tokens computed "
            f"({usage.cached_tokens:,} from cache), {usage.verifier_tokens:,} verifier tokens, {usage.seconds:.1f} s"
        )

    def close(self) -> None:
        """Release the model."""
        self.session.close()


def footer(choice: options.Choice, result: Result) -> str:
    """One line under a reply: who voted for it and what it cost."""
    parts = [choice.label]
    if doubt := render.unsure(result):
        parts.append(doubt.removesuffix(": "))
    elif (agreed := render.share(result)) != "-":
        parts.append(f"{agreed} agree")
    if result.stopped is not Stopped.DONE:
        parts.append(result.stopped.value)
    return " · ".join([*parts, render.cost(result)])


def lines(prompt: str) -> Iterator[str]:
    """What is typed, line by line, or what a pipe holds. Ctrl-C drops the line being typed, Ctrl-D ends."""
    if not sys.stdin.isatty():
        try:
            yield from sys.stdin
        except UnicodeDecodeError as error:
            raise ConfigError(f"stdin is not UTF-8 text: {error.reason} at byte {error.start}") from error
        return
    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its line editing and history
    while True:
        try:
            yield input(prompt)
        except KeyboardInterrupt:
            typer.echo("\n(/quit or Ctrl-D leaves)", err=True)
        except EOFError:
            typer.echo("", err=True)
            return
