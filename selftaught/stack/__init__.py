"""The embedded stack: real Postgres and Redis from wheels and every service, under one supervisor.

``selftaught up`` and tests go the same way: ``python -m selftaught.stack`` runs the supervisor in
a process of its own, and :class:`selftaught.stack.handle.Stack` starts it and reads what it wrote
into ``<home>/stack.json``. This package imports nothing itself, so that importing it is free.
"""
