"""Add, list and revoke the keys of a key file (`distconvd keys`)."""

# ruff: noqa: T201 - a command's output is its job

import argparse
import re
import time
from pathlib import Path
from typing import Any, get_args

from distconvd.auth_keys.key_file import KeyRecord, KeyRole, add_key, read_keys, revoke_key
from distconvd.config import Config
from distconvd.errors import ConfigError
from distconvd.host.logs import stamp

_SPAN = re.compile(r"(\d{1,5})([hdwy])")
_SPAN_S = {"h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}

_EPILOG = """\
examples:
  distconvd keys add --key-file keys.json --name anna --role submit --role read
  distconvd keys add --key-file keys.json --name attic --role engine --engine attic-1
  distconvd keys add --key-file keys.json --name visitor --role read --expires 30d
  distconvd keys list --key-file keys.json
  distconvd keys revoke --key-file keys.json --name visitor

The file contains hashes: a key is printed once, when it is made. A running daemon sees a change within
a second or two, and immediately on SIGHUP. Roles: read, submit, engine, admin (which includes all).
"""


def add_to(commands: Any) -> None:
    """Add the command to those of `distconvd`."""
    keys = commands.add_parser(
        "keys",
        help="add, list or revoke keys of a key file",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make a key and print it, once")
    add.add_argument("--name", required=True, help="the key's name in logs")
    add.add_argument(
        "--role", action="append", required=True, choices=get_args(KeyRole), dest="roles",
        help="what the key may do; repeatable",
    )  # fmt: skip
    add.add_argument("--engine", metavar="ID", help="the only engine that may use the key")
    add.add_argument("--expires", metavar="SPAN", help="how long it is valid: 12h, 30d, 8w, 1y")
    listing = actions.add_parser("list", help="show the keys without their secrets")
    revoke = actions.add_parser("revoke", help="revoke a key")
    revoke.add_argument("--name", required=True, help="the key's name")
    for action in (add, listing, revoke):
        # A default would override a flag that stands before the command.
        action.add_argument("--key-file", metavar="FILE", default=argparse.SUPPRESS)


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
