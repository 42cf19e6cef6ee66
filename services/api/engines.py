"""Nodes that run engines: their devices and who holds them, their vLLM servers and adapters."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import func, select

from selftaught.contracts import (
    EngineAdapterOut,
    EngineDeviceOut,
    EngineNodeOut,
    EngineServerOut,
    Page,
)
from selftaught.database import transaction
from selftaught.database.tables import Device, EngineAdapter, EngineServer, ModelVersion
from selftaught.engines import alive
from selftaught.http import problem_docs

router = APIRouter(prefix="/v1/engines", tags=["operations"])


@router.get("", responses=problem_docs())
def list_engines() -> Page[EngineNodeOut]:
    """All nodes by name, as they are now."""
    with transaction() as session:
        devices = session.execute(
            select(Device, alive(Device.seen_at)).order_by(Device.node, Device.position)
        ).all()
        servers = session.scalars(select(EngineServer).order_by(EngineServer.created_at)).all()
        adapters = session.execute(
            select(EngineAdapter, ModelVersion)
            .join(ModelVersion, ModelVersion.id == EngineAdapter.version_id)
            .order_by(EngineAdapter.created_at)
        ).all()
        now = session.execute(select(func.clock_timestamp())).scalar_one()
    nodes: dict[str, EngineNodeOut] = {}
    for device, lives in devices:
        node = nodes.setdefault(
            device.node, EngineNodeOut(node=device.node, alive=lives, devices=[], servers=[])
        )
        held = device.expires_at is not None and device.expires_at > now
        node.devices.append(
            EngineDeviceOut(
                name=device.name,
                holder=device.holder if held else None,
                purpose=device.purpose if held else None,
            )
        )
    for server in servers:
        if server.node in nodes:
            nodes[server.node].servers.append(
                EngineServerOut(
                    id=server.id,
                    model=server.spec["name"],
                    state=server.state,
                    kv_tokens=server.kv_tokens,
                    restarts=server.restarts,
                    error=server.error,
                    adapters=[
                        EngineAdapterOut(
                            version=version.ref,
                            state=adapter.state,
                            difference=adapter.difference,
                            error=adapter.error,
                        )
                        for adapter, version in adapters
                        if adapter.server_id == server.id
                    ],
                    created_at=server.created_at,
                    ready_at=server.ready_at,
                )
            )
    return Page(data=list(nodes.values()), has_more=False)
