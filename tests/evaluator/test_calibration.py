"""Confidence from end to end: a job's gate fits a temperature, and /judge answers with it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from selftaught.artifacts import publish_rows
from selftaught.contracts import BatchSettings, SamplingSettings
from selftaught.database import transaction
from selftaught.database.tables import Evaluation, Iteration, ModelVersion, Stage
from selftaught.ids import new_id
from selftaught.inference import Completion, Dialogue, Request
from selftaught.judging import load_judge_template
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler, run_one
from services.evaluator import batch, calibration, tasks
from services.evaluator import judge as service
from services.evaluator.calibration import Calibrations
from services.evaluator.main import create_app
from tests.work.helpers import HANDLERS, chunk, make_job, ready

TEMPLATE = load_judge_template("mt-bench")
SURE = 4.0  # log-odds of what it says
LIKES_A = 1.0  # log-odds that it adds for the first place
PLACES = {"A": 1, "B": -1}


class Judge:
    """Prefers the text with "good", or else with "odd"; of the rest it says what `say` wants."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Request]] = []
        self.say: dict[int, list[str]] = {}
        self.tells = True

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSettings
    ) -> list[list[Completion]]:
        self.asked.append(requests)
        return [
            [
                self._one(request, mark)
                for mark in self.say.get(n, [self._read(request)] * request.n)
            ]
            for n, request in enumerate(requests)
        ]

    def converse(self, dialogues: Iterable[Dialogue]) -> None:
        raise NotImplementedError

    def close(self) -> None: ...

    def _one(self, request: Request, mark: str) -> Completion:
        told = None
        if self.tells and request.marks and mark in "AB":
            logs = {"A": LIKES_A + SURE * PLACES[mark], "B": 0.0, "C": -2.0}
            told = [logs[one[2]] for one in request.marks]  # [[A]]
            total = math.log(sum(map(math.exp, told)))
            told = [one - total for one in told]
        text = f"So.\n[[{mark}]]" if mark != "?" else "mumble"
        return Completion(text, "stop", 10, 3, tuple(told) if told else None)

    @staticmethod
    def _read(request: Request) -> str:
        shown = request.messages[-1]["content"]
        return "A" if shown.index("good") < shown.index("bad") else "B"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    found = Judge()
    monkeypatch.setattr(tasks, "open_version", lambda version, job: found)
    monkeypatch.setattr(service, "open_version", lambda version, patience: found)
    return found


def _register(session: Session, lease: Lease, _: Result) -> None:
    version = ModelVersion(
        id=new_id("ver"), model="m", number=lease.iteration, path="x", sha256="x",
        lineage={
            "template": {"name": "mt-bench", "sha256": TEMPLATE.sha256},
            "inference": "local", "judge_max_tokens": 9,
            "judge_sampling": {"temperature": 1, "max_tokens": 9},
        },
    )  # fmt: skip
    session.add(version)
    session.flush()
    session.get_one(Iteration, lease.iteration_id).version_id = version.id


def _pairs(lease: Lease) -> Result:
    """40 pairs for each chunk; in a fifth of them the worse one says "good"."""
    rows = (
        {"id": f"{lease.input}{n}", "instruction": "i", "chosen": "bad" if n % 5 == 1 else "good",
         "rejected": "good" if n % 5 == 1 else "bad"}
        for n in range(40)
    )  # fmt: skip
    return Result(artifact=publish_rows("pair", lease.path("pair"), rows))


def seed_iteration() -> str:
    """A job whose first version has passed its gate; the job's id."""
    handlers = {
        **HANDLERS,
        "register": Handler(HANDLERS["register"].run, _register),
        "pair": Handler(_pairs),
        "validate": Handler(tasks.validate),
        "gate": Handler(tasks.gate, tasks.apply_gate),
    }
    job_id = make_job()
    kind = ""
    while kind != "gate":
        kind = chunk(ready(job_id)[0]).kind
        assert run_one(ready(job_id)[0], "test", handlers)
    return job_id


@pytest.fixture
def evaluator(database: object, judge: Judge) -> Iterator[TestClient]:
    with TestClient(create_app(), "http://localhost", raise_server_exceptions=False) as found:
        yield found


PAIR = {"instruction": "i", "response_a": "good", "response_b": "bad", "model": "m:0"}


def ask(evaluator: TestClient, **change: Any) -> Any:
    answer = evaluator.post("/judge", json={**PAIR, "cache": False, **change})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_gate_calibrates_and_the_judge_answers_with_it(evaluator: TestClient) -> None:
    job_id = seed_iteration()
    with transaction() as session:
        (found,) = session.scalars(select(Evaluation)).all()
        stage = session.scalars(
            select(Stage).where(Stage.job_id == job_id, Stage.kind == "gate")
        ).one()
    told = found.metrics["calibration"]
    assert (found.set, told["n"], told["unread"]) == ("heldout", 40, 0)
    assert stage.metrics["heldout"]["calibration"] == told
    # 32 of 40 are right, so that is how sure it may be; Platt's targets take a little of it.
    honest = 1 / (1 + math.exp(-SURE / told["temperature"]))
    assert honest == pytest.approx(0.8, abs=0.02)
    assert told["ece_before"] > 0.15 and told["ece_after"] < 0.02
    assert told["log_loss_after"] < told["log_loss_before"]

    out = ask(evaluator)
    probability = out["probability"]
    assert out["verdict"] == "A" and out["confidence"] == 1.0
    assert probability["calibrated"] is True
    assert probability["a"] + probability["b"] + probability["tie"] == pytest.approx(1)
    assert probability["a"] / (probability["a"] + probability["b"]) == pytest.approx(honest)
    first, second = (one["probability"] for one in out["orders"])
    assert math.log(first["a"] / first["b"]) == pytest.approx(SURE + LIKES_A)
    assert math.log(second["a"] / second["b"]) == pytest.approx(SURE - LIKES_A)
    assert probability["tie"] == pytest.approx((first["tie"] + second["tie"]) / 2)


@pytest.mark.parametrize("change", [{"votes": 2}, {"both_orders": False}, {"template": "criteria"}])
def test_what_was_not_validated_is_not_calibrated(
    evaluator: TestClient, change: dict[str, Any]
) -> None:
    seed_iteration()
    out = ask(evaluator, **change)
    raw = 1 / (1 + math.exp(-SURE - (LIKES_A if "both_orders" in change else 0)))
    assert out["probability"]["calibrated"] is False
    assert out["probability"]["a"] / (1 - out["probability"]["tie"]) == pytest.approx(raw)


def test_an_engine_that_tells_nothing(evaluator: TestClient, judge: Judge) -> None:
    seed_iteration()
    judge.tells = False
    out = ask(evaluator)
    assert out["probability"] is None and out["orders"][0]["probability"] is None
    assert (out["verdict"], out["confidence"]) == ("A", 1.0)


def test_an_order_that_could_not_be_read_leaves_no_probability(
    evaluator: TestClient, judge: Judge
) -> None:
    seed_iteration()
    judge.say = {1: ["?"]}
    out = ask(evaluator)
    assert out["verdict"] == "unparsable" and out["probability"] is None
    assert out["orders"][0]["probability"] and out["orders"][1]["probability"] is None


def test_a_calibration_that_comes_later_counts(
    evaluator: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_iteration()
    with transaction() as session:
        found = session.scalars(select(Evaluation)).one()
        told = found.metrics["calibration"]
        found.metrics = {name: v for name, v in found.metrics.items() if name != "calibration"}
    assert ask(evaluator)["probability"]["calibrated"] is False
    with transaction() as session:
        found = session.scalars(select(Evaluation)).one()
        found.metrics = {**found.metrics, "calibration": told}
    assert ask(evaluator)["probability"]["calibrated"] is False, "not looked for at every call"
    monkeypatch.setattr(calibration, "NONE_SECONDS", 0)
    assert ask(evaluator)["probability"]["calibrated"] is True


def test_a_look_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def load(version: str) -> calibration.Calibration | None:
        looks.append(version)
        if len(looks) == 1:
            raise OSError("gone")
        return calibration.Calibration(2.0, "x")

    monkeypatch.setattr(calibration, "load", load)

    async def test() -> None:
        found = Calibrations()
        first = await asyncio.gather(*(found.of("v") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(one, OSError) for one in first) and len(looks) == 1
        for _ in range(3):
            assert (await found.of("v")) == calibration.Calibration(2.0, "x")
        assert len(looks) == 2

    asyncio.run(test())


def test_no_tie_is_given_where_none_is_allowed(evaluator: TestClient, judge: Judge) -> None:
    seed_iteration()
    judge.say = {0: ["A"], 1: ["A"]}  # likes the first place
    assert ask(evaluator)["verdict"] == "tie"
    out = ask(evaluator, allow_tie=False)
    # Level log-odds and level votes: the coin. It falls for the same response in either place.
    swapped = ask(
        evaluator, allow_tie=False, response_a=PAIR["response_b"], response_b=PAIR["response_a"]
    )
    assert {out["verdict"], swapped["verdict"]} == {"A", "B"}
    assert (out["confidence"], out["orders_agree"]) == (0.5, False)
    assert out["probability"]["tie"] == 0 and out["probability"]["a"] == pytest.approx(0.5)
    # Votes settle it where there are no probabilities..
    judge.tells = False
    judge.say = {0: ["A", "A", "A"], 1: ["A", "A", "B"]}
    out = ask(evaluator, allow_tie=False, votes=3)
    assert (out["verdict"], out["orders_agree"]) == ("A", False)
    assert out["confidence"] == pytest.approx(4 / 6)
    # .. and probabilities before votes: two of three votes in each order, but less sure ones.
    judge.say = {0: ["C"], 1: ["B"]}
    assert ask(evaluator)["verdict"] == "tie"
    assert ask(evaluator, allow_tie=False)["verdict"] == "A"
    judge.say = {0: ["?"], 1: ["A"]}
    out = ask(evaluator, allow_tie=False)
    assert (out["verdict"], out["confidence"], out["parse_failures"]) == ("B", 0.5, 1)
    judge.say = {0: ["?"], 1: ["?"]}
    assert ask(evaluator, allow_tie=False)["verdict"] == "unparsable"


def test_rankings_without_ties(evaluator: TestClient, judge: Judge) -> None:
    seed_iteration()
    judge.say = {0: ["C"], 1: ["C"]}
    body = {"instruction": "i", "responses": ["good", "bad"], "model": "m:0", "cache": False}
    tied = evaluator.post("/v1/rank", json=body).json()
    assert [one["rank"] for one in tied["ranking"]] == [1, 1]
    out = evaluator.post("/v1/rank", json={**body, "allow_tie": False}).json()
    assert [one["rank"] for one in out["ranking"]] == [1, 2]
    assert {one["ties"] for one in out["ranking"]} == {0}


def test_answers_are_kept_with_the_marks_that_were_asked_for() -> None:
    version = ModelVersion(id="v")
    sampling = SamplingSettings(temperature=0)
    keys = {
        service._key(version, [Request([], 1, marks=marks)], sampling)
        for marks in ((), ("A", "B"), ("B", "A"))
    }
    assert len(keys) == 3


def test_a_batch_says_what_the_judge_says(evaluator: TestClient, judge: Judge) -> None:
    seed_iteration()
    single = ask(evaluator)
    with transaction() as session:
        version = session.scalars(select(ModelVersion)).one()
    settings = BatchSettings(
        version=version.id, ref="m:0", template="mt-bench", template_sha256=TEMPLATE.sha256,
        votes=1, both_orders=True, allow_tie=False, explain=False, lines=1,
    )  # fmt: skip
    line = {"custom_id": "x", "line": 1, **PAIR}
    del line["model"]
    found = calibration.load(version.id)
    ((row,), _) = batch.judge([line], settings, version, TEMPLATE, b"", judge, found)
    told, probability = row["result"]["probability"], single["probability"]
    assert told["calibrated"] is True and told["tie"] == 0
    assert told["a"] == pytest.approx(probability["a"] / (probability["a"] + probability["b"]))
