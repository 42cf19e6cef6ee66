"""The client, written once; `selftaught/client/_sync` is made of it by scripts/unasync.py."""
