"""Review queues: items that people judge, and their reviews.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True)
TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.drop_constraint("jobs_kind", "jobs")
    # Not valid, here and below: jobs of newer kinds may be there after a downgrade, and stay.
    op.create_check_constraint(
        "jobs_kind",
        "jobs",
        "kind IN ('loop','registration','evaluation','review')",
        postgresql_not_valid=True,
    )
    op.create_table(
        "review_items",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("version_id", sa.String(), nullable=False),
        sa.Column("against_id", sa.String(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("stratum", sa.String(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("pair", sa.String(), nullable=False),
        sa.Column("context", JSON, nullable=False),
        sa.Column("instruction", sa.String(), nullable=False),
        sa.Column("response_a", sa.String(), nullable=False),
        sa.Column("response_b", sa.String(), nullable=False),
        sa.Column("swapped", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("orders_agree", sa.Boolean(), nullable=False),
        sa.Column("against_verdict", sa.String(), nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "stratum IN ('disagreement','low_confidence','random')", name="review_items_stratum"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"]),
        sa.ForeignKeyConstraint(["against_id"], ["model_versions.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("version_id", "job_id", "position"),
    )
    op.create_table(
        "reviews",
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("comment", sa.String(), nullable=True),
        sa.Column("skipped", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("shown_at", TIME, server_default=NOW, nullable=False),
        sa.Column("held_until", TIME, nullable=False),
        sa.Column("answered_at", TIME, nullable=True),
        sa.CheckConstraint("verdict IN ('A','B','tie')", name="reviews_verdict"),
        sa.CheckConstraint(
            "(verdict IS NULL) = (answered_at IS NULL)", name="reviews_answered_iff_verdict"
        ),
        sa.CheckConstraint("NOT skipped OR verdict IS NULL", name="reviews_skipped_or_answered"),
        sa.ForeignKeyConstraint(["item_id"], ["review_items.id"]),
        sa.PrimaryKeyConstraint("item_id", "reviewer"),
    )


def downgrade() -> None:
    op.drop_table("reviews")
    op.drop_table("review_items")
    op.drop_constraint("jobs_kind", "jobs")
    op.create_check_constraint(
        "jobs_kind",
        "jobs",
        "kind IN ('loop','registration','evaluation')",
        postgresql_not_valid=True,
    )
