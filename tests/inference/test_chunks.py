"""Text as a server writes it: real HTTP, both kinds of server, and servers that break off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from selftaught import aliases, devices, engines
from selftaught.contracts import EngineSettings
from selftaught.database import transaction
from selftaught.database.tables import EngineServer
from selftaught.inference import Completion, EngineUnavailable, Hear, Request, Sampling
from selftaught.inference.chunks import Broken, assemble
from selftaught.inference.openai import OpenAIEngine
from selftaught.inference.streaming import StreamingEngine
from selftaught.inference.vllm import VllmEngine
from tests import tiny
from tests.api.helpers import add_versions
from tests.inference.standin import StandIn, standin

SAMPLING = Sampling(temperature=0.7, max_tokens=7)
Kind = Callable[[], "StreamingEngine[list[object]]"]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with standin() as running:
        yield running


@pytest.fixture(params=["chat", "vllm"])
def engine(
    request: pytest.FixtureRequest, server: StandIn, tiny_model: Path
) -> StreamingEngine[list[object]]:
    """Both ways to ask a server; vLLM's own is one that a node has started."""
    if request.param == "chat":
        return OpenAIEngine(server.url, "judge", attempts=3, backoff=0.01)  # type: ignore[return-value]
    request.getfixturevalue("database")
    words = tiny.tokenizer()
    server.read = lambda tokens: words.decode(tokens)[
        len("<|user|>") : -len("<|end|><|assistant|>")
    ]
    add_versions("m", [0])
    spec = engines.Spec(base="/x/m", name="m", settings=EngineSettings(), max_lora_rank=0)
    devices.register("node", ["0"])
    with transaction() as session:
        version = aliases.get_version(session, "m", 0)
        session.add(
            EngineServer(
                id="srv_1", node="node", key=spec.key, spec=spec.model_dump(), state="ready",
                url=server.url, kv_tokens=10_000, pid=1,
            )
        )  # fmt: skip
        target = engines.Target(version.id, spec, tiny_model, None)
    return VllmEngine(target)  # type: ignore[return-value]


def ask(text: str, hear: Hear | None = None) -> Request:
    return Request([{"role": "user", "content": text}], 5, hear=hear)


def one(engine: StreamingEngine[list[object]], request: Request) -> Completion:
    return engine.generate([request], SAMPLING)[0][0]


@pytest.mark.parametrize(
    "text", ["one two three four", "long: road", "whole: at once", "é\u2028漢 字"]
)
def test_a_streamed_answer_is_the_answer(
    engine: StreamingEngine[list[object]], server: StandIn, text: str
) -> None:
    heard: list[str] = []
    plain = one(engine, ask(text))
    assert one(engine, ask(text, heard.append)) == plain
    assert plain.completion_tokens == 3 and plain.text.startswith(text)
    assert "stream" not in server.bodies[0] and server.bodies[1]["stream"]
    words = plain.text.split()
    if text == "whole: at once":
        assert heard == []
    else:
        assert [so_far.split() for so_far in heard] == [words[:n] for n in range(1, len(words) + 1)]
        assert heard[-1] == plain.text


def test_text_is_heard_before_the_server_has_ended(
    engine: StreamingEngine[list[object]], server: StandIn
) -> None:
    heard: list[str] = []

    def hear(text: str) -> None:
        heard.append(text)
        if len(heard) == 2:
            server.go.set()  # only now the server goes on

    assert one(engine, ask("hold: the line", hear)).text == heard[-1]
    assert heard[:2] == ["hold: ", "hold: the "]


@pytest.mark.parametrize("fault", ["break", "error", "end"])
def test_a_server_that_breaks_off_is_asked_again(
    engine: StreamingEngine[list[object]],
    server: StandIn,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selftaught.inference.vllm.LOST_SECONDS", 0.0)
    heard: list[str] = []
    text = f"{fault}:1:after two words"
    completion = one(engine, ask(text, heard.append))
    assert server.tries[text] == 2 and completion.text.startswith(text)
    assert heard[:2] == heard[2:4] and heard[-1] == completion.text  # from the beginning


def test_a_server_that_always_breaks_off(server: StandIn) -> None:
    engine = OpenAIEngine(server.url, "judge", attempts=2, backoff=0.01)
    with pytest.raises(EngineUnavailable, match="out of memory"):
        engine.generate([ask("error:9:and so on", lambda text: None)], SAMPLING)


def test_only_the_first_sample_is_heard(server: StandIn) -> None:
    heard: list[str] = []
    engine = OpenAIEngine(server.url, "judge")
    request = Request(ask("a b").messages, 5, n=3, first=4, hear=heard.append)
    found = engine.generate([request, ask("c d")], SAMPLING)
    assert heard[-1] == found[0][0].text and {text.split()[0] for text in heard} == {"a"}
    assert sum("stream" in body for body in server.bodies) == 1


def test_a_call_that_is_cancelled_ends_at_the_server(server: StandIn) -> None:
    first = threading.Event()
    engine = OpenAIEngine(server.url, "judge")

    async def scene() -> None:
        async with engine.session() as session:
            call = asyncio.create_task(
                session.ask(
                    list(ask("hold: on and on").messages),
                    1,
                    range(1),
                    SAMPLING,
                    lambda text: first.set(),
                )
            )
            while not first.is_set():
                await asyncio.sleep(0.01)
            call.cancel()
            while not server.left:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scene(), 30))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "data: nothing\n\n",
        "data: []\n\n",
        'data: {"choices": 5}\n\n',
        'data: {"choices": [{"delta": {"content": 7}}]}\n\n',
        'data: {"choices": [{"text": "x"}]}\n\ndata: [DONE]\n\n',
        'data: {"choices": [{"text": "x", "finish_reason": "stop"}]}',  # the event has no end
        "data: \xff\n\n",
    ],
)
def test_nonsense_is_no_answer(body: str) -> None:
    async def lines() -> AsyncIterator[bytes]:
        for line in body.encode("latin1").splitlines(keepends=True):
            yield line

    with pytest.raises(Broken):
        asyncio.run(assemble(lines(), lambda text: None))


def test_log_probabilities_are_put_together() -> None:
    async def lines() -> AsyncIterator[bytes]:
        for token, finish in (("a", "null"), ("b", '"stop"')):
            logprobs = f'{{"tokens": ["{token}"], "top_logprobs": [{{"{token}": -0.5}}]}}'
            yield f'data: {{"choices": [{{"text": "{token}", "logprobs": {logprobs},'.encode()
            yield f'data: "finish_reason": {finish}}}], "usage": {{}}}}\n'.encode()
            yield b"\n"

    (choice,) = asyncio.run(assemble(lines(), lambda text: None))["choices"]
    assert choice["logprobs"] == {"tokens": ["a", "b"], "top_logprobs": [{"a": -0.5}, {"b": -0.5}]}
