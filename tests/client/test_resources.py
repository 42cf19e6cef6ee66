"""Resources on the real gateway: uploads, pages, aliases, access."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftaught import ApiError, AsyncClient, Client
from selftaught.client._async import transport as async_transport
from selftaught.client._sync import transport
from selftaught.contracts import BatchLine
from services.api import pairs
from tests.api.helpers import RECIPE, add_versions
from tests.api.test_pairs import HANDLERS
from tests.work import helpers

LINEAGE = {"template": {"name": "mt-bench"}, "inference": "local"}


def test_upload_a_file_and_hear_how_far_it_is(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"q": "say something that is long enough"}\n' * 5000)
    told: list[tuple[int, int]] = []
    made = client.datasets.upload(
        path, column="q", progress=lambda sent, total: told.append((sent, total))
    )
    assert (made.name, made.kind, made.rows) == ("prompts.jsonl", "instructions", 5000)
    assert told == sorted(told) and len(told) > 2
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert client.datasets.get(made.id) == made
    client.datasets.delete(made.id)
    with pytest.raises(ApiError, match="dataset_not_found"):
        client.datasets.get(made.id)
    path.write_text('{"q": 1}\n{"instruction": 2}\n')
    with pytest.raises(ApiError) as caught:
        client.datasets.upload(str(path))
    assert [one["line"] for one in caught.value.errors] == [1, 2]
    with pytest.raises(FileNotFoundError):
        client.datasets.upload(tmp_path / "none.jsonl")
    assert list(client.datasets.list()) == []


def test_upload_rows(client: Client) -> None:
    rows = [{"instruction": "i\u2028", "chosen": "a", "rejected": "b"}]
    made = client.datasets.upload(rows, "labelled", name="mine")
    assert (made.name, made.kind, made.rows) == ("mine", "labelled", 1)
    assert client.datasets.upload(iter(rows), kind="labelled").rows == 1


def test_rows_and_pairs_to_look_at(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PAGE", 2)
    monkeypatch.setattr(pairs, "MOST_LOOKED_AT", 1)  # so that a page may be empty, and not the last
    made = client.datasets.upload({"instruction": f"do {n}"} for n in range(5))
    rows = list(client.datasets.rows(made.id))
    assert [one.row["instruction"] for one in rows] == [f"do {n}" for n in range(5)]
    assert list(client.datasets.rows(made.id, after=rows[3].at)) == rows[4:]
    name = helpers.make_job()
    helpers.drain(name, HANDLERS)
    job = client.jobs.get(name)
    found = list(job.pairs(1))
    assert [one.id for one in found] == [f"{n % 3}/x {n}" for n in (0, 6, 1, 4, 7, 5)]
    unread = [one for one in found if "unparsable" in one.outcomes]
    assert list(job.pairs(1, outcome="unparsable")) == unread and unread
    assert list(job.pairs(1, begins="1/", limit=2)) == found[2:4]
    assert job.pair(1, found[0].id).instruction.startswith(found[0].instruction)
    assert job.dataset is not None
    assert [one.id for one in client.jobs.list(dataset=job.dataset)] == [name]


def test_lists_go_on_over_all_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PAGE", 2)
    made = [client.datasets.upload([{"instruction": "i"}], name=str(n)).id for n in range(5)]
    newest = made[::-1]
    assert [one.id for one in client.datasets.list()] == newest
    assert [one.id for one in client.datasets.list(limit=3)] == newest[:3]
    assert [one.id for one in client.datasets.list(after=newest[0], limit=1)] == [newest[1]]
    assert list(client.datasets.list(limit=0)) == []
    add_versions("m", [0, 1, 2], latest=0, lineage=LINEAGE)
    add_versions("n", [0])
    add_versions("o", [0])
    assert [one.name for one in client.models.list()] == ["m", "n", "o"]
    assert [one.number for one in client.models.versions("m")] == [2, 1, 0]
    assert len(list(client.templates.list())) == len(list(client.templates.list(limit=100))) > 2
    assert "quickstart" in [one.name for one in client.recipes.list()]


def test_aliases(client: Client) -> None:
    add_versions("m", [0, 1], lineage=LINEAGE)
    set_alias = client.models.set_alias
    made = set_alias("m", "live", 0, prepare=False, revision=0, reason="first")
    assert (made.version, made.revision, made.history[0].reason) == ("m:0", 1, "first")
    with pytest.raises(ApiError, match="412"):
        set_alias("m", "live", 1, prepare=False, revision=0)
    moved = set_alias("m", "live", 1, prepare=False, revision=1)
    with pytest.raises(ApiError, match="412"):
        client.models.rollback("m", "live", revision=1)
    assert client.models.rollback("m", "live", revision=moved.revision).version == "m:0"
    assert [one.alias for one in client.models.aliases("m")] == ["live"]
    assert client.models.alias("m", "live").revision == 3


def test_keys_projects_webhooks_and_the_audit_log(client: Client, url: str) -> None:
    project = client.projects.create("support")
    assert project.limits.requests_per_minute is None
    limited = client.projects.limit("support", tokens_per_day=10, stored_bytes=None)
    assert (limited.limits.tokens_per_day, limited.limits.stored_bytes) == (10, None)
    key = client.projects.create_key("support", "ci", ["read", "admin"])
    with Client(url, key=key.secret) as support:
        assert support.usage().tokens.limit == 10
        made = support.keys.create("mine", ["judge"], expires_in_days=1)
        assert support.keys.rotate(made.id).secret != made.secret
        assert support.keys.revoke(made.id).revoked_at is not None
        assert {one.name for one in support.keys.list()} >= {"ci", "mine"}
        hook = support.webhooks.create("https://ci.example.com/hook", events=["job.*"])
        assert support.webhooks.update(hook.id, state="disabled").events == ["job.*"]
        assert [one.id for one in support.webhooks.list()] == [hook.id]
        routes = [one.route for one in support.audit(method="POST", since="2020-01-01T00:00:00Z")]
        assert routes.count("/v1/keys") == 1 and "/v1/webhooks" in routes


@pytest.mark.anyio
async def test_the_same_without_waiting(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The asynchronous client has other streams, files and pages beneath it."""
    monkeypatch.setattr(async_transport, "PAGE", 2)
    path = tmp_path / "prompts.txt"
    path.write_text("say it\n" * 20_000)
    told: list[int] = []
    async with AsyncClient(url) as client:
        made = await client.datasets.upload(path, progress=lambda sent, total: told.append(sent))
        rows = await client.datasets.upload({"instruction": f"say {n}"} for n in range(3))
        third = await client.datasets.upload([{"instruction": "i"}])
        assert (made.rows, rows.rows, told[-1]) == (20_000, 3, path.stat().st_size)
        found = [one.id async for one in client.datasets.list()]
        assert found == [third.id, rows.id, made.id]
        job = await client.jobs.create(rows.id, recipe=RECIPE)
        assert [one.id async for one in client.jobs.list(state="running")] == [job.id]
        add_versions("m", [0], latest=0, lineage=LINEAGE)
        lines = tmp_path / "pairs.jsonl"
        line = BatchLine(instruction="i", response_a="a", response_b="b")
        lines.write_text(line.model_dump_json() + "\n")
        for pairs in (lines, [line], iter([line.model_dump()])):
            batch = await client.batches.create(pairs, model="m", votes=3)
            assert (batch.request_counts.total, batch.votes) == (1, 3)
        with pytest.raises(ApiError, match="unknown_model"):
            await client.batches.create([line], model="none")
