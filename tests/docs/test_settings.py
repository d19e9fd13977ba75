"""Check that the user guide documents every setting with its default, and no other."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.docs import pages

from distconv_client.config import FILE_KEYS
from distconv_engine import config as engine
from distconvd import config as daemon
from distconvd.plugin_host.loading import Plugins

GUIDE = pages.read("docs/user_guide.md")
PLUGINS = Plugins([]).settings_types()


def rows(heading: str) -> dict[str, str]:
    """Return setting and default of each row of the tables under a heading."""
    return {
        cells[0].strip("`"): cells[1].strip("`")
        for cells in pages.table_cells(pages.section(GUIDE, heading))
        if cells[0].startswith("`")
    }


def as_documented(value: object) -> str:
    """Return a default as the guide writes it."""
    if value is None or value == [] or value == {}:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return ",".join(value) if isinstance(value, list) else str(value)


def flat(settings: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if isinstance(value, msgspec.Struct):
            yield from flat(value, f"{prefix}{name}.")
        elif name != "plugin":
            yield prefix + name, value


def test_the_guide_documents_the_settings_of_the_daemon() -> None:
    ours = {name: as_documented(value) for name, value in flat(daemon.Config())}
    for name, kind in PLUGINS.items():
        ours |= {f"plugin.{key}": as_documented(v) for key, v in flat(kind(), f"{name}.")}
    assert rows("### Settings of the daemon") == ours


def test_the_guide_documents_the_settings_of_the_engine() -> None:
    ours = {name: as_documented(value) for name, value in flat(engine.Config())}
    assert rows("### Settings of the engine") == ours


def test_the_guide_documents_the_settings_of_the_client() -> None:
    assert set(rows("### Settings of the client")) == set(FILE_KEYS)


def test_the_guide_documents_every_metric() -> None:
    from distconv_plugins.listener_prometheus import JobMetrics
    from distconv_plugins.metrics_disk import DiskMetrics
    from distconvd.core.event_bus import EventBus
    from distconvd.core.metrics import Metrics
    from distconvd.dispatch import Dispatcher, DispatchSettings, Instant

    class Never:
        def place(self, job: object, engines: object, now_ms: int) -> Any:
            raise NotImplementedError

    core = Dispatcher(DispatchSettings(), Never(), Never(), Instant(0, 0.0))
    metrics = Metrics(core, EventBus())
    lines = metrics.render().decode().splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    names |= {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in [*JobMetrics().collect(), *DiskMetrics({}).collect()]
    }
    names = {name for name in names if not name.endswith("_created")}
    assert set(rows("## Metrics")) == names


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_reads_its_settings_from_the_table_that_the_guide_names(name: str) -> None:
    source = pages.read(f"plugins/{PLUGINS[name].__module__.replace('.', '/')}.py")
    named = f'settings("{name}"' in source
    assert named or (f'NAME = "{name}"' in source and "settings(NAME" in source)
