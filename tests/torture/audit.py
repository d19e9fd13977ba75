"""Compare what was acknowledged with what the daemon shows at the end."""

from typing import Any, cast

from tests.torture.actors import Books
from tests.torture.wire import Wire

ENDED = {"completed", "failed_permanently", "cancelled"}


async def audit(books: Books, port: int) -> list[str]:
    """Return every contradiction found, in words; there should not be any."""
    wire = Wire(port)
    _, listing = await wire.call("GET", "/jobs/")
    jobs = {job["job_id"]: job for job in cast("list[dict[str, Any]]", listing)}
    histories: dict[str, list[dict[str, Any]]] = {}
    for job_id in jobs:
        _, attempts = await wire.call("GET", f"/jobs/{job_id}/attempts")
        histories[job_id] = cast("list[dict[str, Any]]", attempts)
    wire.hang_up()
    return [
        *books.refused,
        *_submissions(books, jobs),
        *_assignments(books),
        *_ends(books, jobs),
        *_histories(jobs, histories),
    ]


def _submissions(books: Books, jobs: dict[str, dict[str, Any]]) -> list[str]:
    """Every acknowledged job exists as submitted; nothing exists twice or without a submission."""
    faults: list[str] = []
    for uid, job_id in books.submitted.items():
        job = jobs.get(job_id)
        if job is None:
            faults.append(f"lost: {uid} was acknowledged as {job_id}")
            continue
        for key, value in books.tried[uid].items():
            if job[key] != value:
                faults.append(f"changed: {job_id}.{key} is {job[key]!r}, was {value!r}")
    seen: dict[str, str] = {}
    for job_id, job in jobs.items():
        uid = job["labels"].get("uid")
        if uid not in books.tried:
            faults.append(f"invented: {job_id}")
        elif uid in seen:
            faults.append(f"doubled: {uid} is {seen[uid]} and {job_id}")
        seen[uid] = job_id
    return faults


def _assignments(books: Books) -> list[str]:
    """No attempt was assigned to two engines."""
    return [
        f"shared: attempt {attempt} of {job_id} was given to {sorted(engines)}"
        for (job_id, attempt), engines in books.assignments.items()
        if len(engines) > 1
    ]


def _ends(books: Books, jobs: dict[str, dict[str, Any]]) -> list[str]:
    """Every job has ended, as acknowledged."""
    faults = [f"open: {i} is {j['status']}" for i, j in jobs.items() if j["status"] not in ENDED]
    for job_id, outputs in books.completed.items():
        job = jobs.get(job_id, {})
        if len(outputs) > 1:
            faults.append(f"done twice: {job_id} {outputs}")
        elif (job.get("status"), job.get("attempt"), job.get("output_url")) != (
            "completed",
            *outputs[0],
        ):
            faults.append(f"undone: {job_id} was completed {outputs[0]}, is {job}")
    for job_id, job in jobs.items():
        if job["status"] == "completed" and job_id not in books.completed:
            faults.append(f"never acknowledged as completed: {job_id}")
    faults += [
        f"uncancelled: {job_id} is {jobs[job_id]['status']}"
        for job_id in books.cancelled
        if jobs[job_id]["status"] != "cancelled"
    ]
    return faults


def _histories(
    jobs: dict[str, dict[str, Any]], histories: dict[str, list[dict[str, Any]]]
) -> list[str]:
    """Attempt numbers go up by one, no kill lost an attempt, retries are within bounds."""
    faults: list[str] = []
    for job_id, attempts in histories.items():
        job = jobs[job_id]
        numbers = [a["number"] for a in attempts if a["number"]]
        if numbers != list(range(1, job["attempt"] + 1)):
            faults.append(f"history of {job_id}: {numbers}, the job is at {job['attempt']}")
        if job["retries"] > job["max_retries"]:
            faults.append(f"{job_id} was retried {job['retries']} times of {job['max_retries']}")
        faults += [
            f"attempt {a['number']} of {job_id} was lost though its engine never was"
            for a in attempts
            if a["outcome"] == "lost"
        ]
    return faults
