"""The synchronous client is what scripts/unasync.py makes of the asynchronous one."""

from __future__ import annotations

import inspect

from scripts import unasync
from selftaught.client import AsyncClient, Client


def test_the_committed_files_are_what_the_script_makes() -> None:
    assert unasync.stale() == [], "run `make unasync`"


def test_every_public_method_has_a_docstring() -> None:
    for client in (Client("http://h"), AsyncClient("http://h")):
        spaces = [one for name, one in vars(client).items() if not name.startswith("_")]
        for owner in [client, *spaces]:
            for name, method in inspect.getmembers(owner, inspect.ismethod):
                assert name.startswith("_") or inspect.getdoc(method), (owner, name)
