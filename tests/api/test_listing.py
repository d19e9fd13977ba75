"""Test `GET /jobs/`: filters, pages that stay correct while jobs change, and streaming."""

from collections.abc import AsyncIterator

import pytest
from tests.api.kit import Farm, problem

from distconvd.store import Change
from distconvd.testing.daemon import Daemon


async def ids(farm: Farm, query: str = "") -> list[str]:
    reply = await farm.client.get(f"/jobs/{query}")
    assert reply.status == 200, reply.body
    return [job["job_id"] for job in reply.json()]


async def pages(farm: Farm, query: str, seen: list[str]) -> AsyncIterator[str]:
    """Read page after page, adding the ids to `seen`; yield each cursor before it is requested."""
    page = f"/jobs/?{query}"
    while True:
        reply = await farm.client.get(page)
        seen += [job["job_id"] for job in reply.json()]
        cursor = reply.headers.get("x-next-cursor")
        if cursor is None:
            return
        yield cursor
        page = f"/jobs/?{query}&cursor={cursor}"


async def test_the_whole_list_is_oldest_first_and_has_the_same_fields_as_a_single_job(
    farm: Farm,
) -> None:
    made = [await farm.submit() for _ in range(5)]
    assert (await farm.client.get("/jobs/")).json() == made
    assert await farm.job(made[3]["job_id"]) == made[3]


async def test_filters_narrow_by_status_engine_codec_and_label(farm: Farm) -> None:
    first = await farm.assigned(labels={"show": "a:b"})
    second = await farm.submit(target_codec="h265")
    one, two = first["job_id"], second["job_id"]
    assert await ids(farm, "?status=assigned") == [one]
    assert await ids(farm, "?status=pending") == [two]
    assert await ids(farm, "?status=completed") == []
    assert await ids(farm, "?engine=e1") == [one]
    assert await ids(farm, "?engine=e2") == []
    assert await ids(farm, "?codec=hevc") == await ids(farm, "?codec=x265") == [two]
    assert await ids(farm, "?label=show:a%3Ab") == [one]
    assert await ids(farm, "?label=show:") == []
    assert await ids(farm, "?codec=h264&status=assigned&engine=e1&label=show:a%3Ab") == [one]


@pytest.mark.parametrize(
    "query,field",
    [
        ("status=waiting", "status"),
        ("status=pending&status=assigned", "status"),
        ("label=show", "label"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=1e2", "limit"),
        ("limit=", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=%C2%B2", "limit"),
        ("order=newest", "order"),
        ("order=", "order"),
        ("order=asc&order=desc", "order"),
    ],
    ids=lambda v: v[:30],
)
async def test_a_wrong_query_parameter_is_400_and_named(farm: Farm, query: str, field: str) -> None:
    assert problem(await farm.client.get(f"/jobs/?{query}"), 400)["field"] == field


async def test_pages_show_every_job_once_while_jobs_come_and_change(farm: Farm) -> None:
    made = [(await farm.submit())["job_id"] for _ in range(7)]
    seen: list[str] = []
    async for _ in pages(farm, "limit=3", seen):
        await farm.client.delete(f"/jobs/{seen[0]}")
        if len(made) < 9:
            made.append((await farm.submit())["job_id"])
    assert seen == made


async def test_order_desc_lists_the_newest_first(farm: Farm) -> None:
    made = [(await farm.submit())["job_id"] for _ in range(5)]
    assert await ids(farm, "?order=desc") == made[::-1]
    assert await ids(farm, "?order=asc") == made
    assert await ids(farm, "?order=desc&limit=2") == [made[4], made[3]]
    assert await ids(farm, f"?order=desc&limit=2&cursor={made[3]}") == [made[2], made[1]]
    await farm.client.delete(f"/jobs/{made[4]}")
    assert await ids(farm, "?order=desc&status=cancelled&limit=1") == [made[4]]
    assert await ids(farm, "?order=desc&status=pending&limit=1") == [made[3]]


async def test_pages_from_the_newest_show_every_job_once_while_jobs_come_change_and_go(
    farm: Farm,
) -> None:
    made = [(await farm.submit())["job_id"] for _ in range(7)]
    state = farm.daemon.parts.dispatcher.state
    seen: list[str] = []
    async for cursor in pages(farm, "order=desc&limit=2", seen):
        await farm.submit()  # newer than all that is still to come
        await farm.client.delete(f"/jobs/{seen[-1]}")
        if len(seen) == 4:
            state.apply(Change("jobs", cursor, None))  # the archive has taken the very job
    assert seen == made[::-1]


async def test_a_page_that_contains_the_last_job_has_no_cursor(farm: Farm) -> None:
    for _ in range(3):
        await farm.submit()
    assert "x-next-cursor" not in (await farm.client.get("/jobs/?limit=3")).headers
    assert "x-next-cursor" in (await farm.client.get("/jobs/?limit=2")).headers


@pytest.mark.parametrize("cursor", ["nonsense", "0", "%00"[:0], "9" * 400, "%F0%9F%8E%AC"])
async def test_any_text_is_a_valid_cursor(farm: Farm, cursor: str) -> None:
    await farm.submit()
    assert len(await ids(farm, f"?limit=5&cursor={cursor}")) in (0, 1)


async def test_a_long_list_is_streamed_whole_and_valid(daemon: Daemon, farm: Farm) -> None:
    body = b'{"source_url":"http://h/a","target_codec":"h264"}\n' * 700
    for _ in range(2):
        await farm.client.post("/jobs/", body, content_type="application/x-ndjson")
    reply = await farm.client.get("/jobs/")
    assert reply.headers["transfer-encoding"] == "chunked"
    listed = [job["job_id"] for job in reply.json()]
    assert len(listed) == len(set(listed)) == 1400
    assert listed == sorted(listed)
    reply = await farm.client.get("/jobs/?order=desc")
    assert reply.headers["transfer-encoding"] == "chunked"
    assert [job["job_id"] for job in reply.json()] == listed[::-1]
    assert len(await ids(farm, "?status=pending")) == 1400
    assert await ids(farm, "?status=completed") == []


async def test_a_page_on_which_the_filter_finds_nothing_still_has_a_cursor(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(9):
        await farm.submit(labels={"n": str(n)})
    monkeypatch.setattr("distconvd.dispatch.queries.SCAN_MAX", 4)
    assert len(await ids(farm, "?label=n:8")) == 1
    reply = await farm.client.get("/jobs/?label=n:8&limit=5")
    assert reply.json() == []
    assert "x-next-cursor" in reply.headers


async def test_head_is_get_without_its_body(farm: Farm) -> None:
    await farm.submit()
    got = await farm.client.get("/jobs/")
    head = await farm.client.request("HEAD", "/jobs/")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
