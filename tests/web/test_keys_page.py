"""Keys and projects: secrets that are shown once, scopes, rotation, revocation, limits."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from selftaught.client import ApiError, Client
from selftaught.stack.handle import Stack
from tests.web.conftest import sign_in

pytestmark = pytest.mark.browser

Clean = Callable[[Page], None]
Shot = Callable[..., None]


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))


def secret_of(page: Page) -> str:
    """The secret that is shown, put away."""
    shown = page.get_by_role("region", name="The secret")
    secret = shown.inner_text().strip()
    page.get_by_label("I have put it away").check()
    page.get_by_role("button", name="Done").click()
    expect(shown).to_have_count(0)
    return secret


def works(stack: Stack, secret: str) -> bool:
    with Client(stack.gateway_url, key=secret) as client:
        try:
            return bool(client.call("GET", "/v1/caller")["project"])
        except ApiError as error:
            assert error.code == "invalid_key", error
            return False


def test_a_key_is_made_rotated_and_revoked(
    page: Page, stack: Stack, clean: Clean, shot: Shot
) -> None:
    page.goto("/#/keys")
    page.get_by_role("button", name="Create a key").click()
    form = page.get_by_role("dialog", name="Create a key")
    form.get_by_label("Name").fill("nightly-ci")
    form.get_by_label("promote").check()
    clean(page)
    form.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("This secret is shown only now.")).to_be_visible()
    expect(page.get_by_role("button", name="Done")).to_be_disabled()
    clean(page)
    shot(page, "key-secret")
    page.get_by_role("button", name="Copy the secret").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    first = secret_of(page)
    assert page.evaluate("navigator.clipboard.readText()") == first
    assert works(stack, first)
    line = row(page, "nightly-ci")
    expect(line).to_contain_text("judge")
    expect(line.get_by_text("good")).to_be_visible()

    line.get_by_role("button", name="Rotate").click()
    form = page.get_by_role("dialog", name="Rotate nightly-ci")
    form.get_by_label("The present secret ends").select_option("0")
    form.get_by_role("button", name="Give it a new secret").click()
    expect(page.get_by_text("This secret is shown only now.")).to_be_visible()
    second = secret_of(page)
    assert second != first and works(stack, second)

    line.get_by_role("button", name="Revoke").click()
    form = page.get_by_role("dialog", name="Revoke nightly-ci")
    revoke = form.get_by_role("button", name="Revoke it for good")
    form.get_by_label("Type nightly-ci to be sure").fill("nightly")
    expect(revoke).to_be_disabled()
    form.get_by_label("Type nightly-ci to be sure").fill("nightly-ci")
    clean(page)
    revoke.click()
    expect(line.get_by_text("revoked")).to_be_visible()
    clean(page)
    shot(page, "keys")


def test_a_name_is_given_once(page: Page, api: Client, refused: set[int]) -> None:
    refused.add(409)
    api.keys.create("taken", ["read"])
    page.goto("/#/keys")
    page.get_by_role("button", name="Create a key").click()
    form = page.get_by_role("dialog", name="Create a key")
    form.get_by_label("Name").fill("taken")
    form.get_by_role("button", name="Create", exact=True).click()
    expect(form.get_by_role("alert")).to_contain_text("taken")


def test_who_may_not_does_not_see(page: Page, stack: Stack, api: Client) -> None:
    """A key with `read` sees neither keys nor projects, nor what registers a model."""
    secret = api.keys.create("reader", ["read"]).secret
    sign_in(page, secret)
    page.goto("/")
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("heading", name="Models", level=1)).to_be_visible()
    expect(page.get_by_role("link", name="Keys")).to_have_count(0)
    expect(page.get_by_role("link", name="Projects")).to_have_count(0)
    expect(page.get_by_role("button", name="Register a base model")).to_have_count(0)


def test_a_project_gets_limits_and_a_first_key(
    page: Page, stack: Stack, clean: Clean, shot: Shot
) -> None:
    page.goto("/#/projects")
    page.get_by_role("button", name="Create a project").click()
    form = page.get_by_role("dialog", name="Create a project")
    form.get_by_label("Name").fill("support")
    form.get_by_role("button", name="Create", exact=True).click()
    form = page.get_by_role("dialog", name="A key of support")
    form.get_by_label("Name").fill("admin")
    form.get_by_role("button", name="Create", exact=True).click()
    secret = secret_of(page)
    row(page, "support").get_by_role("button", name="Limits").click()
    form = page.get_by_role("dialog", name="Limits of support")
    form.get_by_label("Tokens in a day").fill("20000000")
    form.get_by_label("Stored bytes").fill("5000000000")
    clean(page)
    form.get_by_role("button", name="Set them").click()
    expect(row(page, "support")).to_contain_text("20,000,000")
    expect(row(page, "support")).to_contain_text("5.0 GB")
    clean(page)
    shot(page, "projects")

    sign_in(page, secret)
    page.goto("/#/system")
    usage = page.get_by_role("region", name="Usage")
    expect(usage.get_by_role("progressbar", name="Tokens today")).to_be_visible()
    expect(usage).to_contain_text(re.compile(r"0 % of\s*20,000,000"))
    expect(page.get_by_role("region", name="Health")).to_have_count(0)  # the operator's
