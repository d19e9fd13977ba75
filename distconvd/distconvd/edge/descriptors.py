"""How many connections this process can afford: each costs a file descriptor, and so do files.

A daemon whose clients hold every descriptor can no longer write its journal. So the soft limit is
raised as far as the hard one allows, and a reserve is kept from the clients.
"""

import logging
import resource

log = logging.getLogger("distconvd.edge")

RESERVE = 128
"""Descriptors for the store, the spool, media files, listeners and the log."""


def affordable_connections(wanted: int) -> int:
    """Make room for `wanted` connections; returns how many of them there is room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    affordable = max(soft - RESERVE, 1)
    log.warning(
        "connections_max is %d, but this process may open only %d files: at most %d are served "
        "at once; raise the limit (ulimit -n, LimitNOFILE=)",
        wanted,
        soft,
        affordable,
    )
    return affordable
