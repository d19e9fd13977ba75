"""What can be wrong with a spool or a drop. A failing disk is an `OSError` and stays one."""


class SpoolError(Exception):
    """Base of the errors below; its text is for the person who set up or filled the spool."""


class SpoolUnusable(SpoolError):
    """The folder is no spool, or not a safe one: missing parts, links, world-writable."""


class SpoolBusy(SpoolError):
    """Another daemon runs under the same owner's name."""


class BadDrop(SpoolError):
    """The drop can never become a job: not a plain file, too large, not JSON, not an object."""
