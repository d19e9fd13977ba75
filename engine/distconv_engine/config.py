"""Load the settings: flags over `DISTCONV_*` over a TOML file over defaults, all checked.

Every setting has one name: `work_dir` is `--work-dir`, `DISTCONV_WORK_DIR` and `work_dir = …`.
`Config` is the table: its fields, types, bounds and defaults are the settings, `HELP` says what
each is for, and a test compares the two, the flags and the documents.
"""

import argparse
import os
import socket
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from distconv_engine.errors import ConfigError
from distconv_engine.key import checked_key
from distconvd.model import ID_RULE, Limits, Slots, explain, is_id

KEY_BYTES_MAX = 4096
Positive = Annotated[float, Meta(gt=0)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of one engine. Times are in seconds, sizes as the name says."""

    server: str = "http://127.0.0.1:8080"
    api_key: str | None = None
    api_key_file: Path | None = None
    engine_id: str | None = None
    work_dir: Path = Path("distconv-engine-work")
    output: str | None = None
    source_root: list[Path] = []
    source_hosts: list[str] = []
    output_hosts: list[str] = []
    slots: Slots = 1
    tags: list[str] = []
    ffmpeg: str | None = None
    hardware: Literal["off", "prefer"] = "off"
    software_fallback: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    heartbeat_s: Positive = 10.0
    poll_s: Annotated[float, Meta(ge=0)] = 30.0
    push: Literal["auto", "off"] = "auto"
    benchmark_every_days: Annotated[float, Meta(ge=0)] = 30.0
    drain_s: Annotated[float, Meta(ge=0)] = 30.0
    stall_s: Positive = 120.0
    disk_reserve_mb: Annotated[float, Meta(ge=0)] = 512.0
    stream_min_mb: Annotated[float, Meta(ge=0)] = 100.0
    fetch_tries: Annotated[int, Meta(ge=1, le=100)] = 4
    source_rate_min: Annotated[int, Meta(ge=0)] = 100_000
    niceness: Annotated[int, Meta(ge=0, le=19)] = 5
    memory_limit_mb: Positive | None = None
    cpu_limit_s: Positive | None = None


HELP: dict[str, str] = {
    "server": "base URL of the daemon",
    "api_key": "key for the daemon's API (better: DISTCONV_API_KEY, which `ps` does not show)",
    "api_key_file": "a file with that key, such as a credential of systemd; --api-key overrides it",
    "engine_id": "name of this engine; default: the host's name and a number kept in the work dir",
    "work_dir": "where downloads, unfinished outputs and undelivered reports are kept",
    "output": "where results go if the job names no output: a directory, or an http(s) URL for PUT; "
    "default: the daemon's media store",
    "source_root": "a directory that file:// sources may be read from and file:// outputs "
    "written to; may be given more than once; default: none, so file:// URLs are refused",
    "source_hosts": "hosts, *.DOMAINs, addresses and networks that sources are fetched from, with ! before "
    "one to deny it, separated by commas; default: *, every public address, and addresses that a job names",
    "output_hosts": "the same for outputs by http(s)",
    "slots": "how many jobs run at the same time",
    "tags": "what jobs may require of this engine, separated by commas",
    "ffmpeg": "`system`: the ffmpeg of this system; or the path of an ffmpeg, with ffprobe in the same "
    "folder; default: the bundled one",
    "hardware": "`prefer` uses the hardware encoders that passed a test encode",
    "software_fallback": "whether a job may be encoded in software when the hardware encoder fails",
    "log_level": "debug, info, warning or error",
    "log_format": "text or json",
    "heartbeat_s": "longest time in seconds between heartbeats; less with a short lease",
    "poll_s": "how long one request for work waits at the daemon",
    "push": "`auto` uses a websocket if the daemon has one, and polls otherwise",
    "benchmark_every_days": "after this many days the engine repeats its benchmark, in a moment "
    "without jobs; 0: only on request, and for a new ffmpeg or hardware",
    "drain_s": "how long running jobs may continue after SIGTERM before they are released",
    "stall_s": "an ffmpeg without progress and without CPU use for this long is killed",
    "disk_reserve_mb": "disk space in MB to keep free; with less, no job is taken",
    "stream_min_mb": "jobs of this size and more with an http(s) source are streamed: nothing of "
    "source or result is stored in the work directory; 0: never",
    "fetch_tries": "after this many tries in a row without progress a download fails",
    "source_rate_min": "an http(s) source that sends fewer bytes than this in a minute is given up; 0: never",
    "niceness": "how much ffmpeg yields to other programs: 0 (not at all) to 19",
    "memory_limit_mb": "limit in MB on the address space of each ffmpeg",
    "cpu_limit_s": "limit in seconds on the CPU time of each ffmpeg",
}
_KEY_ORIGINS = {
    "flag": "--api-key",
    "environment": "DISTCONV_API_KEY",
    "file": "api_key in the config file",
}
_LISTS = {"source_root": os.pathsep, "source_hosts": ",", "output_hosts": ",", "tags": ","}
_DESCRIPTION = """\
Transcoding engine: takes jobs from distconvd, runs ffmpeg, and reports a job as complete
only when the output has been verified against the source and stored durably."""
_EXAMPLES = """\
examples:
  # work for a daemon on this machine, results into the daemon's media store
  distconv-engine --server http://127.0.0.1:8080

  # two jobs at the same time, sources and results on a shared disk
  distconv-engine --server http://dispatch:8080 --slots 2 \\
      --source-root /srv/media --output /srv/media/done

  # the same from a file; DISTCONV_API_KEY contains the key
  distconv-engine --config /etc/distconv/engine.toml

Each setting is also a variable (--work-dir: DISTCONV_WORK_DIR) and a line of the TOML file
(work_dir = "/var/lib/distconv"). Flags override variables, variables override the file.
SIGTERM drains: running jobs may finish for --drain-s, then they are released, which costs
no retry; a second SIGTERM ends immediately. Exit codes: 0 clean, 2 wrong usage, 78 wrong
configuration."""


class Loaded(NamedTuple):
    """A checked configuration and where each value came from."""

    config: Config
    origin: dict[str, str]


def make_parser(version: str) -> argparse.ArgumentParser:
    """Return the parser whose flags are the fields of `Config`."""
    parser = argparse.ArgumentParser(
        prog="distconv-engine",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action="version", version=f"distconv-engine {version}")
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
    for name in Config.__struct_fields__:
        action = "append" if name == "source_root" else "store"
        parser.add_argument(
            "--" + name.replace("_", "-"), action=action, metavar=_metavar(name), help=HELP[name]
        )
    return parser


def load_config(arguments: Sequence[str], environ: Mapping[str, str], version: str) -> Loaded:
    """Merge flags, variables, file and defaults; raises `ConfigError` for a wrong value."""
    flags: dict[str, Any] = vars(make_parser(version).parse_args(arguments))
    path = flags.pop("config", None) or environ.get("DISTCONV_CONFIG")
    layers = [
        ("file", _from_file(Path(path)) if path else {}),
        ("environment", _from_environment(environ)),
        ("flag", {name: _split(name, value) for name, value in flags.items()}),
    ]
    merged: dict[str, Any] = {}
    origin = dict.fromkeys(Config.__struct_fields__, "default")
    for layer, values in layers:
        merged.update(values)
        origin.update(dict.fromkeys(values, layer))
    # An empty value removes what a lower layer has set, which leaves the default.
    config = _convert({name: value for name, value in merged.items() if value != ""})
    if config.api_key is None and config.api_key_file is not None:
        config = msgspec.structs.replace(config, api_key=_read_key(config.api_key_file))
    elif config.api_key is not None:
        checked_key(config.api_key, _KEY_ORIGINS[origin["api_key"]])
    _check(config)
    return Loaded(config, origin)


def default_engine_id(number: str) -> str:
    """Return a name that says which machine it is and stays unique on it."""
    return f"{socket.gethostname()}-{number}"[: Limits.id_chars]


def _metavar(name: str) -> str:
    special = {"output": "DIR_OR_URL", "server": "URL", "api_key": "KEY", "engine_id": "ID"}
    special["ffmpeg"] = "system|PATH"
    if name in special:
        return special[name]
    return "DIR" if name in ("work_dir", "source_root") else name.rsplit("_", 1)[-1].upper()


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"Cannot read the config file {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {path} is not TOML: {error}") from error
    for name in values:
        if name not in Config.__struct_fields__:
            raise ConfigError(f"The config file {path}: the setting {name} is not accepted.")
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in Config.__struct_fields__:
        value = environ.get("DISTCONV_" + name.upper())
        if value:
            found[name] = _split(name, value)
    return found


def _split(name: str, value: object) -> object:
    """Turn `a,b` into a list for a list setting; other settings stay as they are."""
    if name not in _LISTS or not (isinstance(value, str) or name == "source_root"):
        return value
    parts = cast(list[str], value) if isinstance(value, list) else str(value).split(_LISTS[name])
    return [part.strip() for part in parts if part.strip()]


def _convert(values: dict[str, Any]) -> Config:
    try:
        return msgspec.convert(values, Config, strict=False, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        fault = explain(error, Config)
        where = fault.field or "settings"
        if fault.bound is not None:
            raise ConfigError(f"Setting {where} {fault.bound}.") from error
        raise ConfigError(f"Setting {where}: {fault.message}.") from error


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value:
        return Path(value).expanduser().absolute()
    raise ValueError("expected a path")


def _read_key(path: Path) -> str:
    """Return the key that a file contains on its one line."""
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES_MAX + 1).decode("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"Setting api_key_file: {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"Setting api_key_file: {path} is not UTF-8 text.") from error
    if not (0 < len(key) < KEY_BYTES_MAX and key.isprintable()):
        raise ConfigError(f"Setting api_key_file: {path} must contain one key on one line.")
    return key


def check_engine_id(engine_id: str, origin: str) -> None:
    """Raise `ConfigError` for a name that the daemon would reject."""
    if not is_id(engine_id):
        raise ConfigError(f"{origin} {ID_RULE}.")


def _check(config: Config) -> None:
    if config.engine_id is not None:
        check_engine_id(config.engine_id, "Setting engine_id")
    _check_url("server", config.server)
    if config.output and "://" in config.output and not config.output.startswith("file://"):
        _check_url("output", config.output)
    for root in config.source_root:
        if not root.is_dir():
            raise ConfigError(f"Setting source_root: {root} is not a directory.")


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"Setting {name}: expected a URL such as http://127.0.0.1:8080, not {url!r}."
        )
