"""Test where settings come from, which source wins, and what is rejected."""

from pathlib import Path

import pytest

from distconv_engine.config import HELP, Config, load_config, make_parser
from distconv_engine.errors import ConfigError
from distconv_engine.main import kept_engine_id, main
from distconvd.api.validate import check_id
from distconvd.errors import BadRequest


def load(*arguments: str, environ: dict[str, str] | None = None) -> Config:
    return load_config(arguments, environ or {}, "1.0").config


def test_flags_win_over_variables_variables_over_the_file_and_the_file_over_defaults(
    tmp_path: Path,
) -> None:
    file = tmp_path / "engine.toml"
    file.write_text("slots = 2\npoll_s = 7\nheartbeat_s = 3\n")
    environ = {"DISTCONV_CONFIG": str(file), "DISTCONV_SLOTS": "3", "DISTCONV_POLL_S": "8"}
    loaded = load_config(["--slots", "4"], environ, "1.0")
    assert (loaded.config.slots, loaded.config.poll_s, loaded.config.heartbeat_s) == (4, 8, 3)
    assert loaded.config.drain_s == Config().drain_s
    assert [loaded.origin[name] for name in ("slots", "poll_s", "heartbeat_s", "drain_s")] == [
        "flag",
        "environment",
        "file",
        "default",
    ]


def test_lists_are_split_and_a_repeated_flag_adds_up(tmp_path: Path) -> None:
    config = load("--tags", "gpu, fast", "--source-root", str(tmp_path), "--source-root", "/")
    assert config.tags == ["gpu", "fast"]
    assert config.source_root == [tmp_path, Path("/")]


def test_an_empty_variable_leaves_the_default() -> None:
    assert load("--output", "", environ={"DISTCONV_FFMPEG": ""}).output is None


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--slots", "0"], "slots"),
        (["--slots", "many"], "slots"),
        (["--heartbeat-s", "-1"], "heartbeat_s"),
        (["--log-format", "xml"], "log_format"),
        (["--server", "ftp://x"], "server"),
        (["--server", "nonsense"], "server"),
        (["--output", "ftp://x/y"], "output"),
        (["--source-root", "/no/such/place"], "source_root"),
        (["--config", "/no/such/file"], "config file"),
    ],
)
def test_an_invalid_value_is_rejected_with_the_name_of_its_setting(
    arguments: list[str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    assert words in str(caught.value)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("text", ["slots = [", "colour = 1", "slots = 'many'"])
def test_an_invalid_config_file_is_rejected(text: str, tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load("--config", str(file))


def test_every_setting_has_help_and_a_flag() -> None:
    assert set(HELP) == set(Config.__struct_fields__)
    shown = make_parser("1.0").format_help()
    for name in Config.__struct_fields__:
        assert "--" + name.replace("_", "-") in shown


def test_help_shows_an_example_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "distconv-engine --server http://" in capsys.readouterr().out


def test_wrong_usage_exits_2_and_wrong_configuration_78(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DISTCONV_CONFIG", raising=False)
    with pytest.raises(SystemExit) as caught:
        main(["--no-such-flag"])
    assert caught.value.code == 2
    assert main(["--slots", "0"]) == 78
    assert main(["--ffmpeg", str(tmp_path / "none"), "--work-dir", str(tmp_path)]) == 78
    assert "is not a program" in capsys.readouterr().err


@pytest.mark.parametrize("engine_id", ["a/b", "a b", "a\tb", "a" * 129])
def test_an_id_that_the_daemon_would_reject_is_rejected_at_the_start_in_the_same_words(
    engine_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadRequest) as refused:
        check_id(engine_id, "engine_id")
    words = str(refused.value).removeprefix("'engine_id' ")
    assert main(["--engine-id", engine_id, "--work-dir", str(tmp_path)]) == 78
    assert f"Setting engine_id {words}" in capsys.readouterr().err
    (tmp_path / "engine_id").write_text(engine_id)
    with pytest.raises(ConfigError, match="slashes or control characters"):
        kept_engine_id(tmp_path)


@pytest.mark.parametrize("key", ["sesame\r", "ses\name", " sesame", "sesame\udcff"])
def test_a_key_that_cannot_be_sent_is_rejected_by_its_origin_and_not_shown(
    key: str, tmp_path: Path
) -> None:
    file = tmp_path / "engine.toml"
    file.write_text('api_key = "sesame\\r"')
    for arguments, environ, origin in (
        (["--api-key", key], {}, "--api-key"),
        ([], {"DISTCONV_API_KEY": key}, "DISTCONV_API_KEY"),
        (["--config", str(file)], {}, "api_key in the config file"),
    ):
        with pytest.raises(ConfigError, match=f"from {origin} has") as caught:
            load(*arguments, environ=environ)
        assert "ses" not in str(caught.value)
        assert caught.value.exit_code == 78


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r", " \n\n"])
def test_a_key_file_may_have_any_line_end_and_contain_more_than_ascii(
    end: str, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_bytes(f"sésame{end}".encode())
    assert load("--api-key-file", str(file)).api_key == "sésame"


@pytest.mark.parametrize("content", [b"", b"\r\n", b"sesame\r\nother", b"sesame\xff"])
def test_a_key_file_without_exactly_one_key_is_rejected_without_showing_it(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="api_key_file") as caught:
        load("--api-key-file", str(file))
    assert "sesame" not in str(caught.value)
