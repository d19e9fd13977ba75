"""Listen addresses, unix sockets, systemd's sockets and TLS, with real sockets."""

import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trustme
from tests.daemon.kit import COMMAND, KEY, environment, run, start

from distconvd.auth_keys.key_file import add_key
from distconvd.commands.listening import open_all
from distconvd.config import load_config
from distconvd.edge import listeners
from distconvd.edge.bind_address import ListenAddress, parse_listen_address
from distconvd.errors import ConfigError

pytestmark = pytest.mark.e2e
GET = f"GET /version HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nConnection: close\r\n\r\n".encode()


@contextmanager
def served(
    cwd: Path, *flags: str, fds: tuple[int, ...] = (), wrap: str = "", **environ: str
) -> Generator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a daemon; yield its process and the URLs that it prints."""
    command = [*COMMAND[:-1], wrap + COMMAND[-1]]
    with (cwd / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--api-key", KEY, "--store", "memory", *flags], cwd=cwd, text=True,
            env=environment(**environ), stdout=subprocess.PIPE, stderr=log, pass_fds=fds,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert " ready on " in line, (cwd / "log").read_text()
        yield process, line.strip().partition(" ready on ")[2].split(", ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def notifications(sock: socket.socket) -> bytes:
    """Ask for the version, and return the whole reply."""
    said = b""
    with sock:
        sock.settimeout(10)
        sock.sendall(GET)
        while data := sock.recv(65536):
            said += data
    return said


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


# ------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "text, place",
    [
        ("127.0.0.1:8080", ListenAddress("127.0.0.1", 8080)),
        ("[::1]:0", ListenAddress("::1", 0)),
        ("unix:/run/d.sock", ListenAddress(path="/run/d.sock")),
        ("systemd", ListenAddress(inherited=True)),
    ],
)
def test_a_listen_address_is_parsed_and_printed_alike(text: str, place: ListenAddress) -> None:
    assert parse_listen_address(text) == place
    assert str(place) == text


@pytest.mark.parametrize(
    "text", ["", "8080", "host:", ":80", "::1:80", "h:65536", "h:1x", "unix:d.sock", "unix:"]
)
def test_an_invalid_listen_address_is_refused_with_the_expected_form(text: str) -> None:
    with pytest.raises(ConfigError, match="listen: "):
        load_config({"listen": [text]}, {})


def test_a_public_address_anywhere_in_the_list_is_refused_without_a_key() -> None:
    with pytest.raises(ConfigError, match=r"refusing to listen on 0\.0\.0\.0"):
        load_config({"listen": ["127.0.0.1:1", "0.0.0.0:80"]}, {})
    load_config({"listen": ["[::1]:1", "unix:/run/d.sock"]}, {})


def test_ipv4_ipv6_and_unix_listeners_are_served_together(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    listen_flags = ["--listen", "127.0.0.1:0", "--listen", f"unix:{path}", "--listen", "[::1]:0"]
    with served(tmp_path, *listen_flags) as (_, urls):
        assert urls[1] == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o660
        v4 = socket.create_connection(("127.0.0.1", port_of(urls[0])), 10)
        v6 = socket.create_connection(("::1", port_of(urls[2])), 10)
        unix = socket.socket(socket.AF_UNIX)
        unix.connect(str(path))
        assert [notifications(sock)[:15] for sock in (v4, v6, unix)] == [b"HTTP/1.1 200 OK"] * 3


async def test_a_stale_unix_socket_is_replaced_but_a_live_one_or_a_file_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "d.sock"
    config = load_config({"listen": [f"unix:{path}"]}, {}).config
    opened = await open_all(config)
    with pytest.raises(ConfigError, match="another program answers there"):
        await open_all(config)
    await opened.aclose()
    assert path.exists()
    await (await open_all(config)).aclose()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(ConfigError, match="there is a file with that name"):
        await open_all(config)
    assert path.read_text() == "mine"


# --------------------------------------------------------------------------------------- systemd

AS_SYSTEMD = "import os; os.environ['LISTEN_PID'] = str(os.getpid()); "


def test_sockets_that_systemd_passes_are_served_without_a_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        # What systemd does: the socket becomes descriptor 3.
        wrap = f"import os; os.dup2({sock.fileno()}, 3); " + AS_SYSTEMD
        with served(tmp_path, fds=(sock.fileno(),), wrap=wrap, LISTEN_FDS="1") as (_, urls):
            assert urls == [f"http://127.0.0.1:{port}"]
            asked = socket.create_connection(("127.0.0.1", port), 10)
            assert notifications(asked).startswith(b"HTTP/1.1 200 OK")


async def test_sockets_for_another_process_are_left_alone() -> None:
    config = load_config({"listen": ["systemd"]}, {}).config
    with pytest.raises(ConfigError, match="systemd has passed no socket"):
        await open_all(config, {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"})


@pytest.mark.parametrize("count", ["x", "-1", "", "9" * 5000])
async def test_an_invalid_count_of_passed_sockets_is_reported(count: str) -> None:
    config = load_config({}, {}).config
    with pytest.raises(ConfigError, match=r"expected a number of sockets.*unset it"):
        await open_all(config, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


async def test_a_passed_descriptor_that_is_not_a_socket_is_reported_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "plain").open("w") as file:
        monkeypatch.setattr(listeners, "FIRST_INHERITED", file.fileno())
        with pytest.raises(ConfigError, match=r"ListenStream=.*unset LISTEN_FDS"):
            await open_all(
                load_config({}, {}).config, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
            )


# ------------------------------------------------------------------------------------------- TLS


class Site:
    """An authority and the files of a server's certificate."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.certificate, self.key = folder / "chain.pem", folder / "key.pem"
        self.renew()

    def renew(self) -> None:
        issued = self.ca.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(str(self.key))
        self.certificate.write_bytes(b"".join(b.bytes() for b in issued.cert_chain_pems))

    @property
    def flags(self) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", "0"]
        return [*place, "--tls-certificate", str(self.certificate), "--tls-key", str(self.key)]

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def connected(url: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port_of(url)), 10)
    return context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_tls_1_2_and_later_are_accepted_and_plain_http_is_not(tmp_path: Path, site: Site) -> None:
    with served(tmp_path, *site.flags) as (_, urls):
        assert urls[0].startswith("https://127.0.0.1:")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = site.client()
            context.minimum_version = context.maximum_version = version
            assert notifications(connected(urls[0], context)).startswith(b"HTTP/1.1 200 OK")
        old = site.client()
        with pytest.warns(DeprecationWarning, match=r"TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            connected(urls[0], old)
        plain = socket.create_connection(("127.0.0.1", port_of(urls[0])), 10)
        assert b"200" not in notifications(plain)
        assert notifications(connected(urls[0], site.client())).startswith(b"HTTP/1.1 200 OK")
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_sighup_loads_a_new_certificate_and_keeps_open_connections(
    tmp_path: Path, site: Site
) -> None:
    with served(tmp_path, *site.flags) as (process, urls):
        before = connected(urls[0], site.client())
        first = before.getpeercert(binary_form=True)
        site.renew()
        process.send_signal(signal.SIGHUP)
        for _ in range(200):
            with connected(urls[0], site.client()) as fresh:
                if fresh.getpeercert(binary_form=True) != first:
                    break
        else:
            pytest.fail((tmp_path / "log").read_text())
        assert notifications(before).startswith(b"HTTP/1.1 200 OK")


def test_a_bad_certificate_on_sighup_changes_nothing(tmp_path: Path, site: Site) -> None:
    with served(tmp_path, *site.flags) as (process, urls):
        site.certificate.write_text("spoilt")
        process.send_signal(signal.SIGHUP)
        log = tmp_path / "log"
        while "could not be reloaded" not in log.read_text():
            assert notifications(connected(urls[0], site.client())).startswith(b"HTTP/1.1 200 OK")
        assert notifications(connected(urls[0], site.client())).startswith(b"HTTP/1.1 200 OK")
    assert "Traceback" not in log.read_text()
    assert "is not valid PEM" in log.read_text()


def test_with_a_client_authority_a_client_without_its_certificate_gets_nothing(
    tmp_path: Path, site: Site
) -> None:
    authority = trustme.CA()
    (tmp_path / "clients.pem").write_bytes(authority.cert_pem.bytes())
    flags = [*site.flags, "--tls-client-ca", str(tmp_path / "clients.pem")]
    with served(tmp_path, *flags) as (_, urls):
        known = site.client()
        authority.issue_cert("engine-001@example.org").configure_cert(known)
        assert notifications(connected(urls[0], known)).startswith(b"HTTP/1.1 200 OK")
        foreign = site.client()
        trustme.CA().issue_cert("engine-002@example.org").configure_cert(foreign)
        for context in (foreign, site.client()):
            try:
                said = notifications(connected(urls[0], context))
            except (ssl.SSLError, ConnectionError):
                continue
            assert said == b""  # with TLS 1.3 the client's side is through before the refusal


@pytest.mark.parametrize("wrong", ["missing", "spoilt", "another key"])
async def test_unusable_tls_files_are_named(tmp_path: Path, site: Site, wrong: str) -> None:
    if wrong == "missing":
        site.key.unlink()
    elif wrong == "spoilt":
        site.certificate.write_text("spoilt")
    else:
        trustme.CA().issue_cert("x.org").private_key_pem.write_to_path(str(site.key))
    given = {"tls_certificate": str(site.certificate), "tls_key": str(site.key), "port": 0}
    with pytest.raises(ConfigError, match="TLS: ") as caught:
        await open_all(load_config(given, {}).config)
    assert str(site.key) in str(caught.value)
    assert caught.value.exit_code == 78


def test_a_tls_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="need tls_certificate"):
        load_config({"tls_key": "k.pem"}, {})


# ----------------------------------------------------------------------------------------- check


def test_a_state_file_that_is_the_key_file_is_refused_and_not_changed(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, "anna", ["read"], 0)
    before = keys.read_bytes()
    flags = ("--port", "0", "--state-file", str(keys), "--key-file", "keys.json")
    done = run(*flags, cwd=tmp_path)
    assert (done.returncode, "name another --state-file" in done.stderr) == (78, True)
    checked = run(*flags, "check", cwd=tmp_path)
    assert "fail  keys: state_file and key_file are both" in checked.stdout
    assert keys.read_bytes() == before


def test_check_reports_each_part_and_starts_nothing(tmp_path: Path) -> None:
    done = run("--port", "0", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", f"{part}:"]
        for part in (
            "configuration", "plugins", "settings", "policy", "keys", "auth", "tls", "store",
            "services", "listen",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    "flags, part, notifications",
    [
        (["--policy", "no-such"], "policy", "no-such"),
        (["--auth", "no-such"], "auth", "no-such"),
        (["--set", "plugin.hot-folder.poll_s=0"], "settings", "poll_s"),
        (["--set", "plugin.hot-folder.watch=nowhere"], "services", "create it first"),
        (["--spool-dir", "plain"], "services", "is not a folder"),
    ],
)
def test_check_reports_each_fault_under_the_part_that_has_it(
    tmp_path: Path, flags: list[str], part: str, notifications: str
) -> None:
    (tmp_path / "plain").write_text("x")
    done = run("--port", "0", *flags, "check", cwd=tmp_path)
    assert done.returncode == 78
    faults = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert faults[0].startswith(f"fail  {part}: ")
    assert notifications in faults[0]
    assert all(f": see {part}" in fault for fault in faults[1:])
    assert run("--port", "0", *flags, cwd=tmp_path).returncode == 78
    assert list(tmp_path.glob("*spool*")) == []


def test_check_reports_all_faults_together_and_exits_78(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        flags = ["--port", port, "--state-file", str(tmp_path / "no" / "such" / "state.json")]
        flags += ["--key-file", str(tmp_path / "no-keys"), "--host", "127.0.0.1"]
        done = run(*flags, "--plugin", "no_such_plugin", "check", cwd=tmp_path)
    assert done.returncode == 78
    faults = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert {"plugins:", "keys:", "listen:"} <= {fault.split()[1] for fault in faults}
    assert "is in use" in done.stdout
    assert "Traceback" not in done.stderr


def left_in(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("store", ["json", "spool", "memory"])
def test_check_leaves_nothing_behind(tmp_path: Path, store: str) -> None:
    flags = ["--store", store, "--state-file", "some/where/state", "--spool-dir", "spool"]
    flags += ["--media-dir", "media", "--listen", f"unix:{tmp_path}/d.sock"]
    flags += ["--set", "plugin.hot-folder.watch=watch"]
    (tmp_path / "watch").mkdir()
    done = run(*flags, "check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert left_in(tmp_path) == {"watch": None}


def test_check_reports_a_damaged_state_and_does_not_change_it(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b'{"jobs": {')
    before = left_in(tmp_path)
    done = run("--port", "0", "--state-file", "state.json", "check", cwd=tmp_path)
    assert done.returncode == 78
    assert "fail  store: the store is damaged" in done.stdout
    assert left_in(tmp_path) == before


def test_check_counts_the_stored_jobs(tmp_path: Path) -> None:
    with start(tmp_path, "--state-file", "state.json") as daemon:
        daemon.submit()
        assert daemon.stop() == 0
    done = run("--port", "0", "--state-file", "state.json", "check", cwd=tmp_path)
    assert "json at state.json: 1 job" in done.stdout


def test_check_does_not_need_the_sockets_that_systemd_passes_only_to_the_daemon(
    tmp_path: Path,
) -> None:
    done = run("--listen", "systemd", "--listen", "127.0.0.1:0", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "the sockets that systemd passes at the start (not checked)" in done.stdout


# ------------------------------------------------------------------------------------- sd_notify


def received(manager: socket.socket) -> str:
    return manager.recv(4096).decode()


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_service_manager_is_notified_of_ready_reload_stop_and_watchdog(
    tmp_path: Path, abstract: bool
) -> None:
    name = f"@distconv-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.bind(name.replace("@", "\0", 1))
        flags = ["--host", "127.0.0.1", "--port", "0"]
        notified: list[str] = []
        with served(tmp_path, *flags, NOTIFY_SOCKET=name, WATCHDOG_USEC="200000") as (process, _):
            while notified.count("WATCHDOG=1") < 2:
                notified.append(received(manager))
            assert notified[0] == "READY=1"
            process.send_signal(signal.SIGHUP)
            while not notified[-1].startswith("RELOADING=1\nMONOTONIC_USEC="):
                notified.append(received(manager))
            while notified[-1] != "READY=1":
                notified.append(received(manager))
            process.send_signal(signal.SIGTERM)
            while notified[-1] != "STOPPING=1":
                notified.append(received(manager))
            assert process.wait(20) == 0


def test_a_manager_that_does_not_listen_is_not_a_reason_to_stop(tmp_path: Path) -> None:
    flags = ["--host", "127.0.0.1", "--port", "0"]
    with served(tmp_path, *flags, NOTIFY_SOCKET=str(tmp_path / "nobody")):
        pass
    assert "was not notified of READY=1" in (tmp_path / "log").read_text()


async def test_a_watchdog_for_another_process_is_not_fed() -> None:
    from distconvd.host.notify import Notifier

    assert Notifier({"WATCHDOG_USEC": "100", "WATCHDOG_PID": "1"}).watchdog_s is None
    with trio.fail_after(1):
        await Notifier({}).watch()
