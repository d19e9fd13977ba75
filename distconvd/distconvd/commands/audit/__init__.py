"""Auditing: whether what is kept can have come from a daemon that works.

The rules are in `invariants`, pure; `stored` holds a store and its archive against them, `running` a
daemon over HTTP. `command` is the command `distconvd audit`.
"""

from distconvd.commands.audit.finding import Finding
from distconvd.commands.audit.invariants import REMEDIES, Case, job_findings

__all__ = ["REMEDIES", "Case", "Finding", "job_findings"]
