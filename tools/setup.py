"""Make .venv with everything that DistConv is built, run and tested with, version-locked.

`make setup` runs this with the machine's python3, so an old Python must be able to run it (it finds a
newer one, or says that there is none), and it needs only the standard library.

Rules:

- `.venv` is complete only if it has a stamp, which is written last. One without a stamp was
  interrupted, and is made again from scratch.
- The stamp contains everything that the environment depends on (lock file, project file, interpreter,
  path). While it matches, setup does nothing: no network, no process, a few milliseconds.
- The locked wheels are fetched first, checked by their hashes, into `.wheelhouse`; installing
  reads only that folder. So a change that cannot be fetched leaves the working environment as it
  was, and the environment, or a second, clean one (tools/wheel_test.py), can be made without a
  network.
- One setup at a time: a second one waits for the first and then finds its work done.
- What a person must do is printed in a line or two; pip's output is in `.wheelhouse.log`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Generator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".distconv-setup"
WHEELHOUSE = ROOT / ".wheelhouse"
LOG = ROOT / ".wheelhouse.log"
LOCK = ROOT / ".venv.lock"
OLDEST_PYTHON = (3, 11)
NEWER_PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11")
# These come with a venv or are ours: never removed as strays.
NOT_IN_LOCK = {"pip", "setuptools", "wheel", "distconv"}
# Messages of pip that mean a fault of the network, not of the project.
NETWORK_SIGNS = (
    "Failed to establish a new connection",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Cannot connect to proxy",
    "ProxyError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Connection refused",
    "Connection reset",
    "No matching distribution found",
)


class SetupError(Exception):
    """Something that a person has to fix; the message says what and how."""


def use_a_python_new_enough() -> None:
    """Re-run with a newer Python when this one is too old; raise SetupError when there is none."""
    if sys.version_info >= OLDEST_PYTHON:
        return
    for name in NEWER_PYTHONS:
        newer = shutil.which(name)
        if newer:
            os.execv(newer, [newer, __file__, *sys.argv[1:]])  # noqa: S606 - no shell is the point
    raise SetupError(
        "Python 3.11 or newer is needed; {} is {}.{}.\n"
        "Install one (Debian, Ubuntu: apt install python3 python3-venv), "
        "or name one: make PYTHON=/path/to/python3.11".format(sys.executable, *sys.version_info[:2])
    )


def require_venv_module() -> None:
    """Raise SetupError when this Python cannot make an environment with pip in it."""
    found = {name: importlib.util.find_spec(name) for name in ("venv", "ensurepip")}
    # A spec without an origin is an empty folder, such as one left by an uninstalled package.
    missing = [name for name, spec in found.items() if spec is None or spec.origin is None]
    if missing:
        raise SetupError(
            f"{sys.executable} cannot make a virtual environment: "
            f"its module {' and '.join(missing)} is missing.\n"
            "Install it (Debian, Ubuntu: apt install python3-venv) and run make again."
        )


@contextlib.contextmanager
def one_at_a_time() -> Generator[None, None, None]:
    """Take the setup lock; the kernel releases it with the process, so it never goes stale."""
    with LOCK.open("w") as lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: another setup is running here; waiting for it ...", flush=True)
            fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield


def digest(*parts: bytes) -> str:
    """Return one hash of all `parts`, in which their boundaries count."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


def wheelhouse_key() -> str:
    """Return a key that changes when other wheels are needed: another lock, or another Python's ABI."""
    abi = f"{sys.implementation.cache_tag} {sysconfig.get_platform()}"
    return digest((ROOT / "constraints.txt").read_bytes(), abi.encode())


def base_key() -> str:
    """Return a key that changes when `.venv` must be made again: another Python, or a moved clone."""
    python = f"{sys.version} {os.path.realpath(sys.executable)}"
    return digest(python.encode(), str(ROOT).encode())


def packaging_tables() -> bytes:
    """Return the part of pyproject.toml that an installation depends on; not the lint rules."""
    import tomllib  # here, because an old Python lacks it and must still reach its error message

    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = [tables["build-system"], tables["project"], tables["tool"]["hatch"]]
    return json.dumps(parts, sort_keys=True).encode()


def venv_stamp() -> str:
    """Return the stamp of a complete environment: the base key, then a hash of everything else."""
    everything = digest(
        (ROOT / "constraints.txt").read_bytes(), packaging_tables(), Path(__file__).read_bytes()
    )
    return f"{base_key()}\n{everything}\n"


def maybe_stamp() -> str | None:
    """Return the stamp of the existing environment, or None when there is no complete one."""
    if not (VENV / "bin" / "python").exists():
        return None
    try:
        return STAMP.read_text()
    except OSError:
        return None


def run(what: str, command: list[str]) -> None:
    """Run `command` into the log; raise SetupError, with the likely reason, when it fails."""
    environment = dict(os.environ, PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    # A person's own pip settings may name mirrors and certificates, but not another target.
    for name in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT"):
        environment.pop(name, None)
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        said_from = log.tell()
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    if done.returncode == 0:
        return
    with LOG.open() as log:
        log.seek(said_from)
        said = log.read()
    if "fetch" in what and any(sign in said for sign in NETWORK_SIGNS):
        raise SetupError(
            f"could not {what}: the package index cannot be reached.\n"
            "The first setup needs a network (or a pip configured for a local mirror); "
            f"connect to one and run make again. Details: {LOG.name}"
        )
    errors = [line for line in said.splitlines() if "error" in line.lower()] or [said[-300:]]
    raise SetupError(f"could not {what}: {errors[-1].strip()}\nDetails: {LOG.name}")


def pip(*arguments: str) -> list[str]:
    """Return a command line of the environment's own pip."""
    return [str(VENV / "bin" / "python"), "-m", "pip", *arguments]


def make_empty_venv() -> None:
    """Make a new `.venv`, without our packages and without a stamp."""
    require_venv_module()
    if VENV.exists():
        shutil.rmtree(VENV)
    run("make .venv", [sys.executable, "-m", "venv", str(VENV)])


def fill_wheelhouse() -> None:
    """Fetch the locked wheels, unless all exist; the old set stays until the new one is complete."""
    key = WHEELHOUSE / ".key"
    if key.exists() and key.read_text() == wheelhouse_key():
        return
    print("setup: fetching the locked packages (about 200 MB the first time) ...", flush=True)
    fresh = ROOT / ".wheelhouse.new"
    shutil.rmtree(fresh, ignore_errors=True)
    command = pip(
        *("download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--retries", "2", "--timeout", "15"),
        *("-r", "constraints.txt", "-d", str(fresh)),
    )
    try:
        run("fetch the locked packages", command)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    (fresh / ".key").write_text(wheelhouse_key())
    shutil.rmtree(WHEELHOUSE, ignore_errors=True)
    fresh.rename(WHEELHOUSE)


def normal(name: str) -> str:
    """Return a distribution's name in the form that indexes compare (PEP 503)."""
    return name.lower().replace("_", "-").replace(".", "-")


def locked_names() -> set[str]:
    """Return the distributions that constraints.txt pins."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {normal(line.split("==")[0]) for line in lines if "==" in line and line[0] not in "# "}


def sweep_strays() -> None:
    """Uninstall packages of an earlier lock that this one does not have."""
    listed = subprocess.run(
        pip("list", "--format=freeze", "--no-index"), stdout=subprocess.PIPE, check=True, cwd=ROOT
    )
    there = {normal(line.split("==")[0]) for line in listed.stdout.decode().split()}
    strays = sorted(there - locked_names() - NOT_IN_LOCK)
    if strays:
        run("remove what is no longer needed", pip("uninstall", "--quiet", "--yes", *strays))


def install() -> None:
    """Install the locked wheels and the project itself, editable; reads no network."""
    print("setup: installing into .venv ...", flush=True)
    run(
        "install the locked packages",
        pip(
            *("install", "--quiet", "--no-index", "--find-links", str(WHEELHOUSE), "--no-deps"),
            *("--require-hashes", "-r", "constraints.txt"),
        ),
    )
    sweep_strays()
    run(
        "install distconv itself",
        pip("install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "-e", "."),
    )


def setup() -> None:
    """Bring `.venv` up to date, doing only what is needed."""
    wanted = venv_stamp()
    found = maybe_stamp()
    if found == wanted:
        return
    LOG.write_text("")
    made_now = found is None or found.split("\n")[0] != base_key()
    try:
        if made_now:
            make_empty_venv()
        fill_wheelhouse()
        STAMP.unlink(missing_ok=True)
        install()
    except BaseException:
        # An environment that was complete before stays, as long as it has its stamp.
        if made_now or not STAMP.exists():
            shutil.rmtree(VENV, ignore_errors=True)
        raise
    STAMP.write_text(wanted)
    print("setup: .venv is ready", flush=True)


def main() -> int:
    """Set up; 0 when `.venv` is complete, 1 when a person has to fix something, 130 on Ctrl-C."""
    try:
        use_a_python_new_enough()
        with one_at_a_time():
            setup()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run make again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
