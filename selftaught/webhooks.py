"""Webhooks: which are told of an event, what they are told, and how it is signed.

By Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks): the body is
`{type, timestamp, data}`, signed with the webhook's own secret. What stands here runs inside the
caller's transaction: a delivery is a row that is written together with what it tells of, so neither
is there without the other. `selftaught/work/webhooks.py` sends them.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from selftaught.contracts.webhooks import TYPES
from selftaught.database.tables import Webhook, WebhookDelivery
from selftaught.ids import new_id

TEST = "webhook.test"
OLD_SECRET_HOURS = 24
MOST = 20
"""Webhooks of a project."""
_PREFIX = "whsec_"
_SECRET_BYTES = 32  # the specification: 24 to 64
_LONGEST = 2000  # characters of a text in a payload; the specification wants it small


class TooManyWebhooks(Exception):
    """The project has as many as it may have."""


def tell(session: Session, project_id: str, type_: str, data: dict[str, Any]) -> None:
    """Write down an event for every webhook of the project that wants it.

    The webhooks are locked against being deleted until the caller's transaction ends.
    """
    rows = session.execute(
        select(Webhook.id, Webhook.events)
        .where(Webhook.project_id == project_id, Webhook.state == "enabled")
        .order_by(Webhook.id)
        .with_for_update(read=True, key_share=True)
    ).all()
    wanting = [webhook_id for webhook_id, events in rows if wants(events, type_)]
    if wanting:
        _write(session, project_id, wanting, type_, data)


def tell_of_job(
    session: Session, job: tuple[str, str, str, str], seq: int, type_: str, data: dict[str, Any]
) -> None:
    """Tell of an event of a job (its id, project, kind and model), if it is one of TYPES."""
    if type_ in TYPES:
        job_id, project_id, kind, model = job
        about = {"error": data} if type_ == "job.failed" else data
        tell(
            session,
            project_id,
            type_,
            {**about, "job": job_id, "kind": kind, "model": model, "seq": seq},
        )


def test(session: Session, webhook: Webhook) -> WebhookDelivery:
    """A delivery of `webhook.test` for this webhook alone, whatever events it wants."""
    data = {"webhook": webhook.id}
    (delivery,) = _write(session, webhook.project_id, [webhook.id], TEST, data)
    return delivery


def wants(events: Iterable[str], type_: str) -> bool:
    """Whether a webhook with these events is told of this one."""
    return any(one in ("*", type_, f"{type_.partition('.')[0]}.*") for one in events)


def add(
    session: Session, project_id: str, url: str, events: Sequence[str], description: str | None
) -> Webhook:
    """A new webhook; its secret is in the row. Raises TooManyWebhooks."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"webhooks:{project_id}"))))
    have = session.scalar(
        select(func.count()).select_from(Webhook).where(Webhook.project_id == project_id)
    )
    if have is not None and have >= MOST:
        raise TooManyWebhooks(f"a project has at most {MOST} webhooks")
    webhook = Webhook(
        id=new_id("whk"),
        project_id=project_id,
        url=url,
        events=list(events),
        description=description,
        secret=new_secret(),
    )
    session.add(webhook)
    session.flush()
    session.refresh(webhook)
    return webhook


def rotate(session: Session, webhook: Webhook) -> None:
    """Give it a new secret; the one before signs beside it for OLD_SECRET_HOURS."""
    webhook.old_secret = webhook.secret
    webhook.old_secret_until = func.clock_timestamp() + dt.timedelta(hours=OLD_SECRET_HOURS)
    webhook.secret = new_secret()
    session.flush()
    session.refresh(webhook)


def new_secret() -> str:
    """A random secret, as receivers are given it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signature(keys: Sequence[str], message_id: str, timestamp: int, body: str) -> str:
    """The header webhook-signature: one signature for each secret, with spaces between them.

    HMAC-SHA256 over `id.timestamp.body`, of the specification's section "Signature scheme".
    """
    signed = f"{message_id}.{timestamp}.{body}".encode()
    found = []
    for key in keys:
        digest = hmac.digest(base64.b64decode(key.removeprefix(_PREFIX)), signed, hashlib.sha256)
        found.append("v1," + base64.b64encode(digest).decode())
    return " ".join(found)


def _write(
    session: Session, project_id: str, webhook_ids: Sequence[str], type_: str, data: dict[str, Any]
) -> list[WebhookDelivery]:
    at = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
    payload = json.dumps(
        {"type": type_, "timestamp": at, "data": _short(data)}, separators=(",", ":")
    )
    rows = [
        WebhookDelivery(
            id=new_id("msg"),
            project_id=project_id,
            webhook_id=webhook_id,
            type=type_,
            payload=payload,
        )
        for webhook_id in webhook_ids
    ]
    session.add_all(rows)
    session.flush()
    return rows


def _short(value: Any) -> Any:
    """The value with its long texts cut."""
    if isinstance(value, str):
        return value[:_LONGEST]
    if isinstance(value, list):
        return [_short(one) for one in value]
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    return value
