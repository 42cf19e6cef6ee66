"""Legal transitions only: a trigger on every table with a state; jobs may be paused and retried.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
BEFORE = "'pending','ready','running','cancelling','succeeded','failed','cancelled'"
STATES = {
    "jobs": "'pending','running','pausing','paused','cancelling','succeeded','failed','cancelled'",
    "iterations": "'running','succeeded','failed','cancelled'",
    "stages": "'running','succeeded','failed','cancelled'",
    "chunks": "'ready','running','succeeded','failed','cancelled'",
}
PARTS = ["running>succeeded", "running>failed", "running>cancelled", "failed>running"]
TRANSITIONS = {
    "jobs": [
        "pending>running",
        "running>pausing",
        "running>cancelling",
        "running>succeeded",
        "running>failed",
        "pausing>paused",
        "pausing>running",
        "pausing>cancelling",
        "pausing>succeeded",
        "pausing>failed",
        "paused>running",
        "paused>cancelling",
        "cancelling>cancelled",
        "failed>running",
    ],
    "iterations": PARTS,
    "stages": PARTS,
    "chunks": [
        "ready>running",
        "ready>cancelled",
        "running>ready",
        "running>succeeded",
        "running>failed",
        "running>cancelled",
        "failed>ready",
        "cancelled>ready",
    ],
}

FUNCTION = """
CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (OLD.state || '>' || NEW.state) = ANY (TG_ARGV) THEN
        RAISE check_violation USING
            MESSAGE = format('%s %s goes from %s to %s', TG_TABLE_NAME, OLD.id, OLD.state,
                             NEW.state),
            CONSTRAINT = TG_TABLE_NAME || '_transition';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("paused_at", TIME, nullable=True))
    op.add_column("jobs", sa.Column("retried_at", TIME, nullable=True))
    op.execute(FUNCTION)
    for table, states in STATES.items():
        op.drop_constraint(f"{table}_state", table)
        op.create_check_constraint(f"{table}_state", table, f"state IN ({states})")
        pairs = ", ".join(f"'{pair}'" for pair in TRANSITIONS[table])
        op.execute(
            f"CREATE TRIGGER {table}_transition BEFORE UPDATE OF state ON {table} FOR EACH ROW "
            "WHEN (OLD.state IS DISTINCT FROM NEW.state) "
            f"EXECUTE FUNCTION refuse_transition({pairs})"
        )


def downgrade() -> None:
    for table in STATES:
        op.execute(f"DROP TRIGGER {table}_transition ON {table}")
        op.drop_constraint(f"{table}_state", table)
        # Not valid: paused jobs may be there, and stay; their end is to cancel them.
        op.create_check_constraint(
            f"{table}_state", table, f"state IN ({BEFORE})", postgresql_not_valid=True
        )
    op.execute("DROP FUNCTION refuse_transition()")
    op.drop_column("jobs", "retried_at")
    op.drop_column("jobs", "paused_at")
