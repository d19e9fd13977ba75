"""Test that reports survive the engine, are sent until acknowledged, and delay no other."""

import errno
import os
from pathlib import Path

import msgspec
import pytest
import trio

from distconv_engine.attempts.journal import Journal, JournalEntry, remove_partials
from distconv_engine.backoff import Backoff
from distconv_engine.daemon_link import outbox as outbox_module
from distconv_engine.daemon_link.http import DaemonApi, DaemonUnavailable, Rejected
from distconv_engine.daemon_link.outbox import Outbox
from distconv_engine.files import safe_name, write_durably
from distconv_engine.logs import Log
from distconvd.edge.problems import type_of
from distconvd.errors import Forbidden, NotAssigned
from distconvd.model import CompleteReport, FailReport, FailureClass

REPORT = CompleteReport("file:///out.mp4", 1, "e1")


class FakeApi(DaemonApi):
    """Accepts reports, or raises what a test has put into `answers`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, bytes]] = []
        self.answers: dict[str, list[Exception]] = {}

    async def report(self, job_id: str, kind: str, body: bytes) -> None:
        await trio.lowlevel.checkpoint()
        answers = self.answers.get(job_id)
        if answers:
            raise answers.pop(0)
        self.sent.append((job_id, kind, body))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self: 0.0)


def make(tmp_path: Path) -> tuple[Outbox, FakeApi]:
    api = FakeApi()
    return Outbox(tmp_path / "outbox", api, Log()), api


async def deliver(outbox: Outbox, *attempts: tuple[str, int]) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            for attempt in attempts:
                await outbox.wait_delivered(*attempt)
            nursery.cancel_scope.cancel()


async def test_a_report_is_on_disk_before_it_is_sent_and_removed_once_it_is_acknowledged(
    tmp_path: Path,
) -> None:
    outbox, api = make(tmp_path)
    await outbox.put("1_1", 1, "complete", REPORT)
    assert len(list((tmp_path / "outbox").glob("*.json"))) == 1
    assert ("1_1", 1) in outbox
    await deliver(outbox, ("1_1", 1))
    assert api.sent == [("1_1", "complete", msgspec.json.encode(REPORT))]
    assert not list((tmp_path / "outbox").iterdir())


async def test_a_report_of_an_earlier_run_is_sent_by_the_next_run(tmp_path: Path) -> None:
    outbox, _ = make(tmp_path)
    await outbox.put("../evil/1", 2, "fail", REPORT)
    again, api = make(tmp_path)
    await deliver(again, ("../evil/1", 2))
    assert [(job_id, kind) for job_id, kind, _ in api.sent] == [("../evil/1", "fail")]
    assert not list(tmp_path.rglob("*.json"))


async def test_a_report_is_tried_again_until_the_daemon_accepts_it(tmp_path: Path) -> None:
    outbox, api = make(tmp_path)
    api.answers["1_1"] = [
        DaemonUnavailable("gone"),
        DaemonUnavailable("503"),
        Rejected(401, "wrong key"),
        Rejected(403, "wrong role", type_of(Forbidden)),
    ]
    await outbox.put("1_1", 1, "complete", REPORT)
    await deliver(outbox, ("1_1", 1))
    assert len(api.sent) == 1


@pytest.mark.parametrize("status", [404, 409])
async def test_a_report_that_the_daemon_rejects_for_good_is_removed(
    status: int, tmp_path: Path
) -> None:
    outbox, api = make(tmp_path)
    api.answers["1_1"] = [Rejected(status, "no")]
    await outbox.put("1_1", 1, "complete", REPORT)
    await deliver(outbox, ("1_1", 1))
    assert not api.sent
    assert not list((tmp_path / "outbox").iterdir())


async def test_a_report_on_a_job_that_never_was_this_engines_is_removed(tmp_path: Path) -> None:
    outbox, api = make(tmp_path)
    api.answers["1_1"] = [Rejected(403, "no", type_of(NotAssigned))]
    await outbox.put("1_1", 1, "complete", REPORT)
    await deliver(outbox, ("1_1", 1))
    assert not api.sent
    assert not list((tmp_path / "outbox").iterdir())


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_report_that_the_daemon_cannot_take_becomes_a_failure_that_ends_the_job(
    tmp_path: Path, status: int
) -> None:
    outbox, api = make(tmp_path)
    await outbox.put("1_1", 1, "complete", REPORT)
    api.answers["1_1"] = [Rejected(status, "result.kept: at most 256 entries" * 100)]
    await deliver(outbox, ("1_1", 1))
    [(job_id, kind, body)] = api.sent
    failure = msgspec.json.decode(body, type=FailReport)
    assert (job_id, kind, failure.attempt, failure.engine_id) == ("1_1", "fail", 1, "e1")
    assert failure.error_class is FailureClass.INPUT
    assert f"{status}: result.kept: at most 256 entries" in failure.error_message
    assert len(failure.error_message) <= 1000


async def test_a_refused_failure_is_replaced_once_and_then_given_up(tmp_path: Path) -> None:
    outbox, api = make(tmp_path)
    await outbox.put("1_1", 1, "fail", FailReport("x", 1, "e1"))
    api.answers["1_1"] = [Rejected(400, "no"), Rejected(400, "no")]
    await deliver(outbox, ("1_1", 1))
    assert api.sent == []
    assert len(outbox) == 0


async def test_the_replacement_of_a_refused_report_survives_the_engine(tmp_path: Path) -> None:
    outbox, api = make(tmp_path)
    await outbox.put("1_1", 1, "complete", REPORT)
    api.answers["1_1"] = [Rejected(400, "no"), *[DaemonUnavailable("away")] * 3]
    with trio.move_on_after(0.2):
        await outbox.run()
    again, second = make(tmp_path)
    second.answers["1_1"] = []
    await deliver(again, ("1_1", 1))
    assert [kind for _, kind, _ in second.sent or api.sent] == ["fail"]


async def test_an_undeliverable_report_does_not_delay_another(tmp_path: Path) -> None:
    outbox, api = make(tmp_path)
    api.answers["1_1"] = [DaemonUnavailable("503")] * 100_000
    await outbox.put("1_1", 1, "complete", REPORT)
    await outbox.put("1_2", 1, "complete", REPORT)
    await deliver(outbox, ("1_2", 1))
    assert [job_id for job_id, _, _ in api.sent] == ["1_2"]


async def test_the_first_report_of_an_attempt_wins(tmp_path: Path) -> None:
    outbox, api = make(tmp_path)
    await outbox.put("1_1", 1, "complete", REPORT)
    await outbox.put("1_1", 1, "fail", REPORT)
    await deliver(outbox, ("1_1", 1))
    assert [kind for _, kind, _ in api.sent] == ["complete"]


async def test_a_report_that_finds_the_disk_full_is_still_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    outbox, api = make(tmp_path)
    monkeypatch.setattr(outbox_module, "write_durably", full)
    await outbox.put("1_1", 1, "complete", REPORT)
    await deliver(outbox, ("1_1", 1))
    assert len(api.sent) == 1


async def test_an_unreadable_report_is_put_aside_and_not_lost(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "x.1.json").write_bytes(b"{half")
    outbox, _ = make(tmp_path)
    assert len(outbox) == 0
    assert (tmp_path / "outbox" / "x.1.unreadable").read_bytes() == b"{half"


def test_the_journal_lists_unfinished_attempts_and_their_partial_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "held", Log())
    folder, partial = tmp_path / "folder", tmp_path / ".x.part"
    folder.mkdir()
    (folder / "source").touch()
    partial.touch()
    entry = JournalEntry("1_1", 3, str(folder), [str(partial)])
    journal.record(JournalEntry("1_1", 3, str(folder)))
    journal.record(entry)
    (tmp_path / "held" / "y.1.json").write_bytes(b"{half")
    assert Journal(tmp_path / "held", Log()).unfinished() == [entry]
    remove_partials(entry)
    remove_partials(entry)
    assert not folder.exists()
    assert not partial.exists()
    journal.release("1_1", 3)
    journal.release("1_1", 3)
    assert journal.unfinished() == []


def test_a_durable_write_replaces_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(5, "disk")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"


def test_names_made_from_ids_are_harmless_and_stay_different() -> None:
    ids = ["1_1", "1/1", "../x", ".x", "", "ü", "a" * 300, "x%2F", "x/"]
    names = [safe_name(text) for text in ids]
    assert len(set(names)) == len(ids)
    assert all("/" not in name and name[0] != "." and len(name) <= 200 for name in names)


def test_delays_double_up_to_the_cap_and_begin_again_after_a_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    backoff = Backoff(1.0, 8.0)
    delays = [backoff.next_s() for _ in range(50)]
    for delay, full in zip(delays, [1, 2, 4, 8] + [8] * 46, strict=True):
        assert full / 2 <= delay <= full
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_the_journal_contains_paths_that_are_not_utf_8(tmp_path: Path) -> None:
    partial = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.part"))
    partial.write_bytes(b"x")
    journal = Journal(tmp_path / "held", Log())
    journal.record(JournalEntry("1_1", 1, str(tmp_path / "attempt"), [str(partial)]))
    (entry,) = journal.unfinished()
    remove_partials(entry)
    assert not partial.exists()
