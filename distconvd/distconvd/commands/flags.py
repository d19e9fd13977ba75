"""The command line of `distconvd`: every flag and subcommand, with its help.

It imports nothing that a subcommand needs to run: most of them would wait longer for the imports than
for their work.
"""

import argparse
from typing import Any, get_args

from distconvd import __version__
from distconvd.auth_keys.key_file import KeyRole
from distconvd.host.logs import LEVELS

_EPILOG = """\
examples:
  distconvd                                  serve this machine only, no key, port 8080
  distconvd --api-key SECRET                 serve the network, with a key
  DISTCONV_API_KEY=SECRET distconvd --port 9000 --state-file /var/lib/distconv/state.json
  distconvd --config /etc/distconv/distconvd.toml --log-format json
  distconvd --set dispatch.lease_s=30        set a setting in a table of the file
  distconvd config                           show the merged settings and where each is from
  distconvd check                            check whether it would start, part by part
  distconvd plugins                          list the plugins and their hooks
  distconvd keys add --key-file keys.json --name anna --role submit    print a new key, once
  distconvd migrate json:state.json spool:state.d     copy a store into an empty one
  distconvd audit --state-file state.json    check a store, or a daemon with --url, for faults
  distconvd export --state-file state.json > FILE     all records as NDJSON
  distconvd import --state-file new.json < FILE       into an empty store

Flags override environment variables (DISTCONV_PORT, …), these the file, and the file the defaults.
Without a key only loopback is served; a public address without a key is refused (exit 78).
SIGTERM drains and exits 0; a second one ends immediately. SIGHUP reads the key file again.
Docs: docs/user_guide.md
"""
_KEYS_EPILOG = """\
examples:
  distconvd keys add --key-file keys.json --name anna --role submit --role read
  distconvd keys add --key-file keys.json --name attic --role engine --engine attic-1
  distconvd keys add --key-file keys.json --name visitor --role read --expires 30d
  distconvd keys list --key-file keys.json
  distconvd keys revoke --key-file keys.json --name visitor

The file contains hashes: a key is printed once, when it is made. A running daemon sees a change within
a second or two, and immediately on SIGHUP. Roles: read, submit, engine, admin (which includes all).
"""
_AUDIT_EPILOG = """\
examples:
  distconvd audit --state-file /var/lib/distconv/state.json     a store that no daemon uses
  distconvd audit --store spool --state-file /var/lib/distconv/state
  distconvd audit --repair --state-file /var/lib/distconv/state.json
  DISTCONV_API_KEY=SECRET distconvd audit --url http://dispatch:8080     a daemon that runs

Without --repair a store is only read: nothing on disk changes, and no daemon can start meanwhile. To audit a store
that is in use, audit its daemon with --url, or copy state.json and audit the copy.
Each fault is one line: the record, what is wrong, the name of the rule, what to do.
Exit codes: 0 clean, 1 faults, 2 the audit could not run, 78 wrong configuration.
"""
_EXPORT_EPILOG = """\
examples:
  distconvd export --state-file /var/lib/distconv/state.json > farm.ndjson
  distconvd export --store spool --state-file /var/lib/distconv/state | zstd > farm.ndjson.zst

The store is only read, and no daemon may use it meanwhile; to export a json store in use, copy
state.json and export the copy. The archive and the media store are separate folders: copy them.
"""
_IMPORT_EPILOG = """\
examples:
  distconvd import --state-file /var/lib/distconv/state.json < farm.ndjson
  zstd -d < farm.ndjson.zst | distconvd import --store spool --state-file /var/lib/distconv/state

The target must be empty. A file that is cut off, damaged or of a newer format is rejected as a whole.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="distconvd",
        description="The DistConv dispatch server: takes transcoding jobs, keeps them safe, and"
        " gives each to the best engine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"distconvd {__version__}")
    top.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    top.add_argument("--host", metavar="ADDRESS", help="address to listen on")
    top.add_argument("--port", type=int, metavar="N", help="port to listen on (default 8080)")
    top.add_argument(
        "--listen", metavar="PLACE", action="append",
        help="HOST:PORT, unix:/PATH or systemd, instead of --host and --port; repeatable",
    )  # fmt: skip
    top.add_argument("--tls-certificate", metavar="FILE", help="speak TLS with this PEM chain")
    top.add_argument("--tls-key", metavar="FILE", help="its private key, if it is in another file")
    top.add_argument(
        "--tls-client-ca", metavar="FILE", help="clients need a certificate of this CA"
    )
    top.add_argument("--api-key", metavar="KEY", help="the key that callers must send")
    top.add_argument("--api-key-file", metavar="FILE", help="a file with that key")
    top.add_argument("--key-file", metavar="FILE", help="many keys with roles; see `keys --help`")
    top.add_argument("--state-file", metavar="PATH", help="where state is kept")
    top.add_argument("--store", metavar="NAME", help="json (default), spool, memory, or a plugin's")
    top.add_argument("--policy", metavar="NAME", help="scheduling policy (default size-aware)")
    top.add_argument(
        "--auth", metavar="NAME", help="authenticator (default: chosen by the key flags)"
    )
    top.add_argument(
        "--plugin", metavar="FILE_OR_MODULE", action="append", dest="plugins", help="load a plugin"
    )
    top.add_argument("--media-dir", metavar="DIR", help="where the media store keeps results")
    top.add_argument("--spool-dir", metavar="DIR", help="take jobs from files dropped in DIR")
    top.add_argument(
        "--log-level", metavar="LEVEL", type=str.upper, choices=sorted(LEVELS),
        help="DEBUG, INFO, WARN or ERROR",
    )  # fmt: skip
    top.add_argument("--log-format", choices=["text", "json"], help="one line per event in both")
    top.add_argument(
        "--set", metavar="KEY=VALUE", action="append", dest="sets", help="any setting by its key"
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("config", help="show the merged settings with the origin of each")
    commands.add_parser("check", help="check whether the daemon would start, without starting it")
    commands.add_parser("plugins", help="list the loaded plugins and their hooks")
    copying = commands.add_parser("migrate", help="copy a store into an empty one")
    copying.add_argument("source", metavar="FROM", help="STORE:PATH, for example json:state.json")
    copying.add_argument("target", metavar="TO", help="STORE:PATH, for example spool:state.d")
    _add_keys(commands)
    _add_audit(commands)
    _add_transfer(commands)
    return top


def _add_keys(commands: Any) -> None:
    """Add `keys` to those of `distconvd`."""
    keys = commands.add_parser(
        "keys",
        help="add, list or revoke keys of a key file",
        epilog=_KEYS_EPILOG,
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


def _add_audit(commands: Any) -> None:
    """Add `audit` to those of `distconvd`."""
    audit = commands.add_parser(
        "audit",
        help="check a store, or a running daemon, for faults",
        epilog=_AUDIT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument(
        "--repair",
        action="store_true",
        help="first write what is whole of a damaged store, and acknowledge the damage",
    )
    audit.add_argument("--url", metavar="URL", help="a running daemon, instead of a store")
    _add_store_flags(audit)


def _add_transfer(commands: Any) -> None:
    """Add `export` and `import` to those of `distconvd`."""
    for name, about, epilog in (
        ("export", "write all records of a store as NDJSON to standard output", _EXPORT_EPILOG),
        ("import", "read an export from standard input into an empty store", _IMPORT_EPILOG),
    ):
        command = commands.add_parser(
            name,
            help=about,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_store_flags(command)


def _add_store_flags(command: argparse.ArgumentParser) -> None:
    """Add flags that name the store, in addition to those before the command's name."""
    # A default would override flags that stand before the command.
    command.add_argument(
        "--store", metavar="NAME", default=argparse.SUPPRESS, help="json (default), spool, …"
    )
    command.add_argument(
        "--state-file", metavar="PATH", default=argparse.SUPPRESS, help="where state is kept"
    )
