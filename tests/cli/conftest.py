"""Fixtures of the command-line tests."""

from __future__ import annotations

import io

import pytest

from flyweight import api
from flyweight.cli.main import run
from flyweight.testing import ToyPolicy
from tests.cli_kit import Command, Done, UsePolicy


@pytest.fixture
def flyweight(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command line in this process; `stdin` is what is piped in."""

    def command(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = run(arguments)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return command


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> UsePolicy:
    """Puts another policy in the place of the toy."""

    def use(policy: ToyPolicy) -> None:
        monkeypatch.setattr(api, "find_policy", lambda model, **settings: lambda: policy)

    return use


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if a model is loaded."""

    def load() -> ToyPolicy:
        pytest.fail("a model was loaded")

    monkeypatch.setattr(api, "find_policy", lambda model, **settings: load)
