"""The endpoint client against a real HTTP server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from selftaught.inference import (
    EngineRefused,
    EngineUnavailable,
    ModelLoadError,
    Request,
    Sampling,
    open_engine,
)
from selftaught.inference.openai import OpenAIEngine
from selftaught.inference.posting import proxy_of
from tests.inference.standin import StandIn, standin

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=7)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with standin() as running:
        yield running


def ask(text: str, seed: int = 1, n: int = 1) -> Request:
    return Request([{"role": "user", "content": text}], seed, n)


def client(server: StandIn, window: int = 64) -> OpenAIEngine:
    return OpenAIEngine(server.url, "judge", window=window, attempts=4, backoff=0.01)


def test_samples_are_requests_of_their_own_in_order(server: StandIn) -> None:
    answers = client(server).generate([ask("a", 5, 3), ask("b", 6, 1), ask("c", 7, 0)], SAMPLING)
    assert [[c.text.split()[0] for c in several] for several in answers] == [["a"] * 3, ["b"], []]
    assert len({c.text for c in answers[0]}) == 3  # a seed of its own for each sample
    assert answers[1][0].finish_reason == "stop"
    assert (answers[1][0].prompt_tokens, answers[1][0].completion_tokens) == (1, 3)
    body = server.bodies[0]
    assert (body["model"], body["n"], body["max_tokens"], body["top_p"]) == ("judge", 1, 7, 0.9)
    assert "top_k" not in body
    assert server.keys == [None] * 4


def test_seeds_are_stable_and_depend_on_nothing_else(server: StandIn) -> None:
    first = client(server).generate([ask("a", 5, 2), ask("b", 6)], SAMPLING)
    again = client(server, window=1).generate([ask("b", 6), ask("a", 5, 2)], SAMPLING)
    assert first == again[::-1]
    later = Request(ask("a", 5).messages, 5, 1, first=1)
    assert client(server).generate([later], SAMPLING)[0] == first[0][1:]
    assert all(0 <= body["seed"] < 2**31 for body in server.bodies)


def test_top_k_and_key_are_sent_when_there_are_some(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFTAUGHT_ENDPOINT_KEY_MY_VLLM", "secret")
    engine = open_engine("my-vllm", "judge", {"my-vllm": server.url})
    engine.generate([ask("a")], Sampling(top_k=20))
    assert server.bodies[0]["top_k"] == 20
    assert server.keys == ["Bearer secret"]


def test_a_key_in_a_file_is_read_at_every_call(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    monkeypatch.setenv("SELFTAUGHT_ENDPOINT_KEY_FILED_FILE", str(path))
    engine = open_engine("filed", "judge", {"filed": server.url})
    with pytest.raises(ModelLoadError, match=f"SELFTAUGHT_ENDPOINT_KEY_FILED_FILE: {path}"):
        engine.generate([ask("a")], SAMPLING)
    path.write_text("first\n")
    engine.generate([ask("a")], SAMPLING)
    path.write_text("second")
    engine.generate([ask("b")], SAMPLING)
    assert server.keys == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("command", ["fail:429:2", "fail:500:3", "fail:503:1", "drop:2"])
def test_passing_failures_are_tried_again(server: StandIn, command: str) -> None:
    answers = client(server).generate([ask(command), ask("fine")], SAMPLING)
    assert answers[0][0].text.startswith(command)
    assert server.tries["fine"] == 1  # its neighbour was not asked again


def test_a_failure_that_stays_is_unavailable(server: StandIn) -> None:
    with pytest.raises(EngineUnavailable, match="HTTP 503"):
        client(server).generate([ask("fail:503:99"), ask("fine")], SAMPLING)
    assert server.tries["fail:503:99"] == 4


def test_nobody_there_is_unavailable() -> None:
    engine = OpenAIEngine("http://127.0.0.1:9/v1", "judge", attempts=2, backoff=0.01)
    with pytest.raises(EngineUnavailable, match="Cannot connect"):
        engine.generate([ask("a")], SAMPLING)


def test_no_completion_is_unavailable(server: StandIn) -> None:
    with pytest.raises(EngineUnavailable, match="not a chat completion"):
        client(server).generate([ask("garbage")], SAMPLING)


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_set_up_is_refused_at_once(server: StandIn, status: int) -> None:
    with pytest.raises(EngineRefused) as caught:
        client(server).generate([ask(f"fail:{status}:99"), ask("fine")], SAMPLING)
    assert caught.value.status == status
    assert server.tries[f"fail:{status}:99"] == 1


def test_one_bad_prompt_does_not_spoil_the_rest(server: StandIn) -> None:
    answers = client(server).generate([ask("fail:400:99"), ask("fine")], SAMPLING)
    assert [several[0].finish_reason for several in answers] == ["rejected", "stop"]
    assert answers[0][0].text == ""


def test_if_every_prompt_is_bad_the_set_up_is(server: StandIn) -> None:
    with pytest.raises(EngineRefused, match="asked to"):
        client(server).generate([ask("fail:400:99"), ask("fail:422:99")], SAMPLING)


def test_prompts_that_are_all_too_long_are_the_prompts_fault(server: StandIn) -> None:
    found = client(server).generate([ask("fail:413:98"), ask("fail:413:99")], SAMPLING)
    assert [completion.finish_reason for (completion,) in found] == ["rejected", "rejected"]


def test_length_limit_is_told(server: StandIn) -> None:
    completion = client(server).generate([ask("long")], SAMPLING)[0][0]
    assert completion.finish_reason == "length"
    assert not completion.finished


def test_the_window_is_full_but_not_fuller(server: StandIn) -> None:
    client(server, window=3).generate([ask(f"slow:0.05:{i}") for i in range(12)], SAMPLING)
    assert server.most == 3


def test_a_slow_request_holds_nobody_up(server: StandIn) -> None:
    requests = [ask("last:12"), *[ask(f"quick {i}") for i in range(12)]]
    answers = client(server, window=3).generate(requests, SAMPLING)
    assert server.tries["last:12"] == 1  # it was answered once all the others were
    assert answers[0][0].text.startswith("last:12")


def test_no_requests_no_answers(server: StandIn) -> None:
    assert client(server).generate([], SAMPLING) == []
    assert server.bodies == []


def test_the_proxy_that_the_environment_names(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in is the proxy: only through it can the name be reached."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
    engine = OpenAIEngine("http://model.invalid/v1", "judge", attempts=1)
    assert engine.generate([ask("hi")], SAMPLING)[0][0].finished
    monkeypatch.setenv("NO_PROXY", "model.invalid")
    with pytest.raises(EngineUnavailable):
        engine.generate([ask("hi")], SAMPLING)
    assert len(server.bodies) == 1


def test_a_socks_proxy_is_not_spoken_to_in_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    assert proxy_of("http://model.invalid/v1") is None
