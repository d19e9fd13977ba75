"""Test how the load generator splits replies, of HTTP and of beanstalkd."""

import pytest
from bench.load import Splitter, split_http
from bench.neighbour import split_beanstalkd

_REPLIES = [
    (split_http, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok")),
    (split_http, b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    (split_beanstalkd, b"INSERTED 7\r\n", (200, b"INSERTED 7")),
    (split_beanstalkd, b"RESERVED 7 4\r\n\r\nab\r\n", (200, b"RESERVED 7 4")),
    (split_beanstalkd, b"OUT_OF_MEMORY\r\n", (500, b"OUT_OF_MEMORY")),
]


@pytest.mark.parametrize("split, reply, expected", _REPLIES)
def test_a_reply_is_found_once_it_is_complete(
    split: Splitter, reply: bytes, expected: tuple[int, bytes]
) -> None:
    assert all(split(reply[:size]) is None for size in range(len(reply)))
    assert split(reply) == (*expected, b"")
    assert split(reply + b"next") == (*expected, b"next")
