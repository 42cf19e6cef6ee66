"""POST chat/completions through gateway and evaluator, as OpenAI's clients ask; tests/ecosystem has
the clients themselves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest

from selftaught.contracts import ChatIn, Limits, SamplingSettings
from selftaught.database import transaction
from selftaught.database.tables import Project
from selftaught.inference import Completion, EngineRefused, EngineUnavailable, Request
from selftaught.settings import get_settings
from selftaught.usage import standing
from services.api.main import create_app as gateway_app
from services.evaluator import judge as service
from services.evaluator.chat import before_stop, surely
from services.evaluator.main import create_app as evaluator_app
from tests.api.conftest import assert_error
from tests.api.helpers import add_versions, served
from tests.api.test_evaluator import until
from tests.api.test_judge_stream import LINEAGE
from tests.conftest import Servers

PATH = "/openai/v1/chat/completions"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


class Speaker:
    """Says a text letter by letter, and ends when it may."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[Request], SamplingSettings]] = []
        self.text: Callable[[int], str] = lambda sample: f"choice {sample}"
        self.finish: Any = "stop"
        self.error: Exception | None = None
        self.end = threading.Event()
        self.end.set()

    def generate(self, requests: Sequence[Request], sampling: SamplingSettings) -> Any:
        self.asked.append((requests, sampling))
        for request in requests:
            text = self.text(request.first)
            for end in range(1, len(text) + 1):
                if request.hear is not None:
                    request.hear(text[:end])
        assert self.end.wait(30)
        if self.error is not None:
            raise self.error
        return [
            [
                Completion(self.text(one.first + k), self.finish, 10, 3)  # as the request says
                for k in range(one.n)
            ]
            for one in requests
        ]

    def close(self) -> None: ...


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Speaker]:
    found = Speaker()
    monkeypatch.setattr(service, "open_version", lambda version, patience: found)
    yield found
    found.end.set()


@pytest.fixture
def gateway(
    database: Servers, engine: Speaker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    add_versions("m", [0, 1], latest=1, lineage=LINEAGE)
    with served(evaluator_app()) as evaluator:
        monkeypatch.setattr(get_settings(), "evaluator_url", evaluator)
        with served(gateway_app()) as url, httpx.Client(base_url=url, timeout=30) as client:
            yield client


def ask(gateway: httpx.Client, **change: Any) -> Any:
    return gateway.post(PATH, json={**HELLO, **change})


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    """All chunks of a stream that came to its end."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [one.removeprefix("data: ") for one in answer.text.split("\n\n") if one]
    assert events.pop() == "[DONE]"
    return [json.loads(one) for one in events]


def said(found: Sequence[dict[str, Any]]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for one in found:
        for choice in one["choices"]:
            index = choice["index"]
            texts[index] = texts.get(index, "") + choice["delta"].get("content", "")
    return texts


def test_the_messages_reach_the_version_as_they_are(gateway: httpx.Client, engine: Speaker) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief.", "name": None},
        {
            "role": "user",
            "content": [{"type": "text", "text": "He"}, {"type": "text", "text": "y"}],
        },
        {"role": "assistant", "content": "Hm?", "tool_calls": None, "annotations": []},
        {"role": "user", "content": "[[A]] or [[B]]?"},
    ]
    options = {"temperature": 0.25, "top_p": 0.5, "top_k": 3, "max_tokens": 5, "n": 2, "seed": -7}
    out = ask(gateway, messages=messages, **options).json()
    (((request,), sampling),) = engine.asked
    assert request.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hey"},
        {"role": "assistant", "content": "Hm?"},
        {"role": "user", "content": "[[A]] or [[B]]?"},
    ]
    assert request.n == 2 and request.marks == ()
    assert sampling == SamplingSettings(temperature=0.25, top_p=0.5, top_k=3, max_tokens=5)
    assert [one["message"]["content"] for one in out["choices"]] == ["choice 0", "choice 1"]
    assert (out["object"], out["model"], out["system_fingerprint"]) == (
        "chat.completion",
        "m:1",
        "fp_1",
    )
    assert out["usage"] == {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}
    assert out["id"].startswith("chatcmpl_") and out["choices"][1]["index"] == 1


def test_what_is_not_said_is_as_openai_and_the_version_have_it(
    gateway: httpx.Client, engine: Speaker
) -> None:
    first, second = ask(gateway).json(), ask(gateway).json()
    assert first["id"] != second["id"]
    ((one,), sampling), ((other,), _) = engine.asked
    assert (sampling.temperature, sampling.max_tokens) == (1.0, LINEAGE["judge_max_tokens"])
    assert one.seed != other.seed and one.n == 1
    ask(gateway, seed=3)
    ask(gateway, seed=3, max_completion_tokens=4, max_tokens=9)
    ((one,), _), ((other,), sampling) = engine.asked[2:]
    assert one.seed == other.seed and sampling.max_tokens == 4


def test_which_version_answers(gateway: httpx.Client) -> None:
    for ref, exact in (("m", "m:1"), ("m:latest", "m:1"), ("m:0", "m:0")):
        assert ask(gateway, model=ref).json()["model"] == exact
    answer = gateway.post("/v1/chat/completions", json=HELLO)
    assert answer.json()["model"] == "m:1"
    listed = gateway.get("/openai/v1/models").json()
    assert listed["object"] == "list" and [one["id"] for one in listed["data"]] == ["m"]
    one = gateway.get("/openai/v1/models/m:0").json()
    assert one == {**listed["data"][0], "id": "m:0", "created": one["created"]}
    assert_error(gateway.get("/openai/v1/models/none"), 404, "model_not_found", "model")
    assert_error(gateway.get("/openai/v1/nothing"), 404, "not_found")


WRONG: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "none"}, 404, "model_not_found", "model"),
    ({"model": "m:7"}, 404, "model_not_found", "model"),
    ({"model": None}, 400, "invalid_request", "model"),
    ({"messages": []}, 400, "invalid_request", "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_request", None),
    ({"messages": [{"role": "user", "content": "\0"}]}, 400, "invalid_request", None),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "invalid_request", None),
    ({"messages": [{"role": "user", "content": "x" * 400_001}]}, 400, "invalid_request", None),
    ({"temperature": 2.5}, 400, "invalid_request", "temperature"),
    ({"temperature": "0"}, 400, "invalid_request", "temperature"),
    ({"temperature": {}}, 400, "invalid_request", "temperature"),
    ({"stream": {}}, 400, "invalid_request", "stream"),
    ({"n": []}, 400, "invalid_request", "n"),
    ({"max_tokens": 0}, 400, "invalid_request", "max_tokens"),
    ({"n": 65}, 400, "invalid_request", "n"),
    ({"seed": 2**63}, 400, "invalid_request", "seed"),
    ({"stop": ["a"] * 5}, 400, "invalid_request", None),
    ({"stop": ""}, 400, "invalid_request", None),
    ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
    ({"logprobs": True}, 400, "unsupported_parameter", "logprobs"),
    ({"presence_penalty": 0.5}, 400, "unsupported_parameter", "presence_penalty"),
    ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", None),
    ({"guided_choice": ["A"]}, 400, "unsupported_parameter", "guided_choice"),
]


def test_what_is_wrong_is_told_as_openai_tells_it(gateway: httpx.Client, engine: Speaker) -> None:
    for change, status, code, param in WRONG:
        for stream in (False, True):
            body = json.dumps({**HELLO, "stream": stream, **change})
            headers = {"content-type": "application/json"}
            answer = gateway.post(PATH, content=body, headers=headers)
            assert assert_error(answer, status, code, param) and not engine.asked


def test_what_asks_for_nothing_is_no_field(gateway: httpx.Client, engine: Speaker) -> None:
    nothing: dict[str, Any] = {
        "frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "logprobs": False,
        "tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "stop": None,
        "user": "u1", "metadata": {"a": "b"}, "store": False, "stream": None, "max_tokens": None,
        "stream_options": None, "service_tier": "auto", "parallel_tool_calls": True,
    }  # fmt: skip
    assert ask(gateway, **nothing).status_code == 200
    assert engine.asked[0][1].max_tokens == LINEAGE["judge_max_tokens"]


def test_bodies_that_are_no_json_and_too_large(gateway: httpx.Client) -> None:
    assert_error(gateway.post(PATH, content=b"{"), 400, "invalid_request")
    headers = {"content-type": "application/json"}
    assert_error(gateway.post(PATH, content=b"{", headers=headers), 400, "invalid_json")
    large = gateway.post(PATH, content=b" " * 4_194_305, headers=headers)
    assert_error(large, 413, "body_too_large")
    assert_error(gateway.get(PATH), 405, "method_not_allowed")


@pytest.mark.parametrize("stream", [False, True])
def test_a_choice_ends_before_a_stop(gateway: httpx.Client, engine: Speaker, stream: bool) -> None:
    engine.text = lambda sample: ["good [[A]] and so on", "no [[B", "[[A]]"][sample]
    engine.finish = "length"
    expected = ["good ", "no [[B", ""]
    reasons = ["stop", "length", "stop"]
    stops = {"stop": ["[[A]]", "[[B]]"], "n": 3}
    out = ask(gateway, **stops).json()["choices"]
    assert [one["message"]["content"] for one in out] == expected
    assert [one["finish_reason"] for one in out] == reasons
    found = chunks(ask(gateway, **stops, stream=True))
    assert said(found) == dict(enumerate(expected))
    ends = [one["choices"][0]["finish_reason"] for one in found]
    assert [one for one in ends if one] == reasons


def test_text_is_streamed_before_the_engine_has_ended(
    gateway: httpx.Client, engine: Speaker
) -> None:
    engine.end.clear()
    options = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
    with gateway.stream("POST", PATH, json={**HELLO, **options}) as response:
        lines = response.iter_lines()
        seen = []
        for line in lines:
            if line:
                seen.append(json.loads(line.removeprefix("data: ")))
            if said(seen) == {0: "choice 0", 1: "choice 1"}:
                break
        assert not engine.end.is_set()
        engine.end.set()
        rest = [line.removeprefix("data: ") for line in lines if line]
    assert rest.pop() == "[DONE]"
    *ends, usage = map(json.loads, rest)
    assert [one["choices"][0]["finish_reason"] for one in ends] == ["stop", "stop"]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 6
    assert {(one["id"], one["model"], one["object"]) for one in (*seen, *ends, usage)} == {
        (usage["id"], "m:1", "chat.completion.chunk")
    }
    assert seen[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_an_engine_that_fails(gateway: httpx.Client, engine: Speaker) -> None:
    for error, status, code in (
        (EngineUnavailable("down"), 503, "engine_unavailable"),
        (EngineRefused(401, "bad key"), 502, "engine_refused"),
        (EngineRefused(422, "no system message"), 400, "prompt_refused"),
        (ZeroDivisionError("oops"), 500, "internal_error"),
    ):
        engine.error = error
        message = assert_error(ask(gateway), status, code)
        *_, last = chunks(ask(gateway, stream=True))
        assert last["error"]["code"] == code and last["error"]["message"] == message
    engine.error = None
    engine.finish = "rejected"
    assert_error(ask(gateway), 400, "context_length_exceeded")
    *_, last = chunks(ask(gateway, stream=True))
    assert last["error"]["code"] == "context_length_exceeded"


def test_an_evaluator_that_is_lost_on_the_way_is_an_error_event(
    database: Servers, engine: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any) -> Any:
        yield b'data: {"choices": []}\n\n'
        raise ConnectionResetError

    add_versions("m", [0], latest=0, lineage=LINEAGE)
    monkeypatch.setattr("services.evaluator.chat.Chunks.chunks", lost)
    with served(evaluator_app()) as evaluator:
        monkeypatch.setattr(get_settings(), "evaluator_url", evaluator)
        with served(gateway_app()) as url, httpx.Client(base_url=url, timeout=30) as client:
            *_, last = chunks(ask(client, stream=True))
    assert last["error"]["code"] == "evaluator_lost"


def test_a_call_takes_room_and_is_given_up_when_its_client_leaves(
    gateway: httpx.Client, engine: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "judge_in_flight", 1)
    with served(evaluator_app()) as evaluator:
        monkeypatch.setattr(get_settings(), "evaluator_url", evaluator)
        with served(gateway_app()) as url, httpx.Client(base_url=url, timeout=30) as narrow:
            engine.end.clear()
            with narrow.stream("POST", PATH, json={**HELLO, "stream": True}) as response:
                assert response.status_code == 200
                until(lambda: bool(engine.asked))
                busy = ask(narrow)
                assert_error(busy, 429, "too_many_calls")
                assert busy.headers["retry-after"] == "1"
            until(lambda: ask(narrow, model="none").status_code == 404)  # there is room again
            engine.end.set()
            until(lambda: ask(narrow).status_code == 200)


def test_tokens_count(gateway: httpx.Client, database: Servers, engine: Speaker) -> None:
    def used() -> int:
        with transaction() as session:
            return int(standing(session, "default").tokens)

    ask(gateway, n=2)
    until(lambda: used() == 16)
    engine.end.clear()
    with gateway.stream("POST", PATH, json={**HELLO, "stream": True}) as response:
        until(lambda: len(engine.asked) == 2)
        next(response.iter_lines())
    until(lambda: used() == 16 + len("choice 0"))  # who hangs up before the end has heard this
    engine.end.set()
    with transaction() as session:
        session.get_one(Project, "default").limits = Limits(tokens_per_day=1).model_dump()
    until(lambda: ask(gateway).status_code == 429)
    assert_error(ask(gateway), 429, "insufficient_quota")


def test_what_may_be_sent_of_a_text_that_grows() -> None:
    """Whatever the text and the stops: pieces that were sent are never taken back, and in the end
    they are the text up to the first stop."""
    for text, stops in (
        ("aabaab", ["aabaac", "baab"]),
        ("good [[A]]", ["[[A]]", "[[B]]"]),
        ("###", ["####"]),
        ("xxy", ["y", "xy"]),
    ):
        whole, _ = before_stop(text, stops)
        sent = ""
        for end in range(len(text) + 1):
            now = surely(text[:end], stops)
            assert now.startswith(sent) and whole.startswith(now)
            sent = now
    assert surely("abc", []) == "abc" and surely("ab#", ["##"]) == "ab"


def test_the_contract_knows_its_stops() -> None:
    asked = ChatIn.model_validate({**HELLO, "stop": "x"})
    assert asked.stops == ["x"] and ChatIn.model_validate(HELLO).stops == []
