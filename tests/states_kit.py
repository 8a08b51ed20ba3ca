"""What a verifier that reads hidden states is given, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flyweight.policies.llamacpp import LlamaCpp
from flyweight.protocols import Hidden
from flyweight.types import Node
from tests.engine_kit import draw, run


class Held:
    """The states nodes carry, those of prompts read by the engine; counts what the verifier says it computed."""

    def __init__(self, engine: LlamaCpp, sha256: str) -> None:
        self.engine = engine
        self.sha256 = sha256
        self.tokens = 0
        self._prompts: dict[int, Any] = {}

    def weights(self, policy: str | None = None) -> str:
        return self.sha256

    def spent(self, tokens: int) -> None:
        self.tokens += tokens

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        return [Hidden(self.path(node) if node.parent is not None else self.prompt(node)) for node in nodes]

    def path(self, node: Node) -> Any:
        return np.concatenate([step.hidden for step in node.steps])

    def prompt(self, root: Node) -> Any:
        if id(root) not in self._prompts:
            [found] = run(self.engine, [draw(10_000 + len(self._prompts), root, reread=True)])
            self._prompts[id(root)] = found.hidden
        return self._prompts[id(root)]
