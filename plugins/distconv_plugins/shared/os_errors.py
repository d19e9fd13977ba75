"""Describe operating system errors in words, for logs and configuration errors."""

from distconv_spool import printable


def describe_error(error: Exception) -> str:
    """Return an error's text; for an `OSError` its file and reason in words, without the number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    file = f"{printable(str(error.filename))}: " if error.filename else ""
    return file + error.strerror
