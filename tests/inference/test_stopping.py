"""Work that is called off ends between two steps, and its requests with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from selftaught import stopping
from selftaught.artifacts import publish_rows
from selftaught.inference import Request, Sampling
from selftaught.inference.local import LocalEngine
from selftaught.inference.openai import OpenAIEngine
from selftaught.judging import Message
from selftaught.settings import get_settings
from tests import tiny
from tests.inference.standin import standin

SAMPLING = Sampling(temperature=1.0, max_tokens=200)


def ask(text: str, n: int = 1) -> Request:
    return Request([{"role": "user", "content": text}], 0, n)


@pytest.mark.parametrize("shared", [True, False])
def test_the_local_engine_ends_behind_the_step_that_it_is_at(tmp_path: Path, shared: bool) -> None:
    engine = LocalEngine(tiny.build(tmp_path / "m"), max_rows=4, shared_prefix=shared)
    off = threading.Event()
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1
        if passes == 3:
            off.set()

    engine.model.get_decoder().register_forward_hook(count)
    requests = [ask("say something", 4), ask("and something else", 4)]  # two batches
    with stopping.under(off, ""), pytest.raises(stopping.Stopped):
        engine.generate(requests, SAMPLING)
    assert passes == 3
    assert len(engine.generate(requests, SAMPLING)) == 2, "the engine is as good as before"
    assert passes > 3, "and work that nobody calls off is done"


def test_requests_to_a_server_are_given_up_and_no_others_follow() -> None:
    with standin() as server:
        engine = OpenAIEngine(server.url, "m", window=2)
        off = threading.Event()

        def call_off() -> None:
            while len(server.bodies) < 2:
                time.sleep(0.01)
            off.set()

        caller = threading.Thread(target=call_off)
        caller.start()
        heard: list[str] = []
        message: list[Message] = [{"role": "user", "content": "hold:one two three"}]
        requests = [Request(message, seed, hear=heard.append) for seed in range(9)]
        with stopping.under(off, ""), pytest.raises(stopping.Stopped):
            engine.generate(requests, SAMPLING)
        caller.join()
        while server.left < 2:  # the server learns that nobody waits for its answers
            time.sleep(0.01)
        assert len(server.bodies) == 2


def test_a_writer_of_rows_ends_between_two_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFTAUGHT_HOME", str(tmp_path))
    get_settings.cache_clear()
    off = threading.Event()
    written = 0

    def rows() -> Iterator[dict[str, int]]:
        nonlocal written
        while True:
            yield {"n": written}
            written += 1
            if written == 5:
                off.set()

    with stopping.under(off, ""), pytest.raises(stopping.Stopped):
        publish_rows("rows", "a/rows.jsonl", rows())
    assert written == 5 and not list((tmp_path / "artifacts" / "a").iterdir())
    get_settings.cache_clear()
