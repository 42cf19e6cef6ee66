"""The generator: select, pair, judge and curate, as pure functions and the Celery handlers."""
