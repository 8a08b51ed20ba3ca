"""What Prometheus is told. Labels are words of ours alone: no key, no prompt and no name a client made up."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from flyweight.types import Usage

__all__ = ["TYPE", "Metrics"]

TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.responses = Counter(
            "flyweight_http_responses", "Responses sent.", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "flyweight_request_seconds",
            "From a request to the end of its response.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.outcomes = Counter(
            "flyweight_requests",
            "Requests rejected, coalesced or cancelled.",
            ["what"],
            registry=self._registry,
        )
        self.tokens = Counter("flyweight_tokens", "Tokens of all searches.", ["kind"], registry=self._registry)
        self.calls = Counter(
            "flyweight_calls", "Completions drawn and paths scored.", ["kind"], registry=self._registry
        )

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A figure read when it is asked for."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def spent(self, usage: Usage) -> None:
        """Add what a search has cost."""
        for kind in ("prompt", "cached", "generated", "verifier"):
            self.tokens.labels(kind).inc(getattr(usage, f"{kind}_tokens"))
        self.calls.labels("policy").inc(usage.policy_calls)
        self.calls.labels("verifier").inc(usage.verifier_calls)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
