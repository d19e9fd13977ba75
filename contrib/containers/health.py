"""Check the health of a container's program: print why, and exit 0 or 1.

    python health.py daemon     changes are accepted (`/readyz`)
    python health.py engine     the daemon has received a heartbeat of this engine lately

Do not end an engine because of this check: it goes on encoding while the daemon is unavailable. So the
check is for readiness, and for people.

It takes the key as the engine does: DISTCONV_API_KEY over DISTCONV_API_KEY_FILE. A daemon that demands
client certificates (--tls-client-ca) rejects this check, and needs another one.
"""

import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

TIMEOUT_S = 4.0


class Unhealthy(Exception):
    """The program is not healthy; the message says why."""


class OtherProtocol(Unhealthy):
    """The server speaks another protocol than the request: TLS instead of HTTP, or the reverse."""


def ask(url: str, key: str | None = None, context: ssl.SSLContext | None = None) -> Any:
    """Return the JSON behind a URL; raises `Unhealthy`."""
    # A header's text goes out as Latin-1; the daemon reads UTF-8.
    headers = {"X-API-Key": key.encode().decode("latin-1")} if key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the operator's own setting
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as reply:  # noqa: S310 - as above
            return json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode("utf-8", "replace").strip()
        raise Unhealthy(f"{url} answers {error.code}: {said}") from error
    except (http.client.HTTPException, ConnectionError) as error:
        raise OtherProtocol(f"{url}: {_describe(error)}") from error
    except (OSError, ValueError) as error:
        raise Unhealthy(f"{url}: {_describe(error)}") from error


def _describe(error: Exception) -> str:
    """Return an error's words without its number; urllib wraps the error that it got."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error) or type(error).__name__


def check_daemon(environ: Mapping[str, str]) -> str:
    """Return a line if the daemon of this container accepts changes; else raise `Unhealthy`."""
    place = f"127.0.0.1:{environ.get('DISTCONV_PORT', '8080')}/readyz"
    try:
        ask(f"http://{place}")
    except OtherProtocol:
        # The daemon's flags are not visible here, so TLS is tried.
        ask(f"https://{place}", context=_loopback_tls())
    return "ready"


def _loopback_tls() -> ssl.SSLContext:
    """Return TLS that verifies nothing.

    The certificate is for the daemon's public name, never for 127.0.0.1. Nobody can intercept a connection
    over the loopback of the same container, and no key is sent.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_engine(environ: Mapping[str, str]) -> str:
    """Return a line with the daemon's status of the engine of this container."""
    engine_id = environ.get("DISTCONV_ENGINE_ID") or _kept_id(Path(environ["DISTCONV_WORK_DIR"]))
    server = environ.get("DISTCONV_SERVER", "http://127.0.0.1:8080").rstrip("/")
    url = f"{server}/engines/{quote(engine_id, safe='')}"
    status = ask(url, _key(environ))["status"]
    if status == "offline":
        raise Unhealthy(f"the daemon has received no heartbeat of {engine_id} lately")
    return f"{engine_id} is {status}"


def _key(environ: Mapping[str, str]) -> str | None:
    """Return the engine's key, if it has one."""
    key, file = environ.get("DISTCONV_API_KEY"), environ.get("DISTCONV_API_KEY_FILE")
    if key or not file:
        return key
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise Unhealthy(f"DISTCONV_API_KEY_FILE: {file}: {_describe(error)}") from error


def _kept_id(work_dir: Path) -> str:
    """Return the name that the engine has chosen for itself."""
    try:
        return (work_dir / "engine_id").read_text("utf-8").strip()
    except OSError as error:
        raise Unhealthy(
            f"the engine has not started: {error.filename}: {error.strerror}"
        ) from error


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Check the named program; return the exit code."""
    try:
        check = {"daemon": check_daemon, "engine": check_engine}[" ".join(arguments)]
    except KeyError:
        print("usage: health.py daemon|engine", file=sys.stderr)
        return 2
    try:
        print(check(environ))
    except Unhealthy as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
