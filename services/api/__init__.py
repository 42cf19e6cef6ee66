"""The gateway: HTTP in front of Postgres and the evaluator service; it never imports torch."""
