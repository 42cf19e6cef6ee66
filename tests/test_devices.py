"""Leases of devices on a real Postgres."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from selftaught import devices
from selftaught.database import transaction

pytestmark = pytest.mark.usefixtures("database")


def holders() -> dict[str, str | None]:
    with transaction() as session:
        rows = session.execute(text("SELECT node || '/' || name, holder FROM devices"))
        return {str(row[0]): row[1] for row in rows}


def expire() -> None:
    with transaction() as session:
        session.execute(text("UPDATE devices SET expires_at = now() - interval '1 second'"))


def never() -> None:
    raise AssertionError("nothing to wait for")


def test_a_device_has_one_holder_under_many_who_want_it() -> None:
    devices.register("node", ["0", "1", "2"])
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: devices.acquire("node", 1, f"h{n}", "engine"), range(16)))
    assert sorted(names[0] for names in got if names is not None) == ["0", "1", "2"]


def test_several_devices_are_taken_together_or_not_at_all() -> None:
    devices.register("node", ["0", "1", "2", "3"])
    assert devices.acquire("node", 3, "a", "engine") == ["0", "1", "2"]
    assert devices.acquire("node", 2, "b", "engine") is None
    assert holders()["node/3"] is None
    devices.release("a")
    assert devices.acquire("node", 2, "b", "engine") == ["0", "1"]


def test_more_than_a_node_has_is_told_at_once() -> None:
    devices.register("small", ["0"])
    devices.register("large", ["0", "1"])
    assert devices.most() == 2
    with pytest.raises(devices.TooFewDevices, match=r"2 devices .* node small has 1"):
        devices.acquire("small", 2, "a", "engine")


def test_a_lease_that_is_not_renewed_is_free_again() -> None:
    devices.register("node", ["0"])
    assert devices.acquire("node", 1, "dead", "engine") == ["0"]
    assert devices.acquire("node", 1, "new", "training") is None
    assert devices.renew("dead")
    expire()
    assert devices.acquire("node", 1, "new", "training") == ["0"]
    assert not devices.renew("dead")


def test_a_node_that_begins_anew_holds_nothing_but_its_training_does() -> None:
    devices.register("node", ["0", "1", "old"])
    devices.acquire("node", 1, "server", "engine")
    devices.acquire("node", 1, "chunk", "training")
    devices.register("node", ["0", "1"])
    assert holders() == {"node/0": None, "node/1": "chunk"}


def test_an_engine_leaves_alone_what_a_training_waits_for() -> None:
    devices.register("node", ["0"])
    devices.want("node")
    assert devices.wanted("node") == {"0"}
    assert devices.acquire("node", 1, "server", "engine") is None
    assert devices.acquire("node", 1, "chunk", "training") == ["0"]
    assert devices.wanted("node") == set()


def test_a_training_waits_until_the_servers_made_way() -> None:
    devices.register("node", ["0"])
    devices.acquire("node", 1, "server", "engine")
    asked = threading.Event()

    def check() -> None:
        if devices.wanted("node"):
            asked.set()

    def make_way() -> None:
        assert asked.wait(30)
        devices.release("server")

    other = threading.Thread(target=make_way)
    other.start()
    with devices.held("node", 1, "chunk", check, poll=0.01) as names:
        assert names == ["0"]
        assert holders() == {"node/0": "chunk"}
    other.join()
    assert holders() == {"node/0": None}


def test_a_training_that_is_cancelled_stops_waiting() -> None:
    devices.register("node", ["0"])
    devices.acquire("node", 1, "server", "engine")

    class Cancelled(Exception):
        pass

    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled), devices.held("node", 1, "chunk", check):
        raise AssertionError("it holds nothing")


def test_a_node_without_leases_needs_none() -> None:
    devices.register("other", ["0"])
    with devices.held("node", 1, "chunk", never) as names:
        assert names == []


@pytest.mark.parametrize("names", [["cpu"], ["cpu:0", "cpu:1", "cpu:2"]])
def test_a_cpu_is_as_many_devices_as_are_asked_for(names: list[str]) -> None:
    devices.register("node", names)
    with devices.held("node", 2, "chunk", never) as held:
        assert held == names[:2]
    devices.register("gpus", ["0"])
    with pytest.raises(devices.TooFewDevices), devices.held("gpus", 2, "chunk", never):
        raise AssertionError("it holds nothing")
