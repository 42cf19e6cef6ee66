"""Durable work: Postgres remembers it, Celery only announces it. See docs/work-kernel.md.

`planning` says which stages and chunks there are, `pipeline` opens and closes them, `kernel` leases
and applies them, `relay` sends the outbox and reaps dead leases, `worker` is the Celery side,
`events` writes what happened.
"""
