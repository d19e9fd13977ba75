"""Old results and rejections are removed with their drops, and nothing else, even after faults."""

import errno
import os
from pathlib import Path

import pytest

from distconv_spool import Layout, Owner, Pruned, create, retention
from distconv_spool.disk import OsDisk
from distconv_spool.testing import Fault, FaultyDisk, PowerCut

DAY_S = 86_400.0
KEEP_S = 10 * DAY_S


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create(tmp_path / "spool")


def put(path: Path, days_old: float = 0.0) -> None:
    path.write_text("{}")
    now_s = path.stat().st_mtime
    os.utime(path, (now_s, now_s - days_old * DAY_S))


def fill(layout: Layout) -> None:
    """Add an old and a new result, an old and a new rejection, and drops that have not ended."""
    for name, days_old in (("old", 11.0), ("new", 9.0)):
        put(layout.accepted / f"1_{name}~a.json", 400.0)
        put(layout.results / f"1_{name}.json", days_old)
        put(layout.rejected / f"2_{name}~b.json", 400.0)
        put(layout.rejected / f"2_{name}~b.json.problem.json", days_old)
    put(layout.accepted / "1_running~c.json", 400.0)
    put(layout.incoming / "waits.json", 400.0)
    put(layout.claimed / "K~claimed.json", 400.0)
    put(layout.rejected / "2_lonely~d.json", 400.0)


KEPT = {
    "accepted": ["1_new~a.json", "1_running~c.json"],
    "results": ["1_new.json"],
    "rejected": ["2_lonely~d.json", "2_new~b.json", "2_new~b.json.problem.json"],
    "incoming": ["waits.json"],
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def prune(layout: Layout, disk: OsDisk | None = None, keep_s: float = KEEP_S) -> Pruned:
    owner = Owner(layout, "me", disk=disk)
    try:
        return owner.prune(keep_s)
    finally:
        owner.close()


def test_old_results_and_rejections_are_removed_with_their_drops_and_nothing_else(
    layout: Layout,
) -> None:
    fill(layout)
    assert prune(layout) == Pruned(1, 1, [])
    assert {folder: names(layout.root / folder) for folder in KEPT} == KEPT
    assert (layout.claimed / "K~claimed.json").exists()
    assert prune(layout) == Pruned(0, 0, [])


def test_the_age_of_a_rewritten_result_counts_from_its_last_write(layout: Layout) -> None:
    fill(layout)
    put(layout.results / "1_old.json", 0.0)
    assert prune(layout).results == 0
    assert "1_old~a.json" in names(layout.accepted)


def test_a_rejected_drop_that_is_named_like_a_problem_is_removed_with_its_own_problem(
    layout: Layout,
) -> None:
    name = "2_new~x.json.problem.json"
    put(layout.rejected / name, 400.0)
    put(layout.rejected / f"{name}.problem.json", 9.0)
    assert prune(layout) == Pruned(0, 0, [])
    put(layout.rejected / f"{name}.problem.json", 11.0)
    assert prune(layout) == Pruned(0, 1, [])
    assert names(layout.rejected) == []


def test_a_dropped_link_is_removed_itself_and_a_dropped_folder_stays_with_its_problem(
    layout: Layout, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    (layout.rejected / "2_a~l.json").symlink_to(precious)
    (layout.rejected / "2_b~f.json").mkdir()
    for name in ("2_a~l.json", "2_b~f.json"):
        put(layout.rejected / f"{name}.problem.json", 11.0)
    assert prune(layout) == Pruned(0, 1, [])
    assert names(layout.rejected) == ["2_b~f.json", "2_b~f.json.problem.json"]
    assert precious.exists()


def test_one_round_removes_a_bounded_number_of_files(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "OLD_MAX", 3)
    for number in range(7):
        put(layout.results / f"1_{number}.json", 11.0)
        put(layout.accepted / f"1_{number}~a.json")
    assert [prune(layout).results for _ in range(4)] == [3, 3, 1, 0]
    assert names(layout.accepted) == []


class OtherClock(OsDisk):
    """A server whose clock is years behind, or ahead of, this host's."""

    def __init__(self, days: float) -> None:
        self._ns = int(days * DAY_S * 1e9)

    def touch(self, path: Path) -> int:
        return super().touch(path) + self._ns

    def lstat(self, path: Path) -> os.stat_result:
        status = super().lstat(path)
        values = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
        return os.stat_result(status, values | {"st_mtime_ns": status.st_mtime_ns + self._ns})


@pytest.mark.parametrize("days", [-4000.0, 4000.0])
def test_the_clock_of_the_server_may_differ_from_this_hosts(layout: Layout, days: float) -> None:
    fill(layout)
    assert prune(layout, OtherClock(days)) == Pruned(1, 1, [])
    assert {folder: names(layout.root / folder) for folder in KEPT} == KEPT


class VanishingDisk(OsDisk):
    """Another daemon prunes the same spool, and is always a little faster."""

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        super().unlink(path)


def test_what_another_daemon_has_removed_meanwhile_is_not_a_failure(layout: Layout) -> None:
    fill(layout)
    assert prune(layout, VanishingDisk()).failures == []
    assert {folder: names(layout.root / folder) for folder in KEPT} == KEPT


class StuckDisk(OsDisk):
    """Somebody has made one drop immutable."""

    def unlink(self, path: Path) -> None:
        if path.name == "1_old~a.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        super().unlink(path)


def test_a_file_that_cannot_be_removed_keeps_only_its_own_record(layout: Layout) -> None:
    fill(layout)
    pruned = prune(layout, StuckDisk())
    assert (pruned.results, pruned.rejections, len(pruned.failures)) == (0, 1, 1)
    assert "1_old.json" in names(layout.results)


@pytest.mark.slow
@pytest.mark.parametrize("lose", [False, True], ids=["all kept", "unsynced lost"])
@pytest.mark.parametrize("fault", [Fault.STOP_BEFORE, Fault.STOP_AFTER, Fault.FAIL])
def test_a_stop_at_any_operation_leaves_no_accepted_drop_without_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, lose: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for at in range(1, 50):
        layout = create(tmp_path / f"s{at}")
        fill(layout)
        disk = FaultyDisk(at, fault, errno.EIO)
        try:
            prune(layout, disk)
        except (PowerCut, OSError):
            pass
        if lose:
            disk.lose_unsynced()
        drops = {name.split("~")[0] for name in names(layout.accepted)} - {"1_running"}
        assert drops <= {name.removesuffix(".json") for name in names(layout.results)}
        problems = {name.removesuffix(".problem.json") for name in names(layout.rejected)}
        assert {"2_new~b.json", "2_lonely~d.json"} <= problems
        prune(layout)
        assert {folder: names(layout.root / folder) for folder in KEPT} == KEPT
        if not disk.struck:
            assert at > 15
            return
    pytest.fail("every round hit its fault: raise the number of operations?")
