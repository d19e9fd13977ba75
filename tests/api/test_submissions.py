"""Test submitting: defaults, strict mode, dry runs, idempotency, batches, review plugins."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from tests.api.kit import SOURCE, Farm, later, ok, problem

from distconv_plugins.stores.memory import Memory, MemoryStore
from distconvd.testing.daemon import Reply, open_daemon

GOOD: dict[str, Any] = {"source_url": SOURCE, "target_codec": "h264"}
NDJSON = "application/x-ndjson"


def lines(*jobs: Any) -> bytes:
    return b"\n".join(j if isinstance(j, bytes) else msgspec.json.encode(j) for j in jobs)


async def batch(farm: Farm, query: str, *jobs: Any, **headers: str) -> Reply:
    return await farm.client.post(f"/jobs/{query}", lines(*jobs), content_type=NDJSON, **headers)


async def test_defaults_are_the_originals(farm: Farm) -> None:
    job = await farm.submit()
    assert (job["job_size"], job["max_retries"], job["retries"]) == (0, 3, 0)
    assert (job["priority"], job["labels"], job["attempt"]) == (0, {}, 0)


async def test_a_job_id_is_microseconds_and_a_counter_and_never_used_twice(farm: Farm) -> None:
    ids = [(await farm.submit())["job_id"] for _ in range(20)]
    assert len(set(ids)) == 20
    assert ids == sorted(ids)
    assert all(us.isdecimal() and n.isdecimal() for us, n in (i.split("_") for i in ids))


async def test_every_field_of_a_submission_comes_back(farm: Farm) -> None:
    fields = {
        "job_size": 12.5,
        "max_retries": 0,
        "priority": 2,
        "labels": {"show": "Ж 1"},
        "requires": ["gpu"],
        "options": {"crf": 20, "container": "mp4"},
        "output": {"url": "file:///out/", "name": "a.mp4"},
        "source_sha256": "a" * 64,
        "not_before": 1_800_000_000_000,
    }
    job = await farm.submit(**fields)
    assert {name: job[name] for name in fields} == fields
    assert await farm.job(job["job_id"]) == job


async def test_unknown_fields_are_ignored_and_strict_rejects_them_by_name(farm: Farm) -> None:
    assert "colour" not in await farm.submit(colour="red")
    for body, field in [
        (GOOD | {"colour": "red"}, "colour"),
        (GOOD | {"options": {"crff": 20}}, "options.crff"),
        (GOOD | {"output": {"nmae": "x"}}, "output.nmae"),
    ]:
        answer = problem(await farm.client.post("/jobs/?strict=true", body), 400)
        assert answer["field"] == field
    assert (await farm.client.post("/jobs/?strict=true", GOOD)).status == 200
    assert problem(await farm.client.post("/jobs/?strict=maybe", GOOD), 400)["field"] == "strict"


async def test_a_dry_run_shows_the_job_and_creates_nothing(farm: Farm) -> None:
    before = farm.stored()
    job = ok(await farm.client.post("/jobs/?dry_run=true", GOOD | {"job_size": 5}))
    assert (job["job_id"], job["job_size"], job["status"]) == ("dry-run", 5, "pending")
    problem(await farm.client.post("/jobs/?dry_run=true", GOOD | {"job_size": -5}), 400)
    assert farm.stored() == before


# ------------------------------------------------------------------------------ idempotency keys


async def test_a_repeated_request_with_its_key_returns_the_same_job(farm: Farm) -> None:
    first = ok(await farm.client.post("/jobs/", GOOD, idempotency_key="k1"))
    other = b'{ "target_codec":"h264",  "source_url":"http:\\/\\/example.com\\/input.mp4"}'
    assert ok(await farm.client.post("/jobs/", other, idempotency_key="k1")) == first
    assert len((await farm.client.get("/jobs/")).json()) == 1


async def test_a_key_used_for_another_request_is_422(farm: Farm) -> None:
    await farm.client.post("/jobs/", GOOD, idempotency_key="k1")
    answer = problem(
        await farm.client.post("/jobs/", GOOD | {"job_size": 1}, idempotency_key="k1"), 422
    )
    assert answer["field"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["", "a\tb", "ü\u0080"])
async def test_an_invalid_idempotency_key_is_400(farm: Farm, key: str) -> None:
    reply = await farm.client.request("POST", "/jobs/", GOOD, {"Idempotency-Key": key})
    assert problem(reply, 400)["field"] == "Idempotency-Key"


async def test_a_very_long_key_works(farm: Farm) -> None:
    key = "k" * 5000
    first = ok(await farm.client.post("/jobs/", GOOD, idempotency_key=key))
    assert ok(await farm.client.post("/jobs/", GOOD, idempotency_key=key)) == first
    assert ok(await farm.client.post("/jobs/", GOOD, idempotency_key=key + "x")) != first


async def test_unusual_numbers_in_unknown_fields_do_not_break_idempotency(farm: Farm) -> None:
    body = b'{"source_url":"http://h/a","target_codec":"h264","n":%b}' % (b"9" * 50)
    first = ok(await farm.client.post("/jobs/", body, idempotency_key="k"))
    assert ok(await farm.client.post("/jobs/", body, idempotency_key="k")) == first


async def test_idempotency_keys_survive_a_restart(autojump_clock: object) -> None:
    memory = Memory()
    async with open_daemon(store=MemoryStore(memory)) as daemon:
        first = ok(await daemon.client.post("/jobs/", GOOD, idempotency_key="k1"))
    async with open_daemon(store=MemoryStore(memory)) as daemon:
        assert ok(await daemon.client.post("/jobs/", GOOD, idempotency_key="k1")) == first
        assert len((await daemon.client.get("/jobs/")).json()) == 1


CALLERS = """
from distconvd import hookimpl
from distconvd.edge.http import Principal
from distconvd.errors import Unauthorized

class ByName:
    def authenticate(self, key, peer):
        if key is None:
            raise Unauthorized("no key")
        name, _, roles = key.partition(":")
        return Principal(name, frozenset(roles.split(",") if roles else ["admin"]))

@hookimpl
def distconvd_register_authenticators(registrar):
    registrar.add("by-name", lambda context: ByName())
"""


async def test_an_idempotency_key_belongs_to_its_caller(
    tmp_path: Path, autojump_clock: object
) -> None:
    plugin = tmp_path / "callers.py"
    plugin.write_text(CALLERS)
    async with open_daemon(plugins=[str(plugin)], auth="by-name") as daemon:
        made = []
        for name in ("anna", "bob", "anna"):
            client = daemon.client_with({"X-API-Key": name})
            made.append(ok(await client.post("/jobs/", GOOD, idempotency_key="k"))["job_id"])
    assert made[0] == made[2] != made[1]


# --------------------------------------------------------------------------------------- batches


async def test_each_line_of_a_batch_is_answered(farm: Farm) -> None:
    reply = await batch(farm, "", GOOD, b"", GOOD | {"job_size": -1}, b"{", GOOD | {"priority": 2})
    assert (reply.status, reply.headers["content-type"]) == (200, NDJSON)
    assert [(a["line"], a["status"]) for a in reply.lines] == [
        (1, 200), (3, 400), (4, 400), (5, 200),
    ]  # fmt: skip
    assert reply.lines[1]["field"] == "job_size"
    assert reply.lines[1]["detail"] == "'job_size' must be a non-negative number."
    listed = (await farm.client.get("/jobs/")).json()
    assert listed == [reply.lines[0]["job"], reply.lines[3]["job"]]


async def test_an_atomic_batch_is_all_or_nothing(farm: Farm) -> None:
    before = farm.stored()
    reply = await batch(farm, "?atomic=true", GOOD, GOOD | {"target_codec": ""})
    answer = problem(reply, 400)
    assert answer["field"] == "line 2: target_codec"
    assert farm.stored() == before
    reply = await batch(farm, "?atomic=true", GOOD, GOOD)
    assert [a["status"] for a in reply.lines] == [200, 200]


async def test_a_batch_becomes_durable_in_one_commit(farm: Farm) -> None:
    store = farm.daemon.store
    assert isinstance(store, MemoryStore)
    before = store.commits
    await batch(farm, "", *[GOOD] * 100)
    assert store.commits == before + 1
    assert len(store.memory.tables["jobs"]) == 100


async def test_a_batch_that_cannot_be_stored_leaves_nothing(farm: Farm) -> None:
    store = farm.daemon.store
    assert isinstance(store, MemoryStore)
    store.fail_next(OSError(28, "No space left on device"))
    problem(await batch(farm, "", GOOD, GOOD), 503)
    assert (await farm.client.get("/jobs/")).json() == []


@pytest.mark.parametrize("body,status", [(b"", 400), (b"\n \n", 400), (b"{}\n" * 1001, 413)])
async def test_an_empty_or_too_long_batch_is_rejected(farm: Farm, body: bytes, status: int) -> None:
    problem(await farm.client.post("/jobs/", body, content_type=NDJSON), status)


async def test_a_batch_supports_strict_and_dry_run(farm: Farm) -> None:
    before = farm.stored()
    reply = await batch(farm, "?strict=true&dry_run=true", GOOD, GOOD | {"colour": "red"})
    assert [a["status"] for a in reply.lines] == [200, 400]
    assert reply.lines[0]["job"]["job_id"] == "dry-run"
    assert farm.stored() == before


async def test_a_repeated_batch_with_its_key_returns_the_same_jobs(farm: Farm) -> None:
    first = await batch(farm, "", GOOD, b"{}", GOOD, idempotency_key="b1")
    again = await batch(farm, "", GOOD, b"{}", GOOD, idempotency_key="b1")
    assert again.lines == first.lines
    assert len((await farm.client.get("/jobs/")).json()) == 2
    problem(await batch(farm, "", GOOD, GOOD, idempotency_key="b1"), 422)
    problem(await batch(farm, "", GOOD, b"{}", GOOD, GOOD, idempotency_key="b1"), 422)
    assert len((await farm.client.get("/jobs/")).json()) == 2


async def test_the_key_of_a_batch_is_422_for_a_single_job_and_the_other_way_round(
    farm: Farm,
) -> None:
    await batch(farm, "", b"{}", GOOD, idempotency_key="b1")
    await farm.client.post("/jobs/", GOOD, idempotency_key="s1")
    problem(await farm.client.post("/jobs/", GOOD, idempotency_key="b1"), 422)
    problem(await batch(farm, "", GOOD, idempotency_key="s1"), 422)
    assert len((await farm.client.get("/jobs/")).json()) == 2


async def test_a_dry_run_with_a_used_key_fails_as_the_real_request_does(farm: Farm) -> None:
    await farm.client.post("/jobs/", GOOD, idempotency_key="k1")
    await batch(farm, "", GOOD, GOOD, idempotency_key="b1")
    before = farm.stored()
    dry = "/jobs/?dry_run=true"
    other = GOOD | {"job_size": 1}
    problem(await farm.client.post(dry, other, idempotency_key="k1"), 422)
    problem(await batch(farm, "?dry_run=true", GOOD, idempotency_key="b1"), 422)
    assert ok(await farm.client.post(dry, GOOD, idempotency_key="k1"))["job_id"] == "dry-run"
    assert ok(await farm.client.post(dry, GOOD, idempotency_key="new"))["job_id"] == "dry-run"
    assert farm.stored() == before


# --------------------------------------------------------------------------------- review plugins

REVIEWER = """
import msgspec
from distconvd import hookimpl
from distconvd.errors import BadRequest

@hookimpl
def distconvd_review_submission(submission):
    if submission.target_codec == "vp8":
        raise BadRequest("'target_codec' vp8 is not done here.", field="target_codec")
    if submission.target_codec == "av1":
        raise RuntimeError("a bug of the plugin")
    if submission.target_codec == "vp9":
        return msgspec.structs.replace(submission, source_url="nonsense")
    if submission.target_codec == "hevc":
        return "nonsense"
    return msgspec.structs.replace(submission, labels={"seen": "yes"})
"""


@pytest.mark.parametrize(
    "codec,status", [("vp8", 400), ("av1", 500), ("vp9", 500), ("hevc", 500), ("h264", 200)]
)
async def test_a_plugin_may_change_or_reject_a_job_and_its_failures_are_reported(
    tmp_path: Path, codec: str, status: int, autojump_clock: object
) -> None:
    plugin = tmp_path / "reviewer.py"
    plugin.write_text(REVIEWER)
    async with open_daemon(plugins=[str(plugin)]) as daemon:
        reply = await daemon.client.post("/jobs/", GOOD | {"target_codec": codec})
        assert reply.status == status
        listed = (await daemon.client.get("/jobs/")).json()
    assert [job["labels"] for job in listed] == ([{"seen": "yes"}] if status == 200 else [])


async def test_the_reply_waits_for_the_disk(farm: Farm, nursery: trio.Nursery) -> None:
    store = farm.daemon.store
    assert isinstance(store, MemoryStore)
    store.block_commits()
    asked = await later(nursery, farm.client.post, "/jobs/", GOOD)
    assert not asked.is_answered
    store.release()
    job = ok(await asked.wait())
    assert list(store.memory.tables["jobs"]) == [job["job_id"]]
