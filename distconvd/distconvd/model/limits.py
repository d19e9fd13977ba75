"""Define the bounds on the contents of messages; docs/protocol.md states each."""


class Limits:
    """Upper bounds, in characters or items unless the name says otherwise."""

    id_chars = 128
    """An engine id."""
    url_chars = 8192
    codec_chars = 32
    message_chars = 8192
    """An error message; a longer one is cut, not refused."""
    log_tail_chars = 16384
    labels = 32
    label_key_chars = 64
    label_value_chars = 256
    tags = 32
    tag_chars = 64
    codecs = 64
    held_jobs = 256
    slots = 64
    extra_bytes = 4096
    """Unknown heartbeat fields that are kept, as JSON."""
    result_chars = 1024
    """Any text in a job's result."""
    result_entries = 256
    """Entries of any list in a job's result."""
    job_size_mb = 1e12
    max_retries = 1000
    body_bytes = 1_048_576
