"""Test invalid bodies: each gets a 4xx that names the field, and nothing changes."""

from typing import Any

import msgspec
import pytest
from tests.api.kit import SOURCE, Farm, ok, problem

from distconvd.testing.daemon import Daemon

LONG = "x" * 10_240
HUGE = b"9" * 40
NUMBER = "'job_size' must be a non-negative number."
RETRIES = "'max_retries' must be a non-negative integer."


def raw(fields: dict[str, Any], **replaced: bytes) -> bytes:
    """Return an object in which some values are JSON that no encoder would write."""
    pairs = [(name, msgspec.json.encode(value)) for name, value in fields.items()]
    pairs = [(name, text) for name, text in pairs if name not in replaced]
    pairs += replaced.items()
    return b"{" + b",".join(b'"%b":%b' % (n.encode(), text) for n, text in pairs) + b"}"


GOOD = {"source_url": SOURCE, "target_codec": "h264"}

SUBMISSIONS: list[tuple[str, bytes, str]] = [
    # field, its value on the wire, a part of the error's sentence
    ("source_url", b"null", "'source_url' is missing or not a string."),
    ("source_url", b"5", "'source_url' is missing or not a string."),
    ("source_url", b"[]", "'source_url' is missing or not a string."),
    ("source_url", b'""', "absolute URL"),
    ("source_url", b'"video.mp4"', "absolute URL"),
    ("source_url", b'"/videos/in.mp4"', "absolute URL"),
    ("source_url", b'"http://"', "absolute URL"),
    ("source_url", b'"http:///in.mp4"', "absolute URL"),
    ("source_url", b'"ftp://host/in.mp4"', "absolute URL"),
    ("source_url", b'"javascript:alert(1)"', "absolute URL"),
    ("source_url", b'"file:in.mp4"', "absolute URL"),
    ("source_url", b'"concat:a|b"', "absolute URL"),
    ("source_url", b'"http://host/a b.mp4"', "percent-encode"),
    ("source_url", b'"http://host/a\\n.mp4"', "percent-encode"),
    ("source_url", b'"http://host/\\u0000"', "percent-encode"),
    ("source_url", b'"http://[::1/in.mp4"', "is not a URL"),
    ("source_url", b'"http://host:99999/in.mp4"', "is not a URL"),
    *(
        ("source_url", f'"http://{host}/latest/meta-data"'.encode(), "no job may use")
        for host in (
            "169.254.169.254",
            "u:p@169.254.169.254:80",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "0xa9fea9fe",
            "2852039166",
            "0251.0376.0251.0376",
            "169.254.43518",
            "0",
            "0.0.0.0",
            "metadata.google.internal",
            "METADATA.google.internal.",
            "169.254.169.254.",
            "224.0.0.1",
            "[fd00:ec2::254]",
            "１６９.254.169.254",
        )
    ),
    ("source_url", b'"http://host/' + b"x" * 9000 + b'"', "longer than 8192"),
    ("target_codec", b"null", "'target_codec' is missing or not a string."),
    ("target_codec", b"7", "'target_codec' is missing or not a string."),
    ("target_codec", b'""', "one word"),
    ("target_codec", b'"two words"', "one word"),
    ("target_codec", b'"-y"', "one word"),
    ("target_codec", b'"h264/../x"', "one word"),
    ("target_codec", '"кодек"'.encode(), "one word"),
    ("target_codec", b'"' + LONG.encode() + b'"', "one word"),
    ("job_size", b"-1", NUMBER),
    ("job_size", b"-0.001", NUMBER),
    ("job_size", b'"100"', NUMBER),
    ("job_size", b"true", NUMBER),
    ("job_size", b"null", NUMBER),
    ("job_size", b"{}", NUMBER),
    ("job_size", b"NaN", NUMBER),
    ("job_size", b"Infinity", NUMBER),
    ("job_size", b"-Infinity", NUMBER),
    ("job_size", b"1e999", NUMBER),
    ("job_size", b"-1e999", NUMBER),
    ("job_size", b"1" + b"0" * 400, NUMBER),
    ("job_size", b"1e13", "at most 1e+12"),
    ("max_retries", b"-1", RETRIES),
    ("max_retries", b"1.5", RETRIES),
    ("max_retries", b"3.0", RETRIES),
    ("max_retries", b'"3"', RETRIES),
    ("max_retries", b"null", RETRIES),
    ("max_retries", b"false", RETRIES),
    ("max_retries", b"1001", "at most 1000"),
    ("max_retries", HUGE, "at most 1000"),
    ("max_retries", b"-" + HUGE, RETRIES),
    ("max_retries", b"9" * 5000, RETRIES),
    ("priority", b"3", "0 (normal), 1 (high) or 2 (urgent)"),
    ("priority", b"-1", "0 (normal)"),
    ("priority", HUGE, "0 (normal)"),
    ("priority", b'"high"', "expected an integer, got a string"),
    ("labels", b"[]", "expected an object"),
    ("labels", b'{"a":1}', "expected a string"),
    ("labels", b'{"a":null}', "expected a string"),
    ("labels", b'{"":"x"}', "1 to 64 characters"),
    ("labels", b'{"' + LONG.encode() + b'":"x"}', "1 to 64 characters"),
    ("labels", b'{"a":"' + LONG.encode() + b'"}', "longer than 256"),
    ("labels", msgspec.json.encode({str(n): "" for n in range(33)}), "more than 32"),
    ("requires", b'"gpu"', "expected a list"),
    ("requires", b"[1]", "expected a string"),
    ("requires", b'["two words"]', "without spaces"),
    ("requires", b'[""]', "without spaces"),
    ("requires", msgspec.json.encode([str(n) for n in range(33)]), "more than 32"),
    ("not_before", b"-1", "milliseconds since the epoch"),
    ("not_before", HUGE, "milliseconds since the epoch"),
    ("not_before", b'"tomorrow"', "expected an integer or null"),
    ("source_sha256", b'"abc"', "64 hexadecimal digits"),
    ("source_sha256", b'"' + b"g" * 64 + b'"', "64 hexadecimal digits"),
    ("options", b"null", "expected an object"),
    ("options", b"[]", "expected an object"),
    ("options.crf", b'{"crf":64}', "from 0 to 51 for h264"),
    ("options.crf", b'{"crf":-1}', "from 0 to 51 for h264"),
    ("options.crf", b'{"crf":"best"}', "expected an integer"),
    ("options.crf", b'{"crf":20,"video_bitrate_kbps":900}', "cannot be combined"),
    ("options.container", b'{"container":"avi"}', "avi"),
    ("options.container", b'{"container":"webm"}', "webm cannot hold h264"),
    ("options.max_width", b'{"max_width":0}', "from 16"),
    ("options.max_fps", b'{"max_fps":1e999}', "number"),
    ("options.preset", b'{"preset":"' + LONG.encode() + b'"}', "one short word"),
    ("options.preset", b'{"preset":"-f lavfi"}', "one short word"),
    ("options.two_pass", b'{"two_pass":true}', "needs options.video_bitrate_kbps"),
    ("options.two_pass", b'{"two_pass":1}', "expected a boolean"),
    ("options.audio_codec", b'{"audio_codec":"mp3"}', "mp3"),
    ("options.audio_codec", b'{"audio_codec":"opus","container":"mov"}', "opus does not fit"),
    ("options.crf", b'{"crf":52}', "from 0 to 51 for h264"),
    ("options.preset", b'{"preset":"p5"}', "one of ultrafast, superfast"),
    ("options.tune", b'{"tune":"screen"}', "for h264"),
    ("options.faststart", b'{"faststart":true,"container":"mkv"}', "not for mkv"),
    ("output.name", b'{"name":"film.webm"}', "webm cannot hold h264"),
    ("options.audio_bitrate_kbps", b'{"audio_codec":"copy","audio_bitrate_kbps":96}', "no meaning"),
    ("output", b'"here"', "expected an object"),
    ("output.url", b'{"url":"out/"}', "absolute URL"),
    ("output.url", b'{"url":5}', "expected a string"),
    ("output.name", b'{"name":"../x.mp4"}', "begin with a dot"),
    ("output.name", b'{"name":".."}', "begin with a dot"),
    ("output.name", b'{"name":".bashrc"}', "begin with a dot"),
    ("output.url", b'{"url":"file:///srv/.bashrc"}', "begins with a dot"),
    ("output.url", b'{"url":"file:///srv/%2ebashrc"}', "begins with a dot"),
    ("output.url", b'{"url":"http://169.254.169.254/x.mp4"}', "no job may use"),
    ("output.name", b'{"name":"a/x.mp4"}', "without a directory"),
    ("output.name", b'{"name":"a\\u0000b"}', "without a directory"),
    ("output.name", '{"name":"%s"}'.replace("%s", "ü" * 128).encode(), "255 bytes"),
]


@pytest.mark.parametrize("field,value,said", SUBMISSIONS, ids=lambda v: repr(v)[:40])
async def test_a_wrong_field_of_a_submission_is_400_and_named(
    farm: Farm, field: str, value: bytes, said: str
) -> None:
    before = farm.stored()
    reply = await farm.client.post("/jobs/", raw(GOOD, **{field.partition(".")[0]: value}))
    answer = problem(reply, 400)
    assert answer["field"] == field
    assert said in answer["detail"]
    assert farm.stored() == before


@pytest.mark.parametrize("field", ["source_url", "target_codec"])
async def test_a_missing_field_is_reported_with_the_originals_sentence(
    farm: Farm, field: str
) -> None:
    rest = {name: value for name, value in GOOD.items() if name != field}
    answer = problem(await farm.client.post("/jobs/", rest), 400)
    assert answer["detail"] == f"'{field}' is missing or not a string."
    assert answer["field"] == field


BROKEN: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("blank", b"  \n "),
    ("null", b"null"),
    ("a list", b"[]"),
    ("a text", b'"job"'),
    ("a number", b"7"),
    ("cut", b'{"source_url":"http://h/a'),
    ("trailing comma", b'{"source_url":"http://h/a","target_codec":"h264",}'),
    ("trailing text", b'{"source_url":"http://h/a","target_codec":"h264"} x'),
    ("two values", b'{"source_url":"http://h/a","target_codec":"h264"}{}'),
    ("single quotes", b"{'source_url':'http://h/a'}"),
    ("comment", b'{"source_url":"http://h/a",/**/"target_codec":"h264"}'),
    ("a form", b"source_url=http%3A%2F%2Fh%2Fa&target_codec=h264"),
    ("byte order mark", b"\xef\xbb\xbf" + raw(GOOD)),
    ("UTF-16", raw(GOOD).decode().encode("utf-16")),
    ("latin-1", raw(GOOD, note=b'"\xfcber"')),
    ("cut UTF-8", raw(GOOD, note=b'"\xc3"')),
    ("overlong UTF-8", raw(GOOD, note=b'"\xc0\xaf"')),
    ("UTF-8 of a surrogate", raw(GOOD, note=b'"\xed\xa0\x80"')),
    ("a lone surrogate", raw(GOOD, labels=b'{"a":"\\ud800"}')),
    ("a lone low surrogate", raw(GOOD, labels=b'{"a":"\\udc00 x"}')),
    ("control character", raw(GOOD, labels=b'{"a":"\x01"}')),
    ("nested lists", raw(GOOD, note=b"[" * 100_000 + b"]" * 100_000)),
    ("nested objects", raw(GOOD, note=b'{"a":' * 50_000 + b"1" + b"}" * 50_000)),
    ("endless lists", b"[" * 500_000),
    ("NUL", b"\x00"),
]
WHOLE = ["/jobs/", "/jobs/{id}/complete", "/jobs/{id}/fail", "/engines/heartbeat"]
WHOLE += ["/engines/benchmark_result", "/jobs/{id}/progress", "/jobs/{id}/release"]


@pytest.mark.parametrize("path", WHOLE)
async def test_a_body_other_than_a_json_object_is_400_everywhere(farm: Farm, path: str) -> None:
    job = await farm.assigned()
    before = farm.stored()
    for name, body in BROKEN:
        reply = await farm.client.post(path.replace("{id}", job["job_id"]), body)
        answer = problem(reply, 400)
        # An object that only lacks a field gets that error; anything else is not a JSON object.
        assert "JSON" in answer["detail"] or answer.get("field"), (name, answer)
    assert farm.stored() == before


@pytest.mark.parametrize("half", [rb"\ud800", rb"x\uDFFFx"])
async def test_half_of_a_surrogate_pair_is_400_and_its_field_is_named(
    farm: Farm, half: bytes
) -> None:
    answer = problem(
        await farm.client.post("/jobs/", raw(GOOD, labels=b'{"a":"' + half + b'"}')), 400
    )
    assert (answer["field"], "surrogate" in answer["detail"]) == ("labels", True)


async def test_a_body_over_the_limit_is_413_and_not_read(farm: Farm) -> None:
    before = farm.stored()
    body = raw(GOOD, note=b'"' + b"x" * 1_100_000 + b'"')
    problem(await farm.client.post("/jobs/", body), 413)
    assert farm.stored() == before


async def test_the_last_of_duplicate_names_counts_and_strict_rejects_them(farm: Farm) -> None:
    body = b'{"source_url":"http://h/a","target_codec":"h264","job_size":1,"job_size":2}'
    assert ok(await farm.client.post("/jobs/", body))["job_size"] == 2
    answer = problem(await farm.client.post("/jobs/?strict=true", body), 400)
    assert answer["field"] == "job_size"
    bad = body.replace(b'"job_size":2', b'"job_size":-2')
    assert problem(await farm.client.post("/jobs/", bad), 400)["field"] == "job_size"


@pytest.mark.parametrize(
    "value",
    [b"1e-400", b"0", b"-0.0", b"0.1", b"1E2", b"1e12", b"49.999999999"],
)
async def test_unusual_but_valid_numbers_are_accepted(farm: Farm, value: bytes) -> None:
    assert ok(await farm.client.post("/jobs/", raw(GOOD, job_size=value)))["job_size"] >= 0


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/in.mp4",
        "HTTPS://EXAMPLE.com/in.mp4",
        "https://user:word@example.com:8443/a%20b.mp4?x=1&y=[2]#t=3",
        "http://[2001:db8::1]:8080/in.mp4",
        "http://127.0.0.1/in.mp4",
        "file:///videos/in.mp4",
        "http://bücher.example/фильм.mp4",
    ],
)
async def test_an_absolute_url_is_stored_unchanged(farm: Farm, url: str) -> None:
    assert (await farm.submit(source_url=url))["source_url"] == url


HEARTBEATS: list[tuple[str, bytes, str]] = [
    ("engine_id", b"null", "expected a string"),
    ("engine_id", b"7", "expected a string"),
    ("engine_id", b'""', "1 to 128 characters"),
    ("engine_id", b'"a/b"', "without spaces, slashes"),
    ("engine_id", b'"a b"', "without spaces, slashes"),
    ("engine_id", b'"a\\nb"', "without spaces, slashes"),
    ("engine_id", b'"' + LONG.encode() + b'"', "1 to 128 characters"),
    ("storage_capacity_gb", b"-1", "'storage_capacity_gb' must be a non-negative number."),
    ("storage_capacity_gb", b'"big"', "'storage_capacity_gb' must be a non-negative number."),
    ("storage_capacity_gb", b"NaN", "'storage_capacity_gb' must be a non-negative number."),
    ("streaming_support", b"1", "'streaming_support' must be a boolean."),
    ("streaming_support", b'"yes"', "'streaming_support' must be a boolean."),
    ("benchmark_time", b"-0.1", "'benchmark_time' must be a non-negative number."),
    ("benchmark_time", b'"fast"', "'benchmark_time' must be a non-negative number."),
    ("benchmark_time", b"1e999", "'benchmark_time' must be a non-negative number."),
    ("supported_codecs", b'"h264"', "expected a list"),
    ("supported_codecs", b"[5]", "expected a string"),
    ("supported_codecs", b'["a b"]', "one word"),
    ("supported_codecs", msgspec.json.encode(["x"] * 65), "more than 64"),
    ("status", b"5", "expected a string"),
    ("status", b'"' + LONG.encode() + b'"', "longer than 256"),
    ("slots", b"0", "from 1 to 64"),
    ("slots", b"65", "from 1 to 64"),
    ("slots", HUGE, "from 1 to 64"),
    ("slots", b"1.5", "expected an integer"),
    ("tags", b'["a b"]', "without spaces"),
    ("benchmarks", b'{"h264":-1}', "non-negative"),
    ("benchmarks", b'{"h264":"x"}', "expected a number"),
    ("free_gb", b"-5", "non-negative"),
    ("cpu_percent", b'"hot"', "expected a number"),
    ("temperature_c", b"1e999", "out of range"),
    ("hostname", b'"' + LONG.encode() + b'"', "longer than 256"),
    ("jobs", b"{}", "expected a list"),
    ("jobs", b'["1_0"]', "expected an object"),
    ("jobs.job_id", b"[{}]", "missing"),
    ("jobs.attempt", b'[{"job_id":"1_0","attempt":%b}]' % HUGE, "non-negative"),
    ("jobs.attempt", b'[{"job_id":"1_0","attempt":-1}]', "non-negative"),
    ("jobs.progress.fraction", b'[{"job_id":"1_0","progress":{"fraction":-1}}]', "non-negative"),
    ("jobs", msgspec.json.encode([{"job_id": "1"}] * 257), "more than 256"),
    ("jobs.job_id", msgspec.json.encode([{"job_id": LONG}]), "longer than 128"),
    ("jobs.progress.phase", b'[{"job_id":"1_0","progress":{"phase":"%b"}}]' % LONG.encode(), "64"),
    ("benchmarks", b'{"h264 ":1}', "one word"),
    ("local_job_queue", b"[1]", "expected a string"),
    ("local_job_queue", msgspec.json.encode([LONG]), "longer than 128"),
]


@pytest.mark.parametrize("field,value,said", HEARTBEATS, ids=lambda v: repr(v)[:40])
async def test_a_wrong_field_of_a_heartbeat_is_400_and_named(
    farm: Farm, field: str, value: bytes, said: str
) -> None:
    before = farm.stored()
    body = raw({"engine_id": "e1"}, **{field.partition(".")[0]: value})
    answer = problem(await farm.client.post("/engines/heartbeat", body), 400)
    assert answer["field"] == field
    assert said in answer["detail"]
    assert farm.stored() == before


@pytest.mark.parametrize(
    "value",
    [b"[" * 900 + b"]" * 900, b"1e999", HUGE, b'{"a":{"b":[1,null]}}', b"true"],
    ids=["deep", "too large", "beyond 64 bit", "nested", "plain"],
)
async def test_an_unknown_field_of_a_heartbeat_is_shown_or_left_out_without_an_error(
    farm: Farm, value: bytes
) -> None:
    body = raw({"engine_id": "e1"}, encoders=value, gpu=b'"A2"')
    ok(await farm.client.post("/engines/heartbeat", body))
    assert ok(await farm.client.get("/engines/e1"))["gpu"] == "A2"
    assert (await farm.client.get("/engines/")).status == 200


async def test_unknown_fields_of_heartbeats_are_limited_in_size(farm: Farm) -> None:
    for n in range(50):
        await farm.beat(**{f"field_{n}": "x" * 1000})
    assert len((await farm.client.get("/engines/e1")).body) < 10_000


REPORTS: list[tuple[str, bytes, str]] = [
    ("complete", b"{}", "output_url"),
    ("complete", b'{"output_url":null}', "output_url"),
    ("complete", b'{"output_url":5}', "output_url"),
    ("complete", b'{"output_url":"' + LONG.encode() + b'"}', "output_url"),
    ("complete", b'{"output_url":"u","attempt":"1"}', "attempt"),
    ("complete", b'{"output_url":"u","attempt":%b}' % HUGE, "attempt"),
    ("complete", b'{"output_url":"u","attempt":-1}', "attempt"),
    ("complete", b'{"output_url":"u","engine_id":"a b"}', "engine_id"),
    ("complete", b'{"output_url":"u","result":[]}', "result"),
    ("complete", b'{"output_url":"u","result":{"size_bytes":%b}}' % HUGE, "result.size_bytes"),
    ("complete", b'{"output_url":"u","result":{"duration_s":-1}}', "result.duration_s"),
    ("complete", b'{"output_url":"u","result":{"duration_s":1e999}}', "result.duration_s"),
    (
        "complete",
        b'{"output_url":"u","result":{"sha256":"' + LONG.encode() + b'"}}',
        "result.sha256",
    ),
    (
        "complete",
        msgspec.json.encode({"output_url": "u", "result": {"checks": ["x"] * 300}}),
        "result.checks",
    ),
    ("fail", b"{}", "error_message"),
    ("fail", b'{"error_message":null}', "error_message"),
    ("fail", b'{"error_message":"x","error_class":"bad luck"}', "error_class"),
    ("fail", b'{"error_message":"x","attempt":%b}' % HUGE, "attempt"),
    ("release", b'{"engine_id":"e1"}', "attempt"),
    ("release", b'{"attempt":1}', "engine_id"),
    ("release", b'{"attempt":null,"engine_id":"e1"}', "attempt"),
    ("progress", b"{}", "attempt"),
    ("progress", b'{"attempt":1,"fraction":-0.1}', "fraction"),
    ("progress", b'{"attempt":1,"fraction":"half"}', "fraction"),
    ("progress", b'{"attempt":1,"fps":NaN}', "fps"),
    ("progress", b'{"attempt":1,"phase":"' + LONG.encode() + b'"}', "phase"),
]


@pytest.mark.parametrize("kind,body,field", REPORTS, ids=lambda v: repr(v)[:50])
async def test_a_wrong_field_of_a_report_is_400_and_named(
    farm: Farm, kind: str, body: bytes, field: str
) -> None:
    job = await farm.assigned()
    before = farm.stored()
    answer = problem(await farm.client.post(f"/jobs/{job['job_id']}/{kind}", body), 400)
    assert answer["field"] == field
    assert farm.stored() == before


@pytest.mark.parametrize(
    "body,field",
    [
        (b'{"engine_id":5}', "engine_id"),
        (b'{"engine_id":""}', "engine_id"),
        (b'{"engine_id":"a/b"}', "engine_id"),
        (b'{"engine_id":"' + LONG.encode() + b'"}', "engine_id"),
    ],
)
async def test_a_wrong_engine_id_gets_no_job(farm: Farm, body: bytes, field: str) -> None:
    await farm.submit()
    before = farm.stored()
    assert problem(await farm.client.post("/assign_job/", body), 400)["field"] == field
    assert farm.stored() == before


@pytest.mark.parametrize(
    "body,field",
    [
        (b"{}", "engine_id"),
        (b'{"engine_id":"e1"}', "benchmark_time"),
        (b'{"engine_id":"e1","benchmark_time":null}', "benchmark_time"),
        (b'{"engine_id":"e1","benchmark_time":-1}', "benchmark_time"),
        (b'{"engine_id":"e1","benchmark_time":1e999}', "benchmark_time"),
    ],
)
async def test_a_wrong_benchmark_is_400_and_named(farm: Farm, body: bytes, field: str) -> None:
    await farm.beat()
    answer = problem(await farm.client.post("/engines/benchmark_result", body), 400)
    assert answer["field"] == field


@pytest.mark.parametrize(
    "body,field",
    [
        (b'{"priority":null}', "priority"),
        (b'{"priority":9}', "priority"),
        (b'{"labels":null}', "labels"),
        (b'{"labels":{"":""}}', "labels"),
        (b'{"not_before":-1}', "not_before"),
        (b'{"paused":"yes"}', "paused"),
    ],
)
async def test_a_wrong_change_is_400_and_named(farm: Farm, body: bytes, field: str) -> None:
    job = await farm.submit()
    before = farm.stored()
    answer = problem(await farm.client.patch(f"/jobs/{job['job_id']}", body), 400)
    assert answer["field"] == field
    assert farm.stored() == before


@pytest.mark.parametrize(
    "job_id",
    [
        "a%2Fb", "..%2F..%2Fetc%2Fpasswd", "%20", "%F0%9F%8E%AC", "x" * 10_240, "%0A", "a%25b",
        "null", "-1", "'--", "%ED%95%9C",
    ],
    ids=lambda v: v[:12],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["", "/complete", "/why"])
async def test_any_unknown_job_id_is_404(farm: Farm, job_id: str, kind: str) -> None:
    method, body = ("POST", {"output_url": "u"}) if kind == "/complete" else ("GET", None)
    reply = await farm.client.request(method, f"/jobs/{job_id}{kind}", body)
    assert problem(reply, 404)["detail"] == "Job not found"


@pytest.mark.parametrize("job_id", ["%ff", "%zz", "%", "%00", "%c0%af"])
async def test_an_id_that_is_not_valid_text_is_400(daemon: Daemon, job_id: str) -> None:
    problem(await daemon.client.get(f"/jobs/{job_id}"), 400)
