"""Compute how many connections this process can serve, given its limit of file descriptors.

A daemon whose clients use up every descriptor can no longer write its journal. So the soft limit is
raised as far as the hard one allows, and a reserve is kept for the daemon itself.
"""

import logging
import resource

log = logging.getLogger("distconvd.edge")

RESERVE = 128
"""Descriptors for the store, the spool, media files, listeners and the log."""


def affordable_connections(wanted: int) -> int:
    """Raise the limit for `wanted` connections; return how many of them fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    affordable = max(soft - RESERVE, 1)
    log.warning(
        "connections_max is %d, but this process may open only %d files, so it serves at most %d "
        "connections at the same time; raise the limit (ulimit -n, LimitNOFILE=)",
        wanted,
        soft,
        affordable,
    )
    return affordable
