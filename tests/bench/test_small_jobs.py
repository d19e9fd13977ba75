"""Test what the bench makes of the phases in the engine's log."""

from pathlib import Path

from bench.small_jobs import phases_of


def test_time_that_no_phase_took_lies_between_jobs(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        '{"event": "job started"}\n'
        '{"event": "job completed", "seconds": {"probe": 0.1, "encode": 1.0}}\n'
        '{"event": "job completed", "seconds": {"probe": 0.3, "encode": 2.0}}\n'
    )
    assert phases_of(log, 2, 3.5) == "probe 200, encode 1500, between jobs 50 ms"
