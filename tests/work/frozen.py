"""A worker of its own process, to be frozen in the middle: python -m tests.work.frozen CHUNK

Tells `working`, waits for a line, and then does whatever a worker does: after `go on` at once,
after `look` nothing until its heart has noticed that the lease is lost.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from selftaught import engines, stopping
from selftaught.artifacts import publish_rows
from selftaught.contracts import EngineSettings
from selftaught.database import transaction
from selftaught.database.tables import Evaluation, ModelVersion
from selftaught.ids import new_id
from selftaught.work.kernel import Lease, Result
from selftaught.work.worker import Handler, run_one


def run(lease: Lease) -> Result:
    sys.stdout.write("working\n")
    sys.stdout.flush()
    noticing = sys.stdin.readline() == "look\n"
    while noticing:
        stopping.check()
        time.sleep(0.01)
    with transaction() as session:
        version = session.scalars(
            select(ModelVersion).where(ModelVersion.model == lease.job_id)
        ).one()
    spec = engines.Spec(base="b", name="n", settings=EngineSettings(), max_lora_rank=0)
    engines.want(engines.Target(version.id, spec, Path("nowhere"), None), lease.job_id)
    rows = [{"late": True}] * 20
    published = publish_rows("selection", lease.path("select"), rows)
    beside = publish_rows("dropped", lease.path("select_dropped"), rows)
    lease.say("late.words", {})
    return Result(
        counts={"late": 1}, artifact=published, side_artifacts=(beside,), extra={"id": version.id}
    )


def apply(session: Session, lease: Lease, result: Result) -> None:
    version = result.extra["id"]
    late = Evaluation(
        id=new_id("ev"), version_id=version, job_id=lease.job_id, set="late", metrics={}
    )
    session.add(late)


if __name__ == "__main__":
    applied = run_one(sys.argv[1], "frozen", {"select": Handler(run, apply)})
    sys.stdout.write(f"{applied}\n")
