"""Configuration: precedence with origins; each mistake is reported with its key and origin."""

import json
import math
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
import pytest

from distconvd.config import Config, EdgeSettings, check_table, describe, load_config
from distconvd.dispatch import DispatchSettings
from distconvd.errors import ConfigError
from distconvd.plugin_host.loading import Context, Plugins


def toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "distconvd.toml"
    path.write_text(text)
    return str(path)


def test_the_defaults_are_the_originals() -> None:
    config = load_config({}, {}).config
    assert (config.port, config.state_file) == (8080, "dispatch_server_state.json")
    assert (config.log_level, config.api_key, config.bind_host) == ("INFO", None, "127.0.0.1")


def test_flags_override_the_environment_which_overrides_the_file(tmp_path: Path) -> None:
    path = toml(
        tmp_path, 'port = 1001\nstore = "spool"\nstate_file = "f"\n[dispatch]\nlease_s = 9\n'
    )
    loaded = load_config(
        {"port": 1003, "config": path, "store": None},
        {"DISTCONV_PORT": "1002", "DISTCONV_STATE_FILE": "e", "DISTCONV_TRACE_PLUGINS": "1"},
        ["dispatch.pickup_s=3"],
    )
    config = loaded.config
    assert (config.port, config.state_file, config.store) == (1003, "e", "spool")
    assert (config.dispatch.lease_s, config.dispatch.pickup_s) == (9, 3)
    origins = {key: origin for key, _, origin in describe(loaded)}
    assert origins["port"] == "flag"
    assert origins["state_file"] == "environment DISTCONV_STATE_FILE"
    assert origins["store"] == origins["dispatch.lease_s"] == f"file {path}"
    assert origins["dispatch.pickup_s"] == "flag --set"
    assert origins["policy"] == "default"


def test_the_environment_can_name_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, "port = 1001")
    assert load_config({}, {"DISTCONV_CONFIG": path}).config.port == 1001


@pytest.mark.parametrize(
    "given,level",
    [("DEBUG", "DEBUG"), ("info", "INFO"), ("WARN", "WARN"), ("ERROR", "ERROR"), ("warning", "WARNING")],
)  # fmt: skip
def test_log_levels_are_the_originals_in_any_case(given: str, level: str) -> None:
    assert load_config({}, {"DISTCONV_LOG_LEVEL": given}).config.log_level == level


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    config = load_config(
        {}, {"DISTCONV_SOURCE_SCHEMES": "https,file", "DISTCONV_PLUGINS": ""}
    ).config
    assert (config.source_schemes, config.plugins) == (["https", "file"], [])


def test_with_a_key_every_address_is_served_and_without_one_only_loopback() -> None:
    assert load_config({"api_key": "k"}, {}).config.bind_host == "0.0.0.0"
    assert load_config({"api_key": "k", "auth": "none"}, {}).config.bind_host == "127.0.0.1"
    for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"):
        load_config({"host": host}, {})
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com"):
        with pytest.raises(ConfigError, match="without a key") as caught:
            load_config({"host": host}, {})
        assert caught.value.exit_code == 78


def test_secrets_are_masked_including_those_of_plugins() -> None:
    loaded = load_config(
        {"api_key": "hush-1", "plugin": {"mail": {"password": "hush-2", "api_token": "hush-3"}}}, {}
    )
    shown = {key: value for key, value, _ in describe(loaded)}
    assert shown["api_key"] == shown["plugin.mail.password"] == "********"
    assert "hush" not in repr(shown)
    assert shown["dispatch.idempotency_keys_max"] == "100000"


def test_the_password_in_a_url_is_masked_too() -> None:
    urls = ["http://u:hush@x/", "http://a/", 'http://u:"hush"@y:8/z', "see user@host"]
    loaded = load_config({"plugin": {"webhook": {"urls": urls}}}, {})
    [shown] = [value for key, value, _ in describe(loaded) if key == "plugin.webhook.urls"]
    assert json.loads(shown) == [
        "http://********@x/", "http://a/", "http://********@y:8/z", "see user@host"
    ]  # fmt: skip


ABSURD: list[tuple[str, str, Any]] = [
    ("spool-intake", "keep_days", math.inf),
    ("spool-intake", "keep_days", 1e300),
    ("spool-intake", "keep_days", -1),
    ("spool-intake", "poll_s", math.nan),
    ("spool-intake", "settle_s", "nan"),
    ("hot-folder", "settle_s", math.nan),
    ("hot-folder", "poll_s", math.inf),
    ("hot-folder", "poll_s", 0),
    ("hot-folder", "settle_s", -1),
    ("webhook", "timeout_s", math.nan),
    ("webhook", "timeout_s", 0),
    ("webhook", "queue_max", 0),
    ("exec", "timeout_s", math.nan),
    ("exec", "timeout_s", 0),
    ("exec", "concurrency", 0),
    ("exec", "concurrency", 10**30),
    ("size-aware", "medium_from_mb", math.nan),
    ("size-aware", "large_from_mb", -1.0),
    ("media-store", "file_bytes_max", -1),
    ("media-store", "reserve_bytes", -1),
    ("key-file", "poll_s", 0.0),
    ("fair-share", "weights", {"a": math.inf}),
]


@pytest.mark.parametrize("plugin, setting, value", ABSURD)
def test_an_absurd_number_of_a_plugin_is_rejected_with_both_names_by_start_and_config(
    plugin: str, setting: str, value: object
) -> None:
    loaded = load_config({"plugin": {plugin: {setting: value}}}, {})
    kind = Plugins([]).settings_types()[plugin]
    said = rf"\[plugin\.{plugin}\].*{setting}"
    with pytest.raises(ConfigError, match=said):
        Context(loaded.config).settings(plugin, kind)
    with pytest.raises(ConfigError, match=said):
        describe(loaded, {plugin: kind})


class Odd(msgspec.Struct):
    """Settings of a plugin with bounds in places that have no single value."""

    token: Annotated[str, msgspec.Meta(min_length=20)] = "x" * 20
    weights: dict[str, Annotated[float, msgspec.Meta(gt=0)]] = {}
    rules: list["Odd"] = []


@pytest.mark.parametrize(
    "table, said",
    [
        ({"token": "hush"}, "token is ********; it is shorter than 20 characters"),
        ({"weights": {"a": 0}}, "weights must be more than 0"),
        ({"rules": [{"weights": {"a": 0}}]}, "rules.weights must be more than 0"),
    ],
)
def test_a_setting_of_a_plugin_out_of_its_bounds_is_named_and_a_secret_not_shown(
    table: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_table("odd", table, Odd)
    assert str(caught.value) == f"configuration of [plugin.odd]: {said}"


def test_every_number_in_the_settings_has_a_bound() -> None:
    for kind in (Config, DispatchSettings, EdgeSettings):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            assert hint not in (int, float), f"{name} is any number"


WRONG: list[tuple[str, str]] = [
    ("colour = 1", "configuration of colour (from file {}): this setting is not accepted"),
    (
        "[dispatch]\nleese_s = 3",
        "configuration of dispatch.leese_s (from file {}): this setting is not",
    ),
    ("[edge]\nfoo = 3", "configuration of edge.foo (from file {}): this setting is not accepted"),
    ('port = "x"', "configuration of port (from file {}): "),
    ("port = 70000", "port is 70000; it must be from 1 to 65535 (from file {})"),
    ("plugins = [5]", "configuration of plugins (from file {}): "),
    ("plugins = 5", "configuration of plugins (from file {}): "),
    ('log_format = "xml"', "configuration of log_format (from file {}): "),
    ('log_level = "LOUD"', "log_level is 'LOUD'; choose one of DEBUG, INFO"),
    ('api_key = " "', "api_key is empty"),
    ("[dispatch]\nlease_s = -1", "dispatch.lease_s is -1"),
    (
        "[dispatch]\nlost_attempts_max = 65",
        "dispatch.lost_attempts_max is 65; it must be at most 64",
    ),
    ("[dispatch]\nlease_s = 0", "dispatch.lease_s is 0; it must be more than 0"),
    ("[dispatch]\nlease_s = 1e15", "it must be less than 1e+15"),
    ("[dispatch]\nlease_s = nan", "dispatch.lease_s is nan"),
    ("[dispatch]\nlease_s = inf", "dispatch.lease_s is inf"),
    ('[dispatch]\nlease_s = "soon"', "configuration of dispatch.lease_s (from file {}): "),
    ("[edge]\nconnections_max = 0", "edge.connections_max is 0"),
    ("drain_s = -1", "drain_s is -1"),
    ("dispatch = 5", "configuration of dispatch (from file {}): "),
    ("port = ", "{} is not valid TOML"),
    ("a = 1\na = 2", "{} is not valid TOML"),
    ("port = 1" + "0" * 4400, "{} is not valid TOML"),
]


@pytest.mark.parametrize("text,said", WRONG)
def test_a_mistake_in_the_file_names_the_file_and_the_key(
    tmp_path: Path, text: str, said: str
) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config({"config": path}, {})
    assert said.format(path) in str(caught.value)
    assert caught.value.exit_code == 78


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration file .*missing"):
        load_config({"config": str(tmp_path / "missing.toml")}, {})
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml is not valid TOML"):
        load_config({"config": str(path)}, {})


@pytest.mark.parametrize(
    "environ,said",
    [
        ({"DISTCONV_PORT": "eighty"}, "configuration of port (from environment DISTCONV_PORT)"),
        ({"DISTCONV_PORT": ""}, "configuration of port (from environment DISTCONV_PORT)"),
        ({"DISTCONV_LOG_LEVEL": "LOUD"}, "log_level is 'LOUD'"),
        ({"DISTCONV_API_KEY": ""}, "api_key is empty"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    environ: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({}, environ)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text,found",
    [
        ("port=99", {"port": 99}),
        ("dispatch.lease_s=7.5", {"dispatch.lease_s": 7.5}),
        ("policy=mine", {"policy": "mine"}),
        ('source_schemes=["https"]', {"source_schemes": ["https"]}),
        ("plugin.mine.a.b=x", {"plugin.mine.a.b": "x"}),
    ],
)
def test_set_can_give_any_setting(text: str, found: dict[str, Any]) -> None:
    config = load_config({}, {}, [text]).config
    for key, value in found.items():
        at: Any = config
        for part in key.split("."):
            at = at[part] if isinstance(at, dict) else getattr(at, part)
        assert at == value


def test_set_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        load_config({}, {}, ["port"])
