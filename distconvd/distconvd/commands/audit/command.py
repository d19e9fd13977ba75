"""Audit a store or a running daemon, and print what is wrong (`distconvd audit`)."""

# ruff: noqa: T201 - a command's output is its job

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing

import msgspec
import trio

from distconvd.commands.audit.asking import EXIT_NOT_AUDITED, RemoteDaemon
from distconvd.commands.audit.finding import Finding
from distconvd.commands.audit.invariants import remedy_of
from distconvd.commands.audit.repair import repair
from distconvd.commands.audit.running import RunningAudit
from distconvd.commands.audit.stored import StoredAudit
from distconvd.commands.counts import count
from distconvd.commands.open_read_only import open_read_only
from distconvd.config import Config
from distconvd.core.archive import BucketFile, bucket_files
from distconvd.errors import ConfigError, StoreError
from distconvd.store import TABLES

SHOWN_MAX = 100
"""Findings shown of each kind; the rest are counted."""


def run(given: argparse.Namespace, config: Config) -> None:
    """Audit what the command line names; exits 1 if there are faults. Raises `ConfigError`."""
    if given.repair and given.url:
        raise ConfigError(
            "--repair needs the store itself, with its daemon stopped; name it with --store and "
            "--state-file instead of --url",
            exit_code=2,
        )
    try:
        if given.repair:
            trio.run(repair, config)
        faults = _audit_daemon(given.url, config) if given.url else trio.run(_audit_store, config)
    except (StoreError, OSError) as error:
        raise ConfigError(_describe(error), exit_code=EXIT_NOT_AUDITED) from error
    if faults:
        sys.exit(1)


def _describe(error: StoreError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


async def _audit_store(config: Config) -> int:
    async with open_read_only(config, is_tolerant=True) as view:
        audit = StoredAudit(view.snapshot, view.damage, view.reported)
        faults = _print_findings(audit.findings(_archive_of(config)))
        counts = [count(len(getattr(view.snapshot, table)), table) for table in TABLES]
        _conclude(f"{view.place}: {', '.join(counts)}, {audit.archived} archived", faults)
    return faults.total()


def _archive_of(config: Config) -> Iterator[BucketFile]:
    return iter(()) if config.archive_path is None else bucket_files(config.archive_path)


def _audit_daemon(url: str, config: Config) -> int:
    with closing(RemoteDaemon(url, config.api_key)) as daemon:
        audit = RunningAudit(daemon)
        try:
            faults = _print_findings(audit.findings())
        except (msgspec.DecodeError, LookupError) as error:
            raise ConfigError(
                f"{url} does not answer like distconvd: {error}; is it the address of a daemon of "
                "this version?",
                exit_code=EXIT_NOT_AUDITED,
            ) from error
    rest = audit.ended_not_asked
    note = f", the attempts of {count(rest, 'ended jobs')} not checked" if rest else ""
    counts = f"{count(audit.jobs, 'jobs')}, {count(audit.engines, 'engines')}"
    _conclude(f"{url}: {counts}{note}", faults)
    return faults.total()


def _print_findings(findings: Iterable[Finding]) -> Counter[str]:
    """Print findings as they come; return how many of each kind there were."""
    faults = Counter[str]()
    for finding in findings:
        faults[finding.kind] += 1
        if faults[finding.kind] <= SHOWN_MAX:
            print(finding.line(remedy_of(finding)))
    for kind, number in faults.items():
        if number > SHOWN_MAX:
            print(f"and {number - SHOWN_MAX} more of [{kind}]")
    return faults


def _conclude(what: str, faults: Counter[str]) -> None:
    total = faults.total()
    print(f"{what}: {count(total, 'faults') if total else 'clean'}")
