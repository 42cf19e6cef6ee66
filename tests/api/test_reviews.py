"""Review queues over HTTP: filled by a job with an engine of known habits, reviewed blind."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from starlette.testclient import TestClient

from selftaught.artifacts import publish_rows
from selftaught.contracts import SamplingSettings
from selftaught.database import transaction
from selftaught.database.tables import Event, Job, LoggedVerdict, ModelVersion, Review, ReviewItem
from selftaught.inference import Completion, Request
from selftaught.work.kernel import Lease, Result
from services.evaluator import tasks
from tests.api.conftest import assert_problem
from tests.api.helpers import add_versions, upload
from tests.work.helpers import drain, make_job, with_run

PAIRS = 60
LINEAGE = {
    "template": {"name": "mt-bench"},
    "judge_max_tokens": 9,
    "judge_sampling": {"temperature": 0.5, "max_tokens": 9},
}
HANDLERS = {
    "survey": tasks.Handler(tasks.survey),
    "sample": tasks.Handler(tasks.sample, tasks.apply_sample),
}
HIDDEN = {
    "verdict", "model_verdict", "against_verdict", "stratum", "weight", "confidence", "agrees",
    "orders_agree", "swapped", "chosen", "rejected", "label", "pair", "subset", "position",
}  # fmt: skip


class Engine:
    """Prefers "good"; if `errs`, every fifth pair by its first place, every other fifth wrongly."""

    def __init__(self, errs: bool) -> None:
        self.errs = errs

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSettings
    ) -> list[list[Completion]]:
        return [[Completion(self._say(one), "stop", 5, 2)] * one.n for one in requests]

    def _say(self, request: Request) -> str:
        shown = request.messages[-1]["content"]
        number = int(shown.partition("question ")[2].split()[0])
        good_first = shown.index("good") < shown.index("bad")
        if self.errs and number % 5 == 0:
            return "[[A]]"
        if self.errs and number % 5 == 1:
            return "[[B]]" if good_first else "[[A]]"
        return "[[A]]" if good_first else "[[B]]"

    def close(self) -> None: ...


@pytest.fixture
def versions(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """m:0, which never errs, and its child m:1, which does; m:1 has a job."""
    engines = {"ver_0": Engine(False), "ver_1": Engine(True)}
    monkeypatch.setattr(tasks, "open_version", lambda version, job_id: engines[version.id])
    with transaction() as session:
        session.add(Job(id="job_m", state="succeeded", model="m", recipe={"name": "r"}))
        session.flush()
        for number, parent in ((0, None), (1, "ver_0")):
            session.add(
                ModelVersion(
                    id=f"ver_{number}", model="m", number=number, parent_id=parent, path="x",
                    sha256="x", lineage=LINEAGE, job_id="job_m",
                )
            )  # fmt: skip
            session.flush()


@pytest.fixture
def labelled(client: TestClient, versions: None) -> str:
    rows = [
        {
            "id": f"p{n}", "instruction": f"question {n} ?", "chosen": f"good {n}",
            "rejected": f"bad {n}", "subset": "s",
        }
        for n in range(PAIRS)
    ]  # fmt: skip
    answer = client.post(
        "/v1/datasets?kind=labelled",
        content="\n".join(map(json.dumps, rows)),
        headers={"content-type": "application/x-ndjson"},
    )
    return str(answer.json()["id"])


def fill(client: TestClient, source: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    """A filled queue's job."""
    answer = client.post(
        f"/v1/models/m/versions/{number}/reviews", json={"size": 20, "source": source, **fields}
    )
    assert answer.status_code == 202, answer.text
    drain(answer.json()["id"], HANDLERS)
    job: dict[str, Any] = client.get(answer.headers["location"]).json()
    assert job["state"] == "succeeded", job
    return job


def items(job: str) -> list[ReviewItem]:
    with transaction() as session:
        query = select(ReviewItem).where(ReviewItem.job_id == job).order_by(ReviewItem.position)
        return list(session.scalars(query))


def give(client: TestClient, reviewer: str, version: str = "m:1") -> Any:
    answer = client.get("/v1/reviews/next", params={"version": version, "reviewer": reviewer})
    assert answer.status_code == 200, answer.text
    return answer.json()


def answer(client: TestClient, item: str, reviewer: str, verdict: str, **more: Any) -> Any:
    body = {"reviewer": reviewer, "verdict": verdict, **more}
    return client.post(f"/v1/reviews/{item}/answers", json=body)


def keys(value: Any) -> set[str]:
    """Every key in a JSON value, at any depth."""
    if isinstance(value, dict):
        return set(value) | {key for part in value.values() for key in keys(part)}
    return {key for part in value for key in keys(part)} if isinstance(value, list) else set()


def test_a_queue_is_stratified_counterbalanced_and_weighted(
    client: TestClient, labelled: str
) -> None:
    job = fill(client, labelled)
    assert (job["kind"], job["recipe"]["against_ref"]) == ("review", "m:0")
    found = items(job["id"])
    # 12 pairs by place (a tie for m:1), 12 wrong ones: all 24 differ from m:0. 36 others.
    assert Counter(item.stratum for item in found) == {"disagreement": 11, "random": 9}
    assert {item.verdict for item in found if item.stratum == "random"} == {"A"}
    assert {item.confidence for item in found if item.verdict == "tie"} == {0.0}
    assert sum(item.weight for item in found) == pytest.approx(PAIRS)
    weights = {item.stratum: item.weight for item in found}
    assert weights == {"disagreement": pytest.approx(24 / 11), "random": pytest.approx(36 / 9)}
    for name in weights:
        swapped = Counter(item.swapped for item in found if item.stratum == name)
        assert abs(swapped[True] - swapped[False]) <= 1
    assert len({item.pair for item in found}) == 20


def test_low_confidence_is_a_stratum_of_its_own(client: TestClient, labelled: str) -> None:
    strata = {"disagreement": 0, "low_confidence": 0.5, "random": 0.5}
    found = items(fill(client, labelled, strata=strata, votes=2)["id"])
    assert Counter(item.stratum for item in found) == {"low_confidence": 10, "random": 10}
    assert {item.verdict for item in found if item.stratum == "low_confidence"} == {"tie"}
    # The only other version is newer, and no `latest` names it: there is nothing to differ from.
    found = items(fill(client, labelled, number=0)["id"])
    assert Counter((item.stratum, item.against_verdict) for item in found) == {("random", None): 20}


def test_the_seed_decides_and_the_same_request_is_the_same_job(
    client: TestClient, labelled: str
) -> None:
    first = fill(client, labelled)
    assert fill(client, labelled)["id"] == first["id"]
    again, other = fill(client, labelled, overlap=2), fill(client, labelled, seed=1)
    picked = [
        [(item.pair, item.stratum, item.swapped) for item in items(job["id"])]
        for job in (first, again, other)
    ]
    assert picked[0] == picked[1] != picked[2]


def test_equal_requests_at_the_same_time_are_one_job(client: TestClient, labelled: str) -> None:
    body = {"size": 20, "source": labelled}
    with ThreadPoolExecutor(6) as pool:
        posts = [
            pool.submit(client.post, "/v1/models/m/versions/1/reviews", json=body) for _ in range(6)
        ]
        assert len({post.result().json()["id"] for post in posts}) == 1
    (job,) = client.get("/v1/jobs?kind=review").json()["data"]
    assert client.post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
    assert give(client, "ada") == {"item": None, "left": 0}
    assert fill(client, labelled)["id"] != job["id"], "a cancelled one is not the same"


def test_nothing_before_the_answer_tells_what_the_model_said(
    client: TestClient, labelled: str
) -> None:
    job = fill(client, labelled)
    shown = give(client, "ada")
    assert shown["left"] == 20 and not keys(shown) & HIDDEN
    assert set(shown["item"]) == {
        "id", "context", "instruction", "response_a", "response_b", "held_until",
    }  # fmt: skip
    skipped = client.post(f"/v1/reviews/{shown['item']['id']}/skip", json={"reviewer": "ada"})
    assert skipped.status_code == 200 and not keys(skipped.json()) & HIDDEN
    refused = answer(client, items(job["id"])[5].id, "ada", "A")
    assert not keys(assert_problem(refused, 409, "not_shown")) & HIDDEN
    data = client.get(f"/v1/jobs/{job['id']}/data")
    assert data.json()["data"] == [], "what the version said is not among the job's downloads"
    assert_problem(client.get(f"/v1/jobs/{job['id']}/data/0/survey"), 404, "no_such_data")
    for path in ("", "/events", "/iterations"):
        told = keys(client.get(f"/v1/jobs/{job['id']}{path}").json())
        assert not told & (HIDDEN - {"swapped"}), path


def test_answers_are_in_the_letters_as_shown_and_final(client: TestClient, labelled: str) -> None:
    fill(client, labelled)
    seen = set()
    for _ in range(20):
        item = give(client, "ada")["item"]
        assert give(client, "ada")["item"]["id"] == item["id"], "the same until it is answered"
        good = "A" if item["response_a"].startswith("good") else "B"
        number = int(item["instruction"].split()[1])
        out = answer(client, item["id"], "ada", good).json()
        said = {0: "tie", 1: "B" if good == "A" else "A"}.get(number % 5, good)
        assert (out["model"], out["model_verdict"], out["agrees"]) == ("m:1", said, said == good)
        assert (out["against"], out["against_verdict"]) == ("m:0", good)
        assert out["seconds"] >= 0 and out["stratum"] in ("disagreement", "random")
        assert answer(client, item["id"], "ada", good).json() == out, "replayed"
        other = answer(client, item["id"], "ada", "tie")
        assert_problem(other, 409, "already_answered")
        seen.add((item["id"], good))
    assert give(client, "ada") == {"item": None, "left": 0} == give(client, "bob")
    assert {good for _, good in seen} == {"A", "B"}
    found = client.get("/v1/models/m/versions/1/reviews/summary").json()
    assert (found["n"], found["items"], found["reviewers"]) == (20, 20, 1)
    assert found["agreement"] == 9 / 20 and found["strata"]["disagreement"]["agreement"] == 0
    assert found["source"]["agreement"] == pytest.approx(36 / 60), "the truth over the source"
    assert found["source"]["pairs"] == pytest.approx(60)
    assert found["drift"] is None
    said = {(one["model"], one["person"]): one["n"] for one in found["confusion"]}
    assert {("A", "A"), ("B", "B")} < said.keys(), "in the letters as shown, which are drawn"
    assert sum(said.values()) == 20
    # As shown A and B are about as frequent, so chance gives about a half of the agreement.
    assert found["strata"]["random"]["kappa"] == 1.0


def test_items_are_listed_with_their_comments_once_nobody_is_to_review_them(
    client: TestClient, labelled: str
) -> None:
    fill(client, labelled, overlap=2)

    def listed(**params: Any) -> Any:
        return client.get("/v1/models/m/versions/1/reviews", params=params).json()

    shown = []
    for reviewer in ("ada", "bob"):
        for _ in range(3):
            assert listed()["data"] == [] or reviewer == "bob", "ada alone is not enough"
            item = give(client, reviewer)["item"]
            shown.append(item)
            answer(client, item["id"], reviewer, "A", comment=f"of {reviewer}")
    page = listed(limit=2)
    rest = listed(limit=2, after=page["data"][-1]["id"])
    assert (page["has_more"], rest["has_more"]) == (True, False)
    found = {one["id"]: one for one in page["data"] + rest["data"]}
    assert len(found) == 3
    for item in shown:
        one = found[item["id"]]
        for field in ("context", "instruction", "response_a", "response_b"):
            assert one[field] == item[field], "as it was shown"
        told = [(each["reviewer"], each["verdict"], each["comment"]) for each in one["answers"]]
        assert told == [("ada", "A", "of ada"), ("bob", "A", "of bob")]


def test_skipped_items_go_to_others(client: TestClient, labelled: str) -> None:
    fill(client, labelled)
    item = give(client, "ada")["item"]["id"]
    assert client.post(f"/v1/reviews/{item}/skip", json={"reviewer": "ada"}).status_code == 200
    after = give(client, "ada")
    assert after["item"]["id"] != item and after["left"] == 19
    assert give(client, "bob")["item"]["id"] == item
    assert answer(client, item, "bob", "tie").status_code == 200
    refused = client.post(f"/v1/reviews/{item}/skip", json={"reviewer": "bob"})
    assert_problem(refused, 409, "already_answered")
    assert client.get("/v1/models/m/versions/1/reviews/summary").json()["skipped"] == 1
    # Who skipped an item may change their mind, as long as it is blind.
    assert_problem(answer(client, item, "ada", "A"), 409, "already_published")
    other = after["item"]["id"]
    assert client.post(f"/v1/reviews/{other}/skip", json={"reviewer": "ada"}).status_code == 200
    assert answer(client, other, "ada", "A").status_code == 200


def test_a_hold_runs_out(client: TestClient, labelled: str) -> None:
    fill(client, labelled)
    item = give(client, "ada")["item"]["id"]
    other = give(client, "bob")["item"]["id"]
    assert other != item
    with transaction() as session:
        past = func.now() - func.make_interval(0, 0, 0, 1)
        session.execute(
            update(Review)
            .where(Review.reviewer.in_(("ada", "bob")))
            .values(held_until=past)
            .execution_options(synchronize_session=False)
        )
    assert give(client, "eve")["item"]["id"] == item
    assert answer(client, item, "eve", "A").status_code == 200
    # By then the item is listed with what the model said.
    assert_problem(answer(client, item, "ada", "B"), 409, "already_published")
    late = answer(client, other, "bob", "B")
    assert late.status_code == 200, "nobody else has answered: it is still blind"
    found = client.get("/v1/models/m/versions/1/reviews/summary").json()
    assert (found["n"], found["answers"]) == (2, 2)


def test_nobody_gets_a_pair_again_that_they_were_told_the_verdict_of(
    client: TestClient, labelled: str
) -> None:
    # m:0 is what m:1 is held against: every reply about m:1 tells what m:0 said.
    fill(client, labelled, size=PAIRS)
    first = give(client, "ada")["item"]
    assert answer(client, first["id"], "ada", "A").status_code == 200
    fill(client, labelled, size=PAIRS, seed=1)
    fill(client, labelled, size=PAIRS, number=0, overlap=2)
    for version, left in (("m:1", 2 * PAIRS - 2), ("m:0", PAIRS - 1)):
        assert give(client, "ada", version)["left"] == left
    assert give(client, "bob", "m:0")["left"] == PAIRS, "bob was told nothing"


@pytest.mark.parametrize("overlap", [1, 2])
def test_reviewers_at_the_same_time(client: TestClient, labelled: str, overlap: int) -> None:
    fill(client, labelled, overlap=overlap)
    got: list[str] = []
    barrier = threading.Barrier(6)

    def review(reviewer: str) -> None:
        barrier.wait()
        mine = []
        while item := give(client, reviewer)["item"]:
            mine.append(item["id"])
            answer(client, item["id"], reviewer, "A")
        assert len(mine) == len(set(mine))
        got.extend(mine)

    threads = [threading.Thread(target=review, args=(f"r{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Counter(got).values()) == {overlap} and len(set(got)) == 20
    found = client.get("/v1/models/m/versions/1/reviews/summary").json()
    assert (found["n"], found["answers"]) == (20, 20 * overlap)
    assert found["between_reviewers"]["items"] == (20 if overlap == 2 else 0)


def test_a_fall_is_an_alarm_in_the_drift_an_event_and_a_gauge(
    client: TestClient, labelled: str
) -> None:
    for number in (0, 1):
        fill(client, labelled, number=number, size=40)
        for _ in range(40):
            item = give(client, "ada", f"m:{number}")["item"]
            good = "A" if item["response_a"].startswith("good") else "B"
            assert answer(client, item["id"], "ada", good).status_code == 200
    found = client.get("/v1/models/m/reviews/drift").json()
    assert found["state"] == found["between_versions"]["state"] == "alarm"
    before, after = (found["between_versions"][name] for name in ("before", "after"))
    assert (before["agreement"], after["agreement"]) == (1.0, pytest.approx(0.6))
    assert client.get("/v1/models/m/versions/1/reviews/summary").json()["drift"]["p"] < 0.01
    with transaction() as session:
        events = session.scalars(select(Event).where(Event.type == "reviews.alarm")).all()
        assert [(event.job_id, event.data["version"]) for event in events] == [("job_m", "m:1")]
    metrics = client.get("/metrics").text
    assert 'selftaught_review_drift{model="m",project="default"} 2.0' in metrics
    assert 'selftaught_review_agreement{model="m",project="default",version="1"} 0.6' in metrics


def test_heldout_pairs_are_those_that_validation_read(
    client: TestClient, versions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = client.post("/v1/models/m/versions/1/reviews", json={})
    assert_problem(refused, 422, "no_heldout_pairs", "source")

    def pair(lease: Lease) -> Result:
        first = 5 * int(lease.chunk_id.rpartition(".")[2])
        rows = [
            {"id": f"h{n}", "instruction": f"question {n} ?", "chosen": "good", "rejected": "bad"}
            for n in range(first, first + 5)
        ]
        return Result(artifact=publish_rows("pairs", lease.path("pair"), rows))

    job_id = make_job()
    drain(job_id, with_run("pair", pair))
    with transaction() as session:
        session.execute(update(ModelVersion).values(lineage=LINEAGE))
    monkeypatch.setattr(tasks, "open_version", lambda version, job_id: Engine(False))
    asked = client.post(f"/v1/models/{job_id}/versions/1/reviews", json={"size": 10})
    drain(asked.json()["id"], HANDLERS)
    found = items(asked.json()["id"])
    # Rows 0, 2, .. 8 of the ten have chosen the checkpoint.
    assert sorted(item.pair for item in found) == ["h1", "h3", "h5", "h7", "h9"]
    assert {item.weight for item in found} == {1.0}


def test_what_was_asked_is_reviewed_where_the_log_keeps_it(
    client: TestClient, versions: None
) -> None:
    asked = client.post("/v1/models/m/versions/1/reviews", json={"source": "traffic"})
    assert_problem(asked, 422, "no_traffic", "source")
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes?"}]
    for n in range(30):
        last = {"role": "user", "content": f"question {n % 15} ?"}
        texts = {
            "messages": [*turns, last], "response_a": "good", "response_b": "bad",
            "rubric": "brief",
        }  # fmt: skip
        log(n, version="ver_0", sha=str(n % 15), texts=texts)
    log(30, version="ver_0", sha="x", texts=None)
    found = items(fill(client, "traffic", size=10)["id"])
    assert len({item.instruction for item in found}) == 10, "each question once"
    assert sum(item.weight for item in found) == pytest.approx(15)
    shown = give(client, "ada")["item"]
    assert shown["context"] == turns
    assert shown["instruction"].endswith("by this rubric:\n\nbrief")
    by_number = {int(item.instruction.split()[1]): item.verdict for item in found}
    assert all(v == {0: "tie", 1: "B"}.get(n % 5, "A") for n, v in by_number.items())


def log(n: int, version: str, sha: str, texts: Any) -> None:
    """A row of the verdict log."""
    numbers = dict.fromkeys(
        ("votes", "parse_failures", "prompt_tokens", "completion_tokens", "confidence",
         "total_seconds", "queue_seconds", "engine_seconds"), 1,
    )  # fmt: skip
    with transaction() as session:
        session.add(
            LoggedVerdict(
                id=f"v_{n}", created_at=func.now(), version_id=version, template="t",
                template_sha256="t", verdict="A", orders=[], cached=False, content_sha256=sha,
                texts=texts, **numbers,
            )
        )  # fmt: skip


def test_questions_that_the_log_has_dropped_are_left_out(
    client: TestClient, versions: None
) -> None:
    for n in range(12):
        texts = {"instruction": f"question {n} ?", "response_a": "good", "response_b": "bad"}
        log(n, version="ver_0", sha=str(n), texts=texts)
    body = {"size": 10, "source": "traffic"}
    job = client.post("/v1/models/m/versions/1/reviews", json=body).json()["id"]
    with transaction() as session:
        session.execute(delete(LoggedVerdict).where(LoggedVerdict.id.in_(["v_3", "v_4", "v_5"])))
    drain(job, HANDLERS)
    found = items(job)
    assert len(found) == 9 and sum(item.weight for item in found) == pytest.approx(12)


def test_unlabelled_pairs_are_shown_with_their_conversation(
    client: TestClient, versions: None
) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"turn {n}"},
                {"role": "assistant", "content": "and?"},
                {"role": "user", "content": f"question {n} ?"},
            ],
            "response_a": "bad", "response_b": "good",
        }
        for n in range(10)
    ]  # fmt: skip
    uploaded = client.post(
        "/v1/datasets?kind=pairs",
        content="\n".join(map(json.dumps, rows)),
        headers={"content-type": "application/x-ndjson"},
    )
    assert uploaded.status_code == 201 and uploaded.json()["kind"] == "pairs"
    fill(client, uploaded.json()["id"], number=0, size=10)
    item = give(client, "ada", "m:0")["item"]
    assert [turn["role"] for turn in item["context"]] == ["user", "assistant"]
    assert item["context"][0]["content"].removeprefix("turn ") == item["instruction"].split()[1]
    good = "A" if item["response_a"] == "good" else "B"
    assert answer(client, item["id"], "ada", good).json()["agrees"]


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"source": "ds_no"}, 404, "dataset_not_found", "source"),
        ({"source": "instructions"}, 422, "wrong_dataset_kind", "source"),
        ({"against": "m:1"}, 422, "same_version", "against"),
        ({"against": "m:7"}, 404, "unknown_model", None),
        ({"size": 9}, 422, "invalid_request", "size"),
        ({"strata": {"random": 0}}, 422, "invalid_request", "strata.random"),
        ({"strata": {"hard": 1}}, 422, "invalid_request", "strata.hard"),
        ({"overlap": 0}, 422, "invalid_request", "overlap"),
        ({"votes": 65}, 422, "invalid_request", "votes"),
        ({"source": "a\0b"}, 422, "invalid_request", None),
    ],
)
def test_queues_that_make_no_sense(
    client: TestClient, labelled: str, change: dict[str, Any], status: int, code: str, param: Any
) -> None:
    if change.get("source") == "instructions":
        change = {"source": upload(client)}
    body = {"source": labelled, **change}
    assert_problem(client.post("/v1/models/m/versions/1/reviews", json=body), status, code, param)
    with transaction() as session:
        assert session.scalar(select(func.count()).where(Job.kind == "review")) == 0


def test_reviews_that_make_no_sense(client: TestClient, labelled: str) -> None:
    fill(client, labelled)
    item = give(client, "ada")["item"]["id"]
    for verdict in ("C", "unparsable", "", None):
        assert_problem(answer(client, item, "ada", verdict), 422, "invalid_request", "verdict")  # type: ignore[arg-type]
    for reviewer in ("", "a\0b", "x" * 201, 5):
        assert_problem(answer(client, item, reviewer, "A"), 422, "invalid_request")  # type: ignore[arg-type]
    assert_problem(answer(client, "item_no", "ada", "A"), 404, "item_not_found")
    assert_problem(answer(client, item, "bob", "A"), 409, "not_shown")
    skip = client.post("/v1/reviews/item_no/skip", json={"reviewer": "ada"})
    assert_problem(skip, 404, "item_not_found")
    for version in ("m:9", "none"):
        found = client.get("/v1/reviews/next", params={"version": version, "reviewer": "ada"})
        assert_problem(found, 404, "unknown_model")
    found = client.get("/v1/reviews/next", params={"version": "m", "reviewer": "ada"})
    assert_problem(found, 409, "no_model")
    assert_problem(client.get("/v1/reviews/next?version=m:1"), 422, "invalid_request", "reviewer")
    for path in ("versions/9/reviews/summary", "versions/-1/reviews/summary"):
        assert client.get(f"/v1/models/m/{path}").status_code in (404, 422)
    assert_problem(client.get("/v1/models/no/reviews/drift"), 404, "model_not_found")
    add_versions("empty", [0])
    assert client.get("/v1/models/empty/reviews/drift").json()["state"] == "ok"
