"""Settings: where they come from, which wins, and what is refused."""

from pathlib import Path

import pytest

from distconv_engine.config import HELP, Config, load_config, make_parser
from distconv_engine.errors import ConfigError
from distconv_engine.main import main


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
def test_a_wrong_value_is_refused_with_the_name_of_its_setting(
    arguments: list[str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    assert words in str(caught.value)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("text", ["slots = [", "colour = 1", "slots = 'many'"])
def test_a_wrong_file_is_refused_with_its_reason(text: str, tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load("--config", str(file))


def test_every_setting_has_help_and_a_flag() -> None:
    assert set(HELP) == set(Config.__struct_fields__)
    shown = make_parser("1.0").format_help()
    for name in Config.__struct_fields__:
        assert "--" + name.replace("_", "-") in shown


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
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
