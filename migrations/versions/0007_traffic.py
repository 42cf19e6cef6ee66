"""Canaries, what both sides of them said, and the log of verdicts.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = postgresql.JSONB(none_as_null=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "canaries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("base_id", sa.String(), nullable=False),
        sa.Column("version_id", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("ended_reason", sa.String(), nullable=True),
        sa.CheckConstraint("mode IN ('share','shadow')", name="canaries_mode"),
        sa.CheckConstraint("share > 0 AND share <= 1", name="canaries_share"),
        sa.CheckConstraint("(ended_at IS NULL) = (ended_reason IS NULL)", name="canaries_ended"),
        sa.ForeignKeyConstraint(["base_id"], ["model_versions.id"]),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "canaries_active",
        "canaries",
        ["model", "alias"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "canary_verdicts",
        sa.Column("canary_id", sa.String(), nullable=False),
        sa.Column("content_sha256", sa.String(), nullable=False),
        sa.Column("arm", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("ab", sa.String(), nullable=True),
        sa.Column("ba", sa.String(), nullable=True),
        sa.Column("judgments", sa.Integer(), nullable=False),
        sa.Column("parse_failures", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.CheckConstraint("arm IN ('incumbent','canary')", name="canary_verdicts_arm"),
        sa.CheckConstraint(
            "verdict IN ('A','B','tie','unparsable','failed')", name="canary_verdicts_verdict"
        ),
        sa.ForeignKeyConstraint(["canary_id"], ["canaries.id"]),
        sa.PrimaryKeyConstraint("canary_id", "content_sha256", "arm"),
    )
    op.create_table(
        "verdicts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("version_id", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=True),
        sa.Column("canary_id", sa.String(), nullable=True),
        sa.Column("template", sa.String(), nullable=False),
        sa.Column("template_sha256", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("orders_agree", sa.Boolean(), nullable=True),
        sa.Column("orders", postgresql.JSONB(), nullable=False),
        sa.Column("votes", sa.Integer(), nullable=False),
        sa.Column("parse_failures", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("cached", sa.Boolean(), nullable=False),
        sa.Column("total_seconds", sa.Float(), nullable=False),
        sa.Column("queue_seconds", sa.Float(), nullable=False),
        sa.Column("engine_seconds", sa.Float(), nullable=False),
        sa.Column("content_sha256", sa.String(), nullable=False),
        sa.Column("texts", JSON, nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("verdicts_created", "verdicts", ["created_at"])
    op.create_index("verdicts_version", "verdicts", ["version_id", "id"])
    op.create_index("verdicts_content", "verdicts", ["content_sha256", "id"])
    op.create_index("verdicts_request", "verdicts", ["request_id", "id"])


def downgrade() -> None:
    op.drop_table("verdicts")
    op.drop_table("canary_verdicts")
    op.drop_table("canaries")
