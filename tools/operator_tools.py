"""Fetches nginx and promtool, with which tests try what is in contrib/, into `.tools`.

They are programs of Debian's and no Python package has them, so `make setup` does not bring them,
and tests that want them are skipped without. This takes them out of Debian's own packages, which
apt checks by signature; nothing is installed and no root is needed. Where there is no apt, or no
network, it says so and exits 1: install them by other means (they are looked for on PATH, too).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
PROGRAMS = {"usr/sbin/nginx": "nginx", "usr/bin/promtool": "prometheus"}
"""Each program's place in its package."""
FETCH_S_MAX = 300.0


class FetchError(Exception):
    """A program can not be had here; the message tells why."""


def run(command: list[str], folder: Path) -> None:
    """Run a command quietly; raise FetchError with the last thing that it said."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=FETCH_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it failed"]
        raise FetchError(f"{' '.join(command)}: {said[-1]}")


def fetch(package: str, folder: Path) -> Path:
    """Download a package into `folder`; with an empty list of packages, as root, refresh that."""
    try:
        run(["apt-get", "download", "--quiet", package], folder)
    except FetchError:
        if os.geteuid() != 0:
            raise
        run(["apt-get", "update", "--quiet"], folder)
        run(["apt-get", "download", "--quiet", package], folder)
    (found,) = folder.glob(f"{package}_*.deb")
    return found


def unpack(package: Path, place: str) -> None:
    """Put one program of a package into `.tools`, whole or not at all."""
    contents = package.with_suffix(".tar")
    with contents.open("wb") as file:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=file, check=True)
    target = TOOLS / place
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".new")
    with tarfile.open(contents) as archive:
        member = archive.extractfile(f"./{place}")
        if member is None:
            raise FetchError(f"{package.name} has no {place}")
        with member, fresh.open("wb") as out:
            shutil.copyfileobj(member, out)
    fresh.chmod(0o755)
    fresh.replace(target)


def main() -> int:
    """Fetch what is not here yet; return 1 when something can not be had."""
    missing = {
        place: package
        for place, package in PROGRAMS.items()
        if not (TOOLS / place).exists() and shutil.which(Path(place).name) is None
    }
    try:
        for place, package in missing.items():
            with tempfile.TemporaryDirectory(prefix="distconv-tools-") as scratch:
                unpack(fetch(package, Path(scratch)), place)
            print(f"operator tools: {TOOLS.name}/{place}")
    except (FetchError, KeyError, subprocess.CalledProcessError) as error:
        print(f"operator tools: {error}\nTests that need them are skipped.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
