"""The default model behind the server, asked by openai-python as in the README."""

from __future__ import annotations

import openai
import pytest

from flyweight import api, models
from tests.server.kit import events, running


@pytest.mark.model
def test_the_default_model_answers_openais_client() -> None:
    models.resolve(api.DEFAULT_MODEL)
    policy = api.find_policy(api.DEFAULT_MODEL, context=1024, slots=8)()
    turns = [{"role": "user", "content": "What is 2 + 3? Answer with the number alone."}]
    with running(policy, verifiers=("self",)) as own:
        client = openai.OpenAI(base_url=f"{own.url}/v1", api_key="none")
        done = client.chat.completions.create(
            model=f"{policy.name}@best_of_n:n=4",
            messages=turns,  # type: ignore[arg-type]
            max_tokens=40,
            seed=1,
        )
        assert "5" in (done.choices[0].message.content or "")
        facts = (done.model_extra or {})["flyweight"]
        assert len(facts["scores"]) == 4 and done.usage is not None and done.usage.completion_tokens >= 4
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
        number = own.ask({"model": policy.name, "messages": turns, "response_format": form, "temperature": 0}).json()
        assert number["choices"][0]["message"]["content"] == "5"
        parts = events(own.ask({"model": policy.name, "messages": turns, "stream": True, "max_tokens": 20}))
        assert parts[-1] == "[DONE]" and len(parts) >= 3
        client.close()
    policy.close()
