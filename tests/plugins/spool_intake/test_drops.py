"""A drop becomes one job, or is rejected with the reason; or it waits, if the daemon says later."""

import json
import os

import pytest
import trio
from tests.plugins.spool_intake.kit import GOOD, FakeDaemon, drop_names, intake_of, names, take_in

from distconv_plugins.spool_intake import drops as intake_drops
from distconv_spool import Layout, look, submit
from distconvd.errors import CommitFailed, ConfigError, TooManyRequests, Unavailable


async def test_a_drop_becomes_a_job_and_is_moved_to_accepted_under_its_id(
    layout: Layout, daemon: FakeDaemon
) -> None:
    drop = submit(layout.root, GOOD)
    await take_in(layout, daemon)
    assert names(layout.accepted) == [f"1753_1~{drop.name}"]
    assert daemon.calls == [f"spool-{drop.name.removesuffix('.json')}"]
    assert look(layout.root, drop).job_id == "1753_1"


async def test_a_toml_file_written_in_place_is_taken_once_it_is_stable(
    layout: Layout, daemon: FakeDaemon
) -> None:
    (layout.incoming / "a.toml").write_text('source_url = "file:///a"')
    intake = intake_of(layout, daemon)
    async with intake.access.opened():
        assert await intake.drops.poll(0.0) == 0
        (layout.incoming / "a.toml").write_text('source_url = "file:///longer"')
        assert await intake.drops.poll(3.0) == 0
        assert await intake.drops.poll(6.0) == 1
    assert daemon.jobs["1753_1"].source_url == "file:///longer"


async def test_a_bad_drop_is_rejected_with_the_problem_next_to_it(
    layout: Layout, daemon: FakeDaemon
) -> None:
    (layout.incoming / "a.json").write_text("{}")
    await take_in(layout, daemon)
    file, problem = names(layout.rejected)
    assert problem == f"{file}.problem.json"
    assert json.loads((layout.rejected / problem).read_bytes()) == {
        "type": "urn:distconv:problem:bad-request",
        "title": "Bad Request",
        "status": 400,
        "detail": "'source_url' is missing.",
        "field": "source_url",
        "drop": "a.json",
    }


async def test_a_drop_that_is_not_an_object_never_reaches_the_daemon(
    layout: Layout, daemon: FakeDaemon
) -> None:
    (layout.incoming / "a.json").write_text("{")
    (layout.incoming / "b.json").write_bytes(b'{"a": "' + b"x" * 300_000 + b'"}')
    await take_in(layout, daemon)
    assert drop_names(layout.rejected)[::2] == ["a.json", "b.json"]
    assert daemon.calls == []


@pytest.mark.parametrize(
    "name",
    [
        "with space.json",
        "new\nline.json",
        ".hidden.json",
        "-rf.json",
        "漢字🎬é.toml",
        "n" * 250 + ".json",
        "漢" * 83 + "n.json",
        os.fsdecode(b"not-utf8-\xff\xfe.json"),
        "~tilde~.json",
        "\x1b[31mred.json",
        "A.JSON",
    ],
)
@pytest.mark.parametrize("good", [True, False])
async def test_any_name_of_a_drop_is_accepted_and_logged_as_printable_ascii(
    layout: Layout, daemon: FakeDaemon, name: str, good: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    toml, text = 'source_url = "file:///a"', json.dumps(GOOD)
    (layout.incoming / name).write_text((toml if name.endswith("toml") else text) if good else "?")
    await take_in(layout, daemon)
    assert names(layout.incoming) == names(layout.claimed / "me") == []
    assert len(names(layout.accepted)) == (1 if good else 0)
    assert len(names(layout.rejected)) == (0 if good else 2)
    assert "drop" in caplog.text
    assert all(line.isascii() and line.isprintable() for line in caplog.messages)


async def test_other_files_are_left_alone(layout: Layout, daemon: FakeDaemon) -> None:
    others = ["a.json.part", "._a.json", "notes.txt"]
    for name in [*others, "empty.json"]:
        (layout.incoming / name).touch()
    await take_in(layout, daemon)
    assert names(layout.incoming) == sorted([*others, "empty.json"])


async def test_the_daemons_own_folders_may_hold_strange_files(
    layout: Layout, daemon: FakeDaemon
) -> None:
    for folder in (layout.accepted, layout.claimed, layout.results):
        (folder / "README").touch()
    await take_in(layout, daemon)
    intake = intake_of(layout, daemon)
    async with intake.access.opened():
        await intake.results.catch_up()


# ------------------------------------------------------------------------------ failures and "later"


async def test_a_drop_on_which_the_daemon_itself_fails_is_rejected_and_the_next_is_taken(
    layout: Layout, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    (layout.incoming / "bad.json").write_text('{"source_url": "file:///a", "at": "x"}')
    os.utime(layout.incoming / "bad.json", (1.0, 1.0))
    (layout.incoming / "good.json").write_text(json.dumps(GOOD))

    def fail_once() -> None:
        daemon.before_reply = None
        raise ZeroDivisionError("a bug")

    daemon.before_reply = fail_once
    await take_in(layout, daemon)
    assert drop_names(layout.rejected) == ["bad.json", "bad.json.problem.json"]
    assert drop_names(layout.accepted) == ["good.json"]
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    "error", [Unavailable("draining"), CommitFailed("disk full"), TooManyRequests("slow down")]
)
async def test_when_the_daemon_says_later_a_drop_waits_and_no_more_are_taken(
    layout: Layout, daemon: FakeDaemon, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_drops, "CLAIMS_MAX", 2)
    for _ in range(5):
        submit(layout.root, GOOD)
    intake = intake_of(layout, daemon)
    async with intake.access.opened():
        daemon.down = error
        for now_s in (0.0, 10.0, 20.0):
            assert await intake.drops.poll(now_s) == 0
        assert len(names(layout.claimed / "me")) == 2
        daemon.down = None
        await intake.drops.poll(30.0)
    assert len(names(layout.accepted)) == len(daemon.jobs) == 5


async def test_no_more_drops_are_claimed_at_a_time_than_the_limit(
    layout: Layout, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_drops, "CLAIMS_MAX", 4)
    monkeypatch.setattr("distconv_spool.owner.SCAN_MAX", 10)
    for number in range(25):
        (layout.incoming / f"{number:032x}.json").write_text(json.dumps(GOOD))
    in_hand: list[int] = []
    daemon.before_reply = lambda: in_hand.append(len(names(layout.claimed / "me")))
    intake = intake_of(layout, daemon)
    async with intake.access.opened():
        assert [await intake.drops.poll(float(n)) for n in range(4)] == [10, 10, 5, 0]
    assert max(in_hand) == 4
    assert len(daemon.jobs) == len(names(layout.accepted)) == 25


async def test_the_oldest_drop_is_submitted_first(layout: Layout, daemon: FakeDaemon) -> None:
    for age, name in enumerate(["c", "a", "b"]):
        (layout.incoming / f"{name}.json").write_text(json.dumps({"source_url": f"file:///{name}"}))
        os.utime(layout.incoming / f"{name}.json", (age, age))
    await take_in(layout, daemon)
    urls = [daemon.jobs[f"1753_{n}"].source_url for n in (1, 2, 3)]
    assert urls == ["file:///c", "file:///a", "file:///b"]


# ------------------------------------------------------------------------- two daemons on one spool


async def test_two_daemons_on_one_spool_never_both_submit_a_drop(
    layout: Layout, daemon: FakeDaemon
) -> None:
    other = FakeDaemon()
    for number in range(200):
        (layout.incoming / f"{number:032x}.json").write_text(json.dumps(GOOD))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_in, layout, daemon, "one")
        nursery.start_soon(take_in, layout, other, "two")
    assert not daemon.by_key.keys() & other.by_key.keys()
    assert len(daemon.by_key) + len(other.by_key) == 200
    assert len(set(drop_names(layout.accepted))) == len(drop_names(layout.accepted)) == 200


async def test_a_second_daemon_under_the_same_owners_name_is_refused(
    layout: Layout, daemon: FakeDaemon
) -> None:
    async with intake_of(layout, daemon).access.opened():
        with pytest.raises(ConfigError, match="owner 'me'"):
            async with intake_of(layout, daemon).access.opened():
                pass
    await take_in(layout, daemon)


async def test_nobody_takes_over_another_owners_claims(layout: Layout, daemon: FakeDaemon) -> None:
    submit(layout.root, GOOD)
    daemon.down = Unavailable("draining")
    await take_in(layout, daemon, "one")
    daemon.down = None
    await take_in(layout, daemon, "two")
    assert daemon.jobs == {}
    await take_in(layout, daemon, "one")
    assert len(daemon.jobs) == 1
