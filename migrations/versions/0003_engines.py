"""Devices and who holds them; vLLM servers, their adapters, and who asks for them.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = postgresql.JSONB(none_as_null=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("purpose", sa.String(), nullable=True),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("wanted_until", TIME, nullable=True),
        sa.Column("seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("node", "name"),
    )
    op.create_table(
        "engine_servers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("kv_tokens", sa.Integer(), nullable=True),
        sa.Column("restarts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", JSON, nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("ready_at", TIME, nullable=True),
        sa.Column("seen_at", TIME, server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "state IN ('starting','ready','draining','failed')", name="engine_servers_state"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("node", "key"),
    )
    op.create_table(
        "engine_adapters",
        sa.Column("server_id", sa.String(), nullable=False),
        sa.Column("version_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("difference", sa.Float(), nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.CheckConstraint("state IN ('loading','ready','failed')", name="engine_adapters_state"),
        sa.ForeignKeyConstraint(["server_id"], ["engine_servers.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"]),
        sa.PrimaryKeyConstraint("server_id", "version_id"),
    )
    op.create_table(
        "engine_demands",
        sa.Column("version_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("adapter", sa.String(), nullable=True),
        sa.Column("wanted_until", TIME, nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"]),
        sa.PrimaryKeyConstraint("version_id", "job_id"),
    )


def downgrade() -> None:
    op.drop_table("engine_demands")
    op.drop_table("engine_adapters")
    op.drop_table("engine_servers")
    op.drop_table("devices")
