"""Jobs of one more kind: batches of pairs to judge.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BEFORE = "kind IN ('loop','registration','evaluation','review')"
AFTER = "kind IN ('loop','registration','evaluation','review','batch')"


def upgrade() -> None:
    op.drop_constraint("jobs_kind", "jobs")
    op.create_check_constraint("jobs_kind", "jobs", AFTER)


def downgrade() -> None:
    op.drop_constraint("jobs_kind", "jobs")
    # Not valid: batches may be there, and stay.
    op.create_check_constraint("jobs_kind", "jobs", BEFORE, postgresql_not_valid=True)
