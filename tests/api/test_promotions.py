"""Promotions over HTTP: refused with numbers, forced with a key, one after the other."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient
from typer.testing import CliRunner

from selftaught import aliases, keys
from selftaught.cli import app
from selftaught.contracts import Scope
from selftaught.database import transaction
from selftaught.database.tables import Evaluation, Event, Job, ModelVersion, Review, ReviewItem
from selftaught.ids import new_id
from tests.api.conftest import assert_problem
from tests.api.helpers import add_versions, post_job, upload, upload_labelled
from tests.conftest import Servers

LATEST = "/v1/models/m/aliases/latest"
FORCED = {"force": True, "reason": "the incumbent leaks"}


def promote(client: TestClient, number: int, key: str | None = None, **body: Any) -> Any:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    path = f"/v1/models/m/versions/{number}/promote"
    return client.post(path, json=body, headers=headers)


def put(client: TestClient, number: int, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.put(LATEST, json={"version": number, "reason": "put"}, headers=named)


def record(client: TestClient, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/models/m/versions/{number}/promotions").json()[
        "data"
    ]
    return found


def score(
    job: str, accuracies: dict[int, float], set_: str = "heldout", **rates: float | None
) -> None:
    """What a job's gate writes down about versions of `m`."""
    with transaction() as session:
        for number, accuracy in accuracies.items():
            version = aliases.get_version(session, "m", number)
            session.add(
                Evaluation(
                    id=new_id("ev"),
                    version_id=version.id,
                    job_id=job,
                    set=set_,
                    metrics={
                        "strict_accuracy": accuracy,
                        "position_bias": 0.1,
                        "parse_failures": 0.0,
                        **rates,
                    },
                )
            )


def make_key(*scopes: Scope) -> str:
    with transaction() as session:
        return keys.create(session, f"key {'+'.join(scopes)}", scopes)[1]


@pytest.fixture
def job(client: TestClient) -> str:
    """Versions 0, 1, 2 of `m` on one job's held-out pairs: 0.7, 0.8, 0.75; 0 is latest."""
    made = str(post_job(client, upload(client), model="m").json()["id"])
    add_versions("m", [0, 1, 2], latest=0)
    with transaction() as session:
        for version in session.scalars(select(ModelVersion)):
            version.job_id = made
    score(made, {0: 0.7, 1: 0.8, 2: 0.75})
    return made


def test_a_better_version_is_promoted_and_a_worse_one_refused_with_numbers(
    client: TestClient, job: str
) -> None:
    better = promote(client, 1, reason="looks good").json()
    assert (better["promoted"], better["forced"], better["incumbent"]) == (True, False, "m:0")
    assert [(f["rule"], f["passed"]) for f in better["findings"]] == [
        ("margin", True),
        ("position_bias", True),
        ("parse_failures", True),
    ]
    worse = assert_problem(promote(client, 2), 409, "gate_refused")
    assert worse["errors"] == [
        {
            "rule": "margin",
            "passed": False,
            "set": "heldout",
            "got": 0.75,
            "needed": 0.8,
            "detail": "heldout: strict accuracy 0.7500, needed 0.8000: failed",
        }
    ]
    assert "margin: heldout: strict accuracy 0.7500, needed 0.8000" in worse["detail"]
    latest = client.get(LATEST).json()
    assert (latest["version"], latest["history"][0]["reason"]) == ("m:1", "looks good")
    (refused,) = record(client, 2)  # refusals are kept, too
    assert (refused["promoted"], refused["incumbent"], refused["by"]) == (False, "m:1", None)
    with transaction() as session:
        told = [e.data for e in session.scalars(select(Event).where(Event.type == "gate.decided"))]
    assert [(t["version"], t["promoted"]) for t in told] == [("m:1", True), ("m:2", False)]


def test_put_of_latest_asks_the_same_gate(client: TestClient, job: str) -> None:
    client.get(LATEST)
    answer = put(client, 1, if_match='"1"')
    assert answer.status_code == 200 and answer.headers["etag"] == '"2"'
    assert answer.json()["history"][0]["reason"] == "put"
    refused = assert_problem(put(client, 2), 409, "gate_refused")
    assert refused["errors"][0]["rule"] == "margin"
    stale = assert_problem(put(client, 2, if_match='"1"'), 412, "revision_mismatch")
    assert "revision 2, not 1" in stale["detail"]
    assert_problem(put(client, 2, if_none_match="*"), 412, "revision_mismatch")
    assert len(record(client, 2)) == 1  # a stale caller asked nothing
    assert put(client, 1).headers["etag"] == '"2"'  # it is there already
    free = client.put("/v1/models/m/aliases/next", json={"version": 2})
    assert free.json()["version"] == "m:2"
    # Back goes without a gate, in one call.
    assert client.post(LATEST + "/rollback").json()["version"] == "m:0"


@pytest.mark.parametrize(
    ("rates", "rule"),
    [({"position_bias": -0.95}, "position_bias"), ({"parse_failures": 0.6}, "parse_failures")],
)
def test_the_limits_are_asked(
    client: TestClient, job: str, rates: dict[str, float], rule: str
) -> None:
    score(job, {0: 0.5, 1: 0.5}, "labelled", **rates)
    body = assert_problem(promote(client, 1), 409, "gate_refused")
    assert [(e["rule"], e["set"]) for e in body["errors"]] == [(rule, "labelled")]


def test_the_settings_are_those_of_the_recipe_that_scored_both(
    client: TestClient, job: str
) -> None:
    with transaction() as session:
        row = session.get_one(Job, job)
        row.recipe = {**row.recipe, "gate": {"margin": 0.2, "reviews": {"minimum": 3}}}
    body = assert_problem(promote(client, 1), 409, "gate_refused")
    assert [(e["rule"], e["needed"]) for e in body["errors"]] == [
        ("margin", pytest.approx(0.9)),
        ("reviews", 3),
    ]


def add_reviews(job: str, reviews: dict[str, float], disagree: tuple[str, ...] = ()) -> None:
    """People's answers about `m:1`: item -> the pairs that it stands for."""
    with transaction() as session:
        version = aliases.get_version(session, "m", 1)
        for item, weight in reviews.items():
            session.add(
                ReviewItem(
                    id=item, job_id=job, version_id=version.id, overlap=1,
                    position=("one", "two", "three", "four").index(item),
                    stratum="random", weight=weight, pair=item, context=[], instruction="i",
                    response_a="a", response_b="b", swapped=False, verdict="A", confidence=1.0,
                    orders_agree=True,
                )
            )  # fmt: skip
            session.flush()
            now = dt.datetime.now(dt.UTC)
            session.add(
                Review(
                    item_id=item, reviewer="ada", verdict="B" if item in disagree else "A",
                    held_until=now, answered_at=now,
                )
            )  # fmt: skip


def test_a_version_that_waits_for_reviews_is_promoted_once_they_are_there(
    client: TestClient, job: str
) -> None:
    with transaction() as session:
        row = session.get_one(Job, job)
        row.recipe = {**row.recipe, "gate": {"reviews": {"minimum": 3, "agreement": 0.75}}}
    add_reviews(job, {"one": 1, "two": 1}, disagree=("one", "two"))
    few = assert_problem(promote(client, 1), 409, "gate_refused")["errors"]
    assert [(e["rule"], e["got"], e["needed"]) for e in few] == [("reviews", 2, 3)]
    add_reviews(job, {"three": 4})  # 4 of the 6 pairs that the three stand for
    worse = assert_problem(promote(client, 1), 409, "gate_refused")["errors"]
    assert [(e["rule"], e["got"], e["needed"]) for e in worse] == [
        ("reviews", pytest.approx(2 / 3), 0.75)
    ]
    add_reviews(job, {"four": 2})
    assert promote(client, 1).json()["findings"][-1]["got"] == pytest.approx(0.75)
    assert client.get(LATEST).json()["version"] == "m:1"


def test_versions_that_no_job_has_scored_together_are_refused(client: TestClient, job: str) -> None:
    add_versions("m", [3])
    body = assert_problem(promote(client, 3), 409, "gate_refused")
    assert [e["rule"] for e in body["errors"]] == ["margin"]
    assert "not both been scored" in body["detail"]


def test_the_newest_job_that_scored_both_counts(client: TestClient, job: str) -> None:
    newer = post_job(client, upload(client), model="m").json()["id"]
    score(newer, {0: 0.9, 1: 0.6})
    body = assert_problem(promote(client, 1), 409, "gate_refused")
    assert (body["errors"][0]["got"], body["errors"][0]["needed"]) == (0.6, 0.9)


def test_the_first_of_an_alias_has_nothing_to_beat(client: TestClient, job: str) -> None:
    out = promote(client, 2, alias="stable").json()
    assert (out["promoted"], out["incumbent"], out["findings"][0]["rule"]) == (True, None, "first")
    assert client.get("/v1/models/m/aliases/stable").json()["revision"] == 1
    again = promote(client, 2, alias="stable").json()
    assert again["findings"][0]["rule"] == "holder"
    assert client.get("/v1/models/m/aliases/stable").json()["revision"] == 1


def test_force_needs_a_key_with_the_scope(client: TestClient, job: str) -> None:
    promote(client, 1)
    missing = promote(client, 2, **FORCED)
    assert_problem(missing, 401, "key_required")
    assert missing.headers["www-authenticate"] == "Bearer"
    assert_problem(promote(client, 2, "st_guessed", **FORCED), 401, "invalid_key")
    assert_problem(promote(client, 2, make_key(), **FORCED), 403, "missing_scope")
    assert_problem(promote(client, 2, "st_guessed"), 401, "invalid_key")  # also without force
    assert_problem(promote(client, 2, force=True), 422, "invalid_request")  # no reason
    assert_problem(promote(client, 2, force=True, reason=" "), 422, "invalid_request")
    assert client.get(LATEST).json()["version"] == "m:1"
    assert record(client, 2) == []


def test_a_forced_promotion_leaves_a_record_everywhere(client: TestClient, job: str) -> None:
    promote(client, 1)
    secret = make_key("promote")
    out = promote(client, 2, secret, **FORCED)
    assert out.status_code == 200, out.text
    assert (out.json()["promoted"], out.json()["forced"]) == (True, True)
    assert record(client, 2) == [out.json()]
    (kept,) = record(client, 2)
    assert (kept["by"], kept["reason"], kept["incumbent"]) == (
        "key promote",
        "the incumbent leaks",
        "m:1",
    )
    failed = [f for f in kept["findings"] if not f["passed"]]
    assert [(f["rule"], f["got"], f["needed"]) for f in failed] == [("margin", 0.75, 0.8)]
    latest = client.get(LATEST).json()
    assert latest["version"] == "m:2"
    assert latest["history"][0]["reason"] == "forced by key promote: the incumbent leaks"
    with transaction() as session:
        event = session.scalars(select(Event).order_by(Event.seq.desc())).first()
        assert event is not None and event.type == "gate.decided" and event.job_id == job
        assert (event.data["forced"], event.data["by"]) == (True, "key promote")
        (key,) = keys.listed(session)
        assert key.id == kept["key"] and key.last_used_at is not None
        assert secret not in (key.prefix, key.sha256) and secret.startswith(key.prefix)
    # Where every rule passes nothing is forced.
    assert promote(client, 1, secret, **FORCED).json()["forced"] is False


def test_a_revoked_key_is_no_key(client: TestClient, job: str) -> None:
    secret = make_key("promote")
    with transaction() as session:
        keys.revoke(session, "key promote")
    assert_problem(promote(client, 2, secret, **FORCED), 401, "invalid_key")


def at_once(*calls: Any) -> None:
    ready = threading.Barrier(len(calls))

    def run(call: Any) -> None:
        ready.wait()
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("alias", ["latest", "stable"])
def test_racing_promotions_are_one_after_the_other(
    client: TestClient, job: str, alias: str
) -> None:
    """`stable` names nothing yet: one is first, and the other has to beat it all the same."""
    with transaction() as session:  # no job's lock keeps these apart
        session.execute(update(ModelVersion).values(job_id=None))
    numbers = [1, 2] * 4
    at_once(*(lambda n=n: promote(client, n, alias=alias) for n in numbers))
    out = client.get(f"/v1/models/m/aliases/{alias}").json()
    assert out["version"] == "m:1"  # whoever came first, the better one stays
    decided = [d for n in (1, 2) for d in record(client, n)]
    assert len(decided) == len(numbers)
    moves = [d for d in decided if d["promoted"] and d["findings"][0]["rule"] != "holder"]
    assert len(moves) == out["revision"] - (alias == "latest")
    assert sum(d["findings"][0]["rule"] == "first" for d in decided) == (alias == "stable")


def test_bad_requests_and_unknown_versions(client: TestClient, job: str) -> None:
    assert_problem(promote(client, 9), 404, "unknown_model")
    assert_problem(client.get("/v1/models/m/versions/9/promotions"), 404, "unknown_model")
    assert_problem(promote(client, 1, alias="7"), 422, "invalid_alias")
    assert_problem(promote(client, 1, reason="a\0b"), 422, "invalid_request")
    assert_problem(promote(client, 1, why="x"), 422, "invalid_request")
    assert_problem(promote(client, 10**30), 422, "invalid_request")
    for number in (1, 2):
        promote(client, number)
        promote(client, number)
    path = "/v1/models/m/versions/2/promotions?limit=1"
    page = client.get(path).json()
    rest = client.get(f"{path}&after={page['data'][0]['id']}").json()
    assert page["has_more"] and not rest["has_more"]
    assert page["data"][0]["id"] > rest["data"][0]["id"]


def test_all_decisions_about_a_model_are_one_list(client: TestClient, job: str) -> None:
    for number in (1, 2, 1):
        promote(client, number)
    path = "/v1/models/m/promotions?limit=2"
    page = client.get(path).json()
    rest = client.get(f"{path}&after={page['data'][1]['id']}").json()
    assert page["has_more"] and not rest["has_more"]
    found = [*page["data"], *rest["data"]]
    assert [one["version"] for one in found] == ["m:1", "m:2", "m:1"]
    assert found == sorted(found, key=lambda one: one["id"], reverse=True)
    assert [one for one in found if one["version"] == "m:2"] == record(client, 2)
    assert_problem(client.get("/v1/models/none/promotions"), 404, "model_not_found")


def test_an_alias_tells_who_moved_it(client: TestClient, job: str) -> None:
    key = client.post("/v1/keys", json={"name": "ada", "scopes": ["promote"]}).json()["secret"]
    ada = {"authorization": f"Bearer {key}"}
    path = "/v1/models/m/aliases/staging"
    client.put(path, json={"version": 1, "prepare": False})
    client.put(path, json={"version": 2, "prepare": False}, headers=ada)
    out = client.post(f"{path}/rollback", headers=ada).json()
    assert [(one["version"], one["by"]) for one in out["history"]] == [
        ("m:1", "ada"),
        ("m:2", "ada"),
        ("m:1", None),
    ]
    promote(client, 1, key, alias="stable", prepare=False)
    assert client.get("/v1/models/m/aliases/stable").json()["history"][0]["by"] == "ada"


def test_a_job_names_its_gates_labelled_sets(client: TestClient) -> None:
    dataset, one, two = upload(client), upload_labelled(client), upload_labelled(client)

    def post(*named: str) -> Any:
        gate = {"gate": {"labelled": list(named)}}
        return post_job(client, dataset, labelled_dataset=one, overrides=gate)

    assert post(two).status_code == 201
    assert_problem(post("ds_none"), 404, "dataset_not_found", "recipe.gate.labelled")
    assert_problem(post(dataset), 422, "wrong_dataset_kind", "recipe.gate.labelled")
    assert_problem(post(one), 422, "dataset_named_twice", "recipe.gate.labelled")
    assert_problem(post(two, two), 422, "invalid_recipe")


def test_the_operators_commands(
    database: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["keys", *arguments])
        return result.exit_code, result.output

    code, secret = run("create", "--name", "ada", "--scope", "promote")
    assert code == 0 and secret.startswith("st_") and len(secret.strip()) == 46
    with transaction() as session:
        assert keys.authenticate(session, secret.strip()).scopes == {"promote"}
    assert run("create", "--name", "ada", "--scope", "read") == (
        1,
        "error: there is a key named 'ada' already\n",
    )
    assert run("create", "--name", "bob", "--scope", "all")[0] == 2
    code, listed = run("list")
    assert listed.startswith(f"ada\t{secret[:9]}...\tpromote\tused") and "good" in listed
    assert secret.strip() not in listed
    assert run("revoke", "eve") == (1, "error: there is no such key\n")
    assert run("revoke", "ada") == (0, "revoked ada\n")
    assert "revoked 2" in run("list")[1]
    monkeypatch.delenv("DATABASE_URL")
    code, said = run("list", "--home", str(tmp_path))
    assert code == 1 and "no stack runs" in said
