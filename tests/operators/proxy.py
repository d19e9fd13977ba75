"""Run a real nginx with `contrib/nginx/distconv.conf` in front of a real daemon.

The file is used as committed, except for addresses, certificate and log, which are replaced; each must
be found in it.
"""

import http.client
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import trustme
from tests.daemon.kit import KEY
from tests.operators.outside import CONTRIB

CONFIGURATION = CONTRIB / "nginx" / "distconv.conf"
START_S = 20.0

# The part of a distribution's nginx.conf around the included file; `user` is ignored without root.
_MAIN = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
{user}
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    access_log off;
    gzip on;
    include {folder}/distconv.conf;
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class Proxy:
    """A running nginx; `running` makes one."""

    def __init__(self, folder: Path, authority: Path, http_port: int, https_port: int) -> None:
        self.folder = folder
        self.authority = authority
        self.http_port = http_port
        self.port = https_port
        self.url = f"https://localhost:{https_port}"

    @property
    def errors(self) -> str:
        return (self.folder / "error.log").read_text()

    @property
    def access_log(self) -> str:
        return (self.folder / "access.log").read_text()

    def connect(self, timeout_s: float = 30) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.authority))
        return http.client.HTTPSConnection(
            "localhost", self.port, timeout=timeout_s, context=context
        )

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Make one request with the key; return status, headers (lower case) and body."""
        kind = {} if body is None else {"Content-Type": "application/json"}
        with closing(self.connect()) as connection:
            connection.request(method, path, body, kind | keyed(headers))
            with connection.getresponse() as reply:
                return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()

    def curl(
        self, path: str, *arguments: str, key: str | None = KEY
    ) -> subprocess.CompletedProcess[bytes]:
        """Run curl on a path behind the proxy."""
        command = ["curl", "-sS", "--max-time", "30", "--cacert", str(self.authority)]
        command += [] if key is None else ["-H", f"X-API-Key: {key}"]
        command += [*arguments, self.url + path]
        return subprocess.run(command, capture_output=True, timeout=40, check=False)


def keyed(headers: dict[str, str]) -> dict[str, str]:
    """Return headers with the key; `content_type="x"` is the header `Content-Type: x`."""
    return {"X-API-Key": KEY} | {name.replace("_", "-"): v for name, v in headers.items()}


def render(folder: Path, daemon_port: int, http_port: int, https_port: int) -> Path:
    """Write the configuration with this machine's addresses; return nginx's main file."""
    text = CONFIGURATION.read_text()
    changes = {
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{daemon_port};",
        "listen 80;": f"listen 127.0.0.1:{http_port};",
        "listen [::]:80;": "",
        "listen 443 ssl;": f"listen 127.0.0.1:{https_port} ssl;",
        "listen [::]:443 ssl;": "",
        "/etc/distconv/tls/fullchain.pem": f"{folder}/chain.pem",
        "/etc/distconv/tls/privkey.pem": f"{folder}/key.pem",
        "/var/log/nginx/distconv.access.log": f"{folder}/access.log",
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "distconv.conf").write_text(text)
    main = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    main.write_text(_MAIN.format(folder=folder, user=user))
    return main


def make_certificate(folder: Path) -> Path:
    """Write chain.pem and key.pem for localhost; return the authority's file."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
    for number, pem in enumerate(leaf.cert_chain_pems):
        pem.write_to_path(str(folder / "chain.pem"), append=number > 0)
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    return folder / "authority.pem"


@contextmanager
def running(nginx: str, folder: Path, daemon_port: int) -> Generator[Proxy]:
    """Run nginx during the block."""
    http_port, https_port = free_port(), free_port()
    authority = make_certificate(folder)
    main = render(folder, daemon_port, http_port, https_port)
    command = [nginx, "-p", str(folder), "-c", str(main)]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stderr, stderr=stderr)
    try:
        _wait_for(https_port, process, folder / "stderr")
        yield Proxy(folder, authority, http_port, https_port)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", said: Path) -> None:
    """Wait until nginx listens; it sends no notification of its own."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, said.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError(said.read_text())
