"""Check which ended jobs are retired, and that retiring loses and doubles nothing."""

from tests.core.kit import Core

from distconvd.dispatch.retire import Retired, floor_of, forget, retirable

DAY_S = 86_400.0


def end_job(core: Core) -> str:
    """Submit a job and complete it."""
    job_id = core.submit()
    core.complete(core.must_ask("e"))
    return job_id


def leaving(core: Core, count: int = 100) -> list[Retired]:
    return core.run(retirable, count)


def test_the_jobs_that_ended_first_leave_when_there_are_too_many() -> None:
    core = Core(finished_jobs_max=2)
    core.engine("e")
    ids = [end_job(core) for _ in range(5)]
    assert [entry.job_id for entry in leaving(core)] == ids[:3]
    assert [entry.job_id for entry in leaving(core, 2)] == ids[:2]


def test_jobs_over_the_age_leave_however_few_there_are() -> None:
    core = Core(finished_age_s=DAY_S, engine_timeout_s=1e9)
    core.engine("e")
    old = end_job(core)
    core.sleep(DAY_S + 1)
    end_job(core)
    assert [entry.job_id for entry in leaving(core)] == [old]


def test_jobs_that_have_not_ended_never_leave() -> None:
    core = Core(finished_jobs_max=0, finished_age_s=0)
    core.engine("e")
    core.submit()
    core.submit()
    core.must_ask("e")
    assert leaving(core) == []


def test_a_forgotten_job_is_gone_from_memory_and_disk_with_its_history() -> None:
    core = Core(finished_jobs_max=0)
    core.engine("e")
    job_id = end_job(core)
    assert core.run(forget, leaving(core)) == 1
    assert job_id not in core.disk["jobs"]
    assert job_id not in core.disk["attempts"]
    core.reload()
    assert core.dispatcher.state.order == []


def test_a_job_that_was_started_again_meanwhile_stays() -> None:
    core = Core(finished_jobs_max=0)
    core.engine("e")
    job_id = end_job(core)
    entries = leaving(core)
    core.restart(job_id)
    assert core.run(forget, entries) == 0
    assert core.job(job_id).status.value == "pending"


def test_the_id_of_a_retired_job_is_never_used_again_even_when_the_clock_steps_back() -> None:
    core = Core(finished_jobs_max=0)
    core.engine("e")
    gone = end_job(core)
    core.run(forget, leaving(core))
    core.wall_ms -= 3_600_000
    core.reload()
    assert floor_of(core.dispatcher.state) == int(gone.partition("_")[0])
    assert core.submit() > gone


def test_after_a_restart_the_jobs_that_ended_first_still_leave_first() -> None:
    core = Core(finished_jobs_max=1)
    core.engine("a")
    core.engine("b")
    first, second = core.submit(), core.submit()
    jobs = {job.job_id: job for job in (core.must_ask("a"), core.must_ask("b"))}
    core.complete(jobs[second])
    core.sleep(1)
    core.complete(jobs[first])
    core.reload()
    assert [entry.job_id for entry in leaving(core)] == [second]
