"""URLs that users give: what is refused when it is given, and what when it is asked.

The servers here are real ones on loopback, which only tests allow (`inside`); nothing else is
reached from here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
import trustme

from selftaught import outgoing
from selftaught.outgoing import Address, Answer, Network, NoAnswer, UrlRefused, check, is_public
from tests.webhooks.receiver import Receiver, receiving

LOOPBACK = [ip_network("127.0.0.0/8")]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",  # not https
        "ftp://example.com/",
        "//example.com/",
        "example.com",
        "",
        "https://",
        "https:///path",
        "https://example.com:22/",  # not a port of the web
        "https://example.com:6379/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:+443/",
        "https://user:pass@example.com/",
        "https://user@example.com/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com#@127.0.0.1/",
        "https://example.com/#fragment",
        "https://exam ple.com/",
        "https://example.com/a b",
        "https://example.com/\r\nHost: x",
        "https://example.com\n",
        "https://example.com/ü",
        "https://münchen.example/",  # readers differ in how they turn it into ASCII
        "https://①②⑦.0.0.1/",
        "https://１２７.0.0.1/",
        "https://127。0。0。1/",
        "https://example%2ecom/",
        "https://example.com./",  # the same name, spelt otherwise
        "https://.example.com/",
        "https://a..example.com/",
        "https://-a.example.com/",
        "https://a_b.example.com/",
        f"https://{'a' * 64}.example.com/",
        f"https://example.com/{'a' * 2048}",
        "https://localhost/",
        "https://postgres/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://127.0.1/",
        "https://0/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://0X7F.0.0.1/",
        "https://017700000001/",
        "https://0177.0.0.1/",
        "https://127.0.0.01/",
        "https://2130706433/",
        "https://127.0.0.1./",
        "https://10.0.0.1/",
        "https://172.31.255.255/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://168.63.129.16/",
        "https://100.100.100.200/",
        "https://0.0.0.0/",
        "https://255.255.255.255/",
        "https://224.0.0.1/",
        "https://[::]/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::ffff:8.8.8.8]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[64:ff9b:1::1]/",
        "https://[2002:7f00:1::]/",
        "https://[2001:0:7f00:1::]/",
        "https://[fd00:ec2::254]/",
        "https://[fe80::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fec0::1]/",
        "https://[ff02::1]/",
        "https://[2001:db8::1]/",
        "https://[::1/",
        "https://::1/",
        "https://[127.0.0.1]/",
        "https://[example.com]/",
    ],
)
def test_is_refused_when_it_is_given(url: str) -> None:
    with pytest.raises(UrlRefused):
        check(url, [])


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM/Hook?a=B%20c", "https://example.com/Hook?a=B%20c"),
        ("https://example.com?x=1", "https://example.com/?x=1"),
        ("https://example.com/?u=https://a@b/", "https://example.com/?u=https://a@b/"),
        ("https://a.b-c.xn--p1ai:8443/x/../y", "https://a.b-c.xn--p1ai:8443/x/../y"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://[2606:4700:0:0::1111]/", "https://[2606:4700::1111]/"),
    ],
)
def test_is_taken_and_means_one_thing(url: str, whole: str) -> None:
    assert str(check(url, []).url) == whole


def test_the_operator_may_allow_networks() -> None:
    for url in ("http://127.0.0.1:9/x", "http://localhost:9/x", "https://postgres:5432/"):
        check(url, LOOPBACK)
    for url in ("http://10.0.0.1/", "https://[::ffff:127.0.0.1]/", "http://8.8.8.8/"):
        with pytest.raises(UrlRefused):
            check(url, LOOPBACK)


def test_only_the_public_internet_is_public() -> None:
    hidden = ["100.64.0.1", "192.0.0.170", "198.18.0.1", "192.88.99.1", "240.0.0.1", "::8.8.8.8"]
    hidden += ["fc00::1", "2001:10::1", "3fff::1", "5f00::1", "100::1", "4000::1"]
    assert not [one for one in hidden if is_public(ip_address(one))]
    shown = ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1", "2a00:1450::1"]
    assert all(is_public(ip_address(one)) for one in shown)


class Names:
    """A resolver whose answers change: each lookup gets the next, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = [[ip_address(one) for one in answer] for answer in answers]
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def ask(
    url: str,
    names: Names | None = None,
    inside: Sequence[Network] = LOOPBACK,
    seconds: float = 10,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """POST `{}`; the URL itself is taken as where loopback is allowed."""
    headers = {"content-type": "application/json"}
    target = check(url, LOOPBACK)
    return asyncio.run(outgoing.post(target, b"{}", headers, inside, seconds, names, tls))


def test_a_name_is_resolved_once_and_that_address_is_asked() -> None:
    """Rebinding: the second answer, a private address, is never asked for."""
    with receiving(Receiver()) as receiver:
        names = Names(["127.0.0.1"], ["10.255.255.1"])
        url = f"http://rebind.example:{receiver.port}/hook?x=1"
        assert ask(url, names).status == 204
        assert names.asked == 1
        ((path, headers, body),) = receiver.got
        assert (path, body) == ("/hook?x=1", b"{}")
        assert headers["host"] == f"rebind.example:{receiver.port}"
        # The next request sees what the name says now, and refuses it.
        with pytest.raises(UrlRefused):
            ask(url, names)
        assert len(receiver.got) == 1


@pytest.mark.parametrize(
    "answer",
    [[], ["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]],
)
def test_a_name_is_refused_for_any_address_that_is_not_public(answer: list[str]) -> None:
    with pytest.raises(UrlRefused, match="no address that may be asked") as refused:
        ask("https://example.com/", Names(answer), inside=[])
    assert not any(one in str(refused.value) for one in answer)


def test_plain_http_and_other_ports_are_for_the_operators_networks_only() -> None:
    for url in ("http://example.com/", "https://example.com:9200/"):
        with pytest.raises(UrlRefused):
            ask(url, Names(["8.8.8.8"]))


def test_names_are_resolved_as_this_machine_does_it() -> None:
    with pytest.raises(UrlRefused):
        ask("https://localhost/", inside=[])
    with receiving(Receiver()) as receiver:
        url = f"http://localhost:{receiver.port}/"
        assert ask(url, inside=[*LOOPBACK, ip_network("::1")]).status == 204


def test_redirects_are_not_followed() -> None:
    with receiving(Receiver()) as inner:
        moved = f"HTTP/1.1 307 Moved\r\nLocation: {inner.url}\r\n\r\n"
        with receiving(Receiver(moved)) as outer:
            assert ask(outer.url).status == 307
        assert not inner.got


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(Receiver()) as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert ask(receiver.url).status == 204


def test_of_an_answer_the_first_kilobyte_is_kept_readable() -> None:
    head = b"HTTP/1.1 500 No\r\nRetry-After: 7\r\nContent-Encoding: gzip\r\n\r\n"
    with receiving(Receiver(head + b"\x00\x1b[31m\xff" + b"a" * 5_000_000)) as receiver:
        answer = ask(receiver.url)
    assert (answer.status, answer.retry_after) == (500, "7")
    assert answer.excerpt.startswith("\ufffd\ufffd[31m\ufffdaaa")
    assert len(answer.excerpt) == outgoing.EXCERPT_BYTES


def test_a_body_that_never_ends_does_not_change_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nslow")
                connection.recv(1)  # until the other side has closed

        thread = threading.Thread(target=drip)
        thread.start()
        answer = ask(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert (answer.status, answer.excerpt) == (200, "slow")


def test_no_answer_in_time_and_no_answer_at_all() -> None:
    late = threading.Event()
    receiver = Receiver()
    receiver.first = late.wait
    with receiving(receiver):
        with pytest.raises(NoAnswer, match=r"no answer within 0\.2 s"):
            ask(receiver.url, seconds=0.2)
        late.set()
    with pytest.raises(NoAnswer, match=r"refused|Cannot connect"):
        ask(receiver.url)
    with receiving(Receiver("nonsense\r\n\r\n")) as receiver, pytest.raises(NoAnswer):
        ask(receiver.url)


def test_the_certificate_is_checked_for_the_name_not_for_the_address() -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("hooks.example").configure_cert(server)
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusting, doubting = ssl.create_default_context(), ssl.create_default_context()
    ours.configure_trust(trusting)
    theirs.configure_trust(doubting)
    with receiving(Receiver(), server) as receiver:
        names = Names(["127.0.0.1"])
        url = f"https://hooks.example:{receiver.port}/"
        assert ask(url, names, tls=trusting).status == 204
        assert asked == ["hooks.example"]
        other = f"https://other.example:{receiver.port}/"
        for wrong, tls in ((other, trusting), (url, doubting), (url, None)):
            with pytest.raises(NoAnswer, match=r"[Cc]ertificate"):
                ask(wrong, names, tls=tls)
    assert len(receiver.got) == 1
