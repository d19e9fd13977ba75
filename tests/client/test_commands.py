"""Test every command against the fake daemon: output, JSON, exit code and requests."""

from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result
from tests.client.fake import FakeDaemon, failed, problem, running

from distconv_client import EngineView, Job, JobStatus
from distconv_client.commands.look import SHOWN_JOBS
from distconv_client.follow import Pace
from distconv_client.main import cli
from distconv_client.shared import Flags
from distconvd.model import Attempt

Run = Callable[..., Result]


def documents(result: Result, kind: type[Job] = Job) -> list[Job]:
    return [msgspec.json.decode(line, type=kind) for line in result.stdout.splitlines()]


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a b.mov", tmp_path / "c.mov"]
    for path in paths:
        path.write_bytes(b"x" * 2_000_000)
    return paths


# ----------------------------------------------------------------------------------------- submit


def test_submit_sends_a_job_for_each_source_and_reports_its_id(
    run: Run, daemon: FakeDaemon, clips: list[Path]
) -> None:
    result = run("submit", *map(str, clips), "https://example.org/d.mkv", "--codec", "h265")
    assert result.exit_code == 0, result.output
    jobs = list(daemon.jobs.values())
    assert [job.source_url for job in jobs] == [
        *(path.as_uri() for path in clips),
        "https://example.org/d.mkv",
    ]
    assert [job.job_size for job in jobs] == [2.0, 2.0, 0.0]
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(daemon.jobs)


def test_submit_sends_what_the_flags_say(run: Run, daemon: FakeDaemon, clips: list[Path]) -> None:
    line = (
        "--codec av1 --priority urgent --label a=b --label c=d=e --requires gpu --requires fast"
        " --max-retries 0 --crf 30 --max-height 720 --output /srv/out --sha256"
    )
    run("submit", str(clips[0]), *line.split())
    (job,) = daemon.jobs.values()
    assert (job.target_codec, job.priority, job.max_retries) == ("av1", 2, 0)
    assert (job.labels, job.requires) == ({"a": "b", "c": "d=e"}, ["gpu", "fast"])
    assert (job.options.crf, job.options.max_height) == (30, 720)
    assert job.output is not None
    assert job.output.url == "file:///srv/out/"
    assert job.source_sha256 is not None


def test_submit_json_is_the_jobs_documents_in_order(
    run: Run, daemon: FakeDaemon, clips: list[Path]
) -> None:
    result = run("submit", "--json", *map(str, clips), "-c", "vp9")
    assert documents(result) == list(daemon.jobs.values())


def test_submit_sends_nothing_when_one_source_is_wrong(
    run: Run, daemon: FakeDaemon, clips: list[Path]
) -> None:
    result = run("submit", str(clips[0]), "missing.mov", "-c", "vp9")
    assert result.exit_code == 2
    assert "missing.mov: No such file" in result.stderr
    assert daemon.requests == []


def test_submit_wait_follows_the_jobs_and_prints_their_results(run: Run, clips: list[Path]) -> None:
    result = run("submit", *map(str, clips), "-c", "h265", "--wait")
    assert result.exit_code == 0, result.output
    assert "assigned on attic-1 60% encode" in result.stderr
    assert result.stdout.count("/srv/out/a b.mp4") == 2
    assert "75%" in result.stdout


def test_submit_wait_json_leaves_stdout_to_the_final_documents(
    run: Run, daemon: FakeDaemon, clips: list[Path]
) -> None:
    result = run("submit", "--wait", "--json", *map(str, clips), "-c", "h265")
    assert [job.status for job in documents(result)] == ["completed", "completed"]
    assert all(job_id in result.stderr for job_id in daemon.jobs)


def test_submit_wait_exits_1_when_a_job_failed(
    run: Run, daemon: FakeDaemon, clips: list[Path]
) -> None:
    daemon.life = (running(0.5), failed)
    result = run("submit", str(clips[0]), "-c", "h265", "--wait")
    assert result.exit_code == 1
    assert "The source is cut off at 3.2 s." in result.stdout


def test_submit_prints_the_daemons_refusal_with_the_names_of_flags_and_exits_1(
    run: Run, daemon: FakeDaemon, clips: list[Path]
) -> None:
    result = run("submit", str(clips[0]), "-c", "wrong")
    assert result.exit_code == 1
    assert result.stderr == "distconv: is no codec. (field --codec) [HTTP 400]\n"
    detail = "'options.crf' and options.faststart are wrong; options.mood and 'source_url' too."
    daemon.faults = [problem(400, detail, field="options.crf")]
    assert run("submit", str(clips[0]), "-c", "av1").stderr == (
        "distconv: --crf and --faststart are wrong; options.mood and 'source_url' too. [HTTP 400]\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "submit",
        "submit a.mov",
        "submit a.mov -c av1 --priority low",
        "submit a.mov -c av1 --label color",
        "submit a.mov -c av1 --label =red",
        "submit a.mov -c av1 --max-retries -1",
        "submit https://a/b -c av1 --job-size -1",
        "submit https://a/b -c av1 --sha256",
        "submit https://a/b https://a/c -c av1 -o out.mp4",
        "status",
        "jobs --status lost",
        "jobs --limit 0",
        "why",
        "why 1 2",
        "engines drain",
        "engines explode",
        "juggle",
        "jobs --server nowhere",
    ],
)
def test_a_wrong_command_line_exits_2_and_sends_nothing(
    run: Run, daemon: FakeDaemon, line: str
) -> None:
    result = run(*line.split())
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert daemon.requests == []


# ------------------------------------------------------------------------------ status, jobs, why


def test_status_shows_the_facts_of_each_job(run: Run, daemon: FakeDaemon) -> None:
    daemon.life = (running(0.42),)
    first, second = daemon.add(labels={"show": "bunny"}, priority=1), daemon.add()
    result = run("status", first.job_id, second.job_id)
    assert result.exit_code == 0
    for said in ("42% encode 50 fps 2x eta 9.0s", "show=bunny", "high", "/srv/in/a.mov", "attic-1"):
        assert said in result.stdout


def test_status_of_an_unknown_job_exits_1_but_shows_the_others(
    run: Run, daemon: FakeDaemon
) -> None:
    job = daemon.add()
    result = run("status", "--json", "17_9", job.job_id)
    assert result.exit_code == 1
    assert result.stderr == "distconv: 17_9: Job not found [HTTP 404]\n"
    assert [found.job_id for found in documents(result)] == [job.job_id]


def test_without_a_terminal_the_table_of_jobs_is_never_cut(run: Run, daemon: FakeDaemon) -> None:
    job = daemon.add(source_url="file:///" + "long" * 60 + ".mov")
    header, line = run("jobs").stdout.splitlines()
    assert header.split() == [
        "JOB",
        "STATUS",
        "CODEC",
        "SIZE",
        "SOURCE",
        "ENGINE",
        "AGE",
        "PROGRESS",
    ]
    assert job.job_id in line
    assert "long" * 60 + ".mov" in line


def test_jobs_are_filtered_and_limited(run: Run, daemon: FakeDaemon) -> None:
    for number in range(3):
        daemon.add(target_codec="av1", labels={"n": str(number)})
    daemon.add()
    assert len(documents(run("jobs", "--json", "--codec", "av1"))) == 3
    assert len(documents(run("jobs", "--json", "--limit", "2"))) == 2
    assert [job.labels for job in documents(run("jobs", "--json", "--label", "n=1"))] == [
        {"n": "1"}
    ]
    assert len(documents(run("jobs", "--json", "--status", "pending"))) == 4
    none = run("jobs", "--json", "--status", "completed")
    assert (none.exit_code, none.stdout) == (0, "")


def test_jobs_start_with_the_newest_unless_oldest_is_given(run: Run, daemon: FakeDaemon) -> None:
    ids = [daemon.add().job_id for _ in range(4)]
    assert [job.job_id for job in documents(run("jobs", "--json"))] == ids[::-1]
    assert [job.job_id for job in documents(run("jobs", "--json", "--limit", "1"))] == ids[3:]
    assert [job.job_id for job in documents(run("jobs", "--json", "--oldest"))] == ids
    lines = run("jobs", "--limit", "2").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [ids[3], ids[2]]


def test_a_table_that_is_cut_off_says_so(run: Run, daemon: FakeDaemon) -> None:
    for _ in range(SHOWN_JOBS):
        daemon.add()
    exactly = run("jobs")
    assert len(exactly.stdout.splitlines()) == SHOWN_JOBS + 1
    assert exactly.stderr == ""
    daemon.add()
    more = run("jobs")
    assert len(more.stdout.splitlines()) == SHOWN_JOBS + 1
    assert f"more than {SHOWN_JOBS}" in more.stderr
    assert len(documents(run("jobs", "--json"))) == SHOWN_JOBS + 1


def test_without_jobs_the_next_step_is_printed(run: Run) -> None:
    result = run("jobs")
    assert (result.stdout, result.exit_code) == ("", 0)
    assert "distconv submit" in result.stderr


def test_why_is_the_daemons_sentence(run: Run, daemon: FakeDaemon) -> None:
    job = daemon.add()
    assert run("why", job.job_id).stdout == "All are busy.\n"
    answer = msgspec.json.decode(run("why", "--json", job.job_id).stdout)
    assert answer["summary"] == "All are busy."


def test_attempts_are_shown_with_their_logs_when_asked_for(run: Run, daemon: FakeDaemon) -> None:
    job = daemon.add(attempt=1)
    assert "failed" in run("attempts", job.job_id).stdout
    assert "  \\x1b[31mb\n" in run("attempts", "--log", job.job_id).stdout
    line = run("attempts", "--json", job.job_id).stdout
    assert msgspec.json.decode(line, type=Attempt).number == 1
    assert "distconv why" in run("attempts", daemon.add().job_id).stderr


# --------------------------------------------------------------------------------- cancel, retry


def test_cancel_and_retry_print_the_new_status_of_each_job(run: Run, daemon: FakeDaemon) -> None:
    first, second = daemon.add().job_id, daemon.add().job_id
    assert run("cancel", first, second).stdout.count("cancelled") == 2
    (job,) = documents(run("retry", "--json", first))
    assert job.status is JobStatus.PENDING


def test_one_job_that_cannot_be_cancelled_exits_1_but_the_others_are_cancelled(
    run: Run, daemon: FakeDaemon
) -> None:
    done, waiting = daemon.add(status=JobStatus.COMPLETED), daemon.add()
    result = run("cancel", done.job_id, waiting.job_id)
    assert result.exit_code == 1
    assert f"{done.job_id}: The job is completed. [HTTP 409]" in result.stderr
    assert daemon.jobs[waiting.job_id].status is JobStatus.CANCELLED


def test_pause_and_resume_print_the_new_status_of_each_job(run: Run, daemon: FakeDaemon) -> None:
    running, ended = daemon.add(status=JobStatus.ASSIGNED), daemon.add(status=JobStatus.COMPLETED)
    assert run("pause", running.job_id).stdout.split()[1:3] == ["assigned,", "paused"]
    assert daemon.jobs[running.job_id].paused
    assert "paused" in run("jobs").stdout
    (job,) = documents(run("resume", "--json", running.job_id))
    assert not job.paused
    daemon.faults = [problem(409, "Job is completed.")]
    result = run("pause", ended.job_id)
    assert (result.exit_code, "Job is completed." in result.stderr) == (1, True)


# ---------------------------------------------------------------------------------------- engines


def test_engines_are_listed_drained_resumed_and_forgotten(run: Run, daemon: FakeDaemon) -> None:
    daemon.engines = [
        {"engine_id": "attic-1", "status": "idle", "benchmark_time": 1.234, "jobs": ["1"]}
    ]
    table = run("engines").stdout
    assert table.splitlines()[1].split()[:5] == ["attic-1", "idle", "any", "1.23s", "1/1"]
    assert run("engines", "drain", "attic-1").stdout == "attic-1  draining\n"
    assert run("engines", "resume", "attic-1").stdout == "attic-1  idle\n"
    assert run("engines", "benchmark", "attic-1").stdout == "attic-1  busy\n"
    assert run("engines", "forget", "attic-1").stdout == "attic-1  forgotten\n"
    line = run("engines", "--json").stdout
    assert msgspec.json.decode(line, type=EngineView).jobs == ["1"]
    assert run("engines", "drain", "cellar").exit_code == 1


def test_without_engines_the_next_step_is_printed(run: Run) -> None:
    assert "distconv-engine" in run("engines").stderr


# ------------------------------------------------------------------------------------------ watch


def test_watch_follows_named_jobs_until_they_have_ended(run: Run, daemon: FakeDaemon) -> None:
    job = daemon.add()
    result = run("watch", "--json", job.job_id)
    assert result.exit_code == 0
    assert [found.status for found in documents(result)][-1] is JobStatus.COMPLETED


def test_watch_exits_1_when_a_named_job_did_not_complete(run: Run, daemon: FakeDaemon) -> None:
    assert run("watch", daemon.add(status=JobStatus.CANCELLED).job_id).exit_code == 1


def interrupted(daemon: FakeDaemon, *words: str, after_ticks: int = 1) -> Result:
    ticks = iter(range(after_ticks))

    def sleep(seconds: float) -> None:
        if next(ticks, None) is None:
            raise KeyboardInterrupt

    flags = Flags(make_client=daemon.client, pace=Pace(sleep=sleep))
    return CliRunner().invoke(cli, list(words), obj=flags)


def test_ctrl_c_while_waiting_says_that_the_jobs_continue(
    daemon: FakeDaemon, clips: list[Path]
) -> None:
    result = interrupted(daemon, "submit", str(clips[0]), "-c", "av1", "--wait")
    (job_id,) = daemon.jobs
    assert result.exit_code == 130
    assert "Stopped watching; the jobs continue." in result.stderr
    assert f"distconv watch {job_id}\n" in result.stderr
    assert f"distconv cancel {job_id}\n" in result.stderr


def test_ctrl_c_names_only_the_jobs_that_are_left(daemon: FakeDaemon) -> None:
    done, left = daemon.add(status=JobStatus.CANCELLED), daemon.add()
    result = interrupted(daemon, "watch", done.job_id, left.job_id)
    assert f"distconv watch {left.job_id}\n" in result.stderr


def test_watch_without_ids_follows_all_active_jobs_until_ctrl_c(daemon: FakeDaemon) -> None:
    job = daemon.add()
    result = interrupted(daemon, "watch", "--json", after_ticks=20)
    assert result.exit_code == 130
    assert documents(result)[-1].status is JobStatus.COMPLETED
    assert {found.job_id for found in documents(result)} == {job.job_id}


# ----------------------------------------------------------------------------------- shared flags


def test_shared_flags_are_accepted_before_and_after_the_command(daemon: FakeDaemon) -> None:
    reached: list[tuple[str, str | None]] = []

    def make(server: str, api_key: str | None) -> object:
        reached.append((server, api_key))
        return daemon.client(server, api_key)

    daemon.engines = [{"engine_id": "e"}]
    for line in (
        "--server http://a --api-key k --json engines",
        "engines --server http://a --api-key k --json",
        "--server http://b --api-key l engines --json --server http://a --api-key k",
    ):
        result = CliRunner().invoke(cli, line.split(), obj=Flags(make_client=make))  # type: ignore[arg-type]
        assert result.exit_code == 0, result.output
        assert msgspec.json.decode(result.stdout)["engine_id"] == "e"
    assert reached == [("http://a", "k")] * 3


@pytest.mark.parametrize(
    "line", ["--json --server http://a engines drain e", "engines --json drain e --server http://a",
             "engines drain e --json --server http://a"],
)  # fmt: skip
def test_shared_flags_are_accepted_anywhere_before_and_after_a_subcommand(
    run: Run, daemon: FakeDaemon, line: str
) -> None:
    daemon.engines = [{"engine_id": "e"}]
    assert msgspec.json.decode(run(*line.split()).stdout)["status"] == "draining"
    assert daemon.requests[0].url.host == "a"


# ----------------------------------------------------------------------------------------- errors

DOWN = httpx.ConnectError("[Errno 111] Connection refused")


@pytest.mark.parametrize(
    "words", [["jobs"], ["status", "1", "2"], ["engines"], ["cancel", "1"], ["watch", "1"]]
)
def test_an_unreachable_daemon_is_reported_in_two_lines(
    run: Run, daemon: FakeDaemon, words: list[str]
) -> None:
    daemon.faults = [DOWN] * 9
    result = run(*words)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "distconv: Cannot reach the daemon at http://127.0.0.1:8080: Connection refused.",
        "          Is distconvd running? Start it with `distconvd`, or give its address with --server URL.",
    ]


def test_a_missing_or_wrong_key_is_reported_with_a_remedy(run: Run, daemon: FakeDaemon) -> None:
    daemon.faults = [problem(401, "Unauthorized: Missing 'X-API-Key' header.")]
    result = run("status", "1")
    assert result.exit_code == 1
    assert "Give the key with --api-key, DISTCONV_API_KEY" in result.stderr
    daemon.faults = [problem(401, "Unauthorized")]
    assert "The daemon does not accept this key" in run("status", "1", "--api-key", "k").stderr


def test_an_error_message_cannot_control_the_terminal(run: Run, daemon: FakeDaemon) -> None:
    daemon.faults = [problem(400, "a\x1b[2Jb\nc")]
    assert "a\\x1b[2Jb c" in run("cancel", "1").stderr


def test_a_wrong_configuration_file_exits_2(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "distconv").mkdir()
    (tmp_path / "distconv" / "config.toml").write_text("sever = 'http://a'")
    result = run("jobs")
    assert result.exit_code == 2
    assert "'sever' is not accepted" in result.stderr


def test_ctrl_c_anywhere_else_ends_without_a_traceback(run: Run, daemon: FakeDaemon) -> None:
    def interrupt(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    daemon.handle = interrupt  # type: ignore[method-assign]
    result = run("jobs")
    assert result.exit_code == 130
    assert result.stderr == "distconv: interrupted.\n"


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").stdout.startswith("distconv, version 0.")
