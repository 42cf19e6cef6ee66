"""Webhooks: made, tested, read and switched off in a browser, with a real receiver."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import PATIENCE

pytestmark = pytest.mark.browser

Clean = Callable[[Page], None]
Shot = Callable[..., None]


@pytest.fixture
def receiver() -> Iterator[tuple[str, queue.Queue[str]]]:
    """The address of a receiver, and the webhook-ids that it was sent."""
    seen: queue.Queue[str] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.put(self.headers["webhook-id"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"noted, thank you")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hooks", seen
    server.shutdown()
    server.server_close()


def test_a_webhook_from_its_making_to_its_end(
    page: Page, receiver: tuple[str, queue.Queue[str]], refused: set[int], clean: Clean, shot: Shot
) -> None:
    refused.add(422)
    url, seen = receiver
    page.goto("/#/webhooks")
    page.get_by_role("button", name="Create a webhook").click()
    form = page.get_by_role("dialog", name="Create a webhook")
    form.get_by_label("Address").fill("http://192.168.0.1/inside")
    form.get_by_role("button", name="Create", exact=True).click()
    expect(form.get_by_role("alert")).to_contain_text("url_refused")
    form.get_by_label("Address").fill(url)
    form.get_by_label("job.*").check()
    form.get_by_label("What it is for").fill("start the nightly comparison")
    clean(page)
    form.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("region", name="The secret")).to_contain_text("whsec_")
    page.get_by_label("I have put it away").check()
    page.get_by_role("button", name="Done").click()

    card = page.get_by_role("region", name=url)
    expect(card.get_by_text("enabled")).to_be_visible()
    expect(card.get_by_text("job.*")).to_be_visible()
    card.get_by_role("button", name="Send a test").click()
    delivery = card.get_by_role("group").filter(has_text="webhook.test")
    expect(delivery.get_by_text("delivered")).to_be_visible(timeout=PATIENCE)
    delivery.get_by_text("webhook.test").first.click()
    expect(delivery.get_by_text("noted, thank you")).to_be_visible()
    clean(page)
    shot(page, "webhooks")
    delivery.get_by_role("button", name="Send it again").click()
    expect(page.get_by_text("It is sent again.")).to_be_visible()
    expect(delivery.get_by_text("delivered")).to_be_visible(timeout=PATIENCE)
    first, again = (seen.get(timeout=PATIENCE / 1000) for _ in range(2))
    assert first == again

    card.get_by_role("button", name="New secret").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    expect(page.get_by_role("region", name="The secret")).to_contain_text("whsec_")
    page.get_by_label("I have put it away").check()
    page.get_by_role("button", name="Done").click()
    card.get_by_role("button", name="Disable").click()
    expect(card.get_by_text("by request")).to_be_visible()
    expect(card.get_by_role("button", name="Send a test")).to_be_disabled()
    card.get_by_role("button", name="Enable").click()
    expect(card.get_by_text("enabled")).to_be_visible()
    card.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(card).to_have_count(0)
