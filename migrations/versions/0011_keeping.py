"""What may be deleted: datasets, jobs and versions, and what stays of each.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
OWN = "nullif(current_setting('selftaught.project', true), '')"


def upgrade() -> None:
    op.alter_column("datasets", "artifact_id", nullable=True)
    op.add_column("datasets", sa.Column("deleted_at", TIME, nullable=True))
    op.add_column("datasets", sa.Column("sha256", sa.String(), nullable=True))
    op.create_check_constraint(
        "datasets_data_or_deleted",
        "datasets",
        "(deleted_at IS NULL) = (artifact_id IS NOT NULL)",
    )
    op.add_column("jobs", sa.Column("data_removed_at", TIME, nullable=True))
    op.drop_constraint("evaluations_job_id_fkey", "evaluations")
    _evaluations_are_of("model_versions", "version_id")
    op.create_table(
        "deleted_versions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), server_default=sa.text(OWN), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("deleted_at", TIME, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id", "model", "number"),
    )
    op.execute("ALTER TABLE deleted_versions ENABLE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON deleted_versions TO selftaught_tenant USING (project_id = {OWN})"
    )


def _evaluations_are_of(parent: str, key: str) -> None:
    """A project sees those of its versions; their job may have been deleted."""
    op.execute("DROP POLICY tenant ON evaluations")
    op.execute(
        "CREATE POLICY tenant ON evaluations TO selftaught_tenant"
        f" USING (EXISTS (SELECT FROM {parent} p WHERE p.id = evaluations.{key}))"
    )


def downgrade() -> None:
    op.drop_table("deleted_versions")
    _evaluations_are_of("jobs", "job_id")
    # Not valid: evaluations of jobs that were deleted stay.
    op.execute(
        "ALTER TABLE evaluations ADD CONSTRAINT evaluations_job_id_fkey"
        " FOREIGN KEY (job_id) REFERENCES jobs (id) NOT VALID"
    )
    op.drop_column("jobs", "data_removed_at")
    op.drop_constraint("datasets_data_or_deleted", "datasets")
    # What was deleted has no data to name; jobs that name it keep the rest of their record.
    for column in ("dataset_id", "labelled_dataset_id"):
        op.execute(
            f"UPDATE jobs SET {column} = NULL FROM datasets"
            f" WHERE datasets.id = jobs.{column} AND datasets.deleted_at IS NOT NULL"
        )
    op.execute("DELETE FROM datasets WHERE deleted_at IS NOT NULL")
    op.drop_column("datasets", "sha256")
    op.drop_column("datasets", "deleted_at")
    op.alter_column("datasets", "artifact_id", nullable=False)
