"""``python -m selftaught.cli``."""

from selftaught.cli import app

app(prog_name="selftaught")
