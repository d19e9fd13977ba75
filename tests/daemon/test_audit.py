"""`distconvd audit` on a store: a sound one is clean, and every rule reports its own fault."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from tests.core.kit import START_MS, Core, Disk, snapshot_of
from tests.daemon.kit import run

from distconv_plugins.stores.json_store.store import JsonStore
from distconv_plugins.stores.spool_store.store import SpoolStore
from distconvd.commands.audit.invariants import REMEDIES, remedy_of
from distconvd.commands.audit.stored import StoredAudit
from distconvd.core.archive import Archive, bucket_files, bucket_of
from distconvd.disk import REAL_DISK
from distconvd.dispatch import retire
from distconvd.dispatch.retire import FLOOR_KEY
from distconvd.model import FailureClass, JobStatus
from distconvd.store import TABLES, Change, Store

LIVE_ONLY = {"held-apart", "reserved-apart", "listed-twice"}


def farm() -> Core:
    """Return a farm that has been through everything that is legal."""
    core = Core(retry_backoff_s=0, retry_elsewhere_s=0, lost_attempts_max=2)
    core.engine("E1", 10.0, slots=2)
    core.engine("E2", 20.0, supported_codecs=["vp8"])
    core.submit(key=("k", "digest"))
    core.complete(core.must_ask("E1"))
    _through_failures(core)
    _through_losses(core)
    _by_legacy_reports(core)
    cancelled = core.submit()
    core.cancel(cancelled)
    core.restart(cancelled)
    core.patch(cancelled, paused=True)
    core.engine("E3", 1.0, supported_codecs=["vp9"])
    core.submit(codec="vp9")
    core.must_ask("E3")
    return core


def _through_failures(core: Core) -> None:
    core.submit(max_retries=1)
    core.fail(core.must_ask("E1"), FailureClass.TRANSIENT)
    core.fail(core.must_ask("E1"))
    core.fail(core.must_ask("E1"), FailureClass.VERIFICATION)
    core.submit()
    core.fail(core.must_ask("E1"), FailureClass.INPUT)
    core.submit()
    again = core.must_ask("E1")
    core.release(again)
    core.complete(core.must_ask("E1"))
    core.restart(again.job_id)
    core.fail(core.must_ask("E1"))
    core.complete(core.must_ask("E1"))


def _through_losses(core: Core) -> None:
    core.submit()
    lost = core.must_ask("E1")
    core.sleep(130.0)
    core.beat("E1")
    core.progress(lost)  # its engine is back
    core.complete(core.job(lost.job_id))
    core.submit()
    for _ in range(2):
        core.beat("E1")
        core.must_ask("E1")
        core.sleep(130.0)


def _by_legacy_reports(core: Core) -> None:
    """As the original's engines do: without an attempt, at any time."""
    core.beat("E1")
    core.submit()
    core.complete(core.job(core.dispatcher.state.order[-1]), attempt=None, engine_id=None)
    core.submit()
    job = core.must_ask("E1")
    core.fail(job, attempt=None, engine_id=None)
    core.fail(core.job(job.job_id), attempt=None, engine_id=None, message="once more")
    core.complete(core.job(job.job_id), attempt=None, engine_id=None)


def kinds(disk: Disk, archive: Path | None = None, damage: list[str] | None = None) -> list[str]:
    files = iter(()) if archive is None else bucket_files(archive)
    audit = StoredAudit(snapshot_of(disk), damage or [])
    return [finding.kind for finding in audit.findings(files)]


def test_a_farm_that_has_been_through_everything_legal_is_clean() -> None:
    core = farm()
    statuses = {core.job(job_id).status for job_id in core.dispatcher.state.jobs}
    assert statuses == set(JobStatus) - {JobStatus.CANCELLED}
    assert kinds(core.disk) == []


def test_a_state_file_of_the_original_is_clean_before_and_after_it_is_taken_over() -> None:
    core = Core()
    for number, status in enumerate(("pending", "assigned", "completed", "failed_permanently")):
        fields = {
            "job_id": f"1700000000000000_{number}", "source_url": "http://a/b", "target_codec": "h264",
            "job_size": 1.0, "status": status, "output_url": "http://a/c" if number == 2 else None,
            "assigned_engine": "old" if status == "assigned" else None, "retries": 0, "max_retries": 3,
        }  # fmt: skip
        core.disk["jobs"][f"1700000000000000_{number}"] = json.dumps(fields).encode()
    core.disk["engines"]["old"] = b'{"engine_id":"old","supported_codecs":["h264"],"cpu":3}'
    assert kinds(core.disk) == []
    core.reload()
    assert kinds(core.disk) == []


# ------------------------------------------------------------------------------- seeded faults


class Farm:
    """A sound farm's records, to be corrupted."""

    def __init__(self) -> None:
        self.core = farm()
        self.disk = self.core.disk

    def first(self, status: str, *, attempts: int = 0) -> str:
        """Return the id of a job of that status with at least so many ended attempts."""
        return next(
            job_id for job_id in self.disk["jobs"]
            if self.core.job(job_id).status == status
            and len(self.core.dispatcher.state.history(job_id).attempts) >= attempts
        )  # fmt: skip

    def edit(self, table: Any, key: str, **fields: Any) -> None:
        record = msgspec.json.decode(self.disk[table][key])
        self.disk[table][key] = msgspec.json.encode(record | fields)

    def edit_attempt(self, job_id: str, at: int, **fields: Any) -> None:
        record = msgspec.json.decode(self.disk["attempts"][job_id])
        record["attempts"][at] |= fields
        self.disk["attempts"][job_id] = msgspec.json.encode(record)

    def history(self, job_id: str) -> list[Any]:
        found: list[Any] = msgspec.json.decode(self.disk["attempts"][job_id])["attempts"]
        return found


Corrupt = Callable[[Farm], object]
PROGRESS = {"fraction": 0.5, "phase": "encode"}
CORRUPTED: dict[str, Corrupt] = {
    "no-end": lambda f: f.edit("jobs", f.first("completed", attempts=1), finished_at=None),
    "early-end": lambda f: f.edit("jobs", f.first("pending"), finished_at=1),
    "no-output": lambda f: f.edit("jobs", f.first("completed", attempts=1), output_url=None),
    "stray-output": lambda f: f.edit("jobs", f.first("failed_permanently"), output_url="x"),
    "stray-progress": lambda f: f.edit("jobs", f.first("pending"), progress=PROGRESS),
    "no-holder": lambda f: f.edit("jobs", f.first("assigned"), assigned_engine=None),
    "stray-holder": lambda f: f.edit("jobs", f.first("pending"), assigned_engine="E1"),
    "retries": lambda f: f.edit("jobs", f.first("failed_permanently", attempts=3), max_retries=0),
    "base-attempt": lambda f: f.edit("jobs", f.first("pending"), base_attempt=99),
    "attempt-missing": lambda f: f.disk["attempts"].pop(f.first("completed", attempts=1)),
    "attempt-beyond": lambda f: f.edit(
        "jobs", f.first("failed_permanently", attempts=3), attempt=1
    ),
    "attempt-order": lambda f: f.edit(
        "attempts", k := f.first("failed_permanently", attempts=3), attempts=f.history(k)[::-1]
    ),
    "attempt-running": lambda f: f.edit_attempt(
        f.first("failed_permanently"), 0, outcome="running"
    ),
    "wrong-end": lambda f: f.edit_attempt(f.first("failed_permanently"), -1, outcome="released"),
    "done-twice": lambda f: f.edit(
        "attempts", k := f.first("completed", attempts=1), attempts=[f.history(k)[-1]] * 2
    ),
    "retries-uneven": lambda f: f.edit(
        "jobs", f.first("failed_permanently", attempts=3), retries=0
    ),
    "unknown-engine": lambda f: f.edit("jobs", f.first("assigned"), assigned_engine="gone"),
    "over-slots": lambda f: f.edit("engines", "E3", slots=0),
    "job-unreadable": lambda f: f.disk["jobs"].update(bad=b'{"job_id":"bad"}'),
    "job-repaired": lambda f: f.edit("jobs", f.first("pending"), priority="high"),
    "job-misfiled": lambda f: f.edit("jobs", f.first("pending"), job_id="another"),
    "engine-unreadable": lambda f: f.edit("engines", "E2", slots="two"),
    "engine-misfiled": lambda f: f.edit("engines", "E2", engine_id="E7"),
    "attempts-unreadable": lambda f: f.disk["attempts"].update({f.first("completed"): b'{"a":1}'}),
    "attempts-misfiled": lambda f: f.edit("attempts", f.first("completed"), job_id="another"),
    "attempts-orphaned": lambda f: f.disk["attempts"].update(gone=b'{"job_id":"gone"}'),
    "meta-unreadable": lambda f: f.disk["meta"].update({"idempotency:x": b"{}"}),
    "floor-unreadable": lambda f: f.disk["meta"].update({FLOOR_KEY: b"{}"}),
    "key-to-nowhere": lambda f: f.edit("meta", "idempotency:k", job_id="1_1"),
}
ALSO_BROKEN = {
    "attempt-running": {"retries-uneven", "wrong-end"},
    "attempt-order": {"wrong-end"},
    "attempt-missing": {"key-to-nowhere"},
    "job-unreadable": {"attempts-orphaned"},
}
"""Other rules that such a fault may break."""


@pytest.mark.parametrize("kind", CORRUPTED)
def test_every_rule_reports_its_own_fault(kind: str) -> None:
    corrupted = Farm()
    CORRUPTED[kind](corrupted)
    found = kinds(corrupted.disk)
    assert kind in found
    assert set(found) - {kind} <= ALSO_BROKEN.get(kind, set())


def restarted(corrupted: Farm) -> str:
    """Return the id of a job that a person restarted and an engine then failed once."""
    jobs = map(corrupted.core.job, corrupted.disk["jobs"])
    return next(job.job_id for job in jobs if job.base_attempt and job.retries == 1)


@pytest.mark.parametrize(
    "kind,fields",
    [
        ("retries", {"retries": -1, "base_attempt": 0}),
        ("retries", {"max_retries": 0}),
        ("retries-uneven", {"retries": 2}),
        ("retries-uneven", {"retries": 0}),
    ],
)
def test_retries_are_counted_exactly_from_a_restart_on(kind: str, fields: dict[str, int]) -> None:
    corrupted = Farm()
    corrupted.edit("jobs", restarted(corrupted), **fields)
    assert kind in kinds(corrupted.disk)


@pytest.mark.parametrize("retries", [1, 3, 4])
@pytest.mark.parametrize("end", ["complete", "fail", "lose", "release", "restart"])
def test_retries_of_a_job_taken_over_from_the_original_are_not_a_fault(
    retries: int, end: str
) -> None:
    core = Core(retry_backoff_s=0, retry_elsewhere_s=0)
    job_id = "1700000000000000_0"
    core.disk["jobs"][job_id] = json.dumps({
        "job_id": job_id, "source_url": "http://a/b", "target_codec": "h264", "job_size": 1.0,
        "status": "pending", "output_url": None, "assigned_engine": None,
        "retries": retries, "max_retries": 3,
    }).encode()  # fmt: skip
    core.reload()
    assert kinds(core.disk) == []
    core.engine("E1", 10.0)
    job = core.must_ask("E1")
    if end == "lose":
        core.sleep(130.0)
    elif end == "release":
        core.release(job)
    elif end == "complete":
        core.complete(job)
    else:
        core.fail(job)
    if end == "restart":
        while core.job(job_id).status is JobStatus.PENDING:
            core.fail(core.must_ask("E1"))
        core.restart(job_id)
        core.fail(core.must_ask("E1"))
    assert kinds(core.disk) == []


def test_every_kind_of_finding_has_a_fault_that_shows_it_and_a_remedy() -> None:
    assert {*CORRUPTED, *ARCHIVED, "store", "damage", "damage-touched", *LIVE_ONLY} == set(REMEDIES)


def test_a_huge_attempt_number_does_not_slow_down_or_overflow_a_rule() -> None:
    corrupted = Farm()
    corrupted.edit("jobs", corrupted.first("completed", attempts=1), attempt=10**30)
    assert set(kinds(corrupted.disk)) == {"attempt-missing"}


# -------------------------------------------------------------------------------- the archive


@pytest.fixture
def archived(tmp_path: Path) -> tuple[Core, Path]:
    """A farm whose ended jobs have all been retired, and its archive."""
    core = farm()
    core.sleep(10_000_000.0)
    retired = core.run(retire.retirable, 1000)
    place = tmp_path / "archive"
    trio.run(Archive(place, REAL_DISK).append, retired)
    assert core.run(retire.forget, retired) == len(retired) > 4
    return core, place


def first_file(place: Path) -> Path:
    return min(place.glob("*/*.ndjson"))


def corrupt_line(place: Path, old: bytes, new: bytes) -> None:
    path = first_file(place)
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def move_file(place: Path) -> None:
    path = first_file(place)
    path.rename(path.with_name("1.ndjson"))


ARCHIVED: dict[str, Callable[[Core, Path], object]] = {
    "archive-garbage": lambda core, place: corrupt_line(place, b'"target_codec"', b"target_codec"),
    "archive-open": lambda core, place: corrupt_line(
        place, b'"status":"completed"', b'"status":"pending"'
    ),
    "archive-misplaced": lambda core, place: move_file(place),
    "archive-floor": lambda core, place: core.disk["meta"].update({FLOOR_KEY: b'{"us":1}'}),
}


def test_an_archive_is_clean_after_a_crash_cut_a_line_or_archived_a_job_twice(
    archived: tuple[Core, Path],
) -> None:
    core, place = archived
    path = first_file(place)
    whole = path.read_bytes()
    line = whole.strip().split(b"\n")[0]
    path.write_bytes(b"\n" + line[:200] + b"\n" + whole + line[:4] + b"\n" + line)
    assert kinds(core.disk, place) == []


@pytest.mark.parametrize("kind", ARCHIVED)
def test_every_rule_on_the_archive_reports_its_fault(
    kind: str, archived: tuple[Core, Path]
) -> None:
    core, place = archived
    # Otherwise the jobs still in the store would use up those ids.
    core.disk["jobs"].clear()
    core.disk["attempts"].clear()
    ARCHIVED[kind](core, place)
    found = set(kinds(core.disk, place))
    assert kind in found
    ends_of_it = {"early-end", "stray-output", "stray-holder", "done-twice", "key-to-nowhere"}
    assert found - {kind} <= ends_of_it


def test_no_remedy_for_an_archived_job_is_a_command_that_changes_it(
    archived: tuple[Core, Path],
) -> None:
    core, place = archived
    corrupt_line(place, b'"output_url":"', b'"output_xxx":"')
    (finding,) = StoredAudit(snapshot_of(core.disk), []).findings(bucket_files(place))
    assert finding.kind == "no-output"
    assert "distconv retry" in REMEDIES[finding.kind]
    assert "submit it again" in remedy_of(finding)
    assert "distconv retry" not in remedy_of(finding)


def test_an_unreadable_archive_line_is_reported_with_its_file(archived: tuple[Core, Path]) -> None:
    core, place = archived
    with first_file(place).open("ab") as file:
        file.write(b"\x00\xff\x1b[31m\n")
    audit = StoredAudit(snapshot_of(core.disk), [])
    (finding,) = audit.findings(bucket_files(place))
    line = finding.line("Do.")
    bucket = bucket_of(f"{START_MS * 1000}_0")
    assert line.startswith(f"archive {bucket}: a line cannot be read")
    assert "\x1b" not in line


# ------------------------------------------------------------------------ the command on a store


async def _put(store: Store, disk: Disk) -> None:
    await store.load()
    changes = [
        Change(table, key, record) for table in TABLES for key, record in disk[table].items()
    ]
    await store.commit(changes)
    await store.aclose()


def print_of(place: Path) -> Iterator[tuple[str, str, int]]:
    """Yield name, digest and modification time of everything in a folder."""
    for path in sorted(place.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        yield str(path), hashlib.sha256(content).hexdigest(), path.stat().st_mtime_ns


@pytest.fixture(params=["json", "spool"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Farm]:
    """A farm's store on disk, with what a crash leaves beside it."""
    corrupted = Farm()
    place = tmp_path / "state"
    store = {"json": JsonStore, "spool": SpoolStore}[request.param](place)
    trio.run(_put, store, corrupted.disk)
    leftovers = [f"{place}.new"] if request.param == "json" else [f"{place}/tmp/7-0.json"]
    for name in leftovers:
        Path(name).write_bytes(b'{"half')
    return request.param, place, corrupted


@pytest.mark.e2e
def test_the_command_finds_a_sound_store_clean_and_changes_nothing(
    stored: tuple[str, Path, Farm], tmp_path: Path
) -> None:
    kind, place, _ = stored
    before = list(print_of(tmp_path))
    done = run("audit", "--store", kind, "--state-file", str(place), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{kind}:{place}: 10 jobs, 3 engines, ")
    assert done.stdout.endswith(": clean\n")
    assert list(print_of(tmp_path)) == before


@pytest.mark.e2e
def test_the_command_reports_each_fault_in_a_line_with_what_to_do_and_exits_1(
    stored: tuple[str, Path, Farm], tmp_path: Path
) -> None:
    kind, _, corrupted = stored
    CORRUPTED["no-end"](corrupted)
    CORRUPTED["over-slots"](corrupted)
    other = tmp_path / "other"
    trio.run(_put, JsonStore(other) if kind == "json" else SpoolStore(other), corrupted.disk)
    done = run("--store", kind, "--state-file", str(other), "audit", cwd=tmp_path)
    first, second, last = done.stdout.splitlines()
    job_id = corrupted.first("completed", attempts=1)
    assert first.startswith(f"job {job_id}: it is completed, but has no finished_at [no-end]. ")
    assert first.endswith(f" `distconv retry {job_id}` restarts the job.")
    assert second.startswith("engine E3: it has 1 job and 0 slots [over-slots]. ")
    assert last.endswith(": 2 faults")
    assert (done.returncode, done.stderr) == (1, "")


def test_damage_that_a_start_would_repair_is_reported_and_not_repaired(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state.json"
    trio.run(_put, JsonStore(state), Farm().disk)
    state.write_bytes(state.read_bytes()[:-500])
    before = list(print_of(tmp_path))
    done = run("audit", "--state-file", str(state), cwd=tmp_path)
    assert done.returncode == 1
    assert "store: a start would report: the state file" in done.stdout
    assert list(print_of(tmp_path)) == before


@pytest.mark.e2e
@pytest.mark.parametrize(
    "words,said",
    [
        (["audit", "--state-file", "missing.json"], "missing.json does not exist"),
        (["--store", "memory", "audit"], "does not write through the disk"),
        (["audit", "--url", "ftp://x"], "expected a URL such as http://"),
        (["audit", "--url", "http://127.0.0.1:9"], "cannot be audited: Connection refused;"),
    ],
)
def test_an_audit_that_cannot_run_exits_2_and_says_what_to_do(
    words: list[str], said: str, tmp_path: Path
) -> None:
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []
