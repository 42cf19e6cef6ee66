"""Webhooks, and what is delivered to them.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
OWN = "nullif(current_setting('selftaught.project', true), '')"


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), server_default=sa.text(OWN), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("events", postgresql.ARRAY(sa.String()), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("old_secret", sa.String(), nullable=True),
        sa.Column("old_secret_until", TIME, nullable=True),
        sa.Column("state", sa.String(), server_default="enabled", nullable=False),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("failing_since", TIME, nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.CheckConstraint("state IN ('enabled','disabled')", name="webhooks_state"),
        sa.CheckConstraint(
            "(state = 'disabled') = (disabled_reason IS NOT NULL)", name="webhooks_disabled"
        ),
        sa.CheckConstraint(
            "(old_secret IS NULL) = (old_secret_until IS NULL)", name="webhooks_old_secret"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("webhooks_project", "webhooks", ["project_id", "id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), server_default=sa.text(OWN), nullable=False),
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", TIME, server_default=NOW, nullable=False),
        sa.Column("lock_token", sa.String(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("response", sa.String(), nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint(
            "state IN ('pending','delivered','failed')", name="webhook_deliveries_state"
        ),
        sa.CheckConstraint(
            "lock_token IS NULL OR state = 'pending'", name="webhook_deliveries_lease"
        ),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (state = 'pending')", name="webhook_deliveries_finished"
        ),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    table = "webhook_deliveries"
    op.create_index(f"{table}_webhook", table, ["webhook_id", "id"])
    op.create_index(
        f"{table}_pending",
        table,
        ["webhook_id", "next_at", "id"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        f"{table}_leased", table, ["webhook_id"], postgresql_where=sa.text("lock_token IS NOT NULL")
    )
    op.create_index(
        f"{table}_finished_at",
        table,
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    for name in ("webhooks", table):
        op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {name} TO selftaught_tenant USING (project_id = {OWN})"
        )


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
