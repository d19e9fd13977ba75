"""Checks of the way to the daemon, below HTTP: its name, its port, TLS."""

import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from distconv_client.certificates import trusted
from distconv_client.doctor.finding import CHECK_S, Finding, fail, ok, skip, within

EXPIRES_SOON_DAYS = 14
_LOOK = "Check the address (--server, DISTCONV_SERVER, or `server` in the configuration file)"


class Network(NamedTuple):
    """The doors to the network; tests replace them."""

    resolve: Callable[..., list[Any]] = socket.getaddrinfo
    connect: Callable[..., socket.socket] = socket.create_connection
    proxies: Callable[[], dict[str, str]] = urllib.request.getproxies
    is_bypassed: Callable[[str], Any] = urllib.request.proxy_bypass
    tls: Callable[[], ssl.SSLContext] = trusted


class Target(NamedTuple):
    """Where the daemon is, by its URL."""

    url: httpx.URL

    @property
    def host(self) -> str:
        """Its name, or its address."""
        return self.url.host

    @property
    def port(self) -> int:
        """Its port."""
        return self.url.port or (443 if self.is_tls else 80)

    @property
    def is_tls(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.url.scheme == "https"


def proxy_for(target: Target, network: Network) -> str | None:
    """Return the proxy that requests go through, None where they go straight."""
    if target.host in ("localhost", "127.0.0.1", "::1") or network.is_bypassed(target.host):
        return None
    proxies = network.proxies()
    return proxies.get(target.url.scheme) or proxies.get("all")


def check_name(target: Target, network: Network) -> Finding:
    """Whether the daemon's name has an address."""
    try:
        found = within(
            CHECK_S,
            lambda: network.resolve(target.host, target.port, type=socket.SOCK_STREAM),
        )
    except TimeoutError as error:
        return fail(
            "name", f"{target.host}: {error}", "The name server does not answer; check DNS here."
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = f"{_LOOK}, or add the name to DNS or /etc/hosts."
        return fail("name", f"{target.host} has no address: {reason}", remedy)
    addresses = list(dict.fromkeys(entry[4][0] for entry in found))
    return ok("name", f"{target.host} is {', '.join(map(str, addresses))}")


def check_port(target: Target, network: Network) -> tuple[Finding, str | None]:
    """Whether somebody listens; returns this machine's address on the way there as well."""
    where = f"{target.host}:{target.port}"
    try:
        with network.connect((target.host, target.port), timeout=CHECK_S) as there:
            here = str(there.getsockname()[0])
    except TimeoutError:
        remedy = "A firewall on the way, or the wrong address: allow TCP to that port."
        return fail("port", f"{where} does not answer within {CHECK_S:g} s", remedy), None
    except ConnectionRefusedError:
        remedy = (
            "Start distconvd there, or find its port (its first line says where it listens). "
            "Without a key it serves its own machine only."
        )
        return fail("port", f"nobody listens at {where}", remedy), None
    except OSError as error:
        detail = f"{where} cannot be reached: {error.strerror or error}"
        return fail("port", detail, f"{_LOOK} and the network between."), None
    return ok("port", f"{where} is open"), here


def check_tls(target: Target, network: Network) -> tuple[Finding, bool]:
    """Whether the certificate is one that we trust, for that name, and not about to expire.

    Returns whether one can go on from there as well: one that expires soon hinders nothing today.
    """
    if not target.is_tls:
        return skip("tls", "the address is http://, so nothing is encrypted on the way"), True
    try:
        certificate = _certificate(target, network)
    except ssl.SSLCertVerificationError as error:
        detail = f"the certificate is not good: {error.verify_message}"
        return fail("tls", detail, _mend(error)), False
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        remedy = "If the daemon has no certificate, write http:// for https://."
        return fail("tls", f"no TLS there: {reason}", remedy), False
    return _expiry(certificate), True


def _expiry(certificate: dict[str, Any]) -> Finding:
    left_days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86_400
    detail = f"the certificate is good for {left_days:.0f} more days"
    if left_days < EXPIRES_SOON_DAYS:
        return fail("tls", detail, "Renew it; distconvd takes the new file on SIGHUP.")
    return ok("tls", detail)


def _certificate(target: Target, network: Network) -> dict[str, Any]:
    context = network.tls()
    with (
        network.connect((target.host, target.port), timeout=CHECK_S) as plain,
        context.wrap_socket(plain, server_hostname=target.host) as secured,
    ):
        return secured.getpeercert() or {}


_EXPIRED, _UNKNOWN_ISSUER = {9, 10}, {2, 18, 19, 20, 21}
"""Verification errors of OpenSSL (x509_vfy.h): not yet valid, expired; nobody vouches for it."""


def _mend(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _EXPIRED:
        return "Renew the certificate, or set this machine's clock."
    if error.verify_code in _UNKNOWN_ISSUER:
        return "If it is your own authority, name its file: SSL_CERT_FILE=ca.pem distconv doctor"
    return "Use a name that is in the certificate, or get one for this name."
