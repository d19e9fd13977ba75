"""TLS on a listener: at least 1.2, a certificate that can be replaced, client certificates if asked.

Each reload makes a whole new context from the files and swaps it in only if that worked: open
connections keep theirs, new ones get the new certificate, and a bad file changes nothing. The
handshake is made by the connection's own task, within the time that it has for its first head, so
a client that never finishes one holds up nobody.
"""

import ssl
from pathlib import Path

import trio


class TlsFiles:
    """The files of a TLS configuration, and the context made of them.

    Args:
        certificate: PEM, the chain included.
        key: PEM; None: it is in the certificate's file.
        client_ca: PEM of the authorities that clients' certificates must come from; None: clients
            need none.

    Raises: `OSError` with a message that names the file, also by `reload`.
    """

    def __init__(
        self, certificate: Path, key: Path | None = None, client_ca: Path | None = None
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self.context = self._load()

    def reload(self) -> None:
        """Read the files anew, for connections from now on; what cannot be read changes nothing."""
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        place = self._certificate
        try:
            # A key with a passphrase is refused: else OpenSSL asks on the terminal, for ever.
            context.load_cert_chain(self._certificate, self._key, password=_no_passphrase)
            if self._client_ca is not None:
                place = self._client_ca
                context.load_verify_locations(place)
                context.verify_mode = ssl.CERT_REQUIRED
        except ssl.SSLError as fault:
            raise OSError(fault.errno, _describe_error(fault, place, self._key)) from fault
        except OSError as fault:
            files = ", ".join(str(p) for p in (place, self._key) if p is not None)
            raise OSError(fault.errno, f"cannot read {files}: {fault.strerror}") from fault
        return context


class TlsListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts connections that speak TLS.

    Args:
        inner: accepts the connections.
        files: has the context for each.
    """

    def __init__(self, inner: trio.SocketListener, files: TlsFiles) -> None:
        self.inner = inner
        self._files = files

    async def accept(self) -> trio.abc.Stream:
        """Return the next connection; its handshake is yet to come."""
        stream = await self.inner.accept()
        return trio.SSLStream(stream, self._files.context, server_side=True, https_compatible=True)

    async def aclose(self) -> None:
        """Stop listening."""
        await self.inner.aclose()


def _no_passphrase() -> str:
    raise OSError(None, "it has a passphrase, which nobody is here to type; store it without")


def _describe_error(fault: ssl.SSLError, place: Path, key: Path | None) -> str:
    reason = fault.reason or str(fault)
    if reason == "KEY_VALUES_MISMATCH":
        return f"the key {key or place} does not belong to the certificate {place}"
    return f"{place} (key {key or 'in it'}) is no PEM that OpenSSL takes: {reason}"
