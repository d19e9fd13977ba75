"""Install this checkout into an environment for an image: locked versions, checked by hash.

    python3 install.py /opt/distconv            the daemon alone
    python3 install.py /opt/distconv engine     with the extra `engine`, which brings ffmpeg

Nothing from the network runs before its hash is found in constraints.txt, including what builds the
wheel. The environment has no pip: an image is rebuilt, never extended.
"""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def entries(lock: str) -> dict[str, str]:
    """Return each distribution's lines of the lock by its name: version, condition and hashes."""
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]:
        lines = [line for line in entry.splitlines() if not line.lstrip().startswith("#")]
        found[normal(entry.split("==")[0])] = "\n".join(lines) + "\n"
    return found


def normal(name: str) -> str:
    """Return a distribution's name in the form that indexes compare (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Installer:
    """Puts locked distributions into an environment.

    Args:
        pip: an interpreter that has pip.
        python: the environment's interpreter.
        work: a folder for temporary files.
    """

    def __init__(self, pip: Path, python: Path, work: Path) -> None:
        self._pip_of = pip
        self._python = python
        self._work = work
        self._lock = entries((ROOT / "constraints.txt").read_text())
        # Without hashes: with them pip wants one of the project itself, too.
        pins = [lines.split("--hash")[0].strip(" \\\n") for lines in self._lock.values()]
        self._pins = work / "pins.txt"
        self._pins.write_text("\n".join(pins) + "\n")

    def install(self, requirement: str, *more: str) -> None:
        """Install a requirement and its dependencies, then the wheels `more`, which it names.

        Raises `KeyError` if the lock lacks a package, `CalledProcessError` if pip fails.
        """
        names = self._needed_by(requirement)
        wanted = self._work / "wanted.txt"
        wanted.write_text("".join(self._lock[name] for name in sorted(names)))
        checked = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(wanted)]
        self._pip("install", *checked)
        if more:
            self._pip("install", "--no-deps", "--no-index", *more)

    def _needed_by(self, requirement: str) -> set[str]:
        """Return the names of a requirement's dependencies on this platform; reads metadata only."""
        report = self._work / "report.json"
        asked = ["--dry-run", "--ignore-installed", "--only-binary", ":all:"]
        self._pip("install", *asked, "-c", str(self._pins), "--report", str(report), requirement)
        found = json.loads(report.read_text())["install"]
        return {normal(item["metadata"]["name"]) for item in found} - {"distconv"}

    def build(self) -> str:
        """Build the project's wheel with the installed tools; return its path."""
        wheels = self._work / "wheels"
        self._pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT))
        (wheel,) = wheels.glob("distconv-*.whl")
        return str(wheel)

    def _pip(self, *arguments: str) -> None:
        pip = [str(self._pip_of), "-m", "pip", "--python", str(self._python)]
        quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
        subprocess.run([*pip, *quiet, *arguments], check=True)


def main(target: Path, extras: list[str]) -> None:
    """Make the environment."""
    venv = [sys.executable, "-m", "venv"]
    bare = ["--without-pip"]
    # Some base images have pip; others can only make an environment that has it, which takes longer.
    has_pip = importlib.util.find_spec("pip") is not None
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        builder = work / "builder"
        subprocess.run([*venv, *(bare if has_pip else []), str(builder)], check=True)
        subprocess.run([*venv, *bare, str(target)], check=True)
        pip = Path(sys.executable) if has_pip else builder / "bin" / "python"
        tools = Installer(pip, builder / "bin" / "python", work)
        tools.install("hatchling")
        wheel = tools.build()
        chosen = f"distconv[{','.join(extras)}] @ {Path(wheel).as_uri()}"
        Installer(pip, target / "bin" / "python", work).install(chosen, wheel)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
