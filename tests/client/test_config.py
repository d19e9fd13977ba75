"""Test the settings: which source wins, and how wrong values are reported."""

from pathlib import Path

import pytest

from distconv_client import BadInput
from distconv_client.config import config_path, load_settings


def write(environ: dict[str, str], content: str) -> Path:
    path = config_path(environ)
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def test_without_settings_the_daemon_is_on_loopback_and_has_no_key(
    environ: dict[str, str],
) -> None:
    settings = load_settings(environ=environ)
    assert (settings.server, settings.api_key) == ("http://127.0.0.1:8080", None)


def test_flags_win_over_environment_over_file(environ: dict[str, str]) -> None:
    write(environ, 'server = "http://file:1"\napi_key = "file"')
    assert load_settings(environ=environ).server == "http://file:1"
    environ |= {"DISTCONV_SERVER": "http://env:2"}
    settings = load_settings(environ=environ)
    assert (settings.server, settings.api_key) == ("http://env:2", "file")
    environ |= {"DISTCONV_API_KEY": "env"}
    settings = load_settings("http://flag:3", environ=environ)
    assert (settings.server, settings.api_key) == ("http://flag:3", "env")
    assert load_settings(api_key="flag", environ=environ).api_key == "flag"


def test_an_empty_value_counts_as_not_given(environ: dict[str, str]) -> None:
    environ |= {"DISTCONV_SERVER": "", "DISTCONV_API_KEY": ""}
    settings = load_settings(environ=environ)
    assert (settings.server, settings.api_key) == ("http://127.0.0.1:8080", None)


def test_the_file_is_under_home_when_xdg_is_not_set() -> None:
    assert config_path({"HOME": "/home/a"}) == Path("/home/a/.config/distconv/config.toml")


@pytest.mark.parametrize(
    "content, said",
    [
        ("server = ", "Cannot read"),
        ("sever = 'http://a'", "'sever' is not accepted"),
        ("api_key = 7", "api_key must be a string"),
    ],
)
def test_a_wrong_file_is_reported_with_its_fault(
    environ: dict[str, str], content: str, said: str
) -> None:
    path = write(environ, content)
    with pytest.raises(BadInput, match=said) as caught:
        load_settings(environ=environ)
    assert str(path) in caught.value.message


def test_a_file_that_is_not_utf8_is_rejected(environ: dict[str, str]) -> None:
    path = config_path(environ)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="Cannot read"):
        load_settings(environ=environ)


def test_a_broken_file_does_not_matter_when_everything_is_given(environ: dict[str, str]) -> None:
    write(environ, "server = ")
    assert load_settings("http://a", "k", environ=environ).server == "http://a"


@pytest.mark.parametrize(
    "server", ["localhost:8080", "ftp://a", "http://", "dispatch", "http://a:x"]
)
def test_an_invalid_address_is_refused_with_an_example(
    environ: dict[str, str], server: str
) -> None:
    with pytest.raises(BadInput, match="is not the URL of a daemon") as caught:
        load_settings(server, environ=environ)
    assert "http://127.0.0.1:8080" in caught.value.hint


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_out_of_range_is_refused_with_the_range(environ: dict[str, str], port: int) -> None:
    with pytest.raises(BadInput, match="is out of range") as caught:
        load_settings(f"http://127.0.0.1:{port}", environ=environ)
    assert "1 to 65535" in caught.value.hint


@pytest.mark.parametrize(
    "key", ["sesame\r", "ses\name", " sesame", "sesame\x7f", "sesame\udcff", " "]
)
def test_a_key_that_cannot_be_sent_is_refused_with_its_origin_and_never_shown(
    environ: dict[str, str], key: str
) -> None:
    with pytest.raises(BadInput, match="from --api-key has") as caught:
        load_settings(api_key=key, environ=environ)
    assert "ses" not in caught.value.message + caught.value.hint
    with pytest.raises(BadInput, match="from DISTCONV_API_KEY has"):
        load_settings(environ={**environ, "DISTCONV_API_KEY": key})
    path = write(environ, 'api_key = "sesame\\r"')
    with pytest.raises(BadInput, match=f"from {path} has"):
        load_settings(environ=environ)
