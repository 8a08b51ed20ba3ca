"""The policy over the wire against a scripted server: the contract, capabilities, costs, cancelling, determinism."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import api, strategies
from flyweight.cli import doctor
from flyweight.cli.doctor_endpoint import findings
from flyweight.errors import BackendError, ConfigError
from flyweight.policies.openai.policy import OpenAI
from flyweight.policies.openai.probe import size
from flyweight.protocols import Growth, Request, Response
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, ToyPolicy, check_policy
from flyweight.types import Budget, Finish, Message, Node, Problem, Result, Sampling, ToolMessage
from flyweight.verifiers.arithmetic import Arithmetic
from flyweight.verifiers.remote import Remote
from flyweight.wire import backoff
from tests.fake_endpoint import Endpoint, Json

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
LOCAL = ("_python", "_packages", "_engine", "_kernels", "_cpu", "_compiler", "_memory", "_store", "_worker", "_sandbox")
"""What doctor looks at on this machine."""
ROOT = Node(messages=(Message("user", "Add 3 and 4 and 5."),), key="root")
_ids = iter(range(1, 10**9))


def request(
    node: Node = ROOT, seed: int = 1, choices: tuple[str, ...] = (), until: object = None, **sampling: object
) -> Request:
    drawn = Sampling(**{"temperature": 1.0, "max_tokens": 64, **sampling})  # type: ignore[arg-type]
    return Request(next(_ids), node, drawn, seed, choices=choices, until=until)  # type: ignore[arg-type]


def serve(policy: OpenAI, *requests: Request) -> list[Response]:
    """The responses in the order asked."""
    for each in requests:
        policy.add(each)
    came: dict[int, Response] = {}
    deadline = time.monotonic() + 30
    while len(came) < len(requests):
        assert time.monotonic() < deadline
        came |= {response.id: response for response in policy.step()}
    return [came[each.id] for each in requests]


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with Endpoint() as made:
        yield made


@pytest.fixture
def policy(server: Endpoint) -> Iterator[OpenAI]:
    made = OpenAI(f"openai:{server.url}")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "BASE", 0.02)


# What endpoints can do -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "able",
    [
        {},
        {"kind": "elsewhere"},
        {"trims": True},
        {"trims": True, "template": TEMPLATE},
        {"continues": False, "template": TEMPLATE},
        {"chat": False},
        {"strict": True},
    ],
    ids=["vllm", "no stop_reason", "trims", "trims, template", "template", "completions", "strict"],
)
def test_every_kind_of_endpoint_keeps_the_contract(able: dict[str, object]) -> None:
    with Endpoint(**able) as server:  # type: ignore[arg-type]
        policy = OpenAI(f"openai:{server.url}")
        try:
            check_policy(policy)
        finally:
            policy.close()


@pytest.mark.parametrize(
    ("able", "found"),
    [
        ({}, {"api": "chat", "n": True, "continues": True, "seed": True, "logprobs": True, "tells_stop": True}),
        ({"n": False}, {"n": False}),
        ({"seeds": False}, {"seed": False}),
        ({"logprobs": False}, {"logprobs": False, "n": True, "seed": True}),
        ({"continues": False}, {"continues": False, "api": "chat"}),
        ({"continues": False, "template": TEMPLATE}, {"continues": True, "api": "completions"}),
        ({"trims": True}, {"continues": True, "trims": True}),
        ({"trims": True, "template": TEMPLATE}, {"trims": False, "api": "completions"}),
        ({"chat": False}, {"api": "completions", "continues": True, "seed": True}),
        ({"kind": "other", "strict": True}, {"extras": False, "tells_stop": False, "logprobs": True, "n": True}),
        ({"model": "org/Some-1.5B-Instruct"}, {"params": 1_500_000_000, "model": "org/Some-1.5B-Instruct"}),
    ],
)
def test_probing_finds_what_an_endpoint_can_do(able: dict[str, object], found: dict[str, object]) -> None:
    with Endpoint(**able) as server:  # type: ignore[arg-type]
        policy = OpenAI(f"openai:{server.url}")
        policy.close()
        assert {name: getattr(policy.abilities, name) for name in found} == found
        assert len(server.calls) <= 12, "about eight short requests"


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("Qwen2.5-0.5B", 5e8),
        ("SmolLM2-135M-x", 1.35e8),
        ("Mixtral-8x7B", 5.6e10),
        ("gpt-4o", 0),
        ("qwen:7b-q4", 7e9),
        ("9" * 400 + "b", 0),
    ],
)
def test_parameters_are_read_off_a_name(name: str, params: float) -> None:
    assert size(name) == params


@pytest.mark.parametrize("refuses", [("seed",), ("top_p", "stream_options"), ("seed", "top_p", "temperature")])
@pytest.mark.parametrize("vague", [False, True])
def test_what_a_server_refuses_is_not_sent(refuses: tuple[str, ...], vague: bool) -> None:
    with Endpoint(refuses=refuses, vague=vague) as server:
        policy = OpenAI(f"openai:{server.url}")
        [response] = serve(policy, request())
        assert response.error is None and response.text and response.generated_tokens > 0
        [call] = server.drawn()
        assert not call.body.keys() & set(refuses)
        assert set(refuses) <= policy.abilities.refused and (vague or policy.abilities.refused == set(refuses))
        assert not policy.abilities.seed or "seed" not in refuses
        [warm] = serve(policy, request(temperature=0.5))
        [cut] = serve(policy, request(top_p=0.5))
        policy.close()
    assert ("takes no temperature" in str(warm.error)) is ("temperature" in policy.abilities.refused)
    assert ("takes no top_p" in str(cut.error)) is ("top_p" in policy.abilities.refused)


@pytest.mark.parametrize("fault", ["429 0.01", "500", "503"])
@pytest.mark.parametrize("path", ["/props", "/v1/completions"])
def test_a_passing_fault_is_no_finding(fault: str, path: str) -> None:
    seen: list[str] = []

    def once(number: int, at: str, body: Json) -> str | None:
        seen.append(at)
        return fault if at == path and seen.count(path) == 1 else None

    with Endpoint(continues=False, template=TEMPLATE, fault=once) as server:
        policy = OpenAI(f"openai:{server.url}")
        policy.close()
        assert policy.abilities.api == "completions" and policy.abilities.continues


@pytest.mark.parametrize(("times", "continues"), [(1, True), (10**6, False)])
def test_a_server_that_breaks_at_a_path_is_asked_again_before_it_is_believed(times: int, continues: bool) -> None:
    broken: list[str] = []

    def fault(number: int, path: str, body: Json) -> str | None:
        if not body.get("continue_final_message"):
            return None
        broken.append(path)
        return "500" if len(broken) <= times else None

    with Endpoint(fault=fault) as server:
        policy = OpenAI(f"openai:{server.url}")
        policy.close()
        assert policy.abilities.continues is continues


def test_an_endpoint_that_cannot_continue_refuses_steps_in_one_line_before_anything_is_drawn() -> None:
    with Endpoint(continues=False) as server:
        result = api.solve("Add 3 and 4 and 5.", model=f"openai:{server.url}", strategy="beam_search", n=4)
        assert result.error is not None and "cannot continue" in result.error and "\n" not in result.error
        assert result.usage.generated_tokens == 0 and not server.drawn()
        whole = api.solve("Add 3 and 4 and 5.", model=f"openai:{server.url}", strategy="self_consistency", n=4)
        assert whole.answer is not None


@pytest.mark.parametrize("continues", ["chat", "no"])
def test_how_a_path_is_continued_can_be_said(continues: str, server: Endpoint) -> None:
    policy = OpenAI(f"openai:{server.url}:continues={continues}")
    policy.close()
    assert policy.abilities.continues is (continues == "chat")


def test_a_template_file_makes_up_for_a_chat_that_cannot_continue(tmp_path: Path) -> None:
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    with Endpoint(continues=False) as server:
        policy = OpenAI(f"openai:{server.url}:template={tmp_path / 'template.jinja'}")
        [step] = serve(policy, request(stop=("\n\n",)))
        node = Node(ROOT, step.text, step.tokens, finish=step.finish, key="step", policy=policy.name)
        [rest] = serve(policy, request(node))
        policy.close()
        assert server.drawn()[-1].body["prompt"] == "[user]Add 3 and 4 and 5.[assistant]" + step.text
        assert step.text.startswith("3 + 4 = ") and " + 5 = " in rest.text


# Drawing -------------------------------------------------------------------------------------------------------


def test_steps_end_with_their_boundary_and_go_on_where_they_ended(policy: OpenAI) -> None:
    [step] = serve(policy, request(stop=("\n\n",)))
    assert step.text.startswith("3 + 4 = ") and step.text.endswith("\n\n") and step.finish is Finish.STOP
    node = Node(ROOT, step.text, step.tokens, finish=step.finish, key="step", policy=policy.name)
    [rest] = serve(policy, request(node))
    assert rest.text.startswith(f"{step.text.split()[4]} + 5 = ") and rest.finish is Finish.END
    assert rest.cached_tokens > 0, "the server's own count of what it had"


def test_the_same_text_whether_stop_strings_are_left_to_the_server_or_cut_here() -> None:
    said = []
    for kind in ("vllm", "llamacpp"):
        with Endpoint(kind=kind) as server:
            policy = OpenAI(f"openai:{server.url}")
            said.append([(r.text, r.finish) for r in serve(policy, *(request(seed=s, stop=("= ",)) for s in range(8)))])
            policy.close()
            assert ("stop" in server.drawn()[0].body) is (kind == "vllm")
    assert said[0] == said[1]


def test_costs_are_the_servers_own_counts(policy: OpenAI, server: Endpoint) -> None:
    responses = serve(policy, *(request(seed=seed) for seed in range(12)))
    calls = server.drawn()
    assert sum(r.generated_tokens for r in responses) == sum(call.generated_tokens for call in calls)
    assert sum(r.prompt_tokens for r in responses) == sum(call.prompt_tokens - call.cached_tokens for call in calls)
    assert sum(r.cached_tokens for r in responses) == sum(call.cached_tokens for call in calls) > 0


def test_max_tokens_cuts_and_is_never_exceeded(policy: OpenAI) -> None:
    [short] = serve(policy, request(max_tokens=3))
    assert short.finish is Finish.LENGTH and short.generated_tokens == len(short.tokens) == 3


def test_until_cuts_at_the_very_token_and_drops_the_rest_at_the_server() -> None:
    seen: list[Growth] = []

    def enough(growth: Growth) -> bool:
        seen.append(Growth(growth.text, list(growth.tokens), list(growth.logprobs), list(growth.certainty)))
        return len(growth.tokens) == 4

    with Endpoint(pace=0.05) as server:
        policy = OpenAI(f"openai:{server.url}")
        [cut] = serve(policy, request(until=enough))
        assert cut.finish is Finish.CUT and len(cut.tokens) == 4 == cut.generated_tokens
        assert [len(growth.logprobs) for growth in seen] == [1, 2, 3, 4]
        assert all(len(growth.certainty) == len(growth.tokens) for growth in seen)
        server.quiet()
        assert server.drawn()[0].dropped
        policy.close()


def test_an_until_that_raises_fails_its_request_alone(policy: OpenAI) -> None:
    def broken(growth: Growth) -> bool:
        raise ZeroDivisionError("oops")

    bad, good = serve(policy, request(until=broken), request())
    assert bad.error == "ZeroDivisionError: oops" and good.error is None


def test_cancelling_closes_the_connection_and_charges_what_was_seen() -> None:
    with Endpoint(pace=0.02) as server:
        policy = OpenAI(f"openai:{server.url}")
        asked = [request(seed=seed, max_tokens=1000) for seed in range(6)]
        for each in asked:
            policy.add(each)
        while not all(call.generated_tokens >= 2 for call in server.drawn()) or len(server.drawn()) < 6:
            assert not policy.step(), "paced so that none is done yet"
        cut = [policy.cancel(each.id) for each in asked]
        assert all(response.finish is Finish.CUT and response.generated_tokens >= 1 for response in cut)
        assert all(response.prompt_tokens + response.cached_tokens > 0 for response in cut)
        server.quiet()
        assert all(call.dropped for call in server.drawn())
        assert policy.counters.generated_tokens == sum(response.generated_tokens for response in cut)
        with pytest.raises(BackendError, match="not in flight"):
            policy.cancel(asked[0].id)
        policy.close()


def test_a_full_context_cuts_max_tokens_then_paths_but_refuses_prompts() -> None:
    with Endpoint(context=40) as server:
        policy = OpenAI(f"openai:{server.url}")
        [fits] = serve(policy, request(max_tokens=500))
        assert fits.error is None and fits.finish is Finish.END
        long = Node(ROOT, "so " * 60, None, finish=Finish.FORCED, key="long")
        [full] = serve(policy, request(long))
        assert full.finish is Finish.LENGTH and full.text == "" and full.error is None
        prompt = Node(messages=(Message("user", "why " * 60),), key="prompt")
        [refused] = serve(policy, request(prompt))
        assert refused.error is not None and "context length" in refused.error
        policy.close()


def test_requests_nobody_can_serve_come_back_with_an_error(policy: OpenAI) -> None:
    wrong = [
        request(temperature=math.nan),
        request(top_p=0.0),
        request(max_tokens=0),
        request(stop=("",)),
        request(choices=("",)),
        Request(next(_ids), ROOT, Sampling(), 0, reread=True),
        request(grammar='root ::= "a"'),
    ]
    responses = serve(policy, *wrong)
    assert [bool(r.error) for r in responses] == [True] * 6 + [False], "the last is for vLLM, which takes a grammar"


def test_lone_surrogates_are_replaced_before_they_are_sent(policy: OpenAI, server: Endpoint) -> None:
    node = Node(messages=(Message("user", "Add 3 and \ud800 4."),), key="odd")
    [response] = serve(policy, request(node))
    assert response.error is None and "\ufffd" in server.drawn()[0].body["messages"][0]["content"]


# Reading -------------------------------------------------------------------------------------------------------


def test_reading_gives_the_probability_of_each_choice(policy: OpenAI, server: Endpoint) -> None:
    [read] = serve(policy, request(choices=("3", "no", "never")))
    assert read.choices[0] == pytest.approx(-0.3, abs=0.2) and read.choices[1:] == (-3.0, -math.inf)
    assert read.generated_tokens == 0 and read.prompt_tokens > 0
    assert server.drawn()[0].body["max_tokens"] == 1


@pytest.mark.parametrize("able", [{"continues": False}, {"continues": False, "logprobs": False}])
def test_a_judge_needs_no_more_than_a_chat(able: dict[str, object]) -> None:
    with Endpoint(**able) as server:  # type: ignore[arg-type]
        policy = OpenAI(f"openai:{server.url}")
        lead = Node(ROOT, "Grade:\n", None, finish=Finish.FORCED, key="lead")
        [read] = serve(policy, request(lead, choices=("3", "5")))
        assert read.error is None and read.choices[0] > read.choices[1]
        assert [message["role"] for message in server.drawn()[0].body["messages"]] == ["user"]
        policy.close()


def test_one_endpoint_judges_what_another_writes(server: Endpoint) -> None:
    def graded(body: dict[str, object]) -> object:
        return {"choices": [{"index": 0, "message": {"content": "5"}, "finish_reason": "stop"}]}

    with Endpoint(routes={"/v1/chat/completions": graded}, model="judge-70B") as judge:
        spec = f"judge:policy=openai:{judge.url}"
        answered = api.solve("Add 3 and 4.", model=f"openai:{server.url}", strategy="best_of_n", n=3, verifier=spec)
        assert answered.error is None and answered.best is not None and answered.best.score is not None
        assert answered.best.score.value == 1.0
        assert answered.usage.flops > 2 * 70e9 * answered.usage.verifier_tokens > 0


# Many at once --------------------------------------------------------------------------------------------------


def run(
    model: str, concurrency: int, problems: Sequence[Problem], name: str, budget: Budget | None
) -> dict[str, Result]:
    policy = OpenAI(f"{model}:in_flight={concurrency}")
    runner = Runner(policy, {"arithmetic": Arithmetic()}, answers=BoxedAnswers(), seed=3)
    found = {}
    for result in runner.run(problems, strategies.bind(name, {"n": 4}), budget, in_flight=concurrency):
        found[result.problem.id] = result
    counters = policy.counters
    runner.close()
    usage = [result.usage for result in found.values()]
    assert sum(u.generated_tokens for u in usage) == counters.generated_tokens
    assert sum(u.prompt_tokens for u in usage) == counters.prompt_tokens
    assert sum(u.cached_tokens for u in usage) == counters.cached_tokens
    return found


@pytest.mark.parametrize("budget", [None, Budget(tokens=90)], ids=["free", "budget"])
@pytest.mark.parametrize("name", ["self_consistency", "beam_search"])
def test_the_same_answers_at_any_concurrency_with_random_delays(name: str, budget: Budget | None) -> None:
    problems = [Problem(f"p{i}", f"Add {i} and {i + 2} and {3 * i}.") for i in range(3)]
    told = []
    for concurrency in (1, 4, 16):
        delays = random.Random(concurrency)
        with Endpoint(delay=lambda delays=delays: delays.random() * 0.004) as server:  # type: ignore[misc]
            found = run(f"openai:{server.url}", concurrency, problems, name, budget)
            assert server.peak <= max(concurrency, 4), "probing asks four things at once"
        told.append({id: (r.text, r.answer, r.usage.generated_tokens, len(r.candidates)) for id, r in found.items()})
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("name", ["greedy", "self_consistency", "best_of_n", "beam_search", "dvts"])
def test_a_scripted_model_gives_the_same_in_this_process_and_behind_a_server(name: str) -> None:
    class Here(ToyPolicy):
        def add(self, request: Request) -> None:
            super().add(replace(request, seed=request.seed & 0x7FFFFFFF))  # what of a seed is sent

    def told(results: Iterable[Result]) -> dict[str, object]:
        return {
            r.problem.id: (r.text, r.answer, r.stopped, [(c.node.solution, c.node.score) for c in r.candidates])
            for r in results
        }

    problems = [Problem(f"p{i}", f"Add {i} and {i + 2} and {3 * i}.") for i in range(3)]
    bound = strategies.bind(name, {} if name == "greedy" else {"n": 4})
    both = []
    with Endpoint() as server:
        for policy in (Here(), OpenAI(f"openai:{server.url}")):
            runner = Runner(policy, {"arithmetic": Arithmetic()}, answers=BoxedAnswers(), seed=3)
            both.append(told(runner.run(problems, bound)))
            runner.close()
    assert both[0] == both[1]


def test_no_more_than_in_flight_at_an_endpoint() -> None:
    with Endpoint(delay=lambda: 0.01) as server:
        policy = OpenAI(f"openai:{server.url}:in_flight=5")
        server.peak = 0
        serve(policy, *(request(seed=seed) for seed in range(40)))
        policy.close()
        assert server.peak == 5


def test_several_endpoints_share_the_work_and_a_dead_one_costs_nothing_but_tries() -> None:
    with Endpoint(delay=lambda: 0.01) as one, Endpoint(delay=lambda: 0.01) as two:
        policy = OpenAI(f"openai:{one.url},{two.url}#fake-0.5B:in_flight=4")
        serve(policy, *(request(seed=seed) for seed in range(40)))
        counts = len(one.drawn()), len(two.drawn())
        assert sum(counts) == 40 and min(counts) >= 10
        policy.close()
        dead = "http://127.0.0.1:9"
        policy = OpenAI(f"openai:{dead},{one.url}:retries=9")
        assert all(response.error is None for response in serve(policy, *(request(seed=seed) for seed in range(6))))
        policy.close()


def test_a_path_goes_where_its_problem_went_before() -> None:
    with Endpoint() as one, Endpoint() as two:
        policy = OpenAI(f"openai:{one.url},{two.url}")
        for seed in range(6):
            serve(policy, request(seed=seed))
        assert sorted((len(one.drawn()), len(two.drawn()))) == [0, 6]
        policy.close()


def test_samples_go_together_where_seeds_count_for_nothing() -> None:
    with Endpoint(seeds=False) as server:
        policy = OpenAI(f"openai:{server.url}")
        responses = serve(policy, *(request(seed=seed) for seed in range(6)))
        [call] = server.drawn()
        assert call.body["n"] == 6 and len({r.id for r in responses}) == 6
        assert all(r.error is None and r.text for r in responses)
        assert sum(r.generated_tokens for r in responses) == call.generated_tokens
        assert sum(r.prompt_tokens + r.cached_tokens for r in responses) == call.prompt_tokens
        policy.close()


@pytest.mark.parametrize(("able", "n"), [({"n": False, "seeds": False}, "auto"), ({}, "auto"), ({}, "no")])
def test_samples_are_fanned_out_otherwise(able: dict[str, object], n: str) -> None:
    with Endpoint(**able) as server:  # type: ignore[arg-type]
        policy = OpenAI(f"openai:{server.url}:n={n}")
        serve(policy, *(request(seed=seed) for seed in range(6)))
        assert len(server.drawn()) == 6
        policy.close()


def test_endpoints_with_different_models_are_refused(server: Endpoint) -> None:
    with Endpoint(model="other-1B") as other, pytest.raises(BackendError, match="name one model"):
        OpenAI(f"openai:{server.url},{other.url}")


def test_a_deadline_is_kept_and_the_server_is_let_go() -> None:
    with Endpoint(delay=lambda: 30.0) as server:
        server.delay = lambda: 0.0
        policy = OpenAI(f"openai:{server.url}")
        server.delay = lambda: 30.0
        runner = Runner(policy, answers=BoxedAnswers())
        result = runner.solve(Problem("p", "Add 1 and 2."), strategies.bind("sample"), Budget(seconds=0.3))
        assert result.stopped == "deadline" and result.usage.seconds < 10
        runner.close()


# What may be written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("openai:", "names no endpoint"),
        ("openai:localhost:8000", "not an endpoint"),
        ("openai:ftp://host/v1", "not an endpoint"),
        ("openai:file:///etc/passwd", "not an endpoint"),
        ("openai:http://user:secret@host/v1", "OPENAI_API_KEY"),
        ("openai:http://host/v1?key=1", "query"),
        ("openai:http://host:99999/v1", "not a URL"),
        ("openai:http://a/v1,http://a/v1", "twice"),
        ("openai:http://a/v1#m,http://b/v1#n", "more than one model"),
        ("openai:http://a/v 1#m", "space"),
        ("openai:http://a/v1:in_flight=0", "whole number from 1"),
        ("openai:http://a/v1:total=nan", "seconds above 0"),
        ("openai:http://a/v1:retries=1:retries=2", "twice"),
        ("openai:http://a/v1:inflight=2", "did you mean 'in_flight'"),
        ("openai:http://a/v1:continues=maybe", "one of auto, chat, completions, no"),
        ("openai:http://a/v1:template=/no/such/file", "not a file"),
        ("openai:http://a/v1:key=FLYWEIGHT_NO_SUCH_VARIABLE", "not set"),
    ],
)
def test_mistakes_are_said_before_anybody_is_asked(spec: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        api.find_policy(spec)
    assert said in str(caught.value) and "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_model_that_is_not_served_is_refused_with_those_that_are(server: Endpoint) -> None:
    with pytest.raises(BackendError, match="it has: fake"):
        OpenAI(f"openai:{server.url}#another")


def test_a_closed_policy_says_so(policy: OpenAI) -> None:
    policy.close()
    with pytest.raises(BackendError, match="closed"):
        policy.step()


# Doctor --------------------------------------------------------------------------------------------------------


def test_doctor_says_what_an_endpoint_lacks_and_how_to_get_it() -> None:
    with Endpoint(continues=False, logprobs=False, seeds=False, n=False) as poor, Endpoint() as rich:
        told = list(findings(f"openai:{rich.url},{poor.url},http://127.0.0.1:9"))
    assert [(line.name, line.status) for line in told] == [
        *((name, "ok") for name in ("endpoint", "n", "prefix", "logprobs", "seed", "usage")),
        ("endpoint", "ok"),
        ("n", "ok"),
        *((name, "warn") for name in ("prefix", "logprobs", "seed")),
        ("usage", "ok"),
        ("endpoint", "fail"),
    ]
    assert all(bool(line.fix) is (line.status != "ok") for line in told)


def test_doctor_asks_endpoints_and_remote_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    for probe in LOCAL:
        monkeypatch.setattr(doctor, probe, lambda: iter(()))

    def scored(body: Json) -> object:
        data = [{"index": i, "score": 0.9 if "answer is 5" in text else 0.2} for i, text in enumerate(body["text_2"])]
        return {"data": data}

    with Endpoint(routes={"/score": scored}) as server:
        checks = doctor.examine(verifier=Remote(server.url, api="score"), endpoints=f"openai:{server.url}")
        told = {check.name: check for check in checks if check.name in ("endpoint", "verifier")}
    assert told["endpoint"].status == "ok" and server.url in told["endpoint"].detail
    assert told["verifier"].status == "ok" and "0.900 > a wrong one 0.200" in told["verifier"].detail


def test_tools_calls_and_results_reach_a_server_in_words() -> None:
    messages = (
        ToolMessage("user", "What is 3 + 4?", tools='[{"type": "function", "function": {"name": "add"}}]'),
        ToolMessage("assistant", "", calls='[{"name": "add", "arguments": {"a": 3, "b": 4}}]'),
        Message("tool", "7"),
    )
    with Endpoint() as server:
        policy = OpenAI(f"openai:{server.url}")
        serve(policy, request(Node(messages=messages, key="tools")))
        policy.close()
        sent = server.drawn()[-1].body["messages"]
    assert [turn["role"] for turn in sent] == ["system", "user", "assistant", "user"]
    assert '"name": "add"' in sent[0]["content"] and '"a": 3' in sent[2]["content"] and "7" in sent[3]["content"]


def test_text_without_a_template_needs_an_endpoint_that_completes_text() -> None:
    bare = Node(messages=(Message("text", "3 + 4 ="),), key="bare")
    with Endpoint() as server:
        policy = OpenAI(f"openai:{server.url}:continues=no")
        [response] = serve(policy, request(bare))
        policy.close()
    assert "conversations only" in str(response.error)


def test_the_key_of_a_servers_own_clients_is_sent_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("FLYWEIGHT_API_KEY", "for-clients")
    with Endpoint() as server:
        policy = OpenAI(f"openai:{server.url}")
        serve(policy, request())
        policy.close()
        assert server.calls and not any("for-clients" in str(call.headers) for call in server.calls)
