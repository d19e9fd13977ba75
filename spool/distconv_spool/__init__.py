"""Submit jobs by dropping files into a folder: a protocol on disk (docs/spool.md).

No daemon and no network are needed here. A submitter uses `submit`, `look`, `wait` and
`read_result`; the daemon uses `create`, `StabilityTracker` and `Owner`. The two share only the
folders.
"""

from distconv_spool.disk import Disk, OsDisk
from distconv_spool.errors import BadDrop, SpoolBusy, SpoolError, SpoolUnusable
from distconv_spool.fields import DROP_BYTES_MAX
from distconv_spool.layout import Layout, check, create
from distconv_spool.names import mint_key, printable
from distconv_spool.owner import SCAN_MAX, Claim, Failure, Owner
from distconv_spool.retention import OLD_MAX, Pruned
from distconv_spool.stability import Observed, StabilityTracker
from distconv_spool.submit import Drop, submit
from distconv_spool.watch import Outcome, State, look, read_result, wait

__all__ = [
    "DROP_BYTES_MAX",
    "OLD_MAX",
    "SCAN_MAX",
    "BadDrop",
    "Claim",
    "Disk",
    "Drop",
    "Failure",
    "Layout",
    "Observed",
    "OsDisk",
    "Outcome",
    "Owner",
    "Pruned",
    "SpoolBusy",
    "SpoolError",
    "SpoolUnusable",
    "StabilityTracker",
    "State",
    "check",
    "create",
    "look",
    "mint_key",
    "printable",
    "read_result",
    "submit",
    "wait",
]
