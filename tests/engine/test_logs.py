"""What an engine logs and reports shows no secrets of URLs."""

import io
import json
import logging
from collections.abc import Generator

import pytest

from distconv_engine.failures import InputFault
from distconv_engine.logs import JsonFormatter, Log, LogFormat, setup_logs

URL = "http://anna:s3cret@h/a.mp4?sig=s3cret"
MASKED = "http://***@h/a.mp4?sig=***"


@pytest.fixture
def own_logger() -> Generator[None]:
    """Leave the engine's logger as it was."""
    logger = logging.getLogger("distconv_engine")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_line_shows_the_secrets_of_a_url(own_logger: None, log_format: LogFormat) -> None:
    stream = io.StringIO()
    setup_logs("info", log_format, stream)
    Log().info("job started", source=URL, reason=ValueError(URL), seconds=1.5)
    assert "s3cret" not in stream.getvalue()
    assert stream.getvalue().count(MASKED) == 2


def test_a_failure_shows_no_secrets() -> None:
    failure = InputFault(f"The source {URL} is bad.", log_tail=f"{URL}: 404")
    assert (failure.message, failure.log_tail) == (f"The source {MASKED} is bad.", f"{MASKED}: 404")
    assert str(failure) == failure.message


def test_a_field_of_several_values_is_an_object_with_its_secrets_masked() -> None:
    record = logging.LogRecord("e", logging.INFO, "f", 1, "job completed", None, None)
    record.fields = {"seconds": {"encode": 1.5, "from": "http://u:secret@h/x"}}
    line = json.loads(JsonFormatter().format(record))
    assert line["seconds"]["encode"] == 1.5
    assert "secret" not in line["seconds"]["from"]
