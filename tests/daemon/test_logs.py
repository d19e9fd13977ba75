"""Log lines: one per event; nothing in a line can look like another line or field."""

import json
import logging
import sys

import pytest

from distconvd.host.logs import JsonFormatter, TextFormatter, one_line, set_up_logs, stamp


def entry(message: str, *args: object, **fields: object) -> logging.LogRecord:
    record = logging.makeLogRecord({"name": "distconvd.x", "levelno": 20, "levelname": "INFO"})
    record.msg, record.args, record.created = message, args, 1_700_000_000.5
    vars(record).update(fields)
    return record


def test_a_text_line_has_time_level_logger_message_and_fields() -> None:
    line = TextFormatter().format(entry("job %s done", 5, job_id="1_0", engine_id=None))
    assert line == "2023-11-14T22:13:20.500Z INFO distconvd.x job 5 done job_id=1_0"


@pytest.mark.parametrize("evil", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\u2028b", "a\x85b", "a\ud800b"])
def test_input_from_a_caller_cannot_break_a_line(evil: str) -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(entry("it said %s", evil, job_id=evil))
        assert len(line.splitlines()) == 1
        assert line.isprintable()
    assert one_line("plain ü") == "plain ü"


def test_an_exceptions_text_cannot_look_like_an_entry() -> None:
    record = entry("failed")
    try:
        raise ValueError("x\n2023-11-14T22:13:20.500Z INFO distconvd.x forged")
    except ValueError:
        record.exc_info = sys.exc_info()
    lines = TextFormatter().format(record).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("  ") for line in lines[1:])
    assert "forged" in json.loads(JsonFormatter().format(record))["traceback"]


def test_a_field_cannot_replace_one_of_the_entrys_own() -> None:
    logged = json.loads(
        JsonFormatter().format(entry("m", level="forged", time="never", job_id="1_0"))
    )
    assert (logged["level"], logged["time"], logged["job_id"]) == (
        "INFO",
        stamp(1_700_000_000.5),
        "1_0",
    )


def test_the_originals_levels_are_known() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        for name, level in (("DEBUG", 10), ("INFO", 20), ("WARN", 30), ("ERROR", 40)):
            set_up_logs(name, "text")
            assert (root.level, len(root.handlers)) == (level, 1)
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])


def test_no_line_shows_the_secrets_of_a_url() -> None:
    url = "http://anna:s3cret@h/a.mp4?sig=s3cret"
    record = entry("failed: %s", url, reason=url)
    try:
        raise ValueError(f"no {url}")
    except ValueError:
        record.exc_info = sys.exc_info()
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record)
        assert "s3cret" not in line
        assert line.count("http://***@h/a.mp4?sig=***") == 3
