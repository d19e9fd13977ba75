"""The intake removes old results from its spool, and only after it has caught up."""

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from distconv_spool import create
from distconvd.errors import ConfigError
from distconvd.testing.daemon import open_daemon

YEARS_S = 2 * 365 * 86_400


def old(path: Path) -> Path:
    path.write_text("{}")
    then_s = path.stat().st_mtime - YEARS_S
    os.utime(path, (then_s, then_s))
    return path


async def until_gone(*paths: Path) -> None:
    with trio.fail_after(30):
        while any(path.exists() for path in paths):
            await trio.sleep(0.01)


async def test_results_of_two_years_ago_are_removed_with_their_drops(tmp_path: Path) -> None:
    spool = create(tmp_path / "spool")
    gone = [old(spool.results / "1_1.json"), old(spool.accepted / "1_1~a.json")]
    kept = old(spool.accepted / "1_2~b.json")
    async with open_daemon(spool_dir=str(spool.root)):
        await until_gone(*gone)
    assert kept.exists()


async def test_nothing_is_removed_when_keep_days_is_0(tmp_path: Path) -> None:
    spool = create(tmp_path / "spool")
    kept = [old(spool.results / "1_1.json"), old(spool.accepted / "1_1~a.json")]
    drop = spool.incoming / f"{0:032x}.json"
    drop.write_text("?")
    table = {"spool-intake": {"keep_days": 0, "poll_s": 0.01}}
    async with open_daemon(spool_dir=str(spool.root), plugin=table):
        await until_gone(drop)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("table", [{"keep_days": -1}, {"poll_s": 0}, {"settle_s": -0.1}])
async def test_an_invalid_time_in_the_settings_stops_the_start(
    table: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"\[plugin.spool-intake\]"):
        async with open_daemon(spool_dir=str(tmp_path / "spool"), plugin={"spool-intake": table}):
            pass
