"""Projects: whose a row is, and row-level security that shows a project its own rows only.

What was there belongs to the project `default`. The role selftaught_tenant is what a transaction
becomes that works for a project (selftaught/tenancy.py); it owns nothing and cannot log in.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
OWN = "nullif(current_setting('selftaught.project', true), '')"
ROOTS = (
    "artifacts",
    "datasets",
    "jobs",
    "templates",
    "model_versions",
    "aliases",
    "alias_history",
    "canaries",
    "api_keys",
)
CHILDREN = {
    "iterations": ("jobs", "job_id"),
    "stages": ("jobs", "job_id"),
    "chunks": ("jobs", "job_id"),
    "events": ("jobs", "job_id"),
    "evaluations": ("jobs", "job_id"),
    "promotions": ("model_versions", "version_id"),
    "review_items": ("jobs", "job_id"),
    "reviews": ("review_items", "item_id"),
    "canary_verdicts": ("canaries", "canary_id"),
    "verdicts": ("model_versions", "version_id"),
}
KEYS = {
    "aliases": ("model", "alias"),
    "alias_history": ("model", "alias", "revision"),
    "templates": ("name",),
}
ROLE = """
DO $$ BEGIN
    CREATE ROLE selftaught_tenant NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""
MEMBER = """
DO $$ BEGIN
    IF NOT pg_has_role(current_user, 'selftaught_tenant', 'MEMBER') THEN
        EXECUTE format('GRANT selftaught_tenant TO %I', current_user);
    END IF;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column(
            "limits",
            postgresql.JSONB(none_as_null=True),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.execute("INSERT INTO projects (id) VALUES ('default')")
    for table in ROOTS:
        op.execute(f"ALTER TABLE {table} ADD project_id varchar NOT NULL DEFAULT 'default'")
        op.execute(f"ALTER TABLE {table} ALTER project_id SET DEFAULT {OWN}")
        op.create_foreign_key(None, table, "projects", ["project_id"], ["id"])
    for table, columns in KEYS.items():
        op.drop_constraint(f"{table}_pkey", table)
        op.create_primary_key(f"{table}_pkey", table, ["project_id", *columns])
    op.drop_constraint("model_versions_model_number_key", "model_versions")
    op.create_unique_constraint(None, "model_versions", ["project_id", "model", "number"])
    op.drop_constraint("api_keys_name_key", "api_keys")
    op.create_unique_constraint(None, "api_keys", ["project_id", "name"])
    op.drop_index("canaries_active", "canaries")
    _canaries_active("project_id", "model", "alias")
    op.create_index("jobs_project", "jobs", ["project_id", "created_at", "id"])
    op.create_index("datasets_project", "datasets", ["project_id", "id"])
    for column in ("expires_at", "former_until"):
        op.add_column("api_keys", sa.Column(column, TIME, nullable=True))
    op.add_column("api_keys", sa.Column("former_sha256", sa.String(), nullable=True))
    op.create_unique_constraint(None, "api_keys", ["former_sha256"])
    _separate()


def _separate() -> None:
    op.execute(ROLE)
    op.execute(MEMBER)
    op.execute("GRANT USAGE ON SCHEMA public TO selftaught_tenant")
    for what in ("TABLES", "SEQUENCES"):
        rights = "SELECT, INSERT, UPDATE, DELETE" if what == "TABLES" else "USAGE"
        op.execute(f"GRANT {rights} ON ALL {what} IN SCHEMA public TO selftaught_tenant")
        op.execute(
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {rights} ON {what} "
            "TO selftaught_tenant"
        )
    for table in ("projects", "alembic_version"):
        op.execute(f"REVOKE INSERT, UPDATE, DELETE ON {table} FROM selftaught_tenant")
    own = f"project_id = {OWN}"
    for table in ROOTS:
        _policy(table, own)
    _policy("projects", f"id = {OWN}")
    for table, (parent, key) in CHILDREN.items():
        _policy(table, f"EXISTS (SELECT FROM {parent} p WHERE p.id = {table}.{key})")


def _policy(table: str, rule: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON {table} TO selftaught_tenant USING ({rule})")


def _canaries_active(*columns: str) -> None:
    op.create_index(
        "canaries_active",
        "canaries",
        columns,
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    """Only where no two projects have rows of the same name; the role stays."""
    for table in (*ROOTS, "projects", *CHILDREN):
        op.execute(f"DROP POLICY tenant ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for what in ("TABLES", "SEQUENCES"):
        op.execute(
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON {what} FROM selftaught_tenant"
        )
        op.execute(f"REVOKE ALL ON ALL {what} IN SCHEMA public FROM selftaught_tenant")
    op.execute("REVOKE USAGE ON SCHEMA public FROM selftaught_tenant")
    op.drop_index("canaries_active", "canaries")
    _canaries_active("model", "alias")
    for table, columns in KEYS.items():
        op.drop_constraint(f"{table}_pkey", table)
        op.create_primary_key(f"{table}_pkey", table, columns)
    for column in ("former_sha256", "former_until", "expires_at"):
        op.drop_column("api_keys", column)
    op.drop_index("jobs_project", "jobs")
    op.drop_index("datasets_project", "datasets")
    for table in ROOTS:
        op.drop_column(table, "project_id")
    op.create_unique_constraint(
        "model_versions_model_number_key", "model_versions", ["model", "number"]
    )
    op.create_unique_constraint("api_keys_name_key", "api_keys", ["name"])
    op.drop_table("projects")
