"""How likely each mark was, as each engine tells it."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selftaught.engines import Look, Served
from selftaught.inference import Completion, EngineRefused, Request, Sampling, vllm
from selftaught.inference.local import LocalEngine
from selftaught.inference.openai import OpenAIEngine
from selftaught.inference.pieces import Pieces
from selftaught.inference.tails import Tails
from selftaught.inference.vllm import VllmEngine
from selftaught.judging import TAIL, TOP, Verdict, load_judge_template, parse_verdict
from selftaught.judging.scoring import judge_outcomes
from tests import tiny

GREEDY = Sampling(temperature=0, max_tokens=64)
SEED = Path(str(files("seeds"))) / "smallworld"
SMALL = load_judge_template("smallworld")
MARKS = ("[[A]]", "[[B]]")


@pytest.fixture(scope="module")
def judge() -> LocalEngine:
    torch.set_num_threads(1)
    return LocalEngine(SEED)


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    lines = (SEED / "data" / "dev.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[:8]]


def requests(pairs: list[dict[str, Any]], n: int = 1) -> list[Request]:
    marks = SMALL.verdict_marks
    return [Request(SMALL.show(pair, "AB"), 5, n, marks=marks) for pair in pairs]


def test_the_small_world_is_as_sure_as_its_own_logits(
    judge: LocalEngine, pairs: list[dict[str, Any]]
) -> None:
    for request, (found,) in zip(
        requests(pairs), judge.generate(requests(pairs), GREEDY), strict=True
    ):
        told = found.mark_logprobs
        assert told is not None
        assert sum(map(math.exp, told)) == pytest.approx(1)
        verdict = parse_verdict(found.text, SMALL, found.finished)
        likeliest = max(zip(told, SMALL.verdicts, strict=True))[1]
        assert Verdict(likeliest) is verdict, "greedy writes the likeliest"
        # The verdict is one token with the blank before it; all three are in the vocabulary.
        prompt = judge._tokenise([request])[0]
        before, _, _ = found.text.rpartition(" [[")
        ids = [*prompt, *judge.tokenizer(before, add_special_tokens=False)["input_ids"]]
        with torch.inference_mode():
            model = type(judge.model).from_pretrained(SEED)
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        tokens = judge.tokenizer([f" {mark}" for mark in request.marks])["input_ids"]
        mine = logits[torch.tensor([one for (one,) in tokens])].log_softmax(-1)
        # What is not among the first five is told as likely as the fifth.
        for log, true in zip(told, mine.tolist(), strict=True):
            assert log == pytest.approx(true, abs=0.01) or (log > true and log < -5)


def test_to_ask_for_probabilities_changes_no_text_and_batches_change_no_probability(
    judge: LocalEngine, pairs: list[dict[str, Any]]
) -> None:
    warm = Sampling(temperature=1, max_tokens=64)
    asked = requests(pairs, n=3)
    plain = [Request(one.messages, one.seed, one.n) for one in asked]
    found, without = judge.generate(asked, warm), judge.generate(plain, warm)
    assert [[c.text for c in votes] for votes in found] == [
        [c.text for c in votes] for votes in without
    ]
    assert all(c.mark_logprobs is None for votes in without for c in votes)
    for request, votes in zip(asked, found, strict=True):
        (alone,) = judge.generate([request], warm)
        for one, other in zip(votes, alone, strict=True):
            assert one.mark_logprobs == (
                other.mark_logprobs and pytest.approx(other.mark_logprobs, abs=1e-3)
            )
    mixed = judge.generate([asked[0], plain[1]], warm)
    assert mixed[0][0].mark_logprobs and mixed[1][0].mark_logprobs is None


def test_outcomes_have_log_odds_of_the_chosen_response(
    judge: LocalEngine, pairs: list[dict[str, Any]]
) -> None:
    for one in judge_outcomes(judge, SMALL, pairs, 64, sure=True):
        assert one["log_odds"] is not None
        if one["verdict"] in ("A", "B"):
            assert (one["log_odds"] > 0) == (one["verdict"] == "A")


def test_a_tail_is_the_last_tokens_of_each_sample() -> None:
    words = tiny.tokenizer()
    pieces = Pieces(words)
    logits = torch.randn(40, 3, len(words), generator=torch.Generator().manual_seed(0))
    tails = Tails(3, len(words))
    written: list[list[int]] = [[], [], []]
    rows = np.array([0, 1, 2])
    for step in range(40):
        if step == 30:  # sample 0 has ended and leaves the batch
            rows = rows[1:]
        running = np.array([not (row == 0 and step >= 25) for row in rows])
        here = logits[step][torch.from_numpy(rows)]
        tokens = here.argmin(-1)  # never among the likeliest
        tails.write(step, rows, running, here, tokens)
        for row, token, live in zip(rows, tokens.tolist(), running, strict=True):
            if live:
                written[row].append(token)
    truth = logits.log_softmax(-1)
    for sample, tokens_written in enumerate(written):
        tail = tails.read(sample, tokens_written, pieces)
        first = len(tokens_written) - TAIL
        for step, token in enumerate(tail, first):
            own = tokens_written[step]
            assert token.text == pieces[own]
            assert token.logprob == pytest.approx(float(truth[step, sample, own]), abs=1e-4)
            best, ids = truth[step, sample].topk(TOP)
            assert [text for text, _ in token.top] == [pieces[one] for one in ids.tolist()]
            assert [log for _, log in token.top] == pytest.approx(best.tolist(), abs=1e-4)
        assert len(tail) == TAIL


def test_pieces_keep_their_blanks() -> None:
    words = tiny.tokenizer()
    ids = words("a [[é", add_special_tokens=False)["input_ids"]
    pieces = Pieces(words)
    assert [pieces[one] for one in ids[:4]] == ["a", " ", "[", "["]
    assert pieces[words.eos_token_id] == "<|end|>"


Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


@contextmanager
def server(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A model server that answers so: its URL, and the bodies that it saw."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append(body)
            status, answer = reply(body)
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None: ...

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", seen
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def chat(logprobs: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Well.\n[[A]]"}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
    return {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 6}}


def chat_token(text: str, **others: float) -> dict[str, Any]:
    top = [{"token": one, "logprob": math.log(p), "bytes": None} for one, p in others.items()]
    return {"token": text, "logprob": math.log(others[text]), "bytes": None, "top_logprobs": top}


CONTENT = {
    "content": [
        chat_token("Well", Well=0.9, So=0.1),
        {"token": ".\n", "logprob": -0.1, "bytes": None, "top_logprobs": []},
        {"token": "[[", "logprob": -0.1, "bytes": None, "top_logprobs": []},
        chat_token("A", A=0.6, B=0.3, C=0.05),
        {"token": "]]", "logprob": 0.0, "bytes": None, "top_logprobs": []},
    ],
    "refusal": None,
}


def ask(url: str, texts: Sequence[str] = ("x",), engine: OpenAIEngine | None = None) -> Any:
    engine = engine or OpenAIEngine(url, "judge", attempts=2, backoff=0.01)
    asked = [Request([{"role": "user", "content": one}], 1, marks=MARKS) for one in texts]
    return [one for (one,) in engine.generate(asked, GREEDY)]


def test_a_chat_endpoint_that_gives_alternatives() -> None:
    with server(lambda body: (200, chat(CONTENT))) as (url, seen):
        (found,) = ask(url)
        engine = OpenAIEngine(url, "judge")
        engine.generate([Request([{"role": "user", "content": "x"}], 1)], GREEDY)
    assert [math.exp(one) for one in found.mark_logprobs] == pytest.approx([2 / 3, 1 / 3])
    assert (seen[0]["logprobs"], seen[0]["top_logprobs"]) == (True, 5)
    assert "logprobs" not in seen[1], "nobody asked"


@pytest.mark.parametrize(
    "given",
    [None, {}, {"content": None}, {"content": []}, {"tokens": ["A"], "token_logprobs": [-0.1]}, 7,
     {"content": [{"token": "A", "logprob": None, "top_logprobs": []}]}],
)  # fmt: skip
def test_a_chat_endpoint_that_gives_something_else(given: Any) -> None:
    with server(lambda body: (200, chat(given))) as (url, _):
        (found,) = ask(url)
    assert found.mark_logprobs is None and found.text == "Well.\n[[A]]"


@pytest.mark.parametrize("status", [400, 403, 422, 501])
def test_a_chat_endpoint_that_refuses_them_is_asked_once(status: int) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "logprobs" in body:
            return status, {"error": {"message": "logprobs: not allowed"}}
        return 200, chat(None)

    with server(reply) as (url, seen):
        engine = OpenAIEngine(url, "judge", attempts=2, backoff=0.01)
        for _ in range(2):
            (found,) = ask(url, engine=engine)
            assert found.finished and found.mark_logprobs is None
    assert ["logprobs" in body for body in seen] == [True, False, False]


def test_a_prompt_that_is_refused_says_nothing_about_logprobs() -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["messages"][0]["content"] == "long":
            return 400, {"error": {"message": "maximum context length"}}
        return 200, chat(CONTENT)

    with server(reply) as (url, seen):
        engine = OpenAIEngine(url, "judge", attempts=2, backoff=0.01)
        assert ask(url, ["long"], engine)[0].finish_reason == "rejected"
        assert engine.logprobs is None
        assert ask(url, ["x"], engine)[0].mark_logprobs is not None
        assert ask(url, ["long"], engine)[0].finish_reason == "rejected"
    assert ["logprobs" in body for body in seen] == [True, False, True, True]
    with server(lambda body: (401, {})) as (url, _), pytest.raises(EngineRefused):
        ask(url)


def test_vllm_names_its_tokens_by_number(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    words = tiny.tokenizer()
    written = words("so [[B]]", add_special_tokens=False)["input_ids"] + [words.eos_token_id]
    a, b, z = (words(one, add_special_tokens=False)["input_ids"][0] for one in "ABZ")

    def place(token: int) -> dict[str, float]:
        if token != b:
            return {f"token_id:{token}": -0.001, f"token_id:{z}": -7.0}
        # B was drawn although five others were likelier: it comes first, beside the five.
        top = {a: 0.5, z: 0.2, z + 1: 0.1, z + 2: 0.05, z + 3: 0.04}
        likely = {f"token_id:{one}": math.log(p) for one, p in top.items()}
        return {f"token_id:{b}": math.log(0.02), **likely}

    places = [place(token) for token in written]
    logprobs = {
        "tokens": [f"token_id:{token}" for token in written],
        "token_logprobs": [next(iter(one.values())) for one in places],
        "top_logprobs": places,
        "text_offset": list(range(len(written))),
    }
    choice = {"index": 0, "text": "so [[B]]", "finish_reason": "stop"}
    usage = {"prompt_tokens": 4, "completion_tokens": 9}

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        told = logprobs if "logprobs" in body else None
        return 200, {"choices": [{**choice, "logprobs": told}], "usage": usage}

    monkeypatch.setattr(vllm, "_tokenizer", lambda folder, base: words)
    monkeypatch.setattr(vllm, "want", lambda target, job: None)
    with server(reply) as (url, seen):
        monkeypatch.setattr(vllm, "look", lambda target: Look((Served("s", url, 9999),), 1, None))

        def answered(marks: tuple[str, ...]) -> Completion:
            target: Any = type("Target", (), {"model": "v", "folder": tiny_model, "spec": Spec})
            request = Request([{"role": "user", "content": "x"}], 1, marks=marks)
            return VllmEngine(target).generate([request], GREEDY)[0][0]

        found = answered((*MARKS, "[[C]]")).mark_logprobs
        assert found is not None
        expected = [0.5 / 0.56, 0.02 / 0.56, 0.04 / 0.56]  # C is at most as likely as the fifth
        assert [math.exp(one) for one in found] == pytest.approx(expected)
        assert answered(()).mark_logprobs is None
    assert (seen[0]["logprobs"], seen[0]["return_tokens_as_token_ids"]) == (5, True)
    assert "logprobs" not in seen[1]


class Spec:
    base = "x"
