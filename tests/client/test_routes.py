"""Every route of the gateway has a method of the client, or a reason not to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from selftaught import ApiError, Client, JobFailed
from selftaught.client import Evaluation, Job
from selftaught.client.files import DamagedDownload
from selftaught.settings import get_settings
from tests.api.helpers import add_versions, served

WITHOUT_A_METHOD = {
    ("GET", "/metrics"): "for Prometheus",
    ("GET", "/healthz"): "for whoever restarts the gateway",
    ("GET", "/readyz"): "for load balancers",
    ("POST", "/openai/v1/chat/completions"): "for OpenAI's clients",
    ("GET", "/openai/v1/models"): "for OpenAI's clients",
    ("GET", "/openai/v1/models/{ref}"): "for OpenAI's clients",
    ("GET", "/v1/models/{name}/aliases/{alias}/canary/report"): "canaries.report(get(..).id)",
}
GENERAL = {"call", "listen", "close"}
"""Methods of the client that stand for no route."""


def own(thing: object) -> Iterator[Callable[..., Any]]:
    """Its public methods, without those that pydantic gives every model."""
    names = set(dir(type(thing))) - GENERAL
    if isinstance(thing, BaseModel):
        names -= set(dir(BaseModel))
    for name in sorted(names):
        if not name.startswith("_") and inspect.ismethod(method := getattr(thing, name)):
            yield method


def arguments(method: Callable[..., Any], folder: Path) -> list[Any]:
    """Something for each parameter that needs it, by its type."""
    file = folder / "rows.jsonl"
    file.write_text('{"instruction": "i", "response_a": "a", "response_b": "b"}\n')
    found: list[Any] = []
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD:
            continue
        told = str(parameter.annotation)
        if name == "folder":
            found.append(folder / "new")
        elif "Path" in told:
            found.append(file)
        elif told == "int":
            found.append(0)
        elif told == "float":
            found.append(0.5)
        elif "Mapping" in told:
            found.append({})
        elif "Sequence" in told:
            found.append(["read"])
        else:
            found.append("m" if name == "model" else "x")
    return found


def test_every_route_has_a_method(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.judge.PATIENCE", 0.0)  # there is no evaluator
    seen: list[tuple[str, str]] = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append((scope["method"], scope["path"]))
        await app(scope, receive, send)

    lineage = {"template": {"name": "mt-bench"}, "inference": "local"}
    add_versions("m", [0], latest=0, lineage=lineage)
    weights = get_settings().versions_dir / "m" / "0"
    weights.mkdir(parents=True)
    (weights / "adapter_config.json").write_text("{}")
    with served(noting) as url, Client(url, retries=0) as client:
        spaces = [space for name, space in vars(client).items() if not name.startswith("_")]
        handles: list[BaseModel] = [
            client._transport.read(kind, kind.model_json_schema()["examples"][0])
            for kind in (Job, Evaluation)
        ]
        pair = {"instruction": "i", "response_a": "a", "response_b": "b"}
        handles.append(client.batches.create([pair], model="m"))
        for owner in [client, *spaces, *handles]:
            for method in own(owner):
                try:
                    found = method(*arguments(method, tmp_path))
                    if isinstance(found, Iterator):
                        next(found, None)
                except (ApiError, JobFailed, DamagedDownload):
                    pass  # the gateway was asked; what it thinks of the nonsense is not the point
        next(client.models.promotions("m", 0), None)  # with a version it is another route
    routes = {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if method != "parameters"
    }
    missing = routes - {route for call in seen if (route := matching(call, routes)) is not None}
    assert missing - WITHOUT_A_METHOD.keys() == set(), "give the client a method, or say why not"
    assert WITHOUT_A_METHOD.keys() <= missing, "a reason that holds no more"


def matching(call: tuple[str, str], routes: set[tuple[str, str]]) -> tuple[str, str] | None:
    """The route of a call; one without parameters goes before those with."""
    for route in sorted(routes, key=lambda route: route[1].count("{")):
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route[1]))
        if route[0] == call[0] and re.fullmatch(pattern, call[1]):
            return route
    return None
