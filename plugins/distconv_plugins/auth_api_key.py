"""Authenticate like the original: one key for all (`--api-key`, `DISTCONV_API_KEY`)."""

from distconvd import hookimpl
from distconvd.auth import ALL_ROLES, missing_key, same_key, wrong_key
from distconvd.errors import ConfigError
from distconvd.hookspecs import AuthenticatorFactory, PluginContext, Registrar
from distconvd.plugin_api import Principal


class ApiKey:
    """Anyone who knows the key may do everything."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._principal = Principal("api-key", ALL_ROLES)

    def authenticate(self, key: str | None, peer: str) -> Principal:
        """See `distconvd.auth.Authenticator`."""
        if key is None:
            raise missing_key()
        if not same_key(key, self._key):
            raise wrong_key()
        return self._principal


@hookimpl
def distconvd_register_authenticators(registrar: Registrar[AuthenticatorFactory]) -> None:
    """Register the authenticator."""
    registrar.add("api-key", _make)


def _make(context: PluginContext) -> ApiKey:
    if context.api_key is None:
        raise ConfigError("authenticator api-key needs a key: --api-key KEY or DISTCONV_API_KEY")
    return ApiKey(context.api_key)
