"""Test the `distconv` command as a process, over real sockets."""

import contextlib
import os
import pty
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
import trustme
from tests.client.fake import FakeDaemon, completed, found, running, served

from distconv_client import BadInput, Client, DaemonUnreachable, Job, JobStatus, Submission
from distconv_client.retry import RetryPolicy

pytestmark = pytest.mark.e2e

COMMAND = [sys.executable, "-c", "from distconv_client.main import main; main()"]
ANSI = re.compile(r"\x1b\[")
DEADLINE_S = 20


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a.mov"
    path.write_bytes(b"x" * 1000)
    return path


@pytest.fixture
def server(daemon: FakeDaemon) -> Generator[str]:
    with served(daemon) as url:
        yield url


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ, **environ},
        check=False,
    )


def test_the_library_works_over_a_real_socket(server: str) -> None:
    with Client(server, "k") as client:
        job = client.submit(Submission("file:///ä/a%20b.mov", "h265", labels={"ä": "ö"}))
        assert client.job(job.job_id).labels == {"ä": "ö"}
        assert client.wait(job.job_id).status is JobStatus.COMPLETED


def test_a_port_without_a_listener_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(
            ("127.0.0.1", 0)
        )  # bound, not listening: connections are refused, and no other process can listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with (
            Client(url, retry=RetryPolicy(0)) as client,
            pytest.raises(DaemonUnreachable, match=url),
        ):
            client.engines()
        result = run("jobs", "--server", url)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 2


def test_a_daemon_that_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with (
            Client(url, timeout_s=0.1, retry=RetryPolicy(0)) as client,
            pytest.raises(DaemonUnreachable, match="no answer in time"),
        ):
            client.engines()


def test_a_proxy_in_the_environment_is_not_used_for_loopback(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Client(server) as client:
        assert client.engines() == []


@pytest.fixture
def tls_server() -> Generator[tuple[str, trustme.CA]]:
    """A server on loopback with a certificate for `localhost`, and the authority behind it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with HTTPServer(("127.0.0.1", 0), NoEngines) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}", authority
        finally:
            server.shutdown()
            thread.join(DEADLINE_S)


class NoEngines(BaseHTTPRequestHandler):
    """Answers every GET with an empty list."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def test_an_authority_that_the_environment_names_is_trusted_on_loopback_too(
    tls_server: tuple[str, trustme.CA], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, authority = tls_server
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with (
        Client(url, retry=RetryPolicy(0)) as client,
        pytest.raises(
            DaemonUnreachable, match=r"certificate of the daemon at .* is not valid"
        ) as no,
    ):
        client.engines()
    assert "SSL_CERT_FILE=" in no.value.hint
    assert "_ssl.c" not in no.value.message
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with Client(url) as client:
        assert client.engines() == []
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(BadInput, match=r"SSL_CERT_FILE=.* cannot be read as certificates"):
        Client(url)


STATUS = {"version": "0.1.0", "uptime_s": 1.0, "jobs": {}, "engines": {}, "queue": {}}


@pytest.mark.parametrize(
    "words",
    [["top", "--once"], ["status", "1_1"], ["jobs", "--json"], ["completion", "bash"], ["--help"]],
)
def test_unwritable_output_is_reported_in_one_line(
    server: str, daemon: FakeDaemon, words: list[str]
) -> None:
    daemon.add(job_id="1_1")
    if words[0] == "top":
        daemon.faults.append(found(STATUS))
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S,
            env={**os.environ, "DISTCONV_SERVER": server}, check=False,
        )  # fmt: skip
    printed = "distconv: Cannot write the output: No space left on device.\n"
    assert (done.returncode, done.stderr) == (1, printed)


def test_output_without_a_terminal_has_no_escapes(
    server: str, daemon: FakeDaemon, clip: Path
) -> None:
    daemon.life = (completed,)
    result = run("submit", str(clip), "-c", "h265", "--wait", DISTCONV_SERVER=server)
    assert result.returncode == 0, result.stderr
    assert not ANSI.search(result.stdout + result.stderr)
    assert "completed" in result.stdout
    forced = run(
        "submit", str(clip), "-c", "h265", "--wait", DISTCONV_SERVER=server, FORCE_COLOR="1"
    )
    assert "\x1b[?25l" not in forced.stderr  # colours perhaps, but no live bars


def read_all(descriptor: int) -> str:
    """Return everything written to a terminal until its other side is closed."""
    seen = b""
    with contextlib.suppress(OSError):  # on Linux this means that the other side is closed
        while chunk := os.read(descriptor, 65536):
            seen += chunk
    return seen.decode()


def test_on_a_terminal_there_are_bars_and_a_drawn_table(server: str, clip: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "submit", str(clip), "-c", "h265", "--wait", "--server", server],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"},
    ) as process:
        os.close(theirs)
        shown = read_all(ours)
        os.close(ours)
        assert process.wait(DEADLINE_S) == 0
    assert "\x1b[?25l" in shown  # the cursor is hidden while bars are drawn
    assert "\x1b[?25h" in shown  # and shown again
    assert "a.mov -> h265" in shown
    assert "━" in shown


def test_ctrl_c_while_waiting_exits_130_and_says_how_to_watch_again(
    server: str, daemon: FakeDaemon, clip: Path
) -> None:
    daemon.life = (running(0.1),)
    with subprocess.Popen(
        [*COMMAND, "submit", str(clip), "-c", "h265", "--wait", "--server", server],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "pending" in process.stderr.readline()
        assert "10%" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert "the jobs continue" in printed
    assert f"distconv watch {next(iter(daemon.jobs))}" in printed
    assert "Traceback" not in printed


def test_watch_json_prints_each_line_immediately(server: str, daemon: FakeDaemon) -> None:
    daemon.life = ()
    job = daemon.add()
    with subprocess.Popen(
        [*COMMAND, "watch", "--json", job.job_id, "--server", server],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert msgspec.json.decode(process.stdout.readline(), type=Job) == job
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130


def test_a_closed_pipe_ends_json_output_silently(server: str, daemon: FakeDaemon) -> None:
    for _ in range(2000):
        daemon.add()
    with subprocess.Popen(
        [*COMMAND, "jobs", "--json", "--server", server],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()  # what `head -1` does
        printed = process.stderr.read()
    assert msgspec.json.decode(first, type=Job).job_id in daemon.jobs
    assert printed == b""


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    with served(FakeDaemon(key="sesame")) as url:
        assert run("jobs", "--server", url).returncode == 1
        assert run("jobs", "--server", url, DISTCONV_API_KEY="sesame").returncode == 0
        (tmp_path / "distconv").mkdir()
        (tmp_path / "distconv" / "config.toml").write_text(
            f'server = "{url}"\napi_key = "sesame"\n'
        )
        assert run("jobs", XDG_CONFIG_HOME=str(tmp_path)).returncode == 0


def test_a_key_with_a_line_end_exits_2_and_is_never_shown(server: str) -> None:
    result = run("jobs", "--server", server, DISTCONV_API_KEY="sesame\r")
    assert result.returncode == 2
    assert "DISTCONV_API_KEY" in result.stderr
    assert "sesame" not in result.stdout + result.stderr
    with pytest.raises(BadInput, match="`api_key`"):
        Client(server, "sesame\r")


def test_https_to_a_plain_server_suggests_http(server: str) -> None:
    with (
        Client(server.replace("http:", "https:"), retry=RetryPolicy(0)) as client,
        pytest.raises(DaemonUnreachable) as caught,
    ):
        client.engines()
    assert "write http:// instead of https://" in caught.value.hint


class _TlsAlert(socketserver.BaseRequestHandler):
    """Answers plain text like a TLS server: with a TLS alert, then the end."""

    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(b"\x15\x03\x01\x00\x02\x02\x46")


class _PlainToTls(socketserver.BaseRequestHandler):
    """Answers plain text on a TLS port like nginx."""

    def handle(self) -> None:
        self.request.recv(65536)
        page = b"<h1>The plain HTTP request was sent to HTTPS port</h1>"
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
        self.request.sendall(head % len(page) + page)


@pytest.mark.parametrize("kind", [_TlsAlert, _PlainToTls])
def test_http_to_a_tls_server_suggests_https(
    kind: type[socketserver.BaseRequestHandler],
) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), kind) as there:
        thread = threading.Thread(target=there.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{there.server_address[1]}"
            with (
                Client(url, retry=RetryPolicy(0)) as client,
                pytest.raises(DaemonUnreachable) as caught,
            ):
                client.engines()
        finally:
            there.shutdown()
            thread.join()
    assert "write https:// instead of http://" in caught.value.hint.replace("Write", "write")
