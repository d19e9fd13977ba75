"""Register the stores `json` (the default), `spool` and `memory`; see docs/storage.md."""

from distconv_plugins.stores.json_store.store import JsonStore
from distconv_plugins.stores.memory import MemoryStore
from distconv_plugins.stores.spool_store.store import SpoolStore
from distconvd import hookimpl
from distconvd.hookspecs import PluginContext, Registrar, StoreFactory


@hookimpl
def distconvd_register_stores(registrar: Registrar[StoreFactory]) -> None:
    """Register the stores."""
    registrar.add("json", _json)
    registrar.add("spool", _spool)
    registrar.add("memory", _memory)


def _json(context: PluginContext) -> JsonStore:
    return JsonStore(context.state_file, disk=context.disk)


def _spool(context: PluginContext) -> SpoolStore:
    return SpoolStore(context.state_file, disk=context.disk)


def _memory(context: PluginContext) -> MemoryStore:
    return MemoryStore()
