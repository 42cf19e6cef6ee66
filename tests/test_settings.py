"""Secrets come from files, and errors name the file, never the secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from selftaught.settings import SecretError, Settings, endpoint_key

URL = "postgresql+psycopg://selftaught@postgres:5432/selftaught"


@pytest.fixture
def password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that DATABASE_PASSWORD_FILE names; it is not there yet."""
    path = tmp_path / "password"
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(path))
    return path


@pytest.mark.parametrize("secret", ["plain", "a:b/c@d%20e f?#", " spaces stay ", "ключ"])
def test_the_password_of_a_file_is_the_urls_whatever_is_in_it(password: Path, secret: str) -> None:
    password.write_text(secret + "\n", encoding="utf-8")
    url = make_url(Settings().database_url)
    assert url.password == secret
    assert (url.username, url.host, url.port) == ("selftaught", "postgres", 5432)
    assert url.database == "selftaught"


def test_without_a_file_the_url_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_PASSWORD_FILE", raising=False)
    monkeypatch.setenv("DATABASE_URL", URL)
    assert Settings().database_url == URL


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read"), ("", "empty"), ("\n", "empty")]
)
def test_a_file_without_a_password_is_an_error_that_names_it(
    password: Path, content: str | None, problem: str
) -> None:
    if content is not None:
        password.write_text(content)
    with pytest.raises(ValidationError, match=problem) as caught:
        Settings()
    assert f"DATABASE_PASSWORD_FILE: {password}" in str(caught.value)


def test_two_passwords_are_an_error_that_shows_neither(
    password: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password.write_text("hidden-one")
    monkeypatch.setenv("DATABASE_URL", URL.replace("@", ":hidden-two@"))
    with pytest.raises(ValidationError, match="DATABASE_URL has a password") as caught:
        Settings()
    assert "hidden" not in str(caught.value)


def test_an_endpoints_key_comes_from_its_variable_or_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_text("from a file\n\n")
    assert endpoint_key("big-one") is None
    monkeypatch.setenv("SELFTAUGHT_ENDPOINT_KEY_BIG_ONE_FILE", str(path))
    assert endpoint_key("big-one") == "from a file"
    monkeypatch.setenv("SELFTAUGHT_ENDPOINT_KEY_BIG_ONE", "from the environment")
    with pytest.raises(SecretError, match="both set"):
        endpoint_key("big-one")
    monkeypatch.delenv("SELFTAUGHT_ENDPOINT_KEY_BIG_ONE_FILE")
    assert endpoint_key("big-one") == "from the environment"


def test_an_endpoints_key_file_that_is_not_there_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SELFTAUGHT_ENDPOINT_KEY_BIG_FILE", str(tmp_path / "gone"))
    with pytest.raises(SecretError, match=r"SELFTAUGHT_ENDPOINT_KEY_BIG_FILE: .*gone"):
        endpoint_key("big")


@pytest.mark.parametrize("name", ["local", "vllm", "big-file", "big_FILE"])
def test_an_endpoint_cannot_have_a_name_that_means_something_else(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SELFTAUGHT_ENDPOINTS", f'{{"{name}": "http://127.0.0.1/v1"}}')
    with pytest.raises(ValidationError, match=name):
        Settings()
