"""A job of the whole stack tells a receiver of its life; the commands show what came of it."""

from __future__ import annotations

import standardwebhooks
from typer.testing import CliRunner

from selftaught.cli import app
from selftaught.client import Client
from selftaught.stack.handle import Stack
from tests.webhooks.receiver import Receiver, receiving, wait_until


def test_a_job_is_told_of_and_the_commands_work(stack: Stack, client: Client) -> None:
    def command(*arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(app, ["webhooks", *arguments, "--home", str(stack.config.home)])
        assert done.exit_code == status, done.output
        return done.stdout or done.stderr

    with receiving(Receiver()) as receiver:
        made = command("create", receiver.url, "--event", "job.*", "--event", "alias.moved")
        hook, secret = made.split()
        client.models.register("smallworld", name="told", template="smallworld").wait(120)
        mine: list[tuple[str, str]] = []

        def all_there() -> bool:
            events = [
                standardwebhooks.Webhook(secret).verify(body, headers)
                for _, headers, body in list(receiver.got)
            ]
            mine[:] = sorted(
                (one["type"], one["data"]["model"])
                for one in events
                if one["data"]["model"] == "told"
            )
            return len(mine) >= 3

        wait_until(all_there, "the job's events arrived", 60)
        assert mine == [("alias.moved", "told"), ("job.created", "told"), ("job.succeeded", "told")]

        assert command("rotate", hook).strip() not in ("", secret)
        tested = command("test", hook).strip()
        wait_until(
            lambda: "webhook.test" in command("deliveries", hook, "--state", "delivered"), ""
        )
        command("redeliver", hook, tested)
        command("change", hook, "--disable", "--event", "*")
        assert f"{hook}\tasked\t*\t{receiver.url}" in command("list")
        assert "409 webhook_disabled" in command("test", hook, status=1)
        command("delete", hook)
        assert hook not in command("list")
    assert "422 url_refused" in command("create", "https://10.0.0.1/", status=1)
