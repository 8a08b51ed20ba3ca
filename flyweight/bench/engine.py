"""The model of a run: which file in which encoding it is, and loaded only once something is missing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from flyweight import api
from flyweight.errors import ConfigError, ModelError
from flyweight.protocols import Counters, Policy
from flyweight.store import RunInfo, Store
from flyweight.store.replay import StoredPolicy

__all__ = ["CannotLoad", "Engine", "Load", "drawn_from", "file_of", "recorded", "run_of"]

Load = Callable[[str, int, str], Callable[[], Policy]]
"""(model, context, weights) -> what loads it. ConfigError or ModelError at once for a model that is not there."""

IDENTITY = re.compile(r"(sha256:[0-9a-f]{64}) (\w+)")


class CannotLoad(BaseException):
    """Carries a failure to load out of a search: it is the end of the run, not a result of one problem."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Engine:
    """A model that runs share, behind a store.

    `identity` is what the store files its draws under: of a file the hash and the encoding that runs, else what the
    policy says of itself (`identity`), else what it was asked for as and the policy's name. Known from an earlier run,
    the model is loaded when it is first needed, in that encoding; otherwise at once.
    """

    def __init__(
        self,
        store: Store,
        model: str,
        context: int,
        known: str | None,
        *,
        load: Load | None = None,
        on_load: Callable[[bool], None] = lambda began: None,
    ) -> None:
        """`known` is its identity, if there is one on record (`recorded`).

        `on_load` is told when loading begins (True) and when it has ended. ConfigError or ModelError as of loading.
        """
        self.model = model
        self.seconds = 0.0
        """Spent loading."""
        self._on_load = on_load
        self._policy: Policy | None = None
        self._before = Counters()
        self._file = file_of(model)
        match = IDENTITY.fullmatch(known or "")
        self._load = (load or _find)(model, context, match[2] if match else "auto")
        self.identity = known or self._identity(self._loaded())
        self.stored: StoredPolicy = store.deferred(drawn_from(self.identity, context), self._make)

    @property
    def generated(self) -> int:
        """Tokens drawn by the engine itself, those of unfinished requests included."""
        return 0 if self._policy is None else self._policy.counters.generated_tokens - self._before.generated_tokens

    @property
    def recomputed(self) -> int:
        """Prompt tokens the engine computed again, because they had been evicted."""
        return 0 if self._policy is None else self._policy.counters.recomputed_tokens - self._before.recomputed_tokens

    def close(self) -> None:
        """Release the model, if it was loaded."""
        if self._policy is not None:
            self._policy.close()

    def _make(self) -> Policy:
        try:
            policy = self._loaded()
            found = self._identity(policy)
            if found != self.identity:
                note = getattr(getattr(policy, "weights", None), "note", "")
                raise ModelError(
                    f"{self.model} is on record as {_short(self.identity)} and runs here as {_short(found)}"
                    f"{f' ({note})' if note else ''}: go on where it was begun, or use another --out"
                )
        except Exception as error:
            raise CannotLoad(error) from error
        return policy

    def _loaded(self) -> Policy:
        if self._policy is None:
            self._on_load(True)
            began = time.perf_counter()
            self._policy = self._load()
            self._before = self._policy.counters
            self.seconds = time.perf_counter() - began
            self._on_load(False)
        return self._policy

    def _identity(self, policy: Policy) -> str:
        if self._file is not None:
            return f"{self._file} {getattr(getattr(policy, 'weights', None), 'kind', 'file')}"
        if isinstance(own := getattr(policy, "identity", None), str):
            return own
        return policy.name if policy.name == self.model else f"{self.model} ({policy.name})"


def drawn_from(identity: str, context: int) -> str:
    """What draws are filed under: how long a path may grow decides which answers are cut."""
    return f"{identity} context {context}"


def run_of(store: Store, configuration: Mapping[str, Any]) -> RunInfo | None:
    """The run of this configuration; None if there is none."""
    return next((run for run in store.runs() if run.configuration == configuration), None)


def recorded(store: Store, configuration: Mapping[str, Any]) -> str | None:
    """What the run of this configuration was drawn from, else the latest run of its model; None if there is none.

    ConfigError if that run's was another one, ModelError as of `file_of`. A server that does not say which model it has
    now is taken to have the same; it is asked again before anything is drawn.
    """
    from flyweight import policies

    model = configuration["model"]
    file = file_of(model)
    now = policies.present(model) if file is None else f"{file} "
    found = None
    for run in store.runs():
        mine = run.configuration == configuration
        for name, identity in run.models.items():
            same = (file is not None or name == model) and identity.startswith(now or "")
            if mine and not same:
                was = f"run {run.id} was drawn from {_short(identity)}"
                what = f"file now ({file})" if file is not None else f"model now ({str(now).strip()})"
                raise ConfigError(f"{was}; {model} is another {what}: use another --out")
            found = identity if same else found
        if mine:
            break
    return found


def file_of(model: str) -> str | None:
    """ "sha256:" and the hash of the model's file; None for other policies. ModelError for a file that is not there."""
    from flyweight import models, policies

    if model == "toy" or policies.plugin(model) is not None:
        return None
    if (listed := models.catalog().get(model)) is not None:
        return f"sha256:{listed.sha256}"  # the model store holds no other file under that name
    return f"sha256:{models.digest(models.resolve(model))}"


def _find(model: str, context: int, weights: str) -> Callable[[], Policy]:
    return api.find_policy(model, context=context, weights=weights)


def _short(identity: str) -> str:
    match = IDENTITY.fullmatch(identity)
    return identity if match is None else f"{match[1][:15]}… {match[2]}"
