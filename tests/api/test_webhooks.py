"""/v1/webhooks: what is taken and refused, what is shown and when, and whose it is."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from selftaught import webhooks
from selftaught.database import transaction
from selftaught.database.tables import Webhook
from selftaught.work.webhooks import Outcome, claim, settle
from tests.api.conftest import assert_problem
from tests.api.helpers import post_job, upload
from tests.webhooks.helpers import add, add_project, change, deliveries, tell

URL = "https://hooks.example.com/x?token=abc"


def create(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/webhooks", json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_secret_is_shown_when_it_is_made_and_never_again(client: TestClient) -> None:
    made = create(client, events=["job.*", "job.*", "alias.moved"], description="d")
    secret = made.pop("secret")
    assert secret.startswith("whsec_") and made["events"] == ["alias.moved", "job.*"]
    one = f"/v1/webhooks/{made['id']}"
    assert client.get(one).json() == made
    assert client.get("/v1/webhooks").json() == {"data": [made], "has_more": False}
    new = client.post(f"{one}/rotate-secret").json()
    assert new.pop("secret") not in ("", secret) and new == made
    shown = [client.get(one), client.patch(one, json={}), client.get("/v1/webhooks")]
    shown += [client.post(f"{one}/test"), client.get(f"{one}/deliveries"), client.delete(one)]
    assert all(answer.is_success and "whsec_" not in answer.text for answer in shown)
    assert_problem(client.get(one), 404, "webhook_not_found")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "invalid_request", "url"),
        ({"url": 5}, "invalid_request", "url"),
        ({"url": "http://example.com/"}, "url_refused", "url"),
        ({"url": "https://127.0.0.1/"}, "url_refused", "url"),
        ({"url": "https://u:p@example.com/"}, "url_refused", "url"),
        ({"url": "https://example.com/" + "a" * 2048}, "invalid_request", "url"),
        ({"url": "https://example.com/\0"}, "invalid_request", None),
        ({"url": URL, "events": []}, "invalid_request", "events"),
        ({"url": URL, "events": ["job.exploded"]}, "invalid_request", "events"),
        ({"url": URL, "events": ["*.*"]}, "invalid_request", "events"),
        ({"url": URL, "events": None}, "invalid_request", "events"),
        ({"url": URL, "secret": "whsec_mine"}, "invalid_request", "secret"),
        ({"url": URL, "description": "d" * 201}, "invalid_request", "description"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_made(
    client: TestClient, body: dict[str, Any], code: str, param: str | None
) -> None:
    assert_problem(client.post("/v1/webhooks", json=body), 422, code, param)
    assert client.get("/v1/webhooks").json()["data"] == []


def test_only_what_is_given_changes(client: TestClient) -> None:
    made = create(client, description="d")
    one = f"/v1/webhooks/{made['id']}"
    off = client.patch(one, json={"state": "disabled"}).json()
    assert (off["state"], off["disabled_reason"], off["description"]) == ("disabled", "asked", "d")
    assert_problem(client.post(f"{one}/test"), 409, "webhook_disabled")
    new = client.patch(
        one, json={"url": "https://b.example/", "events": ["*"], "description": None}
    )
    assert (new.json()["url"], new.json()["description"]) == ("https://b.example/", None)
    on = client.patch(one, json={"state": "enabled"}).json()
    assert (on["state"], on["disabled_reason"]) == ("enabled", None)
    for wrong in ({"url": None}, {"state": None}, {"events": None}):
        assert_problem(client.patch(one, json=wrong), 422, "invalid_request", next(iter(wrong)))
    wrong_url = client.patch(one, json={"url": "https://10.0.0.1/"})
    assert_problem(wrong_url, 422, "url_refused", "url")
    assert_problem(client.patch(one, json={"state": "gone"}), 422, "invalid_request", "state")


def test_a_disabled_one_stays_disabled_for_its_reason_until_it_is_enabled(
    client: TestClient,
) -> None:
    hook = add()
    change(hook.id, state="disabled", disabled_reason="gone")
    one = f"/v1/webhooks/{hook.id}"
    assert client.patch(one, json={"state": "disabled"}).json()["disabled_reason"] == "gone"
    assert client.patch(one, json={"state": "enabled"}).json()["failing_since"] is None


def test_a_project_has_so_many_webhooks_at_most(client: TestClient) -> None:
    add_project("other")
    for _ in range(webhooks.MOST):
        add()
    assert_problem(client.post("/v1/webhooks", json={"url": URL}), 409, "too_many_webhooks")
    add(project="other")
    page = client.get("/v1/webhooks?limit=15").json()
    assert len(page["data"]) == 15 and page["has_more"]
    rest = client.get("/v1/webhooks", params={"after": page["data"][-1]["id"]}).json()
    assert len(rest["data"]) == webhooks.MOST - 15 and not rest["has_more"]


def test_deliveries_can_be_read_and_asked_for_again(client: TestClient) -> None:
    made = create(client)
    one = f"/v1/webhooks/{made['id']}"
    assert post_job(client, upload(client)).status_code == 201
    tested = client.post(f"{one}/test")
    assert tested.status_code == 202 and tested.json()["payload"]["data"] == {"webhook": made["id"]}
    page = client.get(f"{one}/deliveries").json()["data"]
    assert [row["type"] for row in page] == ["webhook.test", "job.created"]
    first, second = claim(10)
    settle(first, Outcome(error="no answer"))
    again = f"{one}/deliveries/{first.id}/redeliver"
    found = client.post(again)
    assert found.status_code == 202
    body = found.json()
    assert (body["state"], body["attempts"], body["error"]) == ("pending", 0, "no answer")
    assert body["payload"] == page[1]["payload"]
    # One that is under way at this moment goes on, and is not sent twice.
    under_way = client.post(f"{one}/deliveries/{second.id}/redeliver").json()
    assert under_way["attempts"] == 1
    assert [leased.id for leased in claim(10)] == [first.id]
    assert [
        row["id"] for row in client.get(f"{one}/deliveries?state=pending&limit=1").json()["data"]
    ]
    assert client.get(f"{one}/deliveries?state=failed").json()["data"] == []
    assert_problem(client.get(f"{one}/deliveries?state=lost"), 422, "invalid_request", "state")


def test_deliveries_that_nobody_sends_are_seen_in_the_metrics(client: TestClient) -> None:
    def late() -> float:
        found = client.get("/metrics").text.split("\nselftaught_webhooks_late_seconds ")
        return float(found[1].splitlines()[0])

    hook = add()
    assert late() == 0
    tell()
    with transaction() as session:
        session.execute(text("UPDATE webhook_deliveries SET next_at = next_at - interval '1 hour'"))
    assert late() >= 3600
    change(hook.id, state="disabled", disabled_reason="asked")
    assert late() == 0


def test_those_of_others_are_not_there(client: TestClient) -> None:
    add_project("other")
    theirs, mine = add(project="other"), add()
    tell(project="other")
    (delivery,) = deliveries(theirs.id)
    one = f"/v1/webhooks/{theirs.id}"
    redeliver = f"deliveries/{delivery.id}/redeliver"
    for method, path in (
        ("GET", one),
        ("PATCH", one),
        ("DELETE", one),
        ("POST", f"{one}/test"),
        ("POST", f"{one}/rotate-secret"),
        ("GET", f"{one}/deliveries"),
        ("POST", f"{one}/{redeliver}"),
    ):
        answer = client.request(method, path, json={} if method == "PATCH" else None)
        assert_problem(answer, 404, "webhook_not_found")
    crossed = client.post(f"/v1/webhooks/{mine.id}/{redeliver}")
    assert_problem(crossed, 404, "delivery_not_found")
    assert [row["id"] for row in client.get("/v1/webhooks").json()["data"]] == [mine.id]
    with transaction() as session:
        assert session.get_one(Webhook, theirs.id).secret == theirs.secret
