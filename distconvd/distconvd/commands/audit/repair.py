"""Write what is whole of a damaged store (`distconvd audit --repair`).

A start of the daemon recovers the same; but it keeps the list of what was lost, and warns, until a person
has seen it here.
"""

# ruff: noqa: T201 - a command's output is its job

import trio

from distconvd.commands.audit.stored import StoredAudit
from distconvd.commands.open_read_only import build_store, collect_damage, open_read_only
from distconvd.config import Config
from distconvd.errors import ConfigError
from distconvd.plugin_host.loading import Context
from distconvd.store import DamageReporter


async def repair(config: Config) -> None:
    """Recover the store of a configuration, and print and acknowledge its damage.

    Raises:
        ConfigError: there is no such store, or it is of a kind that does not report damage.
        StoreError: a daemon uses it, or it cannot be opened.
        OSError: the disk failed.
    """
    async with open_read_only(config, is_tolerant=True):
        pass  # checks that there is a store, before anything is written
    store = build_store(config, Context(config))
    if not isinstance(store, DamageReporter):
        raise ConfigError(
            f"the store {config.store!r} does not report damage, so there is nothing to repair",
            exit_code=2,
        )
    with collect_damage():  # printed here instead
        snapshot = await store.load()
    try:
        for finding in StoredAudit(snapshot, [], store.damage).damage():
            print(finding.line("Acknowledged."))
        await store.acknowledge_damage()
    finally:
        with trio.CancelScope(shield=True):
            await store.aclose()
