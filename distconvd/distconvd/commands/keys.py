"""Add, list and revoke the keys of a key file (`distconvd keys`)."""

# ruff: noqa: T201 - a command's output is its job

import argparse
import re
import time
from pathlib import Path

from distconvd.auth_keys.key_file import KeyRecord, add_key, read_keys, revoke_key
from distconvd.config import Config
from distconvd.errors import ConfigError
from distconvd.host.logs import stamp

_SPAN = re.compile(r"(\d{1,5})([hdwy])")
_SPAN_S = {"h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}


def run(given: argparse.Namespace, config: Config) -> None:
    """Do what the command line asks for; raises `ConfigError`."""
    if config.key_file is None:
        raise ConfigError("no key file is given; add --key-file FILE", exit_code=2)
    path = Path(config.key_file)
    if given.action == "add":
        now_ms = int(time.time() * 1000)
        expires_at = None if given.expires is None else now_ms + _span_ms(given.expires)
        key = add_key(
            path, given.name, given.roles, now_ms, engine=given.engine, expires_at=expires_at
        )
        print(key)
    elif given.action == "revoke":
        revoke_key(path, given.name)
        print(f"revoked: {given.name}")
    else:
        for record in read_keys(path):
            print(_line(record))


def _line(record: KeyRecord) -> str:
    words = [record.name, ",".join(record.roles), f"made {stamp(record.created_at / 1000)}"]
    if record.engine is not None:
        words.append(f"engine {record.engine}")
    if record.expires_at is not None:
        is_over = record.expires_at <= time.time() * 1000
        words.append(f"{'expired' if is_over else 'until'} {stamp(record.expires_at / 1000)}")
    return "  ".join(words)


def _span_ms(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--expires is {text!r}; expected a span such as 12h, 30d, 8w or 1y", exit_code=2
        )
    return int(found[1]) * _SPAN_S[found[2]] * 1000
