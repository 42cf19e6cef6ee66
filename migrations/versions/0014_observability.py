"""Who asked for a job and under which trace; totals that never fall, for Prometheus.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("request_id", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("traceparent", sa.String(), nullable=True))
    op.create_table(
        "totals",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("part", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", "stage", "part"),
    )
    op.execute("REVOKE DELETE ON totals FROM selftaught_tenant")


def downgrade() -> None:
    op.drop_table("totals")
    op.drop_column("jobs", "traceparent")
    op.drop_column("jobs", "request_id")
