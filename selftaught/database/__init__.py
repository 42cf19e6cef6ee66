"""Postgres: tables and sessions. Postgres is the truth; nothing else remembers a job."""

from selftaught.database.session import get_engine, transaction

__all__ = ["get_engine", "transaction"]
