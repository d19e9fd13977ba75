"""Make staged trees with fake releases, for tests of the scripts alone.

The scripts use a release that exists and is complete as it is. So a tree gets one whose `distconvd` is a
few lines of shell, and an install takes a tenth of a second instead of ten; `test_release` tests a real
release.
"""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
SAMPLES = CONTRIB / "systemd"
INSTALL = CONTRIB / "install.sh"
UNINSTALL = CONTRIB / "uninstall.sh"
# The interpreter that .venv was made with: the wheels that `make setup` fetched fit it.
PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
DISTCONVD = """\
#!/bin/sh
# keys add --key-file FILE --name NAME …, or --config FILE config
case $1 in
  keys) echo "$6" >>"$4" && : >"$4.lock" && echo "dck_$6" ;;
  *) cat "$2" >/dev/null ;;
esac
"""

PYTHON_SAYS = "#!/bin/sh\necho Python 3.11.2\n"
"""A fake Python that only prints its version: no environment is made with it."""

Snapshot = dict[str, tuple[str, str]]


def run(
    *command: object, fault: str = "", stdin: int = subprocess.DEVNULL
) -> "subprocess.CompletedProcess[str]":
    """Run a script; `fault` names the change that fails or kills it (see `fault` in common.sh)."""
    environ = {name: v for name, v in os.environ.items() if not name.startswith("DISTCONV_")}
    return subprocess.run(
        [str(word) for word in command], env=environ | {"DISTCONV_TEST_FAULT": fault},
        stdin=stdin, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def done(*command: object) -> str:
    """Run a script that must succeed; return what it printed."""
    ended = run(*command)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def snapshot(root: Path) -> Snapshot:
    """Return every path of a tree with its mode and content, except below the releases."""
    found: Snapshot = {}
    for folder, names, files in os.walk(root):
        place = Path(folder)
        if place.name == "releases":
            names.clear()
        for path in [place / name for name in names + files]:
            if path.is_symlink():
                content = f"-> {path.readlink()}"
            else:
                content = "folder" if path.is_dir() else path.read_text(errors="replace")
            found[str(path.relative_to(root))] = (mode(path), content)
    return found


def skeleton(root: Path) -> Path:
    """Make the folders that every Debian has, so that only our files appear and disappear."""
    for name in ("opt", "usr/local/bin", "var/lib", "etc/sysusers.d", "etc/tmpfiles.d"):
        (root / name).mkdir(parents=True)
    (root / "etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    return root


def wants(root: Path, target: str) -> list[str]:
    """Return the units that a target of the tree starts."""
    folder = root / f"etc/systemd/system/{target}.wants"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class Releases:
    """Fake releases."""

    def __init__(self, folder: Path) -> None:
        self._wheels = folder
        # A copy, so that an edit of the checkout meanwhile does not make it another release.
        self.install = folder / "checkout/contrib/install.sh"
        shutil.copytree(CONTRIB / "systemd", folder / "checkout/contrib/systemd")
        for name in ("install.sh", "uninstall.sh", "common.sh", "README.md"):
            shutil.copy(CONTRIB / name, folder / "checkout/contrib")
        shutil.copy(ROOT / "constraints.txt", folder / "checkout")
        shutil.copy(ROOT / "pyproject.toml", folder / "checkout")
        self.python = folder / "python"
        self.python.write_text(PYTHON_SAYS)
        self.python.chmod(0o755)
        self._names: dict[tuple[object, ...], str] = {}
        self.release = folder / "release"
        (self.release / "bin").mkdir(parents=True)
        (self.release / "complete").touch()
        (self.release / "bin/distconvd").write_text(DISTCONVD)
        (self.release / "bin/distconvd").chmod(0o755)
        share = self.release / "share/distconv"
        share.mkdir(parents=True)
        for sample in SAMPLES.iterdir():
            if sample.is_file():
                (share / sample.name).write_bytes(sample.read_bytes())

    def flags(self, root: Path, version: str, *more: object) -> list[object]:
        """Return the arguments to install a version below `root`, and put its fake release there."""
        wheel = self._wheels / f"distconv-{version}-py3-none-any.whl"
        wheel.write_text(version)
        words = ["--root", root, "--python", self.python, "--wheel", wheel, *more]
        roles = root / "opt/distconv/roles"
        key = (version, roles.read_text() if roles.exists() else "", *more)
        if key not in self._names:
            first = done(self.install, "--dry-run", *words).splitlines()[1]
            self._names[key] = first.removeprefix(" 1. Build the release ")
        name = self._names[key]
        assert name.startswith(f"{version}-"), name
        releases = root / "opt/distconv/releases"
        releases.mkdir(parents=True, exist_ok=True)
        if not (releases / name).is_symlink():
            (releases / name).symlink_to(self.release)
        return words


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Make the fake release."""
    return Releases(tmp_path_factory.mktemp("releases"))
