"""Looking at an iteration's pairs: what is told of each, in pages, by id, by what became of it."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from selftaught import jsonl
from selftaught.artifacts import publish_rows, resolve
from selftaught.database import transaction
from selftaught.database.tables import Job
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler
from services.api import pairs
from services.generator.tasks import run_curate
from tests.api.conftest import assert_problem
from tests.work import helpers

SAID = ["AABU", "BBBB", "AAAA", "TTBB"]
"""What the samples of every fourth pair say, in both orders: A, B, T (tie), U (unparsable)."""
NAMES = {"A": "A", "B": "B", "T": "tie", "U": "unparsable"}


def run_pair(lease: Lease) -> Result:
    """Two pairs a chunk, in an order that their ids have not; the second chunk makes none."""
    n = int(lease.chunk_id.rpartition(".")[2])
    rows = [
        {"id": f"{one % 3}/x {one}", "instruction": f"do {one}" + "!" * 400,
         "modified_instruction": "do not", "chosen": f"good {one}", "rejected": "bad"}
        for one in (2 * n, 2 * n + 1) if n != 1
    ]  # fmt: skip
    return Result(artifact=publish_rows("pairs", lease.path("pair"), rows))


def run_judge(lease: Lease) -> Result:
    rows = []
    for pair in jsonl.read(resolve(lease.input["pairs"])):
        number = int(pair["id"].rpartition(" ")[2])
        for order in ("AB", "BA"):
            for sample, letter in enumerate(SAID[number % 4]):
                rows.append(
                    {"pair_id": pair["id"], "order": order, "sample": sample,
                     "text": f"{pair['id']} {order} {sample} [[{letter}]]",
                     "verdict": NAMES[letter], "label": order[0], "finish_reason": "stop",
                     "prompt_tokens": 3, "completion_tokens": 5}
                )  # fmt: skip
    return Result(artifact=publish_rows("judgments", lease.path("judge"), rows))


HANDLERS = {
    **helpers.HANDLERS,
    "pair": Handler(run_pair),
    "judge": Handler(run_judge),
    "curate": Handler(run_curate),
}


@pytest.fixture
def job(client: TestClient) -> str:
    """One whose iteration has six pairs, and a chunk without any."""
    name = helpers.make_job(curate={"preferences": True}, judge={"samples": 4})
    helpers.drain(name, HANDLERS)
    assert helpers.job(name).state == "succeeded"
    return name


def pages(client: TestClient, job: str, **query: Any) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        asked = {**query, **({"after": after} if after else {})}
        answer = client.get(f"/v1/jobs/{job}/iterations/1/pairs", params=asked)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        yield from page["data"]
        after = page["next"]
        assert page["has_more"] == (after is not None)
        if after is None:
            return


def ids(client: TestClient, job: str, **query: Any) -> list[str]:
    return [one["id"] for one in pages(client, job, **query)]


ALL = sorted(f"{n % 3}/x {n}" for n in (0, 1, 4, 5, 6, 7))


def test_pairs_come_by_id_in_pages(client: TestClient, job: str) -> None:
    for limit in (1, 2, 4, 100):
        assert ids(client, job, limit=limit) == ALL
    assert ids(client, job, begins="1/") == ["1/x 1", "1/x 4", "1/x 7"]
    assert ids(client, job, begins="1/", limit=1) == ["1/x 1", "1/x 4", "1/x 7"]
    assert ids(client, job, begins="9") == []


def test_a_pair_in_short(client: TestClient, job: str) -> None:
    listed = {one["id"]: one for one in pages(client, job)}
    one = listed["1/x 1"]  # BBBB in both orders: what stood second
    assert one["instruction"] == "do 1" + "!" * 296
    assert "flipped" in one["outcomes"] and "none_right" in one["outcomes"]
    ab, ba = one["orders"]
    assert ab == {"order": "AB", "verdict": "B", "fates": {"wrong": 4}}
    assert sum(ba["fates"].values()) == 4 and ba["fates"].keys() <= {"kept", "balance", "not_drawn"}


def test_pairs_are_found_by_what_became_of_them(
    client: TestClient, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = list(pages(client, job))
    for outcome in ("kept", "dropped", "none_right", "unparsable", "flipped"):
        wanted = [one["id"] for one in listed if outcome in one["outcomes"]]
        assert ids(client, job, outcome=outcome, limit=1) == wanted
    assert ids(client, job, outcome="unparsable") == ["0/x 0", "1/x 4"]
    monkeypatch.setattr(pairs, "MOST_LOOKED_AT", 1)  # pages that find nothing go on all the same
    assert ids(client, job, outcome="unparsable") == ["0/x 0", "1/x 4"]


def test_one_pair_with_every_judgment(client: TestClient, job: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/iterations/1/pairs/1%2Fx%204")
    assert answer.status_code == 200, answer.text
    pair = answer.json()
    assert (pair["chosen"], pair["rejected"], pair["construction"]) == ("good 4", "bad", "modified")
    assert pair["judge"] == f"{job}:0"
    kept = 0
    for order in pair["orders"]:
        assert order["label"] == order["order"][0]
        said = [one["text"] for one in order["judgments"]]
        name = order["order"]
        assert said == [f"1/x 4 {name} {i} [[{c}]]" for i, c in enumerate(SAID[0])]
        for one in order["judgments"]:
            right = one["verdict"] == order["label"]
            assert (one["fate"] in ("kept", "not_drawn", "balance")) == right
            assert one["preferred"] in (None, "chosen" if right else "rejected")
            kept += one["fate"] == "kept"
    assert ("kept" in pair["outcomes"]) == (kept > 0)


def test_what_is_kept_is_what_trains(client: TestClient, job: str) -> None:
    lines = client.get(f"/v1/jobs/{job}/data/1/curate").text.splitlines()
    trained = sorted(json.loads(line)["completion"][0]["content"] for line in lines)
    kept = []
    for name in ALL:
        for order in client.get(f"/v1/jobs/{job}/iterations/1/pairs/{name}").json()["orders"]:
            kept += [one["text"] for one in order["judgments"] if one["fate"] == "kept"]
    assert sorted(kept) == trained and trained


def test_fates_are_data_to_take_away(client: TestClient, job: str) -> None:
    lines = client.get(f"/v1/jobs/{job}/data/1/fates").text.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == ALL
    answer = client.get(f"/v1/jobs/{job}/data/1/fates?format=parquet")
    assert pq.read_table(io.BytesIO(answer.content)).to_pylist() == rows


def test_what_there_is_not(client: TestClient, job: str) -> None:
    at = f"/v1/jobs/{job}/iterations"
    assert_problem(client.get(f"{at}/1/pairs/nobody"), 404, "pair_not_found")
    assert_problem(client.get(f"{at}/1/pairs/~"), 404, "pair_not_found")  # behind the last
    assert_problem(client.get(f"{at}/0/pairs"), 404, "no_such_data")
    assert_problem(client.get(f"{at}/7/pairs"), 404, "iteration_not_found")
    assert_problem(client.get(f"{at}/1/pairs?outcome=odd"), 422, "invalid_request")


def test_before_and_after_there_are_files(client: TestClient, job: str) -> None:
    running = helpers.make_job()
    helpers.drain(running, HANDLERS, until="judge")
    at = f"/v1/jobs/{running}/iterations/1/pairs"
    assert_problem(client.get(at), 404, "no_such_data")
    helpers.drain(running, HANDLERS, until="curate")
    assert_problem(client.get(at), 409, "not_finished")
    helpers.drain(running, HANDLERS)
    with transaction() as session:
        session.get_one(Job, running).data_removed_at = dt.datetime.now(dt.UTC)
    assert_problem(client.get(at), 410, "data_removed")


def test_fixed_pairs_are_those_of_the_first_iteration(client: TestClient) -> None:
    name = helpers.make_job(iterations=2, pair={"fresh": False}, judge={"samples": 4})
    helpers.drain(name, HANDLERS)
    answer = client.get(f"/v1/jobs/{name}/iterations/2/pairs/1%2Fx%204")
    assert answer.json()["chosen"] == "good 4" and answer.json()["judge"] == f"{name}:1"
