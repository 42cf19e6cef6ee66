"""The OpenAPI documents are complete and true: what is missing is named, with where to add it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from selftaught import contracts
from selftaught.database import session as session_module
from selftaught.openapi import PROBLEM_TYPE
from services.api import chat, health, judge
from services.api.main import RESOURCES, create_app
from services.evaluator.main import create_app as create_evaluator

Json = dict[str, Any]
METHODS = ("get", "put", "post", "delete", "patch")
APPS: dict[str, Callable[[], FastAPI]] = {"gateway": create_app, "evaluator": create_evaluator}


@pytest.fixture(params=list(APPS))
def document(request: pytest.FixtureRequest) -> Json:
    found: Json = APPS[request.param]().openapi()
    return found


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    """Each as ("POST /judge", what the document says of it)."""
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield f"{method.upper()} {path}", methods[method]


def resolved(document: Json, schema: Json) -> Json:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Json = document["components"]["schemas"][name] if name else schema
    return found


def example_of(document: Json, media: Json) -> Any:
    """The example of a body: its own, or its schema's; None without one."""
    if "example" in media:
        return media["example"]
    for examples in (media.get("examples"), resolved(document, media["schema"]).get("examples")):
        if examples:
            return next(iter(examples.values())) if isinstance(examples, dict) else examples[0]
    return None


def missing(document: Json) -> Iterator[str]:
    """Everything that the document lacks, each with how it is added."""
    tags = {tag["name"] for tag in document["tags"] if tag.get("description")}
    seen: dict[str, str] = {}
    for name, operation in operations(document):
        if not operation.get("summary") or not operation.get("description"):
            yield f"{name}: give the route's function a docstring (its first sentence: the summary)"
        if len(operation.get("summary", "")) > 120:
            yield f"{name}: the docstring's first sentence is too long for a summary"
        if not operation.get("tags") or not set(operation["tags"]) <= tags:
            yield f"{name}: give its router one tag, described where the app is made (TAGS)"
        if operation["operationId"] in seen:
            yield f"{name}: has the name of {seen[operation['operationId']]}; rename its function"
        seen[operation["operationId"]] = name
        for parameter in operation.get("parameters", []):
            told = f"{name}: parameter {parameter['name']!r}"
            if not parameter.get("description"):
                yield f"{told}: add description=.. to its Path(), Query() or Header()"
            if parameter["required"] and not parameter["schema"].get("examples"):
                yield f"{told}: is required: add examples=[..]"
        yield from missing_bodies(document, name, operation)
    for name, schema in document["components"]["schemas"].items():
        if not schema.get("description"):
            yield f"schema {name}: give the class a docstring"
        for field, about in schema.get("properties", {}).items():
            if not (about.get("description") or resolved(document, about).get("description")):
                yield f"schema {name}: add Field(description=..) to {field!r}"


def missing_bodies(document: Json, name: str, operation: Json) -> Iterator[str]:
    """What an operation's request, answers and problems lack."""
    contract = "add model_config = example(..) to its contract, or an example to the media type"
    for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
        if example_of(document, media) is None:
            yield f"{name}: its body ({media_type}) has no example: {contract}"
    good = [status for status in operation["responses"] if status[0] == "2"]
    if not good:
        yield f"{name}: no 2xx answer"
    for status in good:
        content = operation["responses"][status].get("content", {})
        if not content and status != "204":
            yield f"{name}: {status} has no content: give the route a return type"
        for media_type, media in content.items():
            if media.get("schema", {}).keys() <= {"title"}:
                yield f"{name}: {status} ({media_type}) has no schema: give the route a return type"
            elif example_of(document, media) is None:
                yield f"{name}: its {status} ({media_type}) has no example: {contract}"
    wrong = "400" if name.split()[1].startswith(chat.PATHS) else "422"
    if {"parameters", "requestBody"} & operation.keys() and wrong not in operation["responses"]:
        yield f"{name}: takes something, and does not say that it refuses what is wrong ({wrong})"
    if "{" in name and "404" not in operation["responses"]:
        yield f"{name}: has an id in its path: add responses=problem_docs(404)"
    for status, answer in operation["responses"].items():
        problem = answer.get("content", {}).get(PROBLEM_TYPE)
        if status[0] in "45" and name.split()[1].startswith(chat.PATHS):
            media = answer["content"]["application/json"]
            if problem or media["schema"] != {"$ref": "#/components/schemas/ChatError"}:
                yield f"{name}: {status}: the schema of an error is ChatError's"
            contracts.ChatError.model_validate(media["example"])
        elif status[0] in "45" and problem is None and status != "503":  # readyz has its own
            yield f"{name}: {status} is no problem: add it with problem_docs({status})"
        if problem is not None:
            if problem["schema"] != {"$ref": "#/components/schemas/Problem"}:
                yield f"{name}: {status}: the schema of a problem is Problem's"
            shown = contracts.Problem.model_validate(problem["example"])
            if str(shown.status) != status:
                yield f"{name}: {status}: the example is of {shown.status}"


def test_nothing_is_missing(document: Json) -> None:
    for part in ("title", "summary", "version", "license", "contact"):
        assert document["info"].get(part), part
    assert document["servers"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    found = list(missing(document))
    assert not found, "\n".join(["the OpenAPI document lacks:", *found])


def test_what_is_missing_is_named() -> None:
    """The check above can fail: of a bare route it says all that is to be added."""
    app = create_app()

    @app.post("/v1/things/{thing_id}", name="get_job")
    def bare(thing_id: str, body: Json) -> Any: ...

    name = "POST /v1/things/{thing_id}: "
    with pytest.warns(UserWarning, match="Duplicate Operation ID"):
        document = app.openapi()
    found = [told.removeprefix(name) for told in missing(document) if told.startswith(name)]
    assert [told[:30] for told in found] == [
        "give the route's function a do",
        "give its router one tag, descr",
        "has the name of GET /v1/jobs/{",
        "parameter 'thing_id': add desc",
        "parameter 'thing_id': is requi",
        "its body (application/json) ha",
        "200 (application/json) has no ",
        "has an id in its path: add res",
    ]


CONTRACTS = [
    found
    for _, found in inspect.getmembers(contracts, inspect.isclass)
    if issubclass(found, BaseModel) and found.model_json_schema().get("examples")
]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda found: found.__name__)
def test_examples_of_contracts_are_true(contract: type[BaseModel]) -> None:
    """They are valid, name no field that there is not, and leave none out that is answered."""
    for example in contract.model_json_schema()["examples"]:
        whole = contract.model_validate(example).model_dump(mode="json", by_alias=True)
        assert not example.keys() - whole.keys(), "unknown fields"
        if not issubclass(contract, contracts.Contract):
            assert not whole.keys() - example.keys(), "fields that the answer has, too"


def test_examples_are_of_the_types_that_the_routes_declare() -> None:
    """Also those of pages, and those that stand in the routes themselves."""
    document = create_app().openapi()
    routes = [
        route
        for resource in (*RESOURCES, health)
        for route in resource.router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
    ]
    assert len(routes) == len(list(operations(document)))
    for route in routes:
        (method,) = route.methods
        operation = document["paths"][route.path_format][method.lower()]
        answer = operation["responses"][str(route.status_code or 200)]
        media = answer.get("content", {}).get("application/json")
        if route.response_model is not None and media is not None:
            TypeAdapter(route.response_model).validate_python(example_of(document, media))
        if route.body_field is not None:
            media = operation["requestBody"]["content"]["application/json"]
            body = TypeAdapter(route.body_field.field_info.annotation)
            body.validate_python(example_of(document, media))


def test_every_answer_is_documented(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked with its own examples, on empty tables and without Postgres, every route answers with
    a status and a media type that its document has."""
    monkeypatch.setattr(judge, "PATIENCE", 0.0)  # for an evaluator that is not there
    assert client.get("/docs").status_code == 200
    document = client.get("/openapi.json").json()
    for name, operation in operations(document):
        for body in (example_request(document, name, operation), broken_request(operation)):
            assert_documented(name, operation, ask(client, name, operation, body))
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    monkeypatch.setattr(session_module, "get_engine", lambda: nowhere)
    for name, operation in operations(document):
        # With a key, which has to be looked up for every route that asks for one.
        request = example_request(document, name, operation)
        answer = ask(client, name, operation, request, {"authorization": "Bearer st_x"})
        assert_documented(name, operation, answer)
        told = "documents 503 (see problem_docs), without Postgres it answers"
        assert (answer.status_code == 503) == ("503" in operation["responses"]), (
            f"{name}: {told} {answer.status_code} {answer.text}"
        )


def example_request(document: Json, name: str, operation: Json) -> tuple[str, bytes] | None:
    """Media type and content of an operation's example; None if it takes no body."""
    for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
        found = example_of(document, media)
        if media_type != "multipart/form-data":
            return media_type, found.encode() if isinstance(found, str) else json.dumps(
                found
            ).encode()
    return None


def broken_request(operation: Json) -> tuple[str, bytes] | None:
    return ("application/json", b"{") if "requestBody" in operation else None


def ask(
    client: TestClient,
    name: str,
    operation: Json,
    body: tuple[str, bytes] | None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """The answer to an operation with the examples of the parameters that it needs."""
    method, path = name.split()
    query: dict[str, str] = {}
    for parameter in operation.get("parameters", []):
        if parameter["required"]:
            query[parameter["name"]] = str(parameter["schema"]["examples"][0])
    for key in [key for key in query if f"{{{key}}}" in path]:
        path = path.replace(f"{{{key}}}", query.pop(key))
    media_type, content = body or (None, None)
    headers = {**(headers or {}), **({"content-type": media_type} if media_type else {})}
    return client.request(method, path, params=query, content=content, headers=headers)


def assert_documented(name: str, operation: Json, answer: httpx.Response) -> None:
    documented = operation["responses"].get(str(answer.status_code))
    assert documented is not None, (
        f"{name}: answers {answer.status_code}, which it does not document; "
        f"add problem_docs({answer.status_code}): {answer.text}"
    )
    media_type = answer.headers["content-type"].split(";")[0]
    assert media_type in documented["content"], f"{name}: {answer.status_code} is {media_type}"
    if media_type == PROBLEM_TYPE:
        contracts.Problem.model_validate(answer.json())
