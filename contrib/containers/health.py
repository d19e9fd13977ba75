"""Tells a container's supervisor whether its program does what it is for: exit 0 or 1, and why.

    python health.py daemon     changes are accepted (`/readyz`)
    python health.py engine     the daemon has heard of this engine lately

An engine that is not heard of is no reason to end it: it goes on encoding while the daemon is away.
So this is for readiness, and for people who look.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

TIMEOUT_S = 4.0


class Unhealthy(Exception):
    """It does not do what it is for; the message says why."""


def ask(url: str, key: str | None = None) -> Any:
    """Return the JSON behind a URL; raises `Unhealthy`."""
    request = urllib.request.Request(url, headers={"X-API-Key": key} if key else {})  # noqa: S310 - the operator's own setting
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310 - as above
            return json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode("utf-8", "replace").strip()
        raise Unhealthy(f"{url} answers {error.code}: {said}") from error
    except (OSError, ValueError) as error:
        raise Unhealthy(f"{url}: {error}") from error


def check_daemon(environ: Mapping[str, str]) -> str:
    """Return a line that says that the daemon of this container accepts changes."""
    port = environ.get("DISTCONV_PORT", "8080")
    ask(f"http://127.0.0.1:{port}/readyz")
    return "ready"


def check_engine(environ: Mapping[str, str]) -> str:
    """Return a line that says how the daemon sees the engine of this container."""
    engine_id = environ.get("DISTCONV_ENGINE_ID") or _kept_id(Path(environ["DISTCONV_WORK_DIR"]))
    server = environ.get("DISTCONV_SERVER", "http://127.0.0.1:8080").rstrip("/")
    url = f"{server}/engines/{quote(engine_id, safe='')}"
    status = ask(url, environ.get("DISTCONV_API_KEY"))["status"]
    if status == "offline":
        raise Unhealthy(f"the daemon has not heard of {engine_id} lately")
    return f"{engine_id} is {status}"


def _kept_id(work_dir: Path) -> str:
    """Return the name that the engine gave itself."""
    try:
        return (work_dir / "engine_id").read_text("utf-8").strip()
    except OSError as error:
        raise Unhealthy(f"the engine has not begun: {error}") from error


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Check what is named; return the exit code."""
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
