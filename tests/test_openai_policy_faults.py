"""The policy over the wire when the wire, the server or whoever poses as one misbehaves."""

from __future__ import annotations

import logging
import re
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from flyweight.errors import BackendError
from flyweight.policies.openai import service
from flyweight.policies.openai.policy import OpenAI
from flyweight.protocols import Request, Response
from flyweight.types import Finish, Message, Node, Sampling
from flyweight.wire import backoff, pool
from flyweight.wire.client import Client, Failure, Timeouts
from tests.fake_endpoint import Endpoint, Json, drawing

ROOT = Node(messages=(Message("user", "Add 3 and 4 and 5."),), key="root")
_ids = iter(range(1, 10**9))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "BASE", 0.02)
    monkeypatch.setattr(pool, "REST", 0.05)


def serve(policy: OpenAI, count: int = 1, max_tokens: int = 64) -> list[Response]:
    """Responses to `count` requests with the seeds 0, 1, ..."""
    asked = [Request(next(_ids), ROOT, Sampling(max_tokens=max_tokens), seed) for seed in range(count)]
    for each in asked:
        policy.add(each)
    came: dict[int, Response] = {}
    deadline = time.monotonic() + 60 + count / 10
    while len(came) < count:
        assert time.monotonic() < deadline
        for response in policy.step():
            assert response.id not in came, "a request came back twice"
            came[response.id] = response
    return [came[each.id] for each in asked]


class Faults:
    """A fault for the first try of some seeds; drawing only, so that probing goes undisturbed."""

    def __init__(self, faults: dict[int, str], tries: int = 1) -> None:
        self.faults, self.tries = faults, tries
        self.seen: Counter[int] = Counter()

    def __call__(self, number: int, path: str, body: Json) -> str | None:
        if not drawing(body):
            return None
        seed = body["seed"]
        self.seen[seed] += 1
        return self.faults.get(seed) if self.seen[seed] <= self.tries else None


def everything(fault: str) -> Faults:
    """The fault at every draw."""
    return Faults(dict.fromkeys(range(1000), fault), tries=10**6)


# Faults that pass ----------------------------------------------------------------------------------------------


MIX = {"429 0.1": 10, "503": 5, "reset": 2, "hang": 1, "badjson": 1, "truncated": 1, "empty": 1, "choices": 1}
"""How many of a hundred requests meet it."""


@pytest.mark.parametrize("calls", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_mix_of_faults_loses_nothing_and_is_charged(calls: int, caplog: pytest.LogCaptureFixture) -> None:
    kinds = [kind for kind, share in MIX.items() for _ in range(share)]  # by hundred seeds, spread out
    faults = Faults({seed: kinds[seed * 37 % 100] for seed in range(calls) if seed * 37 % 100 < len(kinds)})
    with Endpoint(fault=faults) as server, caplog.at_level(logging.WARNING, "flyweight"):
        policy = OpenAI(f"openai:{server.url}:first=2")
        responses = serve(policy, calls)
        policy.close()
    assert all(response.error is None and response.text for response in responses)
    assert len(server.drawn()) == calls + len(faults.faults) <= 1.35 * calls
    assert sum("try 1 failed" in record.getMessage() for record in caplog.records) == len(faults.faults)
    # What a server went on to say when its answer had made no sense already is the one thing that cannot be known.
    read = sum(call.generated_tokens for call in server.drawn() if call.fault != "choices")
    charged = sum(response.generated_tokens for response in responses)
    assert read < charged <= sum(call.generated_tokens for call in server.drawn())
    later = {call.body["seed"]: call for call in server.drawn() if call.fault is None}
    for call in server.drawn():
        if call.fault == "429 0.1":
            assert later[call.body["seed"]].began - call.ended >= 0.1, "not before Retry-After"


def test_the_answers_are_those_of_a_quiet_day() -> None:
    told = []
    for faults in ({}, {seed: "truncated" if seed % 2 else "503" for seed in range(0, 20, 3)}):
        with Endpoint(fault=Faults(faults)) as server:
            policy = OpenAI(f"openai:{server.url}")
            told.append([(response.text, response.tokens) for response in serve(policy, 20)])
            policy.close()
    assert told[0] == told[1]


def test_retries_of_a_hundred_failures_come_back_evenly_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for _ in range(20):
        spread = backoff.Backoff()
        delays = sorted(spread.delay(1) for _ in range(100))
        crowd = max(sum(begin <= other < begin + 0.05 for other in delays) for begin in delays)
        assert crowd <= 10
        assert min(spread.delay(1, 3.0) for _ in range(100)) >= 3.0


def test_there_is_a_budget_of_retries() -> None:
    spread = backoff.Backoff()
    spread.calls = 100
    assert sum(spread.allowed() for _ in range(500)) == backoff.FREE + backoff.RATIO * 100


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("soon", None), ("", None), (None, None), ("nan", None), ("inf", None)],
)
def test_retry_after_is_a_number_of_seconds(header: str | None, seconds: float | None) -> None:
    assert backoff.retry_after(header) == seconds


def test_retry_after_may_be_a_date() -> None:
    assert backoff.retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=18.0) == 42.0


@pytest.mark.parametrize("fault", ["400", "401", "404"])
def test_refusals_are_never_tried_again(fault: str) -> None:
    with Endpoint(fault=everything(fault)) as server:
        policy = OpenAI(f"openai:{server.url}")
        responses = serve(policy, 5)
        policy.close()
        assert len(server.drawn()) == 5 and all(f"HTTP {fault}" in str(response.error) for response in responses)


def test_a_failure_that_stays_is_told_with_its_cause_and_the_number_of_tries() -> None:
    with Endpoint(fault=everything("503")) as server:
        policy = OpenAI(f"openai:{server.url}:retries=2")
        [response] = serve(policy)
        policy.close()
        assert len(server.drawn()) == 3
        assert response.error == f"{server.url} answers HTTP 503: fault 503 (3 tries)"


def test_a_server_that_asks_to_wait_for_hours_is_not_waited_for() -> None:
    with Endpoint(fault=everything("429 7200")) as server:
        policy = OpenAI(f"openai:{server.url}")
        [response] = serve(policy)
        policy.close()
        assert "HTTP 429" in str(response.error) and len(server.drawn()) == 1


@pytest.mark.parametrize("said", ["429 0.25", "429"])
def test_a_rate_limit_is_waited_for_by_all_and_costs_no_retries(said: str) -> None:
    windows: Counter[int] = Counter()

    def limit(number: int, path: str, body: Json) -> str | None:
        if not drawing(body):
            return None
        window = int(time.monotonic() / 0.25)
        windows[window] += 1
        return said if windows[window] > 8 else None

    with Endpoint(fault=limit) as server:
        policy = OpenAI(f"openai:{server.url}")
        responses = serve(policy, 60)
        backoff = policy._service.pool.backoff
        policy.close()
    assert [response.error for response in responses if response.error] == []
    assert max(windows.values()) > 8 and backoff.retries == 0


def test_whoever_is_refused_for_good_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LONGEST_AFTER", 0.05)
    with Endpoint(fault=everything("429 0.02")) as server:
        policy = OpenAI(f"openai:{server.url}:retries=2")
        responses = serve(policy, 3)
        policy.close()
    assert all("slow down" in str(response.error) and "tries)" in str(response.error) for response in responses)


def test_a_server_that_asks_the_first_look_to_wait_for_a_day_is_not_waited_for() -> None:
    with Endpoint(fault=lambda number, path, body: "429 86400") as server, pytest.raises(BackendError, match="429"):
        OpenAI(f"openai:{server.url}")


# Health --------------------------------------------------------------------------------------------------------


def test_a_backend_that_is_down_is_left_alone_then_given_up_then_found_again() -> None:
    with Endpoint() as server:
        policy = OpenAI(f"openai:{server.url}:patience=0.3:retries=50:in_flight=2")
        assert serve(policy)[0].error is None
    responses = serve(policy, 30)
    assert all("nothing has come from" in str(response.error) for response in responses)
    with server:  # the same port again
        deadline = time.monotonic() + 20
        while serve(policy)[0].error is not None:
            assert time.monotonic() < deadline, "it is back, and nobody noticed"
            time.sleep(0.05)
        policy.close()


def test_an_endpoint_that_fails_gets_trials_only_and_the_other_all_the_work() -> None:
    with Endpoint(fault=everything("503")) as bad, Endpoint(delay=lambda: 0.002) as good:
        policy = OpenAI(f"openai:{bad.url},{good.url}:in_flight=4:retries=20")
        assert all(response.error is None for response in serve(policy, 40))
        policy.close()
        assert len(good.drawn()) == 40
        assert len(bad.drawn()) < 30, "five failures in a row, then single trials"


def test_what_waits_is_not_given_up_while_answers_are_coming_in() -> None:
    with Endpoint(fault=Faults(dict.fromkeys(range(11, 16), "503"))) as server:
        policy = OpenAI(f"openai:{server.url}:patience=0.2:in_flight=16")
        server.pace = 0.04
        responses = serve(policy, 20)
        policy.close()
    assert [response.error for response in responses if response.error] == []


@pytest.mark.parametrize("fault", ["401", "404", "429 7200"])
def test_the_wrong_endpoint_to_ask_does_not_swallow_what_the_others_can_do(fault: str) -> None:
    with Endpoint(fault=everything(fault)) as wrong, Endpoint(delay=lambda: 0.002) as right:
        policy = OpenAI(f"openai:{wrong.url},{right.url}:in_flight=4:retries=0")
        assert [response.error for response in serve(policy, 60) if response.error] == []
        assert len(wrong.drawn()) <= 4 and len(right.drawn()) == 60
        right.fault = everything("401")
        assert all("HTTP 401" in str(response.error) for response in serve(policy, 3)), "nobody is left to ask"
        policy.close()


def test_an_endpoint_that_comes_back_with_another_model_is_not_asked() -> None:
    with Endpoint(model="other-1B") as wrong:
        pass
    with Endpoint(delay=lambda: 0.002) as right:
        policy = OpenAI(f"openai:{wrong.url},{right.url}:in_flight=4:retries=9")
        with wrong:
            assert [response.error for response in serve(policy, 60) if response.error] == []
            policy.close()
            assert not wrong.drawn() and len(right.drawn()) == 60


def test_a_server_that_is_busy_when_it_is_looked_at_is_asked_again() -> None:
    with Endpoint(fault=lambda number, path, body: "503" if number in (1, 4) else None) as server:
        policy = OpenAI(f"openai:{server.url}")
        assert policy.abilities.continues and serve(policy)[0].error is None
        policy.close()


def test_nobody_there_at_all_is_said_at_once() -> None:
    with pytest.raises(BackendError, match="is the server running"):
        OpenAI("openai:http://127.0.0.1:9")


# Timeouts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "setting", "said"),
    [("hang", "first=0.9", "(first)"), ("stall", "between=0.2", "(between)"), ("comments", "first=0.9", "(first)")],
)
def test_every_phase_has_its_timeout(fault: str, setting: str, said: str) -> None:
    with Endpoint(fault=everything(fault)) as server:
        policy = OpenAI(f"openai:{server.url}:retries=0:{setting}")
        [response] = serve(policy)
        policy.close()
        assert said in str(response.error) and response.text == "", "never a part of an answer"
        assert (response.generated_tokens > 0) is (fault == "stall"), "what had come is charged"


def test_the_first_token_is_waited_for_once_not_again_after_the_headers() -> None:
    with Endpoint(fault=everything("slow start")) as server:
        policy = OpenAI(f"openai:{server.url}:retries=0:first=1")
        server.delay = lambda: 0.6
        [response] = serve(policy)
        policy.close()
        assert "(first)" in str(response.error)


def test_the_whole_has_a_timeout_too() -> None:
    with Endpoint() as server:
        policy = OpenAI(f"openai:{server.url}:total=0.4")
        server.pace = 0.05
        [response] = serve(policy)
        policy.close()
        assert "(total)" in str(response.error) and len(server.drawn()) == 1, "it would take as long again"


def test_connecting_has_its_timeout() -> None:
    with socket.socket() as full, socket.socket() as waiting, socket.socket() as another:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for each in (waiting, another):  # a queue that is full: further connections are not answered
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        with pytest.raises(BackendError, match="connect"):
            OpenAI(f"openai:http://127.0.0.1:{full.getsockname()[1]}:connect=0.2:first=5")


# Hostile servers -----------------------------------------------------------------------------------------------


@pytest.fixture
def bounded() -> Iterator[None]:
    """At most 64 MB more than before; the server's own memory included."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before <= 64 * 1024


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("longline", "longer than"),
        ("nan", "for a log-probability"),
        ("idle", "events without text"),
        ("hollow", "events without text"),
        ("choices", "none of the 1 asked for"),
        ("badjson", "not JSON"),
        ("utf8", "not JSON"),
        ("gzip", "compressed"),
    ],
)
def test_nonsense_is_an_error_in_one_line(fault: str, said: str) -> None:
    with Endpoint(fault=everything(fault)) as server:
        policy = OpenAI(f"openai:{server.url}:retries=1")
        [response] = serve(policy)
        policy.close()
        assert said in str(response.error) and "\n" not in str(response.error)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("logprobs", [True, False])
def test_an_endless_answer_is_cut_at_the_cap_and_the_connection_closed(logprobs: bool) -> None:
    with Endpoint(fault=everything("endless"), logprobs=logprobs) as server:
        policy = OpenAI(f"openai:{server.url}")
        [response] = serve(policy, max_tokens=50)
        policy.close()
        assert response.finish is Finish.LENGTH and response.generated_tokens <= 50
        assert len(response.text) <= 50 * 256
        server.quiet()
        assert server.drawn()[0].dropped


@pytest.mark.parametrize("behind", ["noise", "no end", "bad end"])
def test_a_whole_answer_counts_whatever_comes_behind_it(behind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LINGER", 0.1)
    with Endpoint(fault=everything(behind)) as server:
        policy = OpenAI(f"openai:{server.url}:retries=0")
        [response] = serve(policy)
        policy.close()
        assert response.error is None and response.text == "It is 7." and response.finish is Finish.END


# Thinking ------------------------------------------------------------------------------------------------------


def test_hidden_reasoning_is_counted_once_as_the_server_counts_it() -> None:
    with Endpoint(fault=everything("thinking")) as server:
        policy = OpenAI(f"openai:{server.url}")
        [response] = serve(policy, max_tokens=400)
        policy.close()
        assert response.text == "7 " * 10 and response.generated_tokens == 110 and response.prompt_tokens == 12


def test_thinking_that_was_cut_off_is_an_answer_without_text() -> None:
    with Endpoint(fault=everything("lost in thought")) as server:
        policy = OpenAI(f"openai:{server.url}")
        [response] = serve(policy)
        policy.close()
        assert len(server.drawn()) == 1, "the same seed would think the same"
        assert (response.error, response.text, response.finish) == (None, "", Finish.LENGTH)
        assert response.generated_tokens == 5


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2), (4, 3)])
def test_an_answer_that_stays_empty_is_one(retries: int, calls: int) -> None:
    with Endpoint(fault=everything("empty")) as server:
        policy = OpenAI(f"openai:{server.url}:retries={retries}")
        [response] = serve(policy)
        policy.close()
        assert len(server.drawn()) == calls and (response.error, response.text) == (None, "")


# Counts and keys -----------------------------------------------------------------------------------------------


def test_counts_that_cannot_be_are_not_believed() -> None:
    with Endpoint(fault=everything("counts")) as server:
        policy = OpenAI(f"openai:{server.url}")
        [response] = serve(policy)
        policy.close()
        assert response.error is None and response.text == "\\boxed{7}."
        assert 0 < response.prompt_tokens < 100 and 0 < response.generated_tokens <= 64


def test_redirects_are_not_followed_and_the_key_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with Endpoint() as trap, Endpoint(key="sk-very-secret") as server:
        server.fault = everything(f"redirect {trap.url}/chat/completions")
        policy = OpenAI(f"openai:{server.url}")
        [response] = serve(policy)
        policy.close()
        assert "redirects" in str(response.error) and not trap.calls
        assert all(call.headers["authorization"] == "Bearer sk-very-secret" for call in server.calls)


def test_the_key_shows_in_no_message(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with Endpoint() as server, caplog.at_level(logging.DEBUG):
        policy = OpenAI(f"openai:{server.url}")
        server.routes = {"/v1/chat/completions": lambda body: {"error": {"message": "no: Bearer sk-very-secret"}}}
        [response] = serve(policy)
        policy.close()
        assert "[key]" in str(response.error)
        assert "sk-very-secret" not in str(response.error) + caplog.text + repr(policy.spec)


def test_the_key_shows_in_nothing_that_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk_secret_key"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    client = Client("https://example.org/v1", key, Timeouts(), 1)
    with pytest.raises(Failure) as caught:
        client._decoded(b"<html>\x1b[31m" + b"x" * 40 + key.encode() + b" and more")
    assert "sk_secret" not in str(caught.value) and "\x1b" not in str(caught.value)
    with Endpoint() as server:
        policy = OpenAI(f"openai:{server.url}")
        for reason in (key, key + "\n" * 50):
            choice = {"index": 0, "message": {"content": "x"}, "finish_reason": reason}
            server.routes = {"/v1/chat/completions": lambda body, choice=choice: {"choices": [choice]}}  # type: ignore[misc]
            [response] = serve(policy)
            assert "broke off" in str(response.error) and "sk_secret" not in str(response.error)
        policy.close()
    with Endpoint(model=f"model {key}\n\x1b[31m") as server, pytest.raises(BackendError) as refused:
        OpenAI(f"openai:{server.url}#another")
    assert "[key]" in str(refused.value) and not re.search(r"sk_secret|[\x00-\x1f]", str(refused.value))


def test_a_key_without_encryption_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for url in ("http://127.0.0.1:9/v1", "https://example.org/v1", "http://example.org/v1"):
        Client(url, "sk-very-secret", Timeouts(), 1)
    assert [record.getMessage().split()[4] for record in caplog.records] == ["http://example.org/v1"]


def test_a_key_is_named_by_its_variable_and_a_wrong_one_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    monkeypatch.setenv("CLUSTER_KEY", "right")
    with Endpoint(key="right") as server:
        with pytest.raises(BackendError, match="OPENAI_API_KEY"):
            OpenAI(f"openai:{server.url}")
        OpenAI(f"openai:{server.url}:key=CLUSTER_KEY").close()
