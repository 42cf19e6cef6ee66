"""Runs migrations against DATABASE_URL, one migrator at a time (advisory lock)."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from selftaught.database.tables import Base
from selftaught.settings import get_settings

LOCK = 7_305_002  # any constant: two stacks that start at once migrate one after the other

engine = create_engine(get_settings().database_url, poolclass=pool.NullPool)
with engine.connect() as connection:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
    connection.commit()
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
    connection.commit()
