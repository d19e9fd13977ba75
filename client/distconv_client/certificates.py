"""Which certificates are trusted: those that `SSL_CERT_FILE` or `SSL_CERT_DIR` names, else the usual.

They count for every address. That loopback is asked without the environment's proxies is another
matter, see `api`.
"""

import os
import ssl

import httpx

from distconv_client.errors import BadInput

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def trusted() -> ssl.SSLContext:
    """Return what certificates are held against; raises `BadInput` for a file that is none."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        # The first that is set is the one that counts.
        named = (f"{name}={value}" for name in VARIABLES if (value := os.environ.get(name)))
        raise BadInput(
            f"{next(named, 'The list of authorities')} cannot be read as certificates: "
            f"{error.strerror or error}.",
            hint="Name a file of certificates in PEM format with SSL_CERT_FILE.",
        ) from error


def verification(transport: httpx.BaseTransport | None) -> ssl.SSLContext | bool:
    """Return what an `httpx.Client` is to verify with; one with a transport leaves it to that.

    Raises `BadInput` as `trusted` does.
    """
    return True if transport is not None else trusted()
