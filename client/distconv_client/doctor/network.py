"""Check the network path to the daemon, below HTTP: its name, its port and TLS."""

import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from distconv_client.certificates import trusted
from distconv_client.display import text
from distconv_client.doctor.finding import CHECK_S, Finding, fail, ok, skip, within

EXPIRES_SOON_DAYS = 14
_CHECK_ADDRESS = (
    "Check the address (--server, DISTCONV_SERVER, or `server` in the configuration file)"
)


class Network(NamedTuple):
    """The calls to the network; tests replace them."""

    resolve: Callable[..., list[Any]] = socket.getaddrinfo
    connect: Callable[..., socket.socket] = socket.create_connection
    proxies: Callable[[], dict[str, str]] = urllib.request.getproxies
    is_bypassed: Callable[[str], Any] = urllib.request.proxy_bypass
    tls: Callable[[], ssl.SSLContext] = trusted


class Target(NamedTuple):
    """The daemon's address, from its URL."""

    url: httpx.URL

    @property
    def host(self) -> str:
        """Its host name or IP address."""
        return self.url.host

    @property
    def port(self) -> int:
        """Its port."""
        return self.url.port or (443 if self.is_tls else 80)

    @property
    def is_tls(self) -> bool:
        """Whether the connection uses TLS."""
        return self.url.scheme == "https"


def proxy_for(target: Target, network: Network) -> str | None:
    """Return the proxy for requests; None if they go directly to the daemon."""
    if target.host in ("localhost", "127.0.0.1", "::1") or network.is_bypassed(target.host):
        return None
    proxies = network.proxies()
    return proxies.get(target.url.scheme) or proxies.get("all")


def check_name(target: Target, network: Network) -> Finding:
    """Check that the daemon's name can be resolved."""
    try:
        found = within(
            CHECK_S,
            lambda: network.resolve(target.host, target.port, type=socket.SOCK_STREAM),
        )
    except TimeoutError as error:
        return fail(
            "name",
            f"{target.host}: {error}",
            "The name server does not answer; check the DNS settings.",
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = f"{_CHECK_ADDRESS}, or add the name to DNS or /etc/hosts."
        return fail("name", f"{target.host} cannot be resolved: {reason}", remedy)
    addresses = list(dict.fromkeys(entry[4][0] for entry in found))
    return ok("name", f"{target.host} resolves to {', '.join(map(str, addresses))}")


def check_port(target: Target, network: Network) -> tuple[Finding, str | None]:
    """Check that the port is open; also return this machine's address on that connection."""
    where = f"{target.host}:{target.port}"
    try:
        with network.connect((target.host, target.port), timeout=CHECK_S) as there:
            here = str(there.getsockname()[0])
    except TimeoutError:
        remedy = "A firewall blocks it, or the address is wrong: allow TCP to that port."
        return fail("port", f"{where} does not answer within {CHECK_S:g} s", remedy), None
    except ConnectionRefusedError:
        remedy = (
            "Start distconvd there, or check its port (its first log line shows its address). "
            "Without a key it accepts connections from its own machine only."
        )
        return fail("port", f"nothing listens at {where}", remedy), None
    except OSError as error:
        detail = f"{where} cannot be reached: {error.strerror or error}"
        return fail("port", detail, f"{_CHECK_ADDRESS} and the network."), None
    return ok("port", f"{where} is open"), here


def check_tls(target: Target, network: Network) -> tuple[Finding, bool]:
    """Check that the certificate is trusted, matches the name, and does not expire soon.

    Also returns whether later checks can run: a certificate that expires soon still works today.
    """
    if not target.is_tls:
        return skip(
            "tls", "the address starts with http://, so the connection is not encrypted"
        ), True
    try:
        certificate = _certificate(target, network)
    except ssl.SSLCertVerificationError as error:
        detail = f"the certificate is not valid: {error.verify_message}"
        return fail("tls", detail, _tls_remedy(error)), False
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        remedy = "If the daemon has no certificate, write http:// instead of https://."
        return fail("tls", f"the server does not speak TLS: {reason}", remedy), False
    return _expiry(certificate), True


def _expiry(certificate: dict[str, Any]) -> Finding:
    left_days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86_400
    detail = f"the certificate expires in {text.count(round(left_days), 'day')}"
    if left_days < EXPIRES_SOON_DAYS:
        return fail("tls", detail, "Renew it; distconvd loads the new file on SIGHUP.")
    return ok("tls", detail)


def _certificate(target: Target, network: Network) -> dict[str, Any]:
    context = network.tls()
    with (
        network.connect((target.host, target.port), timeout=CHECK_S) as plain,
        context.wrap_socket(plain, server_hostname=target.host) as secured,
    ):
        return secured.getpeercert() or {}


_EXPIRED, _UNKNOWN_ISSUER = {9, 10}, {2, 18, 19, 20, 21}
"""Verification errors of OpenSSL (x509_vfy.h): not yet valid or expired; unknown issuer."""


def _tls_remedy(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _EXPIRED:
        return "Renew the certificate, or set this machine's clock."
    if error.verify_code in _UNKNOWN_ISSUER:
        return (
            "If your own authority issued it, name its file: SSL_CERT_FILE=ca.pem distconv doctor"
        )
    return "Use a host name of the certificate, or get a certificate for this name."
