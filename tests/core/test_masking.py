"""The secrets of URLs are masked; what identifies them stays."""

import msgspec
import pytest

from distconvd.model import mask_record, mask_urls, may_have_secrets

CASES = {
    "http://h/a.mp4": "http://h/a.mp4",
    "file:///srv/a b.mp4": "file:///srv/a b.mp4",
    "http://anna:pw@h/a": "http://***@h/a",
    "http://anna@h:8080/a": "http://***@h:8080/a",
    "ftp://anna:p@ss:w@h/a": "ftp://***@h/a",
    "HTTPS://anna:pw@h": "HTTPS://***@h",
    "https://h/a?X-Amz-Signature=secret&sig=secret": "https://h/a?X-Amz-Signature=***&sig=***",
    "https://h/a?secret": "https://h/a?***",
    "https://h/a?x=": "https://h/a?x=***",
    "https://h/a?": "https://h/a?",
    "https://h?t=secret@x": "https://h?t=***",
    "https://h/a#access_token=secret": "https://h/a#***",
    "https://h/mail@home.mp4": "https://h/mail@home.mp4",
    "s3://key:secret@bucket/a": "s3://***@bucket/a",
}


@pytest.mark.parametrize("url", CASES)
def test_user_and_query_of_a_url_are_masked(url: str) -> None:
    assert mask_urls(url) == CASES[url]
    assert mask_urls(mask_urls(url)) == CASES[url]


def test_urls_within_a_sentence_are_masked_and_its_words_stay() -> None:
    text = "GET 'http://a:secret@h/x?t=secret': it answered 404, not http://b:secret@h. Try again."
    assert (
        mask_urls(text)
        == "GET 'http://***@h/x?t=***': it answered 404, not http://***@h. Try again."
    )


@pytest.mark.parametrize(
    "record",
    [
        {"source_url": "http://a:secret@h/x", "output": {"url": "https://h/?sig=secret"}},
        {"attempts": [{"message": 'see "http://a:secret@h/x"', "log_tail": "http://h/?secret\nx"}]},
        {"source_url": 'http://a:sec"ret\\@h/x'},
    ],
)
def test_a_record_is_masked_in_every_string(record: object) -> None:
    encoded = msgspec.json.encode(record)
    for written in (encoded, encoded.replace(b"/", b"\\/"), encoded.replace(b"@", b"\\u0040")):
        assert may_have_secrets(written)
        shown = msgspec.json.decode(mask_record(written))
        assert b"sec" not in msgspec.json.encode(shown)
        assert list(shown) == list(record)  # type: ignore[call-overload] # a dictionary


def test_a_record_without_secrets_is_returned_as_it_is() -> None:
    record = b'{ "source_url": "http://h/a.mp4" }'
    assert mask_record(record) is record
