"""Accept TLS connections: version 1.2 or later, reloadable certificate, optional client CA.

Each reload builds a new context from the files and swaps it in only on success: open connections
keep theirs, new ones get the new certificate, and a bad file changes nothing. The handshake runs in
the connection's own task, within the timeout of its first head, so a client that never finishes it
delays nobody else.
"""

import ssl
from pathlib import Path

import trio


class TlsFiles:
    """The files of a TLS configuration, and the context made of them.

    Args:
        certificate: PEM, the chain included.
        key: PEM; None: the certificate's file contains it.
        client_ca: PEM of the authorities that clients' certificates must come from; None: clients
            need no certificate.

    Raises: `OSError` with a message that names the file; `reload` raises it, too.
    """

    def __init__(
        self, certificate: Path, key: Path | None = None, client_ca: Path | None = None
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again, for new connections; if one cannot be read, nothing changes."""
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        path = self._certificate
        try:
            # A key with a passphrase is rejected: otherwise OpenSSL would ask on the terminal and
            # wait without end.
            context.load_cert_chain(self._certificate, self._key, password=_no_passphrase)
            if self._client_ca is not None:
                path = self._client_ca
                context.load_verify_locations(path)
                context.verify_mode = ssl.CERT_REQUIRED
        except ssl.SSLError as fault:
            raise OSError(fault.errno, _describe_error(fault, path, self._key)) from fault
        except OSError as fault:
            files = ", ".join(str(p) for p in (path, self._key) if p is not None)
            raise OSError(fault.errno, f"cannot read {files}: {fault.strerror}") from fault
        return context


class TlsListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener for TLS connections.

    Args:
        inner: accepts the TCP connections.
        files: provides the TLS context of each.
    """

    def __init__(self, inner: trio.SocketListener, files: TlsFiles) -> None:
        self.inner = inner
        self._files = files

    async def accept(self) -> trio.abc.Stream:
        """Return the next connection, before its handshake."""
        stream = await self.inner.accept()
        return trio.SSLStream(stream, self._files.context, server_side=True, https_compatible=True)

    async def aclose(self) -> None:
        """Stop listening."""
        await self.inner.aclose()


def _no_passphrase() -> str:
    raise OSError(
        None, "the key has a passphrase, which the daemon cannot ask for; store it without one"
    )


def _describe_error(fault: ssl.SSLError, path: Path, key: Path | None) -> str:
    reason = fault.reason or str(fault)
    if reason == "KEY_VALUES_MISMATCH":
        return f"the key {key or path} does not belong to the certificate {path}"
    return f"{path} (key: {key or 'in the same file'}) is not valid PEM: {reason}"
