"""Check stored records, or a running daemon's replies, against the rules of the core.

The rules are pure functions in `invariants`; `stored` checks a store and its archive, `running` a daemon
over HTTP. `command` is the command `distconvd audit`.
"""

from distconvd.commands.audit.finding import Finding
from distconvd.commands.audit.invariants import REMEDIES, Case, job_findings

__all__ = ["REMEDIES", "Case", "Finding", "job_findings"]
