"""`flyweight solve`: one question, or a file of them with the model kept warm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from flyweight import api, strategies
from flyweight.cli import ask, options, render
from flyweight.cli.warm import warm
from flyweight.errors import ConfigError
from flyweight.protocols import Answers
from flyweight.tasks.code import REPLY
from flyweight.types import BOXED, Budget, Problem, Result, Stopped

__all__ = ["register"]

IN_FLIGHT = 1024
"""Questions of a file searched at the same time."""

HELP = """Answer a question, spending compute until the answer is better than the model's first.

\b
Examples:
  flyweight solve -s beam_search -n 16 --set width=4 --verifier arithmetic < question.txt
  flyweight solve "Write double(x), which returns 2 x." --tests tests.py
  flyweight solve --file questions.jsonl --confidence 0.6 --json > results.jsonl

QUESTION may be "-" or left out to read it from a pipe. A file holds one question a line, or JSON lines
with "question" and optionally "id" and "answer"; its questions are searched together, and results come
in its order. With --quiet only the answer is printed. An answer in the file is never shown to the model.

With --confidence the search ends as soon as the answer is that sure. One that ends below it is printed as
"not sure (p≈0.3): 42", p being the probability that 42 is right. Where nobody has counted how often such votes are
right (docs/abstention.md), the dial is the probability that the answer leads its vote, and what is said is
"not sure (3 of 8 agree): 42".

--tests FILE gives public tests: candidates are Python programs, run in the sandbox, and what they pass is part of what
`self` says of them, all of it with --verifier tests; votes go by what programs do on the tests' inputs and on
variations of them. FILE holds asserts, or JSON lines with "stdin" and "expected". --check COMMAND makes a command the
verifier: it runs in the sandbox with the answer on stdin and the whole text in /candidate/text, and exit status 0 means
right. It sees the files it names, read-only.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("solve", help=HELP, short_help="Answer a question, or a file of them.")(solve)


def solve(
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help='The question; "-" reads stdin.', show_default=False)
    ] = None,
    model: options.Model = api.DEFAULT_MODEL,
    strategy: options.StrategyName = api.DEFAULT_STRATEGY,
    n: options.N = None,
    set_: options.Set = None,
    verifier: options.VerifierName = api.DEFAULT_VERIFIER,
    quality: options.Quality = None,
    budget_tokens: options.BudgetTokens = None,
    budget_verifications: options.BudgetVerifications = None,
    deadline: options.Deadline = None,
    confidence: options.Confidence = None,
    confidence_map: options.ConfidenceMap = None,
    seed: options.Seed = 0,
    system: options.System = BOXED,
    kind: options.Kind = "math",
    max_tokens: options.MaxTokens = 512,
    context: options.Context = 2048,
    slots: options.Slots = 32,
    weights: options.Weights = "auto",
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Questions, one a line or JSON lines.")
    ] = None,
    tests: Annotated[
        Path | None, typer.Option("--tests", metavar="FILE", help="Public tests of a program, run in the sandbox.")
    ] = None,
    check: Annotated[
        str | None, typer.Option("--check", metavar="COMMAND", help="Accept answers by this command, in the sandbox.")
    ] = None,
    trace: options.TraceFile = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    read_as = "code" if tests is not None else kind
    choice = options.choose(strategy, options.pairs(set_, n), read_as, public=tests is not None)
    if quality is not None:
        budget_tokens = planned(quality, budget_tokens, model, quiet=quiet or json)
    limits = options.budget(budget_tokens, budget_verifications, deadline, confidence)
    made_of = options.ModelOptions(
        model, verifier, kind, max_tokens, context, seed, confidence_map=confidence_map, slots=slots, weights=weights
    )
    if file is not None and question is not None:
        raise typer.BadParameter("give a question or --file, not both")
    answers: Answers | None = None
    system = REPLY if tests is not None and system == BOXED else system
    problems = [api.problem(ask.question(question), system)] if file is None else ask.questions(file, system)
    if check is not None:
        made_of = checking(made_of, check, tests)
    elif tests is not None:
        made_of, problems, answers = testing(made_of, tests, problems, many=file is not None)
    options.apart(trace, file, tests, confidence_map, model, *choice.parameters.values())
    made_of.check(problems)
    made_of = replace(made_of, confidence_map=confidence_map or fitted(choice, model))
    if confidence_map is not None:
        maps = api.find_maps(model, made_of.kind, confidence_map)
        if not any(each.holds(choice.bound, each.verifier) for each in maps):
            known = ", ".join(f"{name} {dict(each.parameters)}" for each in maps for name in each.strategies)
            raise ConfigError(f"{confidence_map} holds for {known}, not for {choice.name} {dict(choice.parameters)}")
    return Job(choice, limits, made_of, problems, file is not None, trace, json, quiet, answers).run()


def planned(quality: str, tokens: int | None, model: str, *, quiet: bool) -> int:
    """The tokens of a quality; says how long they take at most. ConfigError beside --budget-tokens."""
    from flyweight.optimal.quality import expected, tokens_of

    found = tokens_of(quality)
    if tokens is not None:
        raise ConfigError(f"--quality {quality} is a budget of {found} tokens: drop it or --budget-tokens {tokens}")
    if not quiet:
        seconds, basis = expected(model, found)
        typer.echo(f"{quality}: at most {found:,} tokens a question, about {seconds:.0f} s ({basis})", err=True)
    return found


def fitted(choice: options.Choice, model: str) -> Path | None:
    """The file of a calibration that was named, where it says how sure answers are.

    ConfigError for one that cannot be read or is another model's, ModelError for a further model that is not there.
    """
    given = choice.parameters
    if choice.name.partition(":")[0] != "auto":
        return None
    if bigger := str(given["bigger"]):
        api.find_policy(bigger)
    reference = str(given["calibration"])
    if reference in ("", "published"):
        return None
    from flyweight.bench.engine import file_of
    from flyweight.optimal import calibration, controller

    writer = next(iter(strategies.named(choice.name, "policy")), model)
    sha256 = (file_of(writer) or "").removeprefix("sha256:")
    controller.resolve(reference, sha256, "", any_model=bool(given["any_model"]))
    known = calibration.maps(calibration.read(Path(reference)), reference)
    return Path(reference) if writer == model and any(each.sha256 == sha256 for each in known) else None


def checking(made_of: options.ModelOptions, check: str, tests: Path | None) -> options.ModelOptions:
    """The options with the command as their verifier.

    ConfigError for what does not go together, SandboxError when there is no sandbox.
    """
    from flyweight import sandbox
    from flyweight.verifiers import execution

    if tests is not None:
        raise ConfigError("give --tests or --check, not both: either says which programs are right")
    if made_of.verifier != api.DEFAULT_VERIFIER:
        raise ConfigError(f"--check is the verifier: drop --verifier {made_of.verifier} (or FLYWEIGHT_VERIFIER)")
    judge = execution.Command(check, kind=made_of.kind)
    sandbox.working()
    return replace(made_of, verifier=judge.name, judge=judge)


def testing(
    made_of: options.ModelOptions, tests: Path, problems: Sequence[Problem], *, many: bool
) -> tuple[options.ModelOptions, list[Problem], Answers]:
    """The options for code, the problems with their public tests, and how code votes.

    ConfigError for what does not go together or cannot be read, SandboxError when there is no sandbox.
    """
    from flyweight import sandbox
    from flyweight.answers.behaviour import Behaviour

    if many:
        raise ConfigError("--tests belongs to one question: drop --file, or use --check")
    if made_of.kind not in ("math", "code"):
        raise ConfigError(f"--tests reads answers as code: drop --kind {made_of.kind} (or FLYWEIGHT_KIND)")
    shown = sandbox.read_public(tests)
    sandbox.working()
    meta = {"public": shown}
    asked = [replace(problem, meta={**problem.meta, **meta}) for problem in problems]
    return replace(made_of, kind="code"), asked, Behaviour(sandbox.public(meta))


@dataclass(frozen=True)
class Job:
    """Everything `solve` was asked for, checked."""

    choice: options.Choice
    limits: Budget
    made_of: options.ModelOptions
    problems: Sequence[Problem]
    many: bool
    """Whether the questions came from a file."""
    trace: Path | None
    json: bool
    quiet: bool
    answers: Answers | None = None
    """How answers are read and told apart; None for the way that the kind names."""

    def run(self) -> int:
        """Load, search, print; the exit code."""
        codes = []
        with warm(self.made_of, trace=self.trace, quiet=self.quiet, answers=self.answers) as (session, progress, stop):
            n = self.choice.parameters.get("n")
            progress.begin(self.choice.name, n if isinstance(n, int) and not self.many else None)
            results = session.runner.run(self.problems, self.choice.bound, self.limits, in_flight=IN_FLIGHT)
            for number, result in in_order(self.problems, results):
                progress.clear()
                self.show(number, result)
                codes.append(render.code_of(result))
            if len(codes) < len(self.problems):
                progress.note(f"{len(self.problems) - len(codes)} questions were not begun")
        return worst(codes, stop.code)

    def show(self, number: int, result: Result) -> None:
        """Print one result; the error of a failed one goes to stderr."""
        from flyweight.cli.main import complain

        if self.json:
            typer.echo(render.dumps(self.facts(result)))
        elif self.quiet:
            typer.echo(render.unsure(result) + render.clean(result.text if result.answer is None else result.answer))
        else:
            if self.many:
                typer.echo(f"{'' if number == 0 else chr(10)}[{number + 1}] {render.oneline(result.problem.prompt)}\n")
            typer.echo(render.block(result, label=self.choice.label, model=self.made_of.model))
        if result.stopped is Stopped.ERROR:
            complain(result.error or "the search failed")

    def facts(self, result: Result) -> dict[str, object]:
        """The JSON object of one result."""
        return render.as_json(
            result,
            strategy=self.choice.name,
            parameters=self.choice.parameters,
            model=self.made_of.model,
            verifier=self.made_of.verifier,
            seed=self.made_of.seed,
            problem=result.problem if self.many else None,
        )


def in_order(problems: Sequence[Problem], results: Iterable[Result]) -> Iterator[tuple[int, Result]]:
    """(index, result) in the order of the problems, each as soon as all before it are there."""
    place = {problem.id: index for index, problem in enumerate(problems)}
    waiting: dict[int, Result] = {}
    following = 0
    for result in results:
        waiting[place[result.problem.id]] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1
    yield from sorted(waiting.items())


def worst(codes: Iterable[int], signalled: int = 0) -> int:
    """Exit code of several results: the signal, else an error, else a partial result, else 0."""
    found = set(codes)
    if signalled:
        return signalled
    return next((code for code in (130, 3, 5) if code in found), 0)
