"""Authenticators pass their suite; keys of a file are made, revoked, bound, reloaded and expire."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from tests.daemon import kit

from distconv_plugins.auth_api_key import ApiKey
from distconv_plugins.auth_key_file import KeyFile
from distconv_plugins.auth_none import NoAuthentication
from distconvd import auth
from distconvd.auth import ALL_ROLES
from distconvd.auth_keys.key_file import add_key, read_keys, revoke_key
from distconvd.auth_keys.wrong_keys import FAILURE_REFILL_S, FAILURES_BURST, WrongKeys, address_of
from distconvd.errors import ConfigError, TooManyRequests, Unauthorized
from distconvd.main import main
from distconvd.testing.authenticator_suite import PEER, AuthenticatorSuite
from distconvd.testing.daemon import Client, Daemon, open_daemon
from distconvd.testing.engine import VirtualEngine

NOW_MS = 1_700_000_000_000
JOB = {"source_url": "file:///a.mov", "target_codec": "h264"}


class TestNoAuthentication(AuthenticatorSuite):
    lets_everybody_in = True

    @pytest.fixture
    def authenticator(self) -> auth.Authenticator:
        return NoAuthentication()


class TestApiKey(AuthenticatorSuite):
    good_keys = {"the one key that there is": ALL_ROLES}

    @pytest.fixture
    def authenticator(self) -> auth.Authenticator:
        return ApiKey("the one key that there is")


class TestKeyFile(AuthenticatorSuite):
    @pytest.fixture
    def authenticator(self, tmp_path: Path) -> auth.Authenticator:
        path = tmp_path / "keys.json"
        made = {
            add_key(path, "anna", ["submit", "read"], NOW_MS): frozenset({"submit", "read"}),
            add_key(path, "root", ["admin"], NOW_MS): frozenset({"admin"}),
            add_key(path, "e1", ["engine"], NOW_MS, engine="e1"): frozenset({"engine"}),
        }
        type(self).good_keys = made
        return KeyFile(path)


# -------------------------------------------------------------------------------- the key file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_long_and_random_and_the_file_contains_its_hash_only(path: Path) -> None:
    one, two = (add_key(path, name, ["read"], NOW_MS) for name in ("one", "two"))
    assert one != two
    assert len(one) == len("dck_") + 43
    text = path.read_text()
    assert one not in text
    assert two not in text
    assert [(k.name, k.roles, k.engine) for k in read_keys(path)] == [
        ("one", ["read"], None),
        ("two", ["read"], None),
    ]


def test_the_file_is_for_its_owner_only_and_a_group_that_may_read_keeps_doing_so(
    path: Path,
) -> None:
    add_key(path, "one", ["read"], NOW_MS)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    add_key(path, "two", ["read"], NOW_MS)
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o660, 0o666, 0o601])
def test_a_file_that_others_may_read_or_change_is_refused_with_what_to_do(
    path: Path, mode: int
) -> None:
    add_key(path, "one", ["read"], NOW_MS)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        KeyFile(path)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"version":2,"keys":[]}', '{"version":1,"keys":[{"name":"x"}]}',
        '{"version":1,"keys":[{"name":"x","sha256":"short","roles":[],"created_at":1}]}',
        '{"version":1,"keys":[{"name":"x","sha256":"' + "0" * 64
        + '","roles":["boss"],"created_at":1}]}',
        '{"version":1,"keys":[' + ",".join(
            ['{"name":"x","sha256":"' + "0" * 64 + '","roles":[],"created_at":1}'] * 2
        ) + "]}",
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_name(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=str(path)):
        read_keys(path)


def test_a_missing_key_file_says_how_to_make_one_and_a_folder_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="distconvd keys add"):
        read_keys(path)
    path.mkdir()
    with pytest.raises(ConfigError, match=str(path)):
        read_keys(path)


def test_the_name_of_a_key_is_unique_and_free_again_after_its_revocation(path: Path) -> None:
    first = add_key(path, "anna", ["read"], NOW_MS)
    with pytest.raises(ConfigError, match="'anna' already"):
        add_key(path, "anna", ["admin"], NOW_MS)
    revoke_key(path, "anna")
    with pytest.raises(ConfigError, match="no key 'anna'"):
        revoke_key(path, "anna")
    add_key(path, "anna", ["admin"], NOW_MS)
    with pytest.raises(Unauthorized):
        KeyFile(path).authenticate(first, PEER)


@pytest.mark.parametrize("name", ["", " ", "a\nb", " x", "x" * 200])
def test_a_name_that_a_log_could_not_show_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        add_key(path, name, ["read"], NOW_MS)


def test_a_key_is_rejected_from_its_expiry_on_and_the_log_names_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(path, "visitor", ["read"], NOW_MS, expires_at=NOW_MS + 1000)
    now_s = NOW_MS / 1000
    keys = KeyFile(path, now_s=lambda: now_s)
    assert keys.authenticate(key, PEER).name == "visitor"
    now_s += 1.0
    with pytest.raises(Unauthorized):
        keys.authenticate(key, PEER)
    assert "key visitor has expired" in caplog.text
    assert key not in caplog.text


def test_a_reload_that_fails_keeps_the_keys(path: Path) -> None:
    key = add_key(path, "anna", ["read"], NOW_MS)
    keys = KeyFile(path)
    path.write_text("{")
    with pytest.raises(ConfigError):
        keys.reload()
    assert keys.authenticate(key, PEER).name == "anna"


async def test_a_changed_key_file_is_reloaded_without_a_signal_and_a_damaged_one_is_ignored(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "distconvd.auth")
    key = add_key(path, "anna", ["read"], NOW_MS)
    keys = KeyFile(path, poll_s=0.01)

    async def wait_logged(text: str) -> None:
        while text not in caplog.text:
            await trio.sleep(0.005)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(keys.run)
            path.write_text("{ half of it")
            await wait_logged("the previous keys stay valid")
            assert keys.authenticate(key, PEER).name == "anna"
            path.unlink()
            other = add_key(path, "bob", ["read"], NOW_MS)
            await wait_logged("has changed: 1 key")
            assert keys.authenticate(other, PEER).name == "bob"
            with pytest.raises(Unauthorized):
                keys.authenticate(key, PEER)
            nursery.cancel_scope.cancel()


async def test_a_daemon_accepts_the_keys_of_the_file_and_reloads_it_on_demand(path: Path) -> None:
    key = add_key(path, "anna", ["read"], NOW_MS)
    async with open_daemon(key_file=str(path), plugin={"key-file": {"poll_s": 1000}}) as daemon:
        assert (await daemon.client_with({"x-api-key": key}).get("/jobs/")).status == 200
        assert (await daemon.client.get("/jobs/")).status == 401
        revoke_key(path, "anna")
        new = add_key(path, "bob", ["submit"], NOW_MS)
        daemon.parts.reload()
        assert (await daemon.client_with({"x-api-key": key}).get("/jobs/")).status == 401
        bob = daemon.client_with({"authorization": f"Bearer {new}"})
        assert (await bob.post("/jobs/", JOB)).status == 200
        assert (await bob.get("/jobs/")).status == 403


async def test_a_single_key_next_to_a_key_file_is_logged_as_unused(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_key(path, "anna", ["read"], NOW_MS)
    async with open_daemon(api_key="the-old-one", key_file=str(path)) as daemon:
        old = daemon.client_with({"x-api-key": "the-old-one"})
        assert (await old.get("/jobs/")).status == 401
    assert "api_key is set but not accepted" in caplog.text


# ------------------------------------------------------------------------ keys of one engine


@pytest.fixture
async def bound(path: Path) -> Any:
    keys = {
        "e1": add_key(path, "e1", ["engine"], NOW_MS, engine="e1"),
        "e2": add_key(path, "e2", ["engine"], NOW_MS, engine="e2"),
        "root": add_key(path, "root", ["admin"], NOW_MS),
    }
    async with open_daemon(key_file=str(path)) as daemon:
        yield daemon, {name: daemon.client_with({"x-api-key": key}) for name, key in keys.items()}


async def job_of_e1(daemon: Daemon, clients: dict[str, Client]) -> dict[str, Any]:
    """Return a job that is assigned to e1."""
    await clients["root"].post("/jobs/", JOB)
    one = VirtualEngine(daemon, "e1", client=clients["e1"])
    await one.beat()
    return await one.must_ask()


async def test_a_key_of_one_engine_is_rejected_for_another_engine(bound: Any) -> None:
    _, clients = bound
    beat = {"engine_id": "e1", "status": "idle", "benchmark_time": 1.0}
    assert (await clients["e1"].post("/engines/heartbeat", beat)).status == 200
    refused = await clients["e2"].post("/engines/heartbeat", beat)
    assert refused.status == 403
    assert refused.json()["detail"] == (
        "Key 'e2' is only for engine 'e2', but this call is for engine 'e1'."
    )
    for path, body in (
        ("/engines/benchmark_result", {"engine_id": "e1", "benchmark_time": 1.0}),
        ("/assign_job/", {"engine_id": "e1"}),
        ("/assign_job/", {}),
    ):
        assert (await clients["e2"].post(path, body)).status == 403, path
    assert (await clients["e2"].get("/engines/e1/ws", upgrade="websocket")).status == 403


@pytest.mark.parametrize("report", ["complete", "fail", "release", "progress"])
@pytest.mark.parametrize("says", ["nothing", "itself", "the assigned engine"])
async def test_an_engines_key_reports_only_on_jobs_assigned_to_it(
    bound: Any, report: str, says: str
) -> None:
    daemon, clients = bound
    job = await job_of_e1(daemon, clients)
    bodies: dict[str, dict[str, Any]] = {
        "complete": {"output_url": "file:///o"}, "fail": {"error_message": "no"},
        "release": {"reason": "no"}, "progress": {"fraction": 0.5},
    }  # fmt: skip
    body = {**bodies[report], "attempt": job["attempt"]}
    named = {"nothing": None, "itself": "e2", "the assigned engine": "e1"}[says]
    if named is not None or report == "release":
        body["engine_id"] = named or "e2"
    at = f"/jobs/{job['job_id']}/{report}"
    before = dict(daemon.parts.dispatcher.state.jobs)
    assert (await clients["e2"].post(at, body)).status == 403
    assert daemon.parts.dispatcher.state.jobs == before
    body["engine_id"] = "e1"
    assert (await clients["e1"].post(at, body)).status == 200


@pytest.mark.parametrize("report", ["complete", "fail"])
async def test_a_former_engine_does_not_report_on_the_attempt_of_another_one_without_its_number(
    bound: Any, report: str
) -> None:
    daemon, clients = bound
    job = await job_of_e1(daemon, clients)
    at = f"/jobs/{job['job_id']}"
    assert (await clients["root"].delete("/engines/e1")).status == 200
    two = VirtualEngine(daemon, "e2", client=clients["e2"])
    await two.beat()
    assert (await two.must_ask())["attempt"] == 2
    before = dict(daemon.parts.dispatcher.state.jobs)
    body = {"output_url": "file:///o", "error_message": "no"}
    assert (await clients["e1"].post(f"{at}/{report}", body)).status == 409
    assert daemon.parts.dispatcher.state.jobs == before
    assert (await clients["e2"].post(f"{at}/{report}", body)).status == 200


async def test_a_late_legacy_report_of_the_last_engine_is_left_to_the_dispatcher(
    bound: Any,
) -> None:
    daemon, clients = bound
    job = await job_of_e1(daemon, clients)
    one = VirtualEngine(daemon, "e1", client=clients["e1"])
    await one.release(job)
    at = f"/jobs/{job['job_id']}/complete"
    body = {"output_url": "file:///o"}
    assert (await clients["e2"].post(at, body)).status == 403
    assert (await clients["e1"].post(at, body)).status == 200


# ------------------------------------------------------------------------------ wrong keys


def test_an_address_may_send_a_burst_of_wrong_keys_and_then_one_an_interval() -> None:
    now_s = 100.0
    wrong = WrongKeys(lambda: now_s)
    for _ in range(FAILURES_BURST):
        wrong.count("10.0.0.7")
    with pytest.raises(TooManyRequests) as refused:
        wrong.count("10.0.0.7")
    assert refused.value.headers["Retry-After"] == str(int(FAILURE_REFILL_S))
    wrong.count("10.0.0.8")
    now_s += FAILURE_REFILL_S
    wrong.count("10.0.0.7")
    with pytest.raises(TooManyRequests):
        wrong.count("10.0.0.7")


async def test_a_right_key_is_let_in_for_the_first_time_after_wrong_ones_from_its_address() -> None:
    """As behind a gateway or a proxy, and as after a restart of the daemon."""
    async with open_daemon() as daemon:
        guesser = daemon.client_with({"x-api-key": "guess"})
        for _ in range(FAILURES_BURST + 5):
            await guesser.get("/jobs/")
        assert (await guesser.get("/jobs/")).status == 429
        assert (await daemon.client.get("/jobs/")).status == 200


@pytest.mark.parametrize(
    "peer, address",
    [
        ("10.0.0.7:42682", "10.0.0.7"),
        ("[2001:db8:1:2:3::7]:80", "2001:db8:1:2::/64"),
        ("[::ffff:10.0.0.7]:80", "10.0.0.7"),
        ("[fe80::1%eth0]:80", "fe80::/64"),
        ("-", "-"),
        ("unix socket", "unix socket"),
    ],
)
def test_wrong_keys_are_counted_by_ipv4_address_or_ipv6_network(peer: str, address: str) -> None:
    assert address_of(peer) == address


async def test_a_daemon_slows_wrong_keys_logs_their_address_and_counts_them(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_daemon() as daemon:
        guesser = daemon.client_with({"x-api-key": "guess"})
        assert (await daemon.client.get("/jobs/")).status == 200
        statuses = [(await guesser.get("/jobs/")).status for _ in range(FAILURES_BURST + 2)]
        assert statuses == [401] * FAILURES_BURST + [429] * 2
        assert (await daemon.client.get("/jobs/")).status == 200
        metrics = (await daemon.client.get("/metrics")).body.decode()
        assert f"distconv_wrong_keys_total {FAILURES_BURST}.0" in metrics
        wrong = [
            r for r in caplog.records if r.getMessage() == "a request with a wrong key was refused"
        ]
        assert len(wrong) == FAILURES_BURST
        assert all(vars(record)["peer"] for record in wrong)
        await trio.sleep(FAILURE_REFILL_S * FAILURES_BURST)
        assert (await guesser.get("/jobs/")).status == 401
        assert (await daemon.anonymous.get("/jobs/")).status == 401


# -------------------------------------------------------------------------------- the command


def command(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["keys", *words])
    return capsys.readouterr().out.strip()


def test_the_keys_command_adds_lists_and_revokes(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ("--key-file", str(path))
    key = command(
        capsys, "add", *file, "--name", "attic", "--role", "engine", "--engine", "attic-1",
        "--expires", "30d",
    )  # fmt: skip
    assert KeyFile(path).authenticate(key, PEER).engine == "attic-1"
    listed = command(capsys, "list", *file)
    assert listed.startswith("attic  engine  made 20")
    assert "engine attic-1  until 20" in listed
    assert key not in listed
    assert command(capsys, "revoke", *file, "--name", "attic") == "revoked: attic"
    assert command(capsys, "list", *file) == ""


@pytest.mark.parametrize(
    "words, code",
    [
        (["list"], 2),
        (["list", "--key-file", "nowhere.json"], 78),
        (["add", "--name", "x", "--role", "boss", "--key-file", "k"], 2),
        (["add", "--name", "x", "--role", "read", "--expires", "soon", "--key-file", "k"], 2),
        (["add", "--name", "x", "--role", "read", "--key-file", "no/such/folder/k"], 78),
        (["revoke", "--key-file", "k"], 2),
        ([], 2),
    ],
)
def test_the_keys_command_reports_what_is_wrong(
    words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["keys", *words])
    assert end.value.code == code
    assert capsys.readouterr().err.strip()


def test_the_key_file_may_stand_before_the_command_or_in_the_environment(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_key(path, "anna", ["read"], NOW_MS)
    main(["--key-file", str(path), "keys", "list"])
    assert "anna" in capsys.readouterr().out
    monkeypatch.setenv("DISTCONV_KEY_FILE", str(path))
    assert "anna" in command(capsys, "list")


@pytest.mark.e2e
def test_sighup_reads_the_keys_again_and_does_not_end_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "anna", ["admin"], NOW_MS)
    flags = ("--key-file", str(path), "--set", "plugin.key-file.poll_s=1000")
    with kit.start(tmp_path, *flags, key=None) as daemon:
        key = add_key(path, "bob", ["read"], NOW_MS)
        assert daemon.ask("GET", "/jobs/", headers={"X-API-Key": key})[0] == 401
        os.kill(daemon.process.pid, 1)
        for _ in range(500):
            if "key-file was reloaded" in daemon.log:
                break
            trio.run(trio.sleep, 0.01)
        assert daemon.ask("GET", "/jobs/", headers={"X-API-Key": key})[0] == 200
        assert json.loads(daemon.ask("GET", "/jobs/", headers={"X-API-Key": key})[1]) == []
