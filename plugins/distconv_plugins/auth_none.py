"""Let everybody in, for a single machine; the daemon refuses to serve the network with it."""

from distconvd import hookimpl
from distconvd.auth import ALL_ROLES
from distconvd.hookspecs import AuthenticatorFactory, PluginContext, Registrar
from distconvd.plugin_api import Principal


class NoAuthentication:
    """Everybody on this machine may do everything."""

    _everybody = Principal("anybody", ALL_ROLES)

    def authenticate(self, key: str | None, peer: str) -> Principal:
        """See `distconvd.auth.Authenticator`."""
        return self._everybody


@hookimpl
def distconvd_register_authenticators(registrar: Registrar[AuthenticatorFactory]) -> None:
    """Register the authenticator."""
    registrar.add("none", _make)


def _make(context: PluginContext) -> NoAuthentication:
    return NoAuthentication()
