"""Canaries: which version answers, what harms nobody, what ends one, and the report."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from selftaught import usage
from selftaught.client import ApiError, Client
from selftaught.database import transaction
from selftaught.database.tables import CanaryVerdict
from selftaught.inference import EngineUnavailable
from services.api.main import create_app as create_gateway
from services.evaluator import traffic
from tests.api.conftest import assert_problem
from tests.api.helpers import served
from tests.api.test_evaluator import until
from tests.api.traffic import ALIAS, World, move, noted, question, world

__all__ = ["world"]


def test_both_replicas_see_a_canary_begin_and_end_at_once(world: World) -> None:
    for _ in range(3):
        found = world.canary()
        assert world.gateway.get(ALIAS + "/canary").json() == found
        for replica in (0, 1):
            out = world.ask(replica)
            assert (out["model"], out["canary"]) == ("m:1", True)
            for ref in ("m:0", "m:latest"):
                out = world.ask(replica, model=ref)
                assert out["canary"] == (ref == "m:latest")
        ended = world.gateway.delete(ALIAS + "/canary").json()
        assert (ended["id"], ended["ended_reason"]) == (found["id"], "deleted")
        for replica in (0, 1):
            out = world.ask(replica)
            assert (out["model"], out["canary"]) == ("m:0", False)


def test_the_same_question_goes_the_same_way_and_a_larger_share_keeps_it(world: World) -> None:
    def by_canary(replica: int) -> set[int]:
        asked = {n: world.ask(replica, instruction=f"i {n}") for n in range(40)}
        return {n for n, out in asked.items() if out["model"] == "m:1"}

    small = world.canary(share=0.3)
    first = by_canary(0)
    assert by_canary(1) == first and 0 < len(first) < 40
    large = world.canary(share=0.8, reason="more")
    assert (large["id"], large["share"], large["reason"]) == (small["id"], 0.8, "more")
    assert first < by_canary(0)


def test_portions_are_even_and_differ_between_canaries() -> None:
    one, other = ([traffic.portion(c, str(n)) for n in range(2000)] for c in ("can_a", "can_b"))
    for tenth in range(10):
        assert 150 < sum(tenth / 10 <= found < (tenth + 1) / 10 for found in one) < 250
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(one, other, strict=True))
    assert 440 < both < 560  # independent: a quarter of them


def test_a_canary_that_fails_leaves_the_call_to_the_incumbent(world: World) -> None:
    world.engines[1].error = EngineUnavailable("down")
    found = world.canary()
    out = world.ask()
    assert (out["model"], out["canary"], out["verdict"]) == ("m:0", False, "A")
    world.engines[1].error = KeyError("a bug")  # type: ignore[assignment]
    assert world.ask(instruction="j")["model"] == "m:0"
    world.broken.add(2)
    broken = world.canary(version=2)
    assert world.ask(instruction="k")["model"] == "m:0"
    until(lambda: len(noted()) == 6)
    for canary, n in ((found, 2), (broken, 1)):
        report = world.report(canary)
        assert report["arms"]["canary"]["verdicts"]["failed"] == n
        assert report["arms"]["canary"]["tie_share"] is None
        assert report["arms"]["incumbent"]["verdicts"]["A"] == n
        assert report["agreement"]["n"] == 0 and report["agreement"]["agreement"] is None


def test_a_stream_begins_anew_where_a_canary_fails(world: World) -> None:
    world.canary()

    def streamed(instruction: str) -> list[Any]:
        asked = question(stream=True, instruction=instruction)
        answer = world.replicas[0].post("/judge", json=asked)
        lines = answer.text.splitlines()
        told = [json.loads(line.removeprefix("data: ")) for line in lines if "data: " in line]
        return [one["model"] for one in told if "model" in one]

    assert streamed("i") == ["m:1", "m:1"]  # start and verdict
    world.engines[1].error = EngineUnavailable("down")
    found = streamed("j")
    assert found in (["m:1", "m:0", "m:0"], ["m:0", "m:0"])  # the first start may not be out yet


def test_a_canary_that_hangs_leaves_half_of_the_time_to_the_incumbent(world: World) -> None:
    world.canary()
    world.engines[1].hold.clear()
    try:
        assert world.ask(timeout_seconds=2)["model"] == "m:0"
    finally:
        world.engines[1].hold.set()


def test_a_shadow_never_delays_or_changes_the_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "SHADOWS", 1)
    found = world.canary(mode="shadow")
    shadow = world.engines[1]
    shadow.say = {0: ["[[B]]"], 1: ["[[A]]"]}  # B in both orders
    shadow.hold.clear()
    out = world.ask()
    assert (out["model"], out["verdict"], out["canary"]) == ("m:0", "A", False)
    assert shadow.begun.acquire(timeout=30)
    assert world.ask(instruction="j")["verdict"] == "A"  # no room for another shadow
    shadow.hold.set()
    until(lambda: len(noted()) == 2)
    assert noted() == [("canary", "B"), ("incumbent", "A")]
    told = world.replicas[0].get("/metrics").text
    assert 'selftaught_shadow_judgments_total{outcome="done"} 1.0' in told
    assert 'selftaught_shadow_judgments_total{outcome="skipped"} 1.0' in told
    shadow.error = RuntimeError("out of memory")
    assert world.ask(instruction="k")["verdict"] == "A"
    until(lambda: len(noted()) == 4)
    report = world.report(found)
    assert report["arms"]["canary"]["verdicts"] == {
        "A": 0, "B": 1, "tie": 0, "unparsable": 0, "failed": 1,
    }  # fmt: skip
    assert report["agreement"]["n"] == 1 and report["agreement"]["agreement"] == 0


def test_a_busy_evaluator_begins_no_shadow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from selftaught.settings import get_settings
    from services.evaluator.main import create_app

    monkeypatch.setattr(get_settings(), "judge_in_flight", 1)
    world.canary(mode="shadow")
    with TestClient(
        create_app(), "http://localhost"
    ) as small:  # one call is more than half of what it takes
        assert small.post("/judge", json=question()).json()["model"] == "m:0"
        assert 'judgments_total{outcome="skipped"} 1.0' in small.get("/metrics").text
    assert not world.engines[1].asked


def test_a_move_ends_the_canary_and_its_report_stays(world: World) -> None:
    promoted = world.canary()
    world.ask()
    until(lambda: len(noted()) == 1)
    put = world.gateway.put(ALIAS, json={"version": 0, "prepare": False})  # where it is already
    assert put.status_code == 200
    assert world.gateway.get(ALIAS + "/canary").json() == promoted
    world.gateway.put(ALIAS, json={"version": 1, "reason": "good", "prepare": False})
    assert_problem(world.gateway.get(ALIAS + "/canary"), 404, "canary_not_found")
    assert_problem(world.gateway.get(ALIAS + "/canary/report"), 404, "canary_not_found")
    assert_problem(world.gateway.delete(ALIAS + "/canary"), 404, "canary_not_found")
    report = world.report(promoted)
    assert report["canary"]["ended_reason"] == "the alias moved: good"
    assert report["arms"]["canary"]["n"] == 1
    undone = world.canary(version=2)
    world.gateway.post(ALIAS + "/rollback")
    assert world.report(undone)["canary"]["ended_reason"] == "the alias moved: rollback"
    replaced, last = world.canary(version=1), world.canary(version=2)
    assert world.report(replaced)["canary"]["ended_reason"] == "replaced"
    page = world.gateway.get("/v1/canaries", params={"model": "m", "limit": 2}).json()
    assert [one["id"] for one in page["data"]] == [last["id"], replaced["id"]]
    rest = world.gateway.get("/v1/canaries", params={"after": replaced["id"]}).json()
    assert [one["id"] for one in rest["data"]] == [undone["id"], promoted["id"]]
    assert not rest["has_more"] and page["has_more"]


def test_a_canary_is_never_beside_a_version_that_it_did_not_begin_with(world: World) -> None:
    def put_canaries() -> None:
        for number in (1, 2, 3, 1, 2):
            body = {"version": number, "mode": "share", "share": 0.5, "prepare": False}
            answers.append(world.gateway.put(ALIAS + "/canary", json=body).status_code)

    stale = text(
        "SELECT count(*) FROM canaries c JOIN aliases a USING (model, alias) "
        "WHERE c.ended_at IS NULL AND c.base_id <> a.version_id"
    )
    answers: list[int] = []
    workers = [threading.Thread(target=put_canaries) for _ in range(2)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        for number in (1, 0, 2, 0, 3):
            move(number)
            with transaction() as session:
                assert session.scalar(stale) == 0
    for worker in workers:
        worker.join()
    assert set(answers) <= {200, 409} and len(answers) == 10


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"version": 0}, 409, "canary_is_incumbent"),
        ({"version": 9}, 404, "unknown_model"),
        ({"share": 0}, 422, "invalid_request"),
        ({"share": 1.5}, 422, "invalid_request"),
        ({"mode": "half"}, 422, "invalid_request"),
        ({"reason": "a\0b"}, 422, "invalid_request"),
    ],
)
def test_canaries_that_cannot_be(
    world: World, change: dict[str, Any], status: int, code: str
) -> None:
    body = {"version": 1, "share": 0.5, "prepare": False} | change
    assert_problem(world.gateway.put(ALIAS + "/canary", json=body), status, code)
    nowhere = ALIAS.replace("latest", "nowhere") + "/canary"
    if status == 422 or code == "unknown_model":
        return
    assert_problem(world.gateway.put(nowhere, json=body | {"version": 1}), 404, "alias_not_found")
    assert_problem(world.gateway.get("/v1/canaries/no/report"), 404, "canary_not_found")


def test_the_report_by_hand(world: World) -> None:
    found = world.canary(mode="shadow", share=0.5)
    # Ten questions: the letters are verdict, ab, ba of the incumbent, then of the canary.
    said = [
        *["A A A / A A A"] * 4,
        "B B B / B B B",
        "B B B / A A A",
        "tie A B / A A A",
        "tie A B / tie A B",
        "unparsable unparsable A / tie tie tie",
        "A A A / failed None None",
    ]
    with transaction() as session:
        for number, line in enumerate(said):
            for arm, part in zip(("incumbent", "canary"), line.split(" / "), strict=True):
                verdict, ab, ba = (None if word == "None" else word for word in part.split())
                failed = verdict == "failed"
                session.add(
                    CanaryVerdict(
                        canary_id=found["id"], content_sha256=str(number), arm=arm,
                        verdict=verdict, ab=ab, ba=ba, confidence=None if failed else 0.75,
                        judgments=0 if failed else 2, parse_failures=int(verdict == "unparsable"),
                        seconds=None if failed else float(number + 1),
                    )
                )  # fmt: skip
    report = world.report(found)
    assert report == world.gateway.get(ALIAS + "/canary/report").json()
    agreement = report["agreement"]
    assert agreement["n"] == 9  # without the failed one
    assert agreement["agreement"] == pytest.approx(6 / 9)
    # Wilson with z = 1.96: centre (p + z^2 / 2n) / (1 + z^2 / n), p = 2/3, n = 9.
    assert agreement["ci95"] == pytest.approx([0.35420, 0.87941], abs=1e-4)
    # Chance: A 4/9 * 6/9, B 2/9 * 1/9, tie 2/9 * 2/9, unparsable 1/9 * 0 = 30/81.
    assert agreement["kappa"] == pytest.approx((6 / 9 - 30 / 81) / (1 - 30 / 81))
    assert agreement["confusion"] == {
        "A": {"A": 4, "B": 0, "tie": 0, "unparsable": 0},
        "B": {"A": 1, "B": 1, "tie": 0, "unparsable": 0},
        "tie": {"A": 1, "B": 0, "tie": 1, "unparsable": 0},
        "unparsable": {"A": 0, "B": 0, "tie": 1, "unparsable": 0},
    }
    incumbent, canary = report["arms"]["incumbent"], report["arms"]["canary"]
    assert incumbent["n"] == 10 and incumbent["tie_share"] == pytest.approx(0.2)
    assert incumbent["verdicts"] == {"A": 5, "B": 2, "tie": 2, "unparsable": 1, "failed": 0}
    assert incumbent["parse_failure_rate"] == pytest.approx(1 / 20)
    # As shown, first: AB A (5 + 2), BA B (2 + 2) = 11; second: AB B (2), BA A (5 + 1) = 8.
    assert incumbent["position_bias"] == pytest.approx((11 - 8) / (11 + 8))
    assert incumbent["order_disagreement"] == pytest.approx(2 / 10)  # unparsable is no opinion
    assert (incumbent["seconds_p50"], incumbent["seconds_p95"]) == (5.5, pytest.approx(9.55))
    assert canary["n"] == 10 and canary["tie_share"] == pytest.approx(2 / 9)
    assert canary["mean_confidence"] == pytest.approx(0.75)
    assert canary["seconds_p50"] == 5.0
    # First: AB A (4 + 1 + 1 + 1), BA B (1 + 1) = 9; second: AB B (1), BA A (4 + 1 + 1) = 7.
    assert canary["position_bias"] == pytest.approx((9 - 7) / (9 + 7))
    assert canary["order_disagreement"] == pytest.approx(1 / 9)


def test_a_question_counts_once_however_often_it_is_asked(world: World) -> None:
    found = world.canary()
    for replica, change in ((0, {}), (1, {"explain": True}), (0, {"cache": False})):
        world.ask(replica, **change)
    world.ask(rubric="be brief")
    until(lambda: len(noted()) == 2)
    assert world.report(found)["arms"]["canary"]["n"] == 2


def test_the_client_begins_reads_and_ends_a_canary(world: World) -> None:
    with served(create_gateway()) as url, Client(url) as client:
        begun = client.canaries.start("m", "latest", 1, 1, mode="share", prepare=False)
        assert world.ask()["canary"]
        until(lambda: len(noted()) == 1)
        assert client.canaries.end("m", "latest").id == begun.id
        assert client.canaries.report(begun.id).arms["canary"].n == 1
        with pytest.raises(ApiError, match="verdict_not_found"):
            client.verdicts.get("vdt_none")


def test_a_shadows_tokens_count_like_all_others(world: World) -> None:
    world.canary(mode="shadow")
    out = world.ask()
    once = out["prompt_tokens"] + out["completion_tokens"]
    assert once > 0 and world.ask()["cached"]

    def used() -> int:
        with transaction() as session:
            return usage.standing(session, "default").tokens

    until(lambda: used() >= 2 * once)
    assert used() == 2 * once
