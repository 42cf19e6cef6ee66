"""OpenAI's own client against the gateway."""

from __future__ import annotations

import asyncio
import os

import openai
import pytest

from selftaught import Client

ASKED = [{"role": "user", "content": "Swap the first and the last letter: m f q"}]


def key(client: Client, scope: str) -> str:
    return client.keys.create(os.urandom(4).hex(), [scope]).secret


@pytest.fixture
def api(client: Client) -> openai.OpenAI:
    url = client.base_url + "/openai/v1"
    return openai.OpenAI(base_url=url, api_key=key(client, "judge"))


def test_a_completion(api: openai.OpenAI) -> None:
    options = {"temperature": 0, "max_tokens": 20}
    out = api.chat.completions.create(model="tour:0", messages=ASKED, **options)
    assert out.model == "tour:0" and out.system_fingerprint.startswith("fp_")
    (choice,) = out.choices
    assert choice.message.role == "assistant" and choice.message.content == "q f m"
    assert choice.finish_reason == "stop" and out.usage.total_tokens > out.usage.prompt_tokens > 0
    again = api.chat.completions.create(model="tour:0", messages=ASKED, **options)
    assert again.choices[0].message.content == choice.message.content
    short = api.chat.completions.create(model="tour:0", messages=ASKED, max_tokens=1)
    assert short.choices[0].finish_reason == "length"


def test_a_stream_is_the_completion(api: openai.OpenAI) -> None:
    options = {"model": "tour:0", "messages": ASKED, "seed": 7, "max_tokens": 20, "n": 2}
    plain = api.chat.completions.create(**options)
    texts = {0: "", 1: ""}
    reasons, usage = {}, None
    for chunk in api.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    ):
        assert chunk.model == "tour:0"
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    assert [texts[one.index] for one in plain.choices] == [
        one.message.content for one in plain.choices
    ]
    assert reasons == {0: "stop", 1: "stop"} and usage == plain.usage


def test_the_asynchronous_client_and_its_stream(api: openai.OpenAI) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=api.base_url, api_key=api.api_key) as other:
            stream = await other.chat.completions.create(
                model="tour", messages=ASKED, temperature=0, stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    assert asyncio.run(ask())


def test_models(api: openai.OpenAI) -> None:
    assert [one.id for one in api.models.list()] == ["tour"]
    assert api.models.retrieve("tour:0").id == "tour:0"
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("none")


def test_errors_are_the_clients_own(api: openai.OpenAI, client: Client) -> None:
    with pytest.raises(openai.NotFoundError, match="none") as unknown:
        api.chat.completions.create(model="none", messages=ASKED)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="tools") as wrong:
        api.chat.completions.create(
            model="tour", messages=ASKED, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert wrong.value.code == "unsupported_parameter" and wrong.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as long:
        api.chat.completions.create(
            model="tour", messages=[{"role": "user", "content": "m f q " * 9000}]
        )
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        api.with_options(api_key="st_wrong").chat.completions.create(model="tour", messages=ASKED)
    with pytest.raises(openai.PermissionDeniedError, match="judge"):
        api.with_options(api_key=key(client, "read")).chat.completions.create(
            model="tour", messages=ASKED
        )
