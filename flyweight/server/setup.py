"""From settings to a server: what the command `serve` does, and tests and benchmarks too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.routing import Route

from flyweight import api, verifiers
from flyweight.errors import ConfigError
from flyweight.server import app, serving
from flyweight.server.asking import Service
from flyweight.server.auth import Keys, is_loopback, refuse_open_door
from flyweight.server.choosing import Menu, presets
from flyweight.server.engine import Engine
from flyweight.server.limits import Limits
from flyweight.server.metrics import Metrics
from flyweight.server.ui import Page
from flyweight.types import Event

__all__ = ["Settings", "build", "run"]

Open = Callable[[Callable[[Event], None]], api.Session]


@dataclass(frozen=True)
class Settings:
    """What a server is told when it starts."""

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Sequence[str] = ()
    model: str = api.DEFAULT_MODEL
    verifiers: Sequence[str] = (api.DEFAULT_VERIFIER,)
    """Those requests may ask for, the default one first."""
    presets: Path | None = None
    kind: str = "math"
    system: str = ""
    max_tokens: int = 512
    deadline: float = 300.0
    running: int = 32
    queued: int = 64
    generations: int = 256
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    ui: Path | None = None
    """Folder of the runs that the page under /ui/ shows; None for no page."""

    @property
    def name(self) -> str:
        """What clients call the model: nobody has to know where its file lies, or which server it runs on."""
        if "://" in self.model:  # openai:URL[#NAME][:settings]
            before, _, named = self.model.partition("#")
            return named.partition(":")[0] or before.partition(":")[0]
        return Path(self.model).stem if self.model.endswith(".gguf") and ":" not in self.model else self.model

    @property
    def known_as(self) -> tuple[str, ...]:
        """Names that a Host header may have; none for any."""
        if is_loopback(self.host):
            return ("localhost", "127.0.0.1", "::1", self.host, *self.hosts)
        return (self.host, *self.hosts) if self.hosts else ()


def build(
    session: api.Session,
    settings: Settings,
    *,
    routes: Sequence[Route] = (),
    log: Callable[[str], None] = lambda line: None,
) -> app.Server:
    """The server over a session. `routes` are further ones. ConfigError for settings that do not hold together."""
    keys = Keys(settings.keys)
    refuse_open_door(settings.host, keys)
    judges = {name: verifiers.load(name) for name in settings.verifiers[1:]}
    judges = {settings.verifiers[0]: session.verifier, **judges}
    for name, judge in judges.items():
        if judge.sees_answer:
            raise ConfigError(f"--verifier {name} needs the known answers, which nobody who asks a server has")
    found = presets(settings.presets, settings.name) if settings.presets is not None else {}
    metrics = Metrics()
    engine = Engine(session, judges, log=log, spent=metrics.spent)
    service = Service(
        menu=Menu(settings.name, presets=found, verifiers=list(judges)),
        policy=session.policy,
        answers=session.runner.setting.answers,
        kind=settings.kind,
        verifiers=list(judges),
        limits=Limits(generations=settings.generations),
        context=engine.context,
        max_tokens=settings.max_tokens,
        deadline=settings.deadline,
        system=settings.system,
    )
    page = None if settings.ui is None else Page(settings.ui / "flyweight.db", settings.name)
    server = app.create(
        engine,
        service,
        metrics=metrics,
        keys=keys,
        hosts=settings.known_as,
        origins=settings.origins,
        running=settings.running,
        queued=settings.queued,
        routes=[*routes, *(page.routes() if page is not None else ())],
        log=log,
    )
    if page is not None:
        page.server = server
    return server


def run(open_session: Open, settings: Settings, *, say: Callable[[str], None], log: Callable[[str], None]) -> None:
    """Load the model and answer until told to stop. What is wrong with the settings is said before anyone waits."""
    refuse_open_door(settings.host, Keys(settings.keys))
    if settings.presets is not None:
        Menu(settings.name, presets=presets(settings.presets, settings.name), verifiers=settings.verifiers)
    with serving.bind(settings.host, settings.port) as listening:
        say(f"loading {settings.name}")
        with open_session(lambda event: None) as session:
            server = build(session, settings, log=log)
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            locked = "" if settings.keys else ", no API key"
            say(f"serving {settings.name} at http://{shown}:{port}/v1{locked}")
            if settings.ui is not None:
                say(f"the page to ask and watch: http://{shown}:{port}/ui/")
            serving.serve(server, listening)
            say("stopped")
