"""Which hosts sources are fetched from and outputs sent to."""

import ipaddress
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from distconv_engine.config import Config
from distconv_engine.errors import ConfigError
from distconv_engine.failures import InputFault, JobFailure, NotAllowedHere
from distconv_engine.main import main
from distconv_engine.transfer.download import download
from distconv_engine.transfer.guard import open_guarded_client, output_at, source_at
from distconv_engine.transfer.hosts import parse_rules

ADDRESS = ipaddress.ip_address


def allows(entries: Sequence[str], host: str, address: str, *, is_named: bool = False) -> bool:
    rules = parse_rules(entries, "source_hosts")
    return rules.allows_name(host) and rules.allows_address(
        host, ADDRESS(address), is_named=is_named
    )


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_by_default_every_public_address_is_allowed(address: str) -> None:
    assert allows([], "cdn.example", address)


PRIVATE = ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "::1"]
PRIVATE += ["fc00::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:0a00:0001::1", "198.18.0.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_allowed_only_if_the_job_names_it_or_the_setting(address: str) -> None:
    assert not allows([], "cdn.example", address)
    assert allows([], address, address, is_named=True)
    assert allows(["*", "nas.lan"], "nas.lan", address)
    assert not allows(["*", "nas.lan"], "other.lan", address)
    assert allows([str(ipaddress.ip_network(address))], "nas.lan", address) or ":" in address


DENIED = ["169.254.169.254", "169.254.1.1", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "240.0.0.1"]
DENIED += ["100.100.100.200", "168.63.129.16", "fd00:ec2::254", "::ffff:169.254.169.254"]
DENIED += ["255.255.255.255", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "ff02::1"]


@pytest.mark.parametrize("address", DENIED)
def test_link_local_and_metadata_addresses_are_denied_whatever_is_set(address: str) -> None:
    for entries in ([], ["*"], [address], ["0.0.0.0/0", "::/0"], ["x.example"]):
        assert not allows(entries, "x.example", address, is_named=True)


def test_an_allow_list_allows_nothing_else() -> None:
    entries = ["*.example.org", "10.0.0.0/8", "1.1.1.1"]
    assert allows(entries, "a.example.org", "9.9.9.9")
    assert allows(entries, "a.b.example.org", "192.168.0.1")
    assert allows(entries, "any.example", "10.9.9.9")
    assert allows(entries, "1.1.1.1", "1.1.1.1", is_named=True)
    assert not allows(entries, "example.org", "9.9.9.9")
    assert not allows(entries, "notexample.org", "9.9.9.9")
    assert not allows(entries, "9.9.9.9", "9.9.9.9", is_named=True)
    assert not allows(entries, "192.168.0.1", "192.168.0.1", is_named=True)


def test_denying_goes_before_allowing() -> None:
    entries = ["*", "10.0.0.0/8", "!10.1.0.0/16", "!bad.example", "!*.worse.example"]
    assert allows(entries, "x.example", "10.2.0.1")
    assert not allows(entries, "x.example", "10.1.0.1")
    assert not allows(entries, "10.1.0.1", "10.1.0.1", is_named=True)
    assert not allows(entries, "bad.example", "1.1.1.1")
    assert not allows(entries, "a.worse.example", "1.1.1.1")
    assert not allows(["!*"], "x.example", "1.1.1.1")


@pytest.mark.parametrize(
    "entry", ["", "!", "10.0.0.0/33", "http://h", "a*b", "*x", "h:80", "1.2.3"]
)
def test_an_entry_that_is_none_is_named_at_the_start(entry: str) -> None:
    with pytest.raises(ConfigError, match="output_hosts"):
        parse_rules([entry], "output_hosts")


# ------------------------------------------------------------------------------------ connections


class Site:
    """A server on loopback that counts requests, and answers with a file or a redirect."""

    def __init__(self, port: int, redirect: str | None = None) -> None:
        self.port = port
        self.requests = 0
        self.redirect = redirect

    def url(self, host: str = "127.0.0.1", path: str = "/a.mp4") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = await stream.receive_some(65536)
            if not head:
                return
            self.requests += 1
            if self.redirect and b"/again" not in head.split(b"\r\n")[0]:
                reply = f"HTTP/1.1 302 Found\r\nLocation: {self.redirect}\r\nContent-Length: 0\r\n"
            else:
                reply = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
            body = "" if "302" in reply else "film"
            await stream.send_all(f"{reply}Connection: close\r\n\r\n{body}".encode())


@asynccontextmanager
async def open_site(redirect: str | None = None) -> AsyncGenerator[Site]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        site = Site(listener.socket.getsockname()[1], redirect)
        nursery.start_soon(partial(trio.serve_listeners, site.serve, [listener]))
        yield site
        nursery.cancel_scope.cancel()


async def fetch(url: str, folder: Path, **settings: Any) -> str:
    """Download a source as an engine with these settings does."""
    async with open_guarded_client(Config(**settings)) as client:
        await download(
            client,
            url,
            folder / "source",
            tries=1,
            on_total=lambda total, here: None,
            on_progress=lambda part: None,
        )
    return (folder / "source").read_text()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to, and resolved how often it was asked: `names["asked"]`."""
    table: dict[str, list[str]] = {"asked": []}
    real = trio.socket.getaddrinfo

    async def resolve(host: Any, port: Any, **more: Any) -> Any:
        if host not in table:
            return await real(host, port, **more)
        table["asked"].append(host)
        return [(0, 0, 0, "", (address, port)) for address in table[host]]

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return table


async def test_an_address_in_the_jobs_own_url_is_fetched_from(tmp_path: Path) -> None:
    async with open_site() as site:
        assert await fetch(site.url(), tmp_path) == "film"
        assert await fetch(site.url("localhost"), tmp_path) == "film"


async def test_a_name_that_resolves_to_a_private_address_is_not_connected_to(
    tmp_path: Path, names: dict[str, list[str]]
) -> None:
    names["evil.example"] = ["127.0.0.1"]
    async with open_site() as site:
        for host in ("evil.example", "EVIL.example.", "127.1", "2130706433", "0x7f.0.0.1"):
            with pytest.raises(NotAllowedHere):
                await fetch(site.url(host), tmp_path)
        assert site.requests == 0
        assert await fetch(site.url("evil.example"), tmp_path, source_hosts=["evil.example"])


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    tmp_path: Path, names: dict[str, list[str]]
) -> None:
    names["nas.example"] = ["127.0.0.1"]
    async with open_site() as site:
        assert await fetch(site.url("nas.example"), tmp_path, source_hosts=["127.0.0.0/8"])
    assert names["asked"] == ["nas.example"]


async def test_of_several_addresses_only_allowed_ones_are_tried(
    tmp_path: Path, names: dict[str, list[str]]
) -> None:
    names["two.example"] = ["10.0.0.1", "127.0.0.1"]
    async with open_site() as site:
        url = site.url("two.example")
        assert await fetch(url, tmp_path, source_hosts=["127.0.0.1"]) == "film"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.0.0.2", "10.0.0.1"])
async def test_a_redirect_to_a_private_address_is_not_followed(tmp_path: Path, host: str) -> None:
    async with open_site() as secret, open_site(redirect=secret.url(host)) as site:
        with pytest.raises(NotAllowedHere, match="redirect"):
            await fetch(site.url(), tmp_path)
        assert (site.requests, secret.requests) == (1, 0)


async def test_a_redirect_within_the_same_server_is_followed(tmp_path: Path) -> None:
    async with open_site(redirect="/again") as site:
        assert await fetch(site.url(), tmp_path) == "film"


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "0.0.0.0", "0xa9fea9fe", "metadata.google.internal"]
)
async def test_a_denied_address_is_an_input_failure_whatever_is_set(
    tmp_path: Path, host: str
) -> None:
    for settings in ({}, {"source_hosts": ["*", "0.0.0.0/0", "::/0"]}):
        with pytest.raises(InputFault, match="no job may"):
            await fetch(f"http://{host}/latest/meta-data", tmp_path, **settings)
    async with open_site(redirect=f"http://{host}/latest") as site:
        with pytest.raises(InputFault, match="no job may"):
            await fetch(site.url(), tmp_path)


async def test_the_words_do_not_tell_open_ports_from_closed_ones(
    tmp_path: Path, names: dict[str, list[str]]
) -> None:
    names["evil.example"] = ["127.0.0.1"]
    said = set[str]()
    async with open_site() as site:
        for port in (site.port, 1):
            with pytest.raises(NotAllowedHere) as caught:
                await fetch(f"http://evil.example:{port}/", tmp_path)
            said.add(caught.value.message)
    assert len(said) == 1


async def test_outputs_have_their_own_list(names: dict[str, list[str]]) -> None:
    names["nas.example"] = ["127.0.0.1"]
    config = Config(source_hosts=["nas.example"], output_hosts=["!127.0.0.0/8"])
    async with open_site() as site, open_guarded_client(config) as client:
        for url in (site.url("nas.example"), site.url()):
            with pytest.raises(NotAllowedHere, match="output_hosts"):
                await client.put(url, extensions=output_at(url))
        url = site.url("nas.example")
        assert (await client.get(url, extensions=source_at(url))).status_code == 200


async def test_the_engines_own_output_needs_no_entry() -> None:
    async with open_site() as site:
        own = site.url(path="/films")
        async with open_guarded_client(Config(output=own, output_hosts=["!*"])) as client:
            url = f"{own}/1_0/a.mp4"
            assert (await client.put(url, extensions=output_at(url))).status_code == 200
            other = site.url(path="/other")
            with pytest.raises(JobFailure):
                await client.put(other, extensions=output_at(other))


async def test_a_request_without_a_purpose_is_not_sent() -> None:
    async with open_site() as site, open_guarded_client(Config()) as client:
        with pytest.raises(KeyError):
            await client.get(site.url())
        assert site.requests == 0


async def test_behind_a_proxy_literal_addresses_and_names_are_still_checked(
    tmp_path: Path, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url(path=""))
        assert await fetch("http://cdn.example/a.mp4", tmp_path) == "film"
        with pytest.raises(InputFault):
            await fetch("http://169.254.169.254/", tmp_path)
        with pytest.raises(NotAllowedHere):
            await fetch("http://cdn.example/", tmp_path, source_hosts=["!cdn.example"])
        assert proxy.requests == 1


async def test_a_failed_resolution_is_an_unavailable_server(
    tmp_path: Path, names: dict[str, list[str]]
) -> None:
    names["gone.example"] = []
    with pytest.raises(JobFailure, match="unavailable"):
        await fetch("http://gone.example/", tmp_path)


def test_a_wrong_entry_ends_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source-hosts", "*,http://h"]) == 78
    assert "source_hosts" in capsys.readouterr().err
