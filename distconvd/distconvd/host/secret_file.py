"""Read a secret from its own file: a systemd credential, or one mounted into a container.

The mode of the file is not checked: systemd provides 0400, container runtimes 0444.
"""

from pathlib import Path

from distconvd.errors import ConfigError

SECRET_BYTES_MAX = 4096


def read_secret(setting: str, path: Path) -> str:
    """Return the one line of a file; raises `ConfigError` that names the setting and the file."""
    try:
        with path.open("rb") as file:
            secret = file.read(SECRET_BYTES_MAX + 1).decode("ascii").strip()
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{setting}: {path} contains more than plain ASCII") from error
    if not (0 < len(secret) < SECRET_BYTES_MAX and secret.isprintable()):
        raise ConfigError(f"{setting}: {path} must contain one line, which is the secret")
    return secret
