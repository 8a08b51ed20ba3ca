"""The verifiers by name: one file per family, one line each in the table below.

Each is a class whose keyword parameters are its settings; summary and source are read from its docstring. Settings
stand behind the name as in `length:least=20`; `all` and `weighted` are made of other verifiers, `prm` and `reward` of a
recipe and a model, as in `prm:math-shepherd@FOLDER`, `remote` of a URL. Third parties register theirs under the entry
point group `flyweight.verifiers`; without any packaging, "module:function" names a Python callable (see
`flyweight.verifiers.function`).
"""

from __future__ import annotations

from typing import cast

from flyweight.protocols import Verifier
from flyweight.registry import Description, Registry
from flyweight.verifiers import spec

__all__ = ["describe", "load", "names"]

_REGISTRY = Registry(
    "verifier",
    "flyweight.verifiers",
    {
        "self": "flyweight.verifiers.self_verifier:SelfVerifier",
        "probe": "flyweight.verifiers.probe:Probe",
        "lora": "flyweight.verifiers.lora:Lora",
        "confidence": "flyweight.verifiers.confidence:Confidence",
        "confidence-window": "flyweight.verifiers.confidence:ConfidenceWindow",
        "self-certainty": "flyweight.verifiers.confidence:SelfCertainty",
        "p_true": "flyweight.verifiers.p_true:PTrue",
        "arithmetic": "flyweight.verifiers.arithmetic:Arithmetic",
        "form": "flyweight.verifiers.rules:Form",
        "units": "flyweight.verifiers.units:Units",
        "regex": "flyweight.verifiers.rules:Regex",
        "schema": "flyweight.verifiers.schema:Schema",
        "length": "flyweight.verifiers.rules:Length",
        "repetition": "flyweight.verifiers.rules:Repetition",
        "instructions": "flyweight.verifiers.instructions:Instructions",
        "prm": "flyweight.verifiers.prm:Prm",
        "reward": "flyweight.verifiers.reward:Reward",
        "remote": "flyweight.verifiers.remote:Remote",
        "judge": "flyweight.verifiers.judge:Judge",
        "critique": "flyweight.verifiers.judge:Critique",
        "all": "flyweight.verifiers.compose:All",
        "weighted": "flyweight.verifiers.compose:Weighted",
        "tests": "flyweight.verifiers.execution:Tests",
        "written-tests": "flyweight.verifiers.written:WrittenTests",
        "oracle": "flyweight.verifiers.oracle:Oracle",
    },
)


_COMPOSED = ("all", "weighted")
_TRAINED = ("prm", "reward")


def names() -> list[str]:
    """Every registered verifier: ours in the order of the table, then third parties' by name."""
    return _REGISTRY.names()


def load(name: str, **settings: object) -> Verifier:
    """The verifier of that name, with settings behind it as on a command line, or the callable "module:function".

    `load("length", least=20)` and `load("length:least=20")` are the same, `load("all:form:arithmetic")` combines.
    Raises ConfigError for an unknown name (with the closest match), an unknown setting, or a value it refuses.
    """
    known, colon, rest = name.partition(":")
    if known in _COMPOSED and colon:
        from flyweight.verifiers import compose

        return cast(Verifier, _REGISTRY.make(known, {**compose.parse(known, rest), **settings}))
    if known in _TRAINED and colon:
        made_of, *given = spec.SETTING.split(rest, maxsplit=1)
        recipe, _, model = made_of.partition("@")
        behind = spec.settings(given[0]) if given else {}
        settings = {"recipe": recipe, "model": model, **behind, **settings}
    elif known == "remote" and colon:
        url, *given = spec.SETTING.split(rest, maxsplit=1)
        settings = {"url": url, **(spec.settings(given[0]) if given else {}), **settings}
    elif colon and ("=" not in rest or known not in _REGISTRY.names()):
        from flyweight.verifiers.function import load_function

        return load_function(name, settings)
    elif colon:
        settings = {**spec.settings(rest), **settings}
    return cast(Verifier, _REGISTRY.make(known, spec.convert(f"verifier {known}", _REGISTRY.factory(known), settings)))


def describe() -> list[Description]:
    """Name, summary and source of every registered verifier, then a row for any Python callable."""
    anything = Description("module:function", "Any Python callable f(question, solution) -> number in [0, 1].", "")
    return [*_REGISTRY.describe(), anything]
