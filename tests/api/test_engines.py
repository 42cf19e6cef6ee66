"""What nodes run, as an operator sees it."""

from __future__ import annotations

from starlette.testclient import TestClient

from selftaught import aliases, devices, engines
from selftaught.contracts import EngineSettings
from selftaught.database import transaction
from selftaught.database.tables import EngineAdapter, EngineServer
from tests.api.helpers import add_versions


def test_nodes_show_devices_servers_and_adapters(client: TestClient) -> None:
    assert client.get("/v1/engines").json() == {"data": [], "has_more": False}
    devices.register("b", ["0"])
    devices.register("a", ["0", "1", "2"])
    devices.acquire("a", 2, "srv_1", "engine")
    devices.acquire("a", 1, "st_1.0", "training")
    add_versions("m", [0])
    spec = engines.Spec(base="/x/y", name="y", settings=EngineSettings(), max_lora_rank=16)
    with transaction() as session:
        version = aliases.get_version(session, "m", 0)
        session.add(
            EngineServer(
                id="srv_1",
                node="a",
                key=spec.key,
                spec=spec.model_dump(),
                state="ready",
                url="http://10.0.0.1:1/v1",
                kv_tokens=5,
                pid=1,
            )
        )
        session.flush()
        session.add(
            EngineAdapter(server_id="srv_1", version_id=version.id, state="ready", difference=0.5)
        )
    first, second = client.get("/v1/engines").json()["data"]
    assert (first["node"], first["alive"]) == ("a", True)
    assert first["devices"] == [
        {"name": "0", "holder": "srv_1", "purpose": "engine"},
        {"name": "1", "holder": "srv_1", "purpose": "engine"},
        {"name": "2", "holder": "st_1.0", "purpose": "training"},
    ]
    (server,) = first["servers"]
    assert (server["model"], server["state"], server["kv_tokens"]) == ("y", "ready", 5)
    assert "url" not in server  # of the private network
    (adapter,) = server["adapters"]
    assert (adapter["version"], adapter["state"], adapter["difference"]) == ("m:0", "ready", 0.5)
    assert second["devices"] == [{"name": "0", "holder": None, "purpose": None}]
    assert second["servers"] == []
