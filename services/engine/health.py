"""Is this node's engine process at work? python -m services.engine.health

The process says in Postgres every few seconds that its node lives; the status is 1 if it has not
done so of late. A process that hangs looks like one that is gone.
"""

from __future__ import annotations

import sys

from sqlalchemy import select

from selftaught.database import transaction
from selftaught.database.tables import Device
from selftaught.engines import alive
from selftaught.settings import get_settings


def works(node: str) -> bool:
    """Whether the node's engine process was heard of of late."""
    with transaction() as session:
        query = select(Device.name).where(Device.node == node, alive(Device.seen_at)).limit(1)
        return session.scalar(query) is not None


if __name__ == "__main__":
    sys.exit(0 if works(get_settings().node) else 1)
