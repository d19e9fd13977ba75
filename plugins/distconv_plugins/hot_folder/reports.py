"""Write the report on a video's job, `<video>.report.json`, to where the result goes."""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from distconv_plugins.hot_folder.names import report_name
from distconv_plugins.hot_folder.records import Order, replace_file
from distconv_plugins.hot_folder.settings import is_below_a_root
from distconv_spool import BadDrop, Disk
from distconvd.errors import DistconvError
from distconvd.model import Job

_REPORT_BYTES_MAX = 65_536


class _Source(msgspec.Struct):
    source_url: str | None = None


def write_report(
    disk: Disk,
    order: Order,
    size_bytes: int,
    job: Job | None,
    refusal: DistconvError | None,
    roots: Sequence[Path],
) -> Path:
    """Write the report on an ended order, replacing an earlier one on the same video.

    Args:
        disk: the file system.
        order: the order.
        size_bytes: the video's size.
        job: the job as it ended; None if the daemon rejected it.
        refusal: why it did.
        roots: folders below which reports may be written.

    Raises `OSError`. Durable on return.
    """
    folder = Path(os.fsdecode(unquote_to_bytes(order.report_folder)))
    if not is_below_a_root(str(folder), roots):  # a link, or a root that is no longer allowed
        raise OSError(errno.EPERM, "not below an allowed folder (output_roots)", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    video = os.fsdecode(unquote_to_bytes(order.path)).rpartition("/")[2]
    target = folder / report_name(video)
    if _is_on_another(disk, target, order.fields["source_url"]):
        target = folder / report_name(video, order.key[:8])
    found = _report(order, size_bytes, job, refusal)
    data = json.dumps(found, indent=2).encode("ascii") + b"\n"
    replace_file(disk, target, folder / f".{order.key}.distconv-part", data)
    disk.sync_dir(folder)
    return target


def _report(
    order: Order, size_bytes: int, job: Job | None, refusal: DistconvError | None
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "source_url": order.fields["source_url"],
        "target_codec": order.codec,
        "job_id": order.job_id,
        "status": "rejected",
        "source_size_bytes": size_bytes,
        "output_url": None,
        "output_size_bytes": None,
        "damage": None,
        "error": None if refusal is None else refusal.detail,
    }
    if job is not None:
        report |= {
            "job_id": job.job_id,
            "status": job.status.value,
            "output_url": job.output_url,
            "output_size_bytes": job.result.size_bytes if job.result else None,
            "damage": job.result.damage if job.result else None,
            "error": job.error_message,
            "error_class": job.error_class.value if job.error_class else None,
            "engine": job.assigned_engine,
            "created_at": job.created_at,
            "finished_at": job.finished_at,
        }
    return report


def _is_on_another(disk: Disk, path: Path, source_url: str) -> bool:
    """Whether a file with this name exists that is not a report on this video."""
    try:
        data, _ = disk.read(path, _REPORT_BYTES_MAX)
        return msgspec.json.decode(data, type=_Source).source_url != source_url
    except FileNotFoundError:
        return False
    except (BadDrop, ValueError, RecursionError):
        return True  # not a report of ours: it is left alone
