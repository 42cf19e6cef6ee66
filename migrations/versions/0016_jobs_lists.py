"""Reading a few jobs, and what belongs to them, takes no longer where there are many.

Lists of jobs are read from indexes. The policies of what belongs to jobs say as a scalar subquery
what they said with EXISTS, which Postgres may answer by a hash of all the project's jobs: for a
page of 100 of 30,000 jobs it did.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

INDEXES = {
    "jobs_state": ("project_id", "state", "created_at", "id"),
    "jobs_kind": ("project_id", "kind", "created_at", "id"),
    "jobs_model": ("project_id", "model", "created_at", "id"),
    "jobs_dataset": ("dataset_id",),
    "jobs_labelled_dataset": ("labelled_dataset_id",),
}
OF_JOBS = ("iterations", "stages", "chunks", "events")


def upgrade() -> None:
    for name, columns in INDEXES.items():
        op.create_index(name, "jobs", columns)
    for table in OF_JOBS:
        _policy(table, f"(SELECT true FROM jobs p WHERE p.id = {table}.job_id)")


def _policy(table: str, rule: str) -> None:
    op.execute(f"ALTER POLICY tenant ON {table} USING ({rule})")


def downgrade() -> None:
    for table in OF_JOBS:
        _policy(table, f"EXISTS (SELECT FROM jobs p WHERE p.id = {table}.job_id)")
    for name in INDEXES:
        op.drop_index(name, "jobs")
