"""The programs as services: keys from files, and log lines with priorities for the journal."""

import re
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.daemon.kit import COMMAND, KEY, Running, environment, start

from distconv_engine.config import load_config as load_engine
from distconv_engine.errors import ConfigError as EngineConfigError
from distconvd.config import load_config
from distconvd.errors import ConfigError
from distconvd.host.logs import is_the_journal

pytestmark = pytest.mark.e2e

# ---------------------------------------------------------------------------------- keys from files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "api-key"
    path.write_text("a-key-from-a-file\n")
    return path


def test_the_daemon_takes_its_key_from_a_file_and_serves_the_network_with_it(file: Path) -> None:
    loaded = load_config({}, {"DISTCONV_API_KEY_FILE": str(file)})
    assert loaded.config.api_key == "a-key-from-a-file"
    assert loaded.origins["api_key"] == f"file {file}"
    assert (loaded.config.authenticator, loaded.config.bind_host) == ("api-key", "0.0.0.0")


def test_the_engine_takes_its_key_from_a_file(file: Path) -> None:
    assert load_engine(["--api-key-file", str(file)], {}, "").config.api_key == "a-key-from-a-file"


def test_a_given_key_overrides_the_file(file: Path) -> None:
    environ = {"DISTCONV_API_KEY_FILE": str(file), "DISTCONV_API_KEY": "given"}
    assert load_config({}, environ).config.api_key == "given"
    assert load_engine([], environ, "").config.api_key == "given"


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "No such file"),
        (b"", "one"),
        (b"two\nlines", "one"),
        (b"\xff\xfe", "ASCII|UTF-8"),
        (b"k" * 5000, "one"),
    ],
    ids=["missing", "empty", "two lines", "binary", "too long"],
)
def test_a_file_that_contains_no_key_is_refused_by_both_with_its_name(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "api-key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"api_key_file: {path}.*({said})"):
        load_config({"api_key_file": str(path)}, {})
    with pytest.raises(EngineConfigError, match=f"api_key_file: {path}.*({said})"):
        load_engine(["--api-key-file", str(path)], {}, "")


# --------------------------------------------------------------------------------------- the journal


class Journal:
    """Reads a daemon's lines as systemd-journald does: strips the priority and stores it."""

    def __init__(self, daemon: Running) -> None:
        self.entries: list[tuple[int, str]] = []
        for line in daemon.log.splitlines():
            found = re.fullmatch(r"<(\d)>(.*)", line)
            assert found, line
            self.entries.append((int(found[1]), found[2]))

    def show(self) -> str:
        """Return what `journalctl -u distconv-dispatch` prints."""
        head = "Jan 31 12:00:00 host distconvd[42]: "
        return "".join(f"{head}{line}\n" for _, line in self.entries)


@contextmanager
def as_journal(folder: Path, *flags: str, **environ: str) -> Generator[Running]:
    """Run a daemon whose stderr looks like the journal; it has ended when the block ends."""
    path = folder / "journal"
    with path.open("w") as log:
        status = path.stat()
        environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        process = subprocess.Popen(
            [*COMMAND, "--host", "127.0.0.1", "--port", "0", *flags],
            cwd=folder, env=environment(**environ), stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    with process:
        running = Running(process, path)
        try:
            running.wait_until_ready()
            yield running
        finally:
            process.kill()


def wait_for_line(daemon: Running, text: str) -> None:
    """Wait for a line that a signal causes; another process has no event to wait for."""
    deadline = time.monotonic() + 30
    while text not in daemon.log:
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.02)


def filtered(shown: str, pattern: str) -> list[str]:
    """Return what the original's recipe finds: `journalctl … | grep PATTERN`."""
    ended = subprocess.run(
        ["grep", pattern], input=shown, capture_output=True, text=True, check=False
    )
    return ended.stdout.splitlines()


def test_the_originals_log_recipes_find_errors_and_times_in_the_journal(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"version": 1, "keys": []}')
    keys.chmod(0o600)
    with as_journal(tmp_path, "--key-file", str(keys)) as daemon:
        assert daemon.ask("GET", "/jobs/")[0] == 401
        keys.write_text("{")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for_line(daemon, "goes on as before")
        assert daemon.stop() == 0
    journal = Journal(daemon)
    shown = journal.show()
    errors = filtered(shown, "ERROR")
    assert any("key-file could not be reloaded and goes on as before" in line for line in errors)
    (timed,) = filtered(shown, "ms total")
    assert re.search(r"INFO distconvd.access GET /jobs/ 401 \d+ B \d+ ms total ", timed)
    # `journalctl -p err` finds the error, and nothing else.
    worst = [line for priority, line in journal.entries if priority <= 3]
    assert worst
    assert all(" ERROR " in line for line in worst)


def test_the_priority_of_each_level_is_syslogs(tmp_path: Path) -> None:
    with as_journal(tmp_path, "--api-key", KEY, DISTCONV_LOG_LEVEL="DEBUG") as daemon:
        daemon.ask("GET", "/jobs/", headers={"X-API-Key": "wrong"})
        assert daemon.stop() == 0
    found = {line.split()[1]: priority for priority, line in Journal(daemon).entries}
    assert found["INFO"] == 6
    assert found["WARNING"] == 4


def test_lines_that_do_not_go_to_the_journal_have_no_priority(tmp_path: Path) -> None:
    with start(tmp_path, JOURNAL_STREAM="1:1") as daemon:
        assert daemon.stop() == 0
    assert not any(line.startswith("<") for line in daemon.log.splitlines())


def test_only_the_descriptor_that_systemd_names_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as opened:
        status = (tmp_path / "file").stat()
        named = f"{status.st_dev}:{status.st_ino}"
        assert is_the_journal(opened.fileno(), {"JOURNAL_STREAM": named})
        assert not is_the_journal(opened.fileno(), {"JOURNAL_STREAM": f"{named}1"})
        assert not is_the_journal(opened.fileno(), {})
