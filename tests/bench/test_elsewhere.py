"""Runs whose model or verifier is behind a URL: filed under what answers, not under how it is reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import bench, policies
from flyweight.bench import Plan, Summary
from flyweight.errors import ConfigError, ModelError
from flyweight.policies.openai.policy import OpenAI
from flyweight.store import Store
from flyweight.wire import backoff
from tests.bench.kit import questions
from tests.fake_endpoint import Endpoint
from tests.test_remote_verifiers import pooling

TEMPLATES = [
    f"{{% for m in messages %}}[{{{{ m.role }}}}]{{{{ m.content }}}}{{% endfor %}}{end}[assistant]" for end in ("", " ")
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "BASE", 0.02)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "flyweight.db") as store:
        yield store


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with Endpoint(model="first-1B", routes={"/pooling": pooling}) as server:
        yield server


@pytest.fixture
def plan(tmp_path: Path, server: Endpoint) -> Plan:
    model = f"openai:{server.url}"
    return Plan("jsonl", "self_consistency", {"n": 2}, data=questions(tmp_path, 2), model=model, max_tokens=64)


def run(store: Store, plan: Plan) -> Summary:
    (summary,) = bench.execute(store, [plan])
    assert summary.tally.errors == 0
    return summary


def test_draws_are_filed_under_the_model_that_answers(store: Store, plan: Plan, server: Endpoint) -> None:
    assert run(store, plan).calls == 4
    assert [list(info.models.values()) for info in store.runs()] == [["openai:first-1B chat"]]
    with Endpoint(model="first-1B") as replica:
        others = (":in_flight=32", "#first-1B", f",{replica.url}:retries=9")
        assert [run(store, replace(plan, model=plan.model + other)).calls for other in others] == [0, 0, 0]
    assert len(server.drawn()) == 4


def test_another_model_at_the_same_address_draws_for_itself(store: Store, plan: Plan, server: Endpoint) -> None:
    wide = replace(plan, parameters={"n": 3})
    run(store, plan)
    server.model = "second-2B"
    with pytest.raises(
        ConfigError, match=r"drawn from openai:first-1B chat; .* another model now \(openai:second-2B\)"
    ):
        run(store, plan)
    assert run(store, wide).calls == 6, "nothing of the first one's is replayed"
    server.model = "first-1B"
    with pytest.raises(ConfigError, match="openai:second-2B chat"):
        run(store, wide)
    assert run(store, plan).calls == 0


def test_a_finished_run_needs_no_server_and_an_unfinished_one_says_what_is_missing(
    store: Store, plan: Plan, server: Endpoint
) -> None:
    named = replace(plan, model=f"{plan.model}#first-1B")
    run(store, plan), run(store, named)
    server.fault = lambda number, path, body: "503"
    calls = len(server.calls)
    assert run(store, named).calls == 0 and len(server.calls) == calls, "its name says it all"
    assert run(store, plan).calls == 0 and len(server.calls) == calls + 1


def test_a_template_that_changes_is_another_model(store: Store, plan: Plan, server: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    server.chat = False
    plan = replace(plan, model=f"{plan.model}:template={file}")
    file.write_text(TEMPLATES[0], "utf-8")
    run(store, plan)
    file.write_text(TEMPLATES[1], "utf-8")
    with pytest.raises(ModelError, match=r"completions template \w{8} and runs here as .* template \w{8}: go on where"):
        run(store, replace(plan, parameters={"n": 3}))
    (same := tmp_path / "same.jinja").write_text(TEMPLATES[0], "utf-8")
    assert run(store, replace(plan, model=f"openai:{server.url}:template={same}")).calls == 0


def test_what_a_model_is_at_present_is_told_without_loading_it(server: Endpoint, tmp_path: Path) -> None:
    assert policies.present(f"openai:{server.url}") == "openai:first-1B "
    assert policies.present(f"openai:http://127.0.0.1:9,{server.url}") == "openai:first-1B "
    assert policies.present(f"openai:{server.url}#second") == "openai:second "
    assert [policies.present(model) for model in ("openai:http://127.0.0.1:9", "toy", "vllm:none")] == [None] * 3
    policy = OpenAI(f"openai:{server.url}")
    policy.close()
    assert policy.identity.startswith("openai:first-1B ")


def test_scores_are_filed_under_the_model_that_answers(store: Store, plan: Plan, server: Endpoint) -> None:
    judge = f"remote:{server.url}:api=pooling:recipe=qwen2.5-math-prm"

    def scored(verifier: str) -> int:
        before = sum(call.path == "/pooling" for call in server.calls)
        run(store, replace(plan, model="toy", strategy="best_of_n", verifier=verifier))
        return sum(call.path == "/pooling" for call in server.calls) - before

    first = scored(judge)
    assert first > 2
    assert scored(f"{judge}:in_flight=2:batch=3") == scored(f"{judge}:model=first-1B") == 0
    server.model = "second-2B"
    assert scored(f"{judge}:retries=3") == first
