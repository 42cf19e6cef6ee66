"""Every environment variable the services read, in one place.

Embedded and production differ only in these values: where the servers are, never what runs.
"""

from __future__ import annotations

import os
import re
import socket
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url


class Settings(BaseSettings):
    """Read from the environment once per process (see :func:`get_settings`)."""

    # An error that shows its input would show DATABASE_URL's password.
    model_config = SettingsConfigDict(
        env_prefix="SELFTAUGHT_", extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(
        default=Path(".selftaught"),
        description="SELFTAUGHT_HOME: folder for artifacts, model versions, logs and demo results.",
    )
    artifacts_url: str = Field(
        default="",
        pattern=r"^(s3://[^/]+(/.*)?)?$",
        description="SELFTAUGHT_ARTIFACTS_URL: 's3://bucket/prefix', where nodes with homes of "
        "their own share artifacts and versions; default: the home is all there is. Endpoint and "
        "credentials: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and so on.",
    )
    role: str = Field(
        default="process",
        description="SELFTAUGHT_ROLE: this process's name, written into leases and logs.",
    )
    database_url: str = Field(
        default="postgresql+psycopg://selftaught@127.0.0.1:5432/selftaught",
        validation_alias="DATABASE_URL",
        description="DATABASE_URL: SQLAlchemy URL of Postgres, the truth.",
    )
    database_password_file: Path | None = Field(
        default=None,
        validation_alias="DATABASE_PASSWORD_FILE",
        description="DATABASE_PASSWORD_FILE: file with the password that DATABASE_URL leaves out.",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias="REDIS_URL",
        description="REDIS_URL: Redis, which carries Celery messages and counts requests.",
    )
    log_format: Literal["json", "text"] = Field(
        default="text",
        description="SELFTAUGHT_LOG_FORMAT: each line of a log as a JSON object, or as text.",
    )
    celery_events: bool = Field(
        default=False,
        description="SELFTAUGHT_CELERY_EVENTS: workers tell Redis of every message, for Flower.",
    )
    otlp_endpoint: str = Field(
        default="",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OTEL_EXPORTER_OTLP_ENDPOINT: where traces go, by OTLP over HTTP, such as "
        "'http://127.0.0.1:4318'; default: nowhere, and there are none.",
    )
    open: bool = Field(
        default=False,
        description="SELFTAUGHT_OPEN: callers without a key have all rights in the project "
        "'default'. Only for a gateway that listens on loopback, as the embedded stack's does.",
    )
    evaluator_url: str = Field(
        default="http://127.0.0.1:8081",
        validation_alias="EVALUATOR_URL",
        description="EVALUATOR_URL: base URL of the evaluator service behind POST /judge, or of "
        "several replicas, with commas between them.",
    )
    judge_in_flight: int = Field(
        default=512, gt=0, description="Judge calls that one evaluator answers at once; else 429."
    )
    judge_cache_bytes: int = Field(
        default=64 * 2**20, ge=0, description="Memory for former answers of /judge, per evaluator."
    )
    verdict_log: Literal["off", "hashes", "texts"] = Field(
        default="off",
        description="SELFTAUGHT_VERDICT_LOG: what is kept of every answer of /judge: nothing, all "
        "but its texts, or the texts, too.",
    )
    verdict_log_sample: float = Field(
        default=1.0, ge=0, le=1, description="Share of the answers that the log keeps."
    )
    verdict_log_days: float = Field(
        default=30.0, gt=0, description="Logged answers older than this are deleted."
    )
    models_dir: Path | None = Field(
        default=None,
        description="SELFTAUGHT_MODELS_DIR: operator's folder of base models, one subfolder each; "
        "default: <home>/models. The shipped seed 'smallworld' is always known.",
    )
    endpoints: dict[str, str] = Field(
        default_factory=dict,
        description='SELFTAUGHT_ENDPOINTS: JSON object {"name": "https://host/v1"} of '
        "OpenAI-compatible endpoints that recipes may name; the key of endpoint NAME is read from "
        "SELFTAUGHT_ENDPOINT_KEY_<NAME>, or from the file that SELFTAUGHT_ENDPOINT_KEY_<NAME>_FILE "
        "names.",
    )
    webhook_networks: list[IPv4Network | IPv6Network] = Field(
        default_factory=list,
        description="SELFTAUGHT_WEBHOOK_NETWORKS: JSON array of networks that are not public and "
        "that webhooks may go to nevertheless, by http, too, and on any port, such as "
        '["10.1.0.0/16"].',
    )
    cors_origins: list[str] = Field(
        default_factory=list,
        description="SELFTAUGHT_CORS_ORIGINS: JSON array of origins whose pages may call the "
        'gateway, such as ["https://app.example.com"]; default: none.',
    )
    node: str = Field(
        default_factory=socket.gethostname,
        description="SELFTAUGHT_NODE: this machine's name, under which its devices are leased.",
    )
    vllm_python: Path | None = Field(
        default=None,
        description="SELFTAUGHT_VLLM_PYTHON: interpreter of the environment that vLLM lives in; "
        "with it the embedded stack runs an engine process.",
    )
    devices: str | None = Field(
        default=None,
        description="SELFTAUGHT_DEVICES: devices that this node's engine process leases out, such "
        "as '0,1'; default: every GPU, or 'cpu' where there is none.",
    )
    engine_host: str = Field(
        default="127.0.0.1", description="Where this node's vLLM servers listen; keep it private."
    )
    engine_address: str | None = Field(
        default=None, description="How other nodes reach them; default: SELFTAUGHT_ENGINE_HOST."
    )
    engine_start_seconds: float = Field(
        default=1800.0, gt=0, description="A vLLM server that is not ready by then is killed."
    )
    engine_hang_seconds: float = Field(
        default=300.0, gt=0, description="A server with requests and no token for so long is hung."
    )
    engine_idle_seconds: float = Field(
        default=600.0, gt=0, description="A server that nobody asks for so long is stopped."
    )
    engine_restarts: int = Field(
        default=2, ge=0, description="A server that dies more often than this has failed."
    )
    engine_calm_seconds: float = Field(
        default=600.0, gt=0, description="After so long without trouble, deaths count anew."
    )
    lease_seconds: float = Field(
        default=30.0, gt=0, description="A lease not renewed for this long is given up for dead."
    )
    heartbeat_seconds: float = Field(
        default=5.0, gt=0, description="How often a worker renews its lease and looks for cancel."
    )
    relay_seconds: float = Field(
        default=0.2, gt=0, description="How often the relay looks for outbox rows."
    )
    rering_seconds: float = Field(
        default=20.0, gt=0, description="A ready chunk whose message is older is announced again."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Leases a chunk may lose before its job fails (worker_lost)."
    )
    max_upload_bytes: int = Field(
        default=1_073_741_824, gt=0, description="Largest dataset upload, counted while streaming."
    )
    body_idle_seconds: float = Field(
        default=30.0,
        gt=0,
        description="A request whose body pauses for so long is refused, and one that is slower "
        "than 1 KiB/s after so long.",
    )
    max_upload_rows: int = Field(
        default=10_000_000, gt=0, description="Most rows of an upload, datasets and batches alike."
    )
    max_row_bytes: int = Field(
        default=1_048_576, gt=0, description="Largest single line or CSV row of an upload."
    )

    retain_job_days: float = Field(
        default=90.0,
        ge=0,
        description="SELFTAUGHT_RETAIN_JOB_DAYS: files that a job made are removed so long after "
        "its end, unless a version of it is live; 0, here and below: never.",
    )
    retain_batch_days: float = Field(
        default=30.0, ge=0, description="Lines and results of a batch, so long after its end."
    )
    retain_events_days: float = Field(
        default=90.0, ge=0, description="Events of a job, so long after its end."
    )
    retain_canary_days: float = Field(
        default=90.0, ge=0, description="What a canary's two sides said, so long after its end."
    )
    retain_review_days: float = Field(
        default=365.0,
        ge=0,
        description="Texts and comments of a review queue, so long after it was filled; verdicts "
        "stay.",
    )
    retain_audit_days: float = Field(default=365.0, ge=0, description="Rows of the audit log.")
    idempotency_days: float = Field(
        default=1.0, gt=0, description="So long a request with an Idempotency-Key is replayed."
    )
    retain_checkpoint_days: float = Field(
        default=7.0, ge=0, description="Saved states of a training that did not end."
    )
    gc_safe_hours: float = Field(
        default=24.0,
        gt=0,
        description="A file without a row that is younger may still get one: it is kept.",
    )
    gc_seconds: float = Field(
        default=3600.0, gt=0, description="How often the janitor collects garbage."
    )

    @field_validator("endpoints")
    @classmethod
    def _own_names(cls, endpoints: dict[str, str]) -> dict[str, str]:
        taken = {"local", "vllm"} & set(endpoints)
        if taken:
            raise ValueError(f"an endpoint cannot be named {taken.pop()!r}: the word has a meaning")
        for name in endpoints:
            if re.search("[-_]file$", name, re.IGNORECASE):
                raise ValueError(
                    f"an endpoint cannot be named {name!r}: its key's variable would be that of "
                    "another one's file"
                )
        return endpoints

    @field_validator("endpoints")
    @classmethod
    def _plain_urls(cls, endpoints: dict[str, str]) -> dict[str, str]:
        """URLs stand in errors and logs, so no key may stand in them."""
        for name, url in endpoints.items():
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"endpoint {name!r} has no URL like https://host/v1")
            if "@" in parts.netloc or parts.query or parts.fragment:
                raise ValueError(
                    f"endpoint {name!r}: no user, query or fragment in the URL; its key has a "
                    "variable of its own"
                )
        return endpoints

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not re.fullmatch(r"https?://[a-z0-9.-]+(:\d{1,5})?", origin):
                raise ValueError(f"{origin!r} is no origin like https://app.example.com")
        return origins

    @model_validator(mode="after")
    def _password(self) -> Self:
        """Put the password of DATABASE_PASSWORD_FILE into the URL, escaped as a URL needs it."""
        if self.database_password_file is not None:
            url = make_url(self.database_url)
            if url.password is not None:
                raise ValueError("DATABASE_URL has a password and DATABASE_PASSWORD_FILE is set")
            password = read_secret("DATABASE_PASSWORD_FILE", self.database_password_file)
            url = url.set(password=password)
            self.database_url = url.render_as_string(hide_password=False)
        return self

    @property
    def artifacts_dir(self) -> Path:
        """Files that outlive a stage."""
        return self.home / "artifacts"

    @property
    def versions_dir(self) -> Path:
        """Immutable model versions, one folder each."""
        return self.home / "versions"


class SecretError(ValueError):
    """A secret cannot be had from where the environment says that it is."""


def read_secret(variable: str, path: Path) -> str:
    """What `path` holds, without the newlines that end it. `variable` names it in errors.

    Raises SecretError if there is no such file, it cannot be read, or nothing is in it.
    """
    try:
        secret = path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{variable}: {path} cannot be read: {error}") from error
    if not secret:
        raise SecretError(f"{variable}: {path} is empty")
    return secret


def endpoint_key(name: str) -> str | None:
    """The key of an endpoint of SELFTAUGHT_ENDPOINTS, None if it has none. Raises SecretError."""
    variable = "SELFTAUGHT_ENDPOINT_KEY_" + name.upper().replace("-", "_")
    key, path = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
    if key and path:
        raise SecretError(f"{variable} and {variable}_FILE are both set")
    return read_secret(f"{variable}_FILE", Path(path)) if path else key or None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """This process's settings."""
    return Settings()
