"""A request of the runner over all its tries."""

from __future__ import annotations

from flyweight.policies.openai.reply import Reply
from flyweight.policies.openai.usage import Cost
from flyweight.protocols import Request, Response
from flyweight.types import Finish

__all__ = ["Row"]


class Row:
    """A request under way. Written by the background thread; the policy's own only reads it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.reply: Reply | None = None
        """What the current try has brought."""
        self.cost = Cost()
        """Of the tries before."""
        self.running: Cost | None = None
        """Of the current try, as far as it is known."""
        self.settled = False
        """Whether that is the server's count of all of it: then what was seen here does not matter."""
        self.dropped = False
        """Whether the runner has called it off."""
        self.began = 0.0
        self.ended = 0.0

    def spent(self) -> Cost:
        """All it has cost so far."""
        running = self.running or Cost()
        if self.reply is not None and not self.settled:
            running = running._replace(generated=max(running.generated, self.reply.counted))
        total = self.cost.plus(running)
        # A reading draws nothing of its own: the token that a server must draw to tell counts as part of the prompt.
        return total if not self.request.choices else Cost(total.prompt + total.generated, total.cached, 0)

    def again(self) -> None:
        """A try has failed: what it cost is kept, what it said is not."""
        self.cost = self.spent() if not self.request.choices else self.cost.plus(self.running or Cost())
        self.reply, self.running, self.settled = None, None, False

    def response(
        self, finish: Finish | None = None, *, choices: tuple[float, ...] = (), error: str | None = None
    ) -> Response:
        """What goes back to the runner; `finish` overrules the reply's own. With an error, only the cost."""
        prompt, cached, generated = self.spent()
        seconds = max(0.0, self.ended - self.began) if self.began else 0.0
        reply = self.reply
        if error is not None or choices or reply is None:
            return Response(
                self.request.id,
                finish=finish or Finish.STOP,
                choices=choices,
                prompt_tokens=prompt,
                cached_tokens=cached,
                generated_tokens=generated,
                seconds=seconds,
                error=error,
            )
        logprobs, certainty = reply.numbers()
        return Response(
            self.request.id,
            text=reply.text,
            tokens=tuple(reply.tokens),
            logprobs=logprobs,
            certainty=certainty,
            finish=finish or reply.finish or Finish.CUT,
            prompt_tokens=prompt,
            cached_tokens=cached,
            generated_tokens=generated,
            seconds=seconds,
        )
