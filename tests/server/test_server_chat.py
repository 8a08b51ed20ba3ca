"""Chat completions and completions over HTTP: what clients send and what they get."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from flyweight.server.schema import SearchField
from flyweight.testing import Draft, ToyPolicy
from tests.server.kit import SUM, Running, events, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_models_are_the_model_and_every_strategy_on_it(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == "toy" and {"toy@best_of_n", "toy@beam_search", "auto"} <= set(names)
    assert client.models.retrieve("toy@best_of_n:n=4").id == "toy@best_of_n:n=4"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("toy@none_such")


def test_the_model_alone_answers_once(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model="toy", messages=SUM, seed=1)  # type: ignore[arg-type]
    [choice] = done.choices
    assert choice.finish_reason == "stop" and "boxed" in (choice.message.content or "")
    extra = (done.model_extra or {})["flyweight"]
    assert extra["strategy"] is None and extra["calls"] == 1
    assert done.usage is not None and done.usage.completion_tokens == len(choice.message.content or "") + 1


def test_usage_is_what_the_engine_counted() -> None:
    with running() as own:
        answers = [own.ask({"model": "toy@best_of_n:n=5"}).json(), own.ask({"n": 3}).json(), own.ask({}).json()]
        counters = own.policy.counters
    assert sum(a["usage"]["completion_tokens"] for a in answers) == counters.generated_tokens
    assert sum(a["usage"]["prompt_tokens"] for a in answers) == counters.prompt_tokens + counters.cached_tokens
    for answer in answers:
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        hidden = usage["completion_tokens_details"]["reasoning_tokens"]
        assert hidden == usage["completion_tokens"] - answer["flyweight"]["selected_tokens"]


def test_the_same_seed_draws_the_same_and_none_draws_anew(server: Running) -> None:
    question = {"messages": [{"role": "user", "content": "Add " + " and ".join(map(str, range(1, 40)))}]}

    def text(**more: object) -> str:
        return str(server.ask({**question, **more}).json()["choices"][0]["message"]["content"])

    assert text(seed=5) == text(seed=5) != text(seed=6)
    assert text() != text()


def test_a_stream_says_what_the_whole_does(server: Running) -> None:
    body = {"seed": 3, "n": 2, "logprobs": True}
    whole = server.ask(body).json()
    parts = events(server.ask({**body, "stream": True}))
    assert parts.pop() == "[DONE]"
    for choice in whole["choices"]:
        mine = [part["choices"][0] for part in parts if part["choices"][0]["index"] == choice["index"]]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(part["delta"].get("content", "") for part in mine) == choice["message"]["content"]
        told = [entry for part in mine if part["logprobs"] for entry in part["logprobs"]["content"]]
        assert told == choice["logprobs"]["content"]
        assert [part["finish_reason"] for part in mine if part["finish_reason"]] == ["stop"] and mine[-1]["delta"] == {}
    assert len(parts) > 40, "text comes token by token"
    assert all("usage" not in part for part in parts)


def test_the_likeliest_tokens_are_told_in_chats_and_completions(server: Running) -> None:
    body = {"logprobs": True, "top_logprobs": 2, "max_tokens": 4}
    for model in ("toy", "toy@self_consistency:n=2"):
        content = server.ask({**body, "model": model}).json()["choices"][0]["logprobs"]["content"]
        assert [len(entry["top_logprobs"]) for entry in content] == [2] * 4
        assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in content)
    old = server.ask({"logprobs": 2, "max_tokens": 4}, "/v1/completions").json()["choices"][0]["logprobs"]
    assert [len(each) for each in old["top_logprobs"]] == [2] * 4
    parts = events(server.ask({**body, "stream": True}))
    told = [entry for part in parts[:-1] for entry in (part["choices"][0]["logprobs"] or {}).get("content", ())]
    assert [len(entry["top_logprobs"]) for entry in told] == [2] * 4


@pytest.mark.parametrize("model", ["toy", "toy@best_of_n:n=4"])
def test_choices_that_do_not_end_in_time_swap_with_no_others(model: str) -> None:
    drafts = iter((*(Draft(letter * 100_000) for letter in "AB"), Draft("C"), Draft("D")))
    with running(ToyPolicy(lambda *_: next(drafts), delay=0.001)) as own:
        body = {"model": model, "n": 4, "stream": True, "max_tokens": 20_000, "flyweight": {"deadline": 0.6}}
        parts = events(own.ask(body))
    assert parts.pop() == "[DONE]" and "flyweight" in parts[-1]
    told: dict[int, str] = {}
    ended: dict[int, str] = {}
    for [choice] in (part["choices"] for part in parts):
        index = choice["index"]
        assert (index in told) is (choice["delta"].get("role") is None) and index not in ended, "first the role"
        told[index] = told.get(index, "") + choice["delta"].get("content", "")
        if choice["finish_reason"]:
            ended[index] = choice["finish_reason"]
    said = {index: "".join(sorted(set(text))) for index, text in told.items()}
    if model == "toy":
        assert said == {0: "A", 1: "B", 2: "C", 3: "D"}
        assert ended == {0: "length", 1: "length", 2: "stop", 3: "stop"}
    else:
        assert sorted(said.values()) == ["C", "D"] and ended == {0: "stop", 1: "stop"}


def test_usage_comes_last_in_a_stream_and_only_if_asked_for(server: Running) -> None:
    parts = events(server.ask({"stream": True, "stream_options": {"include_usage": True}}))
    assert parts[-1] == "[DONE]" and parts[-2]["choices"] == [] and parts[-2]["usage"]["completion_tokens"] > 0
    assert all(part["usage"] is None for part in parts[:-2])


def test_a_search_streams_its_progress_as_reasoning() -> None:
    with running(ToyPolicy(delay=0.02)) as own:
        parts = events(own.ask({"model": "toy@self_consistency:n=3", "stream": True}))
        silent = events(own.ask({"model": "toy@greedy", "stream": True, "flyweight": {"progress": False}}))
    thoughts = [part["choices"][0]["delta"].get("reasoning_content") for part in parts[:-1]]
    assert any(thought and "so far" in thought for thought in thoughts)
    assert all("reasoning_content" not in part["choices"][0]["delta"] for part in silent[:-1])
    assert parts[-2]["flyweight"]["votes"][0]["votes"] >= 1


def test_stop_strings_are_not_part_of_the_answer(server: Running) -> None:
    whole = server.ask({"stop": ["boxed", "nowhere"], "logprobs": True, "seed": 1}).json()["choices"][0]
    assert whole["message"]["content"].endswith("The answer is \\") and whole["finish_reason"] == "stop"
    assert "".join(entry["token"] for entry in whole["logprobs"]["content"]) == whole["message"]["content"]
    parts = events(server.ask({"stop": ["boxed", "nowhere"], "stream": True, "seed": 1}))
    said = "".join(part["choices"][0]["delta"].get("content", "") for part in parts[:-1])
    assert said == whole["message"]["content"]
    searched = server.ask({"model": "toy@best_of_n:n=4", "stop": "boxed"}).json()["choices"][0]
    assert "boxed" not in searched["message"]["content"]


def test_what_searches_by_steps_refuses_stop_strings() -> None:
    with running() as own:
        for word in ("beam_search", "mcts", "best_of_n:n=2:of=dvts(n=4:width=2)"):
            error = own.ask({"model": f"toy@{word}", "stop": "boxed"}).json()["error"]
            assert error["message"].endswith("step by step, which does not go with stop"), error
        assert own.policy.counters.generated_tokens == 0


@pytest.mark.parametrize("more", [{}, {"confidence": 0.99}], ids=str)
@pytest.mark.parametrize(
    "body", [{"stop": "nowhere"}, {"tools": [{"type": "function", "function": {"name": "f"}}]}], ids=str
)
def test_auto_draws_in_one_piece_what_has_to_be(body: dict[str, Any], more: dict[str, Any]) -> None:
    count = itertools.count()
    said = '<tool_call>{{"name": "f", "arguments": {{"x": {0}}}}}</tool_call>' if "tools" in body else "\\boxed{{{0}}}"
    with running(ToyPolicy(lambda *_: Draft(said.format(next(count))))) as own:  # no two agree: a hard question
        answer = own.ask({"model": "auto", "flyweight": {"n": 8, **more}, **body}).json()
    assert answer["flyweight"]["explained"]["chosen"].startswith("weighted_best_of_n:n=8"), answer
    assert answer["flyweight"]["calls"] == 8


@pytest.mark.parametrize(
    ("body", "published"),
    [
        ({}, False),
        ({"flyweight": {"kind": "choice"}}, True),
        ({"flyweight": {"kind": "code"}}, True),
        ({"stop": "\n"}, True),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, True),
    ],
    ids=str,
)
def test_auto_goes_by_a_calibration_only_where_answers_are_read_as_it_knows(
    server: Running, body: dict[str, Any], published: bool
) -> None:
    found = server.ask({"model": "auto", **body}).json()["flyweight"]["parameters"]
    assert found.get("calibration") == ("published" if published else None)


def test_a_stop_string_that_only_begins_is_shown_in_the_end() -> None:
    policy = ToyPolicy(lambda *_: Draft("one STO two ST"))
    with running(policy) as own:
        parts = events(own.ask({"stop": "STOP", "stream": True}))
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts[:-1]) == "one STO two ST"


def test_an_answer_cut_short_says_so(server: Running) -> None:
    for model in ("toy", "toy@self_consistency:n=3", "toy@beam_search"):
        choice = server.ask({"model": model, "max_tokens": 5}).json()["choices"][0]
        assert choice["finish_reason"] == "length", model
    assert (
        len(server.ask({"max_tokens": 3, "max_completion_tokens": 5}).json()["choices"][0]["message"]["content"]) == 5
    )


def test_choices_are_the_best_first(server: Running) -> None:
    answer = server.ask({"model": "toy@best_of_n:n=8", "n": 3}).json()
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    facts = answer["flyweight"]
    assert len(texts) == 3 and [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert facts["scores"][facts["selected_index"]] == max(facts["scores"])
    assert "12" in texts[0] and sum(vote["votes"] for vote in facts["votes"]) + facts["undecided"] == 8


@pytest.mark.parametrize("model", ["toy@greedy", "toy@best_of_n:n=2", "toy@self_refine"])
def test_more_choices_than_candidates_are_refused(server: Running, model: str) -> None:
    refused = server.ask({"model": model, "n": 3})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")


def test_a_conversation_reaches_the_model_as_it_is() -> None:
    heard: list[str] = []

    class Listening(ToyPolicy):
        def add(self, request):  # type: ignore[no-untyped-def]
            heard.append(" | ".join(f"{m.role}: {m.content}" for m in request.node.root.messages))
            super().add(request)

    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Very."},
        {"role": "user", "content": [{"type": "text", "text": "Add 1 "}, {"type": "text", "text": "and 2."}]},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "And 4?"},
    ]
    with running(Listening(), system="Box it.") as own:
        own.ask({"messages": turns})
        own.ask({"model": "toy@greedy", "messages": SUM})
        own.ask({"messages": SUM})
        own.ask({"prompt": "Once upon"}, "/v1/completions")
    assert heard[0] == "system: Be brief.\n\nVery. | user: Add 1 and 2. | assistant: 3 | user: And 4?"
    assert heard[1] == "system: Box it. | user: Add 3 and 4 and 5.", "what is searched for gets the system prompt"
    assert heard[2] == "user: Add 3 and 4 and 5.", "the model alone is asked as it is"
    assert heard[3] == "text: Once upon"


def test_completions_of_several_prompts_keep_their_order(client: openai.OpenAI) -> None:
    done = client.completions.create(
        model="toy", prompt=["Add 1 and 2.", "Add 5 and 6."], n=2, max_tokens=60, logprobs=1, temperature=0
    )
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    assert ["1 + 2" in choice.text for choice in done.choices] == [True, True, False, False]
    logprobs = done.choices[2].logprobs
    assert logprobs is not None and "".join(logprobs.tokens or []) == done.choices[2].text
    assert logprobs.text_offset == list(range(len(done.choices[2].text)))
    stream = client.completions.create(model="toy", prompt="Add 1 and 2.", max_tokens=60, stream=True, temperature=0)
    assert "".join(part.choices[0].text for part in stream) == done.choices[0].text
    assert len(client.completions.create(model="toy", prompt="Add 1 and 2.").choices[0].text) == 16


def test_what_changes_nothing_is_said_to_be_ignored(server: Running) -> None:
    body = {"store": True, "reasoning_effort": "low", "api_base": "http://127.0.0.1:9", "metadata": {"a": "b"}}
    assert server.ask(body).json()["flyweight"]["ignored"] == ["api_base", "reasoning_effort", "store"]
    cold = server.ask({"model": "toy@best_of_n:n=2", "temperature": 0}).json()["flyweight"]
    assert cold["ignored"] == ["temperature"] and cold["parameters"]["temperature"] == 0.7
    warm = server.ask({"model": "toy@best_of_n:n=2", "temperature": 1.1}).json()["flyweight"]
    assert warm["ignored"] == [] and warm["parameters"]["temperature"] == 1.1


@pytest.mark.parametrize("field", ["presence_penalty", "frequency_penalty"])
def test_what_cannot_be_done_is_refused_rather_than_dropped(server: Running, field: str) -> None:
    assert server.ask({field: 0}).status_code == 200
    assert server.ask({field: 0.5}).json()["error"]["param"] == field


def test_the_field_flyweight_lists_what_it_knows(server: Running) -> None:
    message = server.ask({"flyweight": {"strategy": "best_of_n", "speed": 9}}).json()["error"]["message"]
    assert all(name in message for name in ("speed", *SearchField.model_fields, "aggregation"))


def test_budget_deadline_and_confidence_hold(server: Running) -> None:
    spent = server.ask({"model": "toy@self_consistency:n=16", "flyweight": {"budget": 200}}).json()
    assert spent["usage"]["completion_tokens"] <= 200 and spent["flyweight"]["stopped"] == "budget"
    sure = server.ask({"model": "toy@self_consistency:n=64", "flyweight": {"confidence": 0.6}}).json()["flyweight"]
    assert sure["stopped"] == "confident" and sure["confidence"] >= 0.6
    nothing = server.ask({"model": "toy@best_of_n", "flyweight": {"budget": 1}}).json()
    assert nothing["choices"][0]["finish_reason"] == "length"


def test_a_deadline_without_an_answer_is_a_timeout_not_to_be_repeated() -> None:
    with running(ToyPolicy(delay=0.02)) as own:
        late = own.ask({"flyweight": {"deadline": 0.05}})
    assert late.status_code == 504 and late.headers["x-should-retry"] == "false"
    assert late.json()["error"]["code"] == "deadline"


def test_openai_clients_raise_what_they_should(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client.chat.completions.create(model="other", messages=SUM)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="toy", messages=SUM, n=10**9)  # type: ignore[arg-type]
    assert refused.value.param == "n"


async def _asked(url: str) -> tuple[str, str]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as own:
        whole = await own.chat.completions.create(model="toy@greedy", messages=SUM)  # type: ignore[arg-type]
        create: Any = own.chat.completions.create
        stream = await create(model="toy@greedy", messages=SUM, stream=True)
        said = [part.choices[0].delta.content or "" async for part in stream]
        return str(whole.choices[0].message.content), "".join(said)


def test_the_async_client_hears_the_same(server: Running) -> None:
    whole, streamed = asyncio.run(_asked(server.url))
    assert whole == streamed != ""


def test_a_run_can_be_watched(server: Running) -> None:
    answer = server.ask({"model": "toy@beam_search"})
    id = answer.headers["x-flyweight-run-id"]
    assert answer.json()["flyweight"]["run_id"] == id
    [listed] = [run for run in server.get("/runs").json()["data"] if run["id"] == id]
    assert (listed["state"], listed["strategy"]) == ("ended", "beam_search")
    seen = events(server.get(listed["events"]))
    assert seen.pop() == "[DONE]"
    kinds = [event["kind"] for event in seen]
    assert kinds[0] == "start" and kinds[-1] == "end" and {"node", "score"} <= set(kinds)
    assert seen[-1]["result"]["answer"] == answer.json()["flyweight"]["answer"]
    assert server.get("/runs/none/events").status_code == 404


def test_what_breaks_is_told_without_its_insides() -> None:
    def broken(question: str, so_far: str, rng: object, sampling: object) -> Draft:
        raise RuntimeError("the file /some/where/secret.gguf is gone")

    with running(ToyPolicy(broken)) as own:
        answers = [own.ask({}), own.ask({"stream": True})]
        fine = own.get("/health")
    assert answers[0].status_code == 500
    began = answers[1].status_code == 200  # whether a stream has begun by then is a race
    assert began or answers[1].status_code == 500
    for error in (answers[0].json(), events(answers[1])[-1] if began else answers[1].json()):
        assert error["error"]["type"] == "server_error"
        assert "secret" not in str(error) and "Traceback" not in str(error)
    assert fine.json() == {"status": "ok"} and any("secret.gguf" in line for line in own.log)


def test_json_of_the_interface_names_every_route(server: Running) -> None:
    document = server.get("/openapi.json").json()
    assert set(document["paths"]) >= {"/v1/models", "/v1/chat/completions", "/v1/completions", "/health", "/metrics"}
    text = json.dumps(document)
    assert all(f'"{name}"' in text for name in ("flyweight", "response_format", "logprobs", "tools"))
