"""Usage by day, the audit log, and keys of requests that are carried out once.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
OWN = "nullif(current_setting('selftaught.project', true), '')"
TABLES = ("usage", "audit", "idempotency_keys")


def upgrade() -> None:
    op.create_table(
        "usage",
        _project(),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("gpu_seconds", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "day"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", TIME, server_default=NOW, nullable=False),
        _project(),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("key_name", sa.String(), nullable=True),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("client", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_project", "audit", ["project_id", "id"])
    op.create_index("audit_at", "audit", ["at"])
    op.create_table(
        "idempotency_keys",
        _project(),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("reserved_at", TIME, server_default=NOW, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("body", sa.String(), nullable=True),
        sa.Column("location", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", "key"),
        sa.CheckConstraint(
            "(status IS NULL) = (fingerprint IS NULL)", name="idempotency_keys_answered"
        ),
    )
    op.create_index("idempotency_keys_reserved", "idempotency_keys", ["reserved_at"])
    op.create_index("artifacts_project", "artifacts", ["project_id"], postgresql_include=["bytes"])
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} TO selftaught_tenant USING (project_id = {OWN})"
        )
    op.execute("REVOKE INSERT, UPDATE, DELETE ON audit FROM selftaught_tenant")
    op.execute("REVOKE DELETE ON usage FROM selftaught_tenant")


def _project() -> sa.Column[str]:
    return sa.Column(
        "project_id",
        sa.String(),
        sa.ForeignKey("projects.id"),
        server_default=sa.text(OWN),
        nullable=False,
    )


def downgrade() -> None:
    op.drop_index("artifacts_project", "artifacts")
    for table in TABLES:
        op.drop_table(table)
