"""Jobs of other kinds than the loop, uploaded templates, what an evaluation was asked with.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("kind", sa.String(), nullable=False, server_default="loop"))
    op.create_check_constraint("jobs_kind", "jobs", "kind IN ('loop','registration','evaluation')")
    op.alter_column("jobs", "dataset_id", nullable=True)
    op.add_column("datasets", sa.Column("benchmark", sa.String(), nullable=True))
    op.add_column("evaluations", sa.Column("template", sa.String(), nullable=True))
    op.add_column("evaluations", sa.Column("template_sha256", sa.String(), nullable=True))
    op.create_table(
        "templates",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("content", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:
    op.drop_table("templates")
    op.drop_column("evaluations", "template_sha256")
    op.drop_column("evaluations", "template")
    op.drop_column("datasets", "benchmark")
    op.alter_column("jobs", "dataset_id", nullable=False)
    op.drop_constraint("jobs_kind", "jobs")
    op.drop_column("jobs", "kind")
