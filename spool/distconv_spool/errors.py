"""Define the errors of a spool or a drop. An error of the disk stays an `OSError`."""


class SpoolError(Exception):
    """Base of the errors below; its text is for the person who set up or filled the spool."""


class SpoolUnusable(SpoolError):
    """The folder is not a spool, or not a safe one: missing parts, links, world-writable."""


class SpoolBusy(SpoolError):
    """Another daemon runs with the same owner's name."""


class BadDrop(SpoolError):
    """The drop can never become a job: not a plain file, too large, not JSON, not an object."""
