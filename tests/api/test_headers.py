"""Headers of every answer, pages of other origins, and texts that are never pages."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from selftaught.settings import Settings, get_settings
from services.api.main import create_app
from tests.api.helpers import post_job, upload

APP = "https://app.example.com"
PREFLIGHT = {
    "origin": APP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type, idempotency-key",
}


def test_every_answer_tells_browsers_not_to_guess_frame_or_keep_it(client: TestClient) -> None:
    answers = [
        client.get("/healthz"),
        client.get("/v1/jobs"),
        client.get("/nope"),
        client.get("/v1/jobs/a%00b"),
        client.post("/judge", content=b"{"),
        client.get("/metrics"),
        client.get("/openapi.json"),
    ]
    for answer in answers:
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff", answer.url
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "access-control-allow-origin" not in headers and "server" not in headers


def test_pages_load_nothing_from_elsewhere_and_cannot_be_framed(client: TestClient) -> None:
    for path in ("/", "/docs"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy, path
        assert "frame-ancestors 'none'" in policy and "http" not in policy
        assert answer.headers["cache-control"] == "no-cache" and answer.headers["etag"]
        loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
        assert loaded and all(client.get(one).status_code == 200 for one in loaded), path
        assert all(one.startswith("/web/") for one in loaded)


def test_uploaded_text_is_never_a_page(client: TestClient) -> None:
    evil = "<script>alert(1)</script>"
    form = {"file": ("x.html", evil.encode(), "text/html")}
    answers = [client.post("/v1/datasets", files=form, data={"name": evil})]
    sent = client.post("/v1/datasets", content=evil, headers={"content-type": "text/plain"})
    template = {"name": "evil", "kind": "judge", "prompt": evil}
    job = post_job(client, upload(client), model="evil")
    answers += [sent, client.post("/v1/templates", json=template), job]
    answers += [client.get(path) for path in ("/v1/datasets", "/v1/jobs", f"/{evil}")]
    answers.append(client.get("/v1/jobs", headers={"accept": "text/html", "x-request-id": evil}))
    for answer in answers:
        kind = answer.headers["content-type"].split(";")[0]
        assert kind in ("application/json", "application/problem+json"), answer.url


def test_pages_of_other_origins_are_not_let_in(client: TestClient) -> None:
    answer = client.get("/healthz", headers={"origin": APP})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    refused = client.options("/v1/jobs", headers=PREFLIGHT)
    assert refused.status_code == 405
    assert not [name for name in refused.headers if name.startswith("access-control")]


def test_pages_of_listed_origins_are_without_the_browsers_own_credentials(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFTAUGHT_CORS_ORIGINS", json.dumps([APP]))
    get_settings.cache_clear()
    with TestClient(create_app(), "http://localhost") as listed:
        asked = listed.options("/v1/jobs", headers=PREFLIGHT)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == APP
        got = listed.get("/healthz", headers={"origin": APP})
        assert got.headers["access-control-allow-origin"] == APP
        assert "X-Request-ID" in got.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in {*asked.headers, *got.headers}
        for origin in (
            "https://evil.example.com",
            "null",
            f"{APP}.evil.com",
            "http://app.example.com",
        ):
            other = {**PREFLIGHT, "origin": origin}
            assert (
                "access-control-allow-origin"
                not in listed.options("/v1/jobs", headers=other).headers
            )
            plain = listed.get("/healthz", headers={"origin": origin})
            assert "access-control-allow-origin" not in plain.headers


@pytest.mark.parametrize("origin", ["*", "null", "app.example.com", f"{APP}/", "https://*.x.com"])
def test_origins_are_named_one_by_one(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_CORS_ORIGINS", json.dumps([origin]))
    with pytest.raises(ValidationError, match="is no origin"):
        Settings()
