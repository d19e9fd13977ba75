"""Build DistConv as it would be published, and test it in an environment with nothing else.

This finds what an editable install hides: a file missing from the wheel, a dependency that only the
development tools install, an entry point to nothing. The wheel is built from the source distribution,
not from the work tree, so that both are known to be complete.

`make wheel-test` runs this in .venv. It reads packages from `.wheelhouse` alone (tools/setup.py
filled it and checked the hashes), so it works without a network, and it leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELHOUSE = ROOT / ".wheelhouse"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE_DIRS: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
PACKAGES = [Path(place).name for place in PACKAGE_DIRS]
SCRIPTS: dict[str, str] = PROJECT["project"]["scripts"]
VERSION: str = PROJECT["project"]["version"]
# What a plain `pip install distconv` must be able to import; the others need their extra.
WITHOUT_EXTRAS = ["distconvd", "distconv_plugins", "distconv_spool"]
START_S_MAX = 30.0
STOP_S_MAX = 30.0

# Runs in the clean environment. The kit for plugin authors may need packages that only they install.
IMPORT_ALL = """
import importlib, pkgutil, sys
count = 0
for root in sys.argv[1:]:
    package = importlib.import_module(root)
    assert "site-packages" in package.__file__, package.__file__
    for found in pkgutil.walk_packages(package.__path__, root + "."):
        if found.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(found.name)
            count += 1
        except ModuleNotFoundError as missing:
            kit = found.name.startswith("distconvd.testing")
            if not (kit and missing.name in ("pytest", "hypothesis")):
                raise
print(len(sys.argv) - 1, "packages and", count, "modules in them")
"""


class WheelError(Exception):
    """The built wheel is faulty; the message says how."""


def clean_environment(home: Path) -> dict[str, str]:
    """Return this process's variables without those that would add the work tree or a person's setup."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DISTCONV_"))}
    return {**kept, "HOME": str(home), "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(command: list[str], home: Path) -> str:
    """Run `command` in `home`; return what it printed, or raise WheelError with it."""
    done = subprocess.run(
        command,
        cwd=home,
        env=clean_environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise WheelError(f"{' '.join(command)}: exit {done.returncode}\n{said}")
    return said


def build(home: Path) -> Path:
    """Build source distribution and wheel; return the wheel's path."""
    out = home / "dist"
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)], home)
    (wheel,) = out.glob("*.whl")
    return wheel


def check_content(wheel: Path) -> None:
    """Raise WheelError unless the wheel contains exactly the five typed packages."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if tops != set(PACKAGES):
        raise WheelError(f"the wheel contains {sorted(tops)}, not {sorted(PACKAGES)}")
    for package in PACKAGES:
        if f"{package}/py.typed" not in names:
            raise WheelError(f"the wheel lacks {package}/py.typed")


def install(python: Path, wheel: Path, extras: str, home: Path) -> None:
    """Install the wheel with its extras and their locked dependencies, without a network."""
    run(
        [
            *(str(python), "-m", "pip", "install", "--quiet", "--no-index"),
            *("--find-links", str(WHEELHOUSE), f"distconv{extras} @ {wheel.as_uri()}"),
        ],
        home,
    )


def import_all(python: Path, packages: list[str], home: Path) -> str:
    """Import every module of `packages` with warnings as errors; return how many there were."""
    program = home / "import_all.py"
    program.write_text(IMPORT_ALL)
    return run([str(python), "-W", "error", str(program), *packages], home).strip()


def check_script(script: Path, home: Path) -> None:
    """Raise WheelError unless `script` prints its help and its version."""
    if not run([str(script), "--help"], home).strip():
        raise WheelError(f"{script.name} --help prints nothing")
    version_text = run([str(script), "--version"], home).strip()
    if VERSION not in version_text:
        raise WheelError(f"{script.name} --version says {version_text!r}, not {VERSION}")


def free_port() -> int:
    """Return a loopback port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_ok(url: str, daemon: subprocess.Popen[bytes]) -> None:
    """Wait until `url` answers OK; raise WheelError when the daemon ends or takes too long."""
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            raise WheelError(f"distconvd ended with {daemon.returncode} instead of serving")
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                body = reply.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)  # not listening yet, and another process has no event to wait for
            continue
        if body.strip() != b"OK":
            raise WheelError(f"GET / says {body[:80]!r}, not OK")
        return
    raise WheelError(f"distconvd did not answer within {START_S_MAX:g} s")


def check_daemon(script: Path, home: Path) -> None:
    """Raise WheelError unless the daemon starts, answers and ends cleanly on SIGTERM."""
    port = free_port()
    command = [str(script), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--state-file", str(home / "state.json")]
    with (home / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            command, cwd=home, env=clean_environment(home), stdout=log, stderr=log
        )
    try:
        wait_ok(f"http://127.0.0.1:{port}/", daemon)
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(STOP_S_MAX)
        if code != 0:
            raise WheelError(f"distconvd ended with {code} on SIGTERM, not 0")
    except (WheelError, subprocess.TimeoutExpired) as error:
        raise WheelError(f"{error}\n{(home / 'daemon.log').read_text(errors='replace')}") from None
    finally:
        daemon.kill()
        daemon.wait()


def try_wheel(home: Path) -> None:
    """Build, install and test; each step prints what it found."""
    wheel = build(home)
    check_content(wheel)
    print(f"wheel: {wheel.name}, {wheel.stat().st_size // 1024} KB: {', '.join(PACKAGES)}")
    run([sys.executable, "-m", "venv", str(home / "venv")], home)
    binaries = home / "venv" / "bin"
    python = binaries / "python"

    install(python, wheel, "", home)
    print("wheel: without extras, imports", import_all(python, WITHOUT_EXTRAS, home))
    check_script(binaries / "distconvd", home)
    check_daemon(binaries / "distconvd", home)
    print("wheel: without extras, distconvd starts, answers GET / with OK, ends on SIGTERM")

    install(python, wheel, "[engine,client]", home)
    print("wheel: with engine and client, imports", import_all(python, PACKAGES, home))
    for name in SCRIPTS:
        check_script(binaries / name, home)
    print(f"wheel: --help and --version work: {', '.join(SCRIPTS)}")


def main() -> int:
    """Test the wheel; return 0, or print what is wrong and return 1."""
    with tempfile.TemporaryDirectory(prefix="distconv-wheel-") as scratch:
        try:
            try_wheel(Path(scratch))
        except (WheelError, subprocess.TimeoutExpired) as error:
            print(f"wheel: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
