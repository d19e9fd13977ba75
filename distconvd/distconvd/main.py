"""Run the command `distconvd`: the daemon, or a subcommand on its configuration or store.

Each command is imported when it runs: `distconvd keys` needs no server, and half the time.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from distconvd.commands.flags import parser
from distconvd.config import Config, Loaded, load_config
from distconvd.errors import ConfigError, StoreError
from distconvd.host.logs import set_up_logs

EXIT_FAILED = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits 0, 1 (failed), 2 (usage) or 78 (configuration)."""
    given = parser().parse_args(arguments)
    known = {"config", *Config.__struct_fields__}
    flags = {key: value for key, value in vars(given).items() if key in known}
    try:
        loaded = load_config(flags, os.environ, given.sets)
        set_up_logs(loaded.config.log_level, loaded.config.log_format)
        _run(given, loaded)
    except ConfigError as error:
        print(f"distconvd: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except StoreError as error:
        print(f"distconvd: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)


def _run(given: argparse.Namespace, loaded: Loaded) -> None:
    config = loaded.config
    match given.command:
        case None:
            from distconvd.commands import serve

            serve.run(config)
        case "config" | "plugins":
            from distconvd.commands import show

            show.show_config(loaded) if given.command == "config" else show.show_plugins(config)
        case "check":
            from distconvd.commands import check

            check.run(config)
        case "keys":
            from distconvd.commands import keys

            keys.run(given, config)
        case "audit":
            from distconvd.commands.audit import command

            command.run(given, config)
        case "export" | "import":
            from distconvd.commands import transfer

            transfer.run(given, config)
        case "migrate":
            from distconvd.commands import migrate

            migrate.run(config, given.source, given.target)
        case unknown:
            raise AssertionError(f"the command {unknown!r} has flags and no code")


__all__ = ["EXIT_FAILED", "main", "parser"]
