"""Write constraints.txt: every distribution that DistConv is built, run and tested with.

One resolution serves every supported Python and platform (markers choose at install time), each
file is named by its hash, and no line contains an origin: no index, no host, no path.

`[tool.distconv.lock] data-only` of pyproject.toml names wheels that are needed for their data only;
they are pinned without their dependencies. This is why the list is installed with `--no-deps`: it
is complete by itself.

The resolver is uv, installed into a temporary environment, so that no developer keeps 60 MB for
something done once a month. Needs the network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
RESOLVER = "uv>=0.5"
OLDEST_PYTHON = "3.11"
HEADER = """\
# The tested set: every version pinned, every file named by its hash. Written by `make lock`;
# do not edit. Complete, so it is installed with --no-deps (see tools/lock.py for why).
"""


def compile_lock(uv: Path, requirements: Path, *options: str) -> str:
    """Resolve `requirements` for all platforms; raise CalledProcessError when that fails."""
    command = [
        *(str(uv), "pip", "compile", "--quiet", "--universal", "--generate-hashes"),
        *("--python-version", OLDEST_PYTHON, "--no-header", "--annotation-style", "line"),
        *options,
        str(requirements),
    ]
    # --upgrade is uv's default here: without an output file it does not read the old lock.
    # A path on this machine (a local mirror) must not decide what others get.
    environment = {k: v for k, v in os.environ.items() if k not in ("UV_FIND_LINKS",)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode()


def forbidden_lines(lock: str) -> list[str]:
    """Return the lines with the origin of a file; the lock must have none."""
    return [
        line
        for line in lock.splitlines()
        if "://" in line
        or line.startswith(
            ("--index", "--extra-index", "--find-links", "--trusted-host", "-i ", "-f ")
        )
    ]


def main() -> int:
    """Resolve, check and replace constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    data_only: list[str] = project["tool"]["distconv"]["lock"]["data-only"]
    with tempfile.TemporaryDirectory(prefix="distconv-lock-") as scratch:
        home = Path(scratch)
        subprocess.run([sys.executable, "-m", "venv", str(home / "venv")], check=True)
        pip = [str(home / "venv" / "bin" / "pip"), "install", "--quiet", RESOLVER]
        subprocess.run(pip, check=True)
        uv = home / "venv" / "bin" / "uv"
        (home / "data.in").write_text("".join(f"{line}\n" for line in data_only))
        lock = (
            HEADER
            + compile_lock(uv, ROOT / "pyproject.toml", "--all-extras")
            + "# Data only: pinned without their dependencies.\n"
            + compile_lock(uv, home / "data.in", "--no-deps", "--no-annotate")
        )
    if bad := forbidden_lines(lock):
        print("lock: these lines would name an index:", *bad, sep="\n  ", file=sys.stderr)
        return 1
    fresh = CONSTRAINTS.with_suffix(".new")
    fresh.write_text(lock)
    fresh.replace(CONSTRAINTS)
    pinned = sum("==" in line for line in lock.splitlines())
    print(f"lock: {pinned} distributions pinned in {CONSTRAINTS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
