"""Choose the trusted certificates: of `SSL_CERT_FILE` or `SSL_CERT_DIR`, else the defaults.

They apply to every address, loopback included; only the environment's proxies do not (see `api`).
"""

import os
import re
import ssl

import httpx

from distconv_client.errors import BadInput

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def trusted() -> ssl.SSLContext:
    """Return a context with the trusted certificates; raises `BadInput` for an invalid file."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError included
        # The first variable that is set is the one that counts.
        named = (f"{name}={value}" for name in VARIABLES if (value := os.environ.get(name)))
        raise BadInput(
            f"{next(named, 'The list of authorities')} cannot be read as certificates: "
            f"{plain_reason(error.strerror or str(error))}.",
            hint="Set SSL_CERT_FILE to a file of certificates in PEM format.",
        ) from error


def plain_reason(reason: str) -> str:
    """Return OpenSSL's reason without its code and the line of Python's source."""
    return re.sub(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$", "", reason)


def verification(transport: httpx.BaseTransport | None) -> ssl.SSLContext | bool:
    """Return the `verify` argument of an `httpx.Client`; a transport of its own ignores it.

    Raises `BadInput` like `trusted`.
    """
    return True if transport is not None else trusted()
