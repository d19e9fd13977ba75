"""Check the layout rules of docs/design.md (section "Layout") by reading files and imports."""

import ast
import os
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from distconvd import plugin_api

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = {
    "distconvd": "distconvd",
    "plugins": "distconv_plugins",
    "spool": "distconv_spool",
    "engine": "distconv_engine",
    "client": "distconv_client",
}
PACKAGES = frozenset(SOURCE_ROOTS.values())

ENTRIES_MAX = 25
"""Most files and folders in one folder of source or tests."""

# What a plugin may import of the daemon. A name allows itself and all below it.
PUBLIC = frozenset(
    {
        "distconvd.hookimpl",
        *(f"distconvd.{name}" for name in ("auth", "disk", "errors", "hookspecs", "model")),
        *(f"distconvd.{name}" for name in ("plugin_api", "policy", "store", "testing")),
    }
)

# Which package may import which. A name allows itself and all below it.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "distconvd": frozenset(),
    "distconv_plugins": frozenset({"distconvd", "distconv_spool"}),
    "distconv_spool": frozenset(),
    "distconv_engine": frozenset({"distconvd.model"}),
    "distconv_client": frozenset({"distconvd.model", "distconv_spool"}),
}
# The packages of the daemon that decide: no I/O, no clock, no event loop.
SANS_IO = (
    "distconvd.dispatch",
    "distconvd.dispatch.lifecycle",
    "distconvd.dispatch.matching",
    "distconvd.model",
)
IO_LIBRARIES = ("trio", "h11", "trio_websocket", "socket", "asyncio", "threading", "subprocess")


def is_within(name: str, package_name: str) -> bool:
    return name == package_name or name.startswith(package_name + ".")


def find_modules(root: Path, package: str) -> dict[str, Path]:
    """Every module of `package` by its dotted name."""
    modules: dict[str, Path] = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def iter_imports(module: str, path: Path) -> Iterator[str]:
    """What `module` imports, absolute; `from a import b` gives `a.b`, which may be a module."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


MODULES = {
    name: path
    for folder, package in SOURCE_ROOTS.items()
    for name, path in find_modules(ROOT / folder, package).items()
}
IMPORTS = {name: frozenset(iter_imports(name, path)) for name, path in MODULES.items()}


def committed_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    places = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return [place for place in places if place.is_file()]


def committed_texts() -> Iterator[tuple[Path, str]]:
    for path in committed_files():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a media file; it has no lines to name anything in


# ------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_layers_are_kept_between_the_packages(package: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if is_within(module, package)
        for target in sorted(targets)
        if target.split(".")[0] in PACKAGES - {package}
        and not any(is_within(target, package_name) for package_name in MAY_IMPORT[package])
    ]
    assert wrong == []


def hidden_imports(targets: Iterable[str]) -> list[str]:
    """Those of `targets` that are the daemon's own and that no plugin may import."""
    return [
        target
        for target in sorted(targets)
        if is_within(target, "distconvd") and not any(is_within(target, name) for name in PUBLIC)
    ]


def test_plugins_import_public_names_only() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if is_within(module, "distconv_plugins")
        for target in hidden_imports(targets)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "contrib" / "example-plugin").rglob("*.py")),
    ids=lambda path: path.name,
)
def test_the_example_plugin_imports_public_names_only(path: Path) -> None:
    assert hidden_imports(iter_imports("example", path)) == []


def test_documents_show_plugin_authors_public_names_only() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "contrib").rglob("*.md")]
    wrong = [
        f"{page.name}: {module}"
        for page in pages
        for module in re.findall(
            r"^\s*from (distconvd\.[\w.]+) import", page.read_text(), re.MULTILINE
        )
        if hidden_imports([module])
    ]
    assert wrong == []


def test_plugin_api_lists_what_it_exports() -> None:
    assert sorted(plugin_api.__all__) == plugin_api.__all__
    imported = {target.rpartition(".")[2] for target in IMPORTS["distconvd.plugin_api"]}
    assert imported == set(plugin_api.__all__)


@pytest.mark.parametrize("package", SANS_IO)
def test_layers_keep_io_out_of_the_packages_that_decide(package: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if is_within(module, package)
        for target in sorted(targets)
        if target.split(".")[0] in IO_LIBRARIES
    ]
    assert wrong == []


def test_layers_let_the_vocabulary_import_nothing_of_ours() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if is_within(module, "distconvd.model")
        for target in sorted(targets)
        if target.split(".")[0] in PACKAGES and not is_within(target, "distconvd.model")
    ]
    assert wrong == []


def test_layers_let_only_push_touch_trio_websocket() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if is_within(module, "distconvd") and not is_within(module, "distconvd.push")
        for target in sorted(targets)
        if target.split(".")[0] == "trio_websocket"
    ]
    assert wrong == []


def maybe_module(target: str) -> str | None:
    """The module that `target` names, or names something in."""
    while target and target not in MODULES:
        target = target.rpartition(".")[0]
    return target or None


def import_graph() -> dict[str, set[str]]:
    """Which of our modules imports which."""
    return {
        module: {found for t in targets if (found := maybe_module(t)) not in (None, module)}
        for module, targets in IMPORTS.items()
    }


def sibling_graph(parent: str) -> dict[str, set[str]]:
    """Which child of the package `parent` imports which: a child is a module or a whole package."""
    depth = parent.count(".") + 1
    graph: dict[str, set[str]] = {}

    def child_of(module: str) -> str:
        return ".".join(module.split(".")[: depth + 1])

    for module, targets in import_graph().items():
        if module != parent and is_within(module, parent):
            inside = {child_of(t) for t in targets if t != parent and is_within(t, parent)}
            graph.setdefault(child_of(module), set()).update(inside - {child_of(module)})
    return graph


def fail_at_cycle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_layers_have_no_import_cycle() -> None:
    fail_at_cycle(import_graph())


SUBPACKAGES = sorted(name for name, path in MODULES.items() if path.name == "__init__.py")


@pytest.mark.parametrize("parent", SUBPACKAGES)
def test_no_cycle_runs_between_the_packages_and_modules_of_one_package(parent: str) -> None:
    fail_at_cycle(sibling_graph(parent))


def test_a_cycle_between_two_packages_is_found() -> None:
    with pytest.raises(pytest.fail.Exception, match=r" imports [ab] imports "):
        fail_at_cycle({"a": {"b"}, "b": {"a"}})


def test_the_import_reader_sees_every_form_of_import(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import trio, h11 as wire\n"
        "from distconvd.model import jobs\n"
        "from . import near\n"
        "from ..far import thing\n"
        "def late():\n    import socket\n"
    )
    assert set(iter_imports("distconvd.edge.module", module)) == {
        *("trio", "h11", "distconvd.model.jobs", "socket"),
        *("distconvd.edge.near", "distconvd.far.thing"),
    }


# ------------------------------------------------------------------------------------- folders


def folders() -> list[Path]:
    """Every folder of source and tests, without what Python leaves there."""
    tops = [ROOT / name for name in (*SOURCE_ROOTS, "tests", "tools", "bench")]
    inside = [path for top in tops for path in top.rglob("*") if path.is_dir()]
    return [path for path in (*tops, *inside) if "__pycache__" not in path.parts]


def test_no_folder_has_too_many_entries() -> None:
    counts = {
        str(folder.relative_to(ROOT)): len(
            {path.name for path in folder.iterdir()} - {"__pycache__"}
        )
        for folder in folders()
    }
    assert {folder: count for folder, count in counts.items() if count > ENTRIES_MAX} == {}


def test_no_module_name_has_an_underscore_prefix() -> None:
    assert [str(path) for path in MODULES.values() if re.match(r"_[a-z]", path.stem)] == []


@pytest.mark.parametrize("folder", sorted(SOURCE_ROOTS))
def test_a_source_root_contains_exactly_its_one_package(folder: str) -> None:
    top = {path.relative_to(ROOT / folder).parts[0] for path in (ROOT / folder).rglob("*.py")}
    assert top == {SOURCE_ROOTS[folder]}


@pytest.mark.parametrize("folder", sorted(SOURCE_ROOTS))
def test_a_package_says_that_it_is_typed(folder: str) -> None:
    assert (ROOT / folder / SOURCE_ROOTS[folder] / "py.typed").is_file()


def test_the_wheel_contains_the_same_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert built == [f"{folder}/{package}" for folder, package in SOURCE_ROOTS.items()]


def test_ci_runs_make_check() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^exec make .*\bcheck\b", script.read_text(), re.MULTILINE)


def test_ci_runs_the_engine_with_the_distributions_ffmpeg_too() -> None:
    words = (ROOT / ".ci" / "run").read_text()
    installed = words.index("install -y --no-install-recommends ffmpeg")
    assert installed < words.index("check test-system-ffmpeg")


# -------------------------------------------------------------------- what is never committed


def test_no_committed_file_names_a_registry_host() -> None:
    # Written back to front, so that this file does not name them either.
    backwards = ["org pypi", "org pythonhosted", "org npmjs", "org debian deb", "org golang proxy"]
    hosts = [".".join(reversed(words.split())) for words in backwards]
    named = [
        f"{path}: {host}" for path, text in committed_texts() for host in hosts if host in text
    ]
    assert named == []


def test_no_committed_file_names_a_path_of_this_machine() -> None:
    # Where this clone lies, where the project is worked on, and where one keeps a Python.
    here = re.compile(rf"{re.escape(str(ROOT))}\b|/work/(?:main|shared|\.)|/root/\.|/opt/p[y]pi")
    named = [
        f"{path}: {found[0]}"
        for path, text in committed_texts()
        for found in here.finditer(text)
        if path != Path("tests/layout/test_layout.py")
    ]
    assert named == []


def test_the_lock_names_no_place_to_download_from() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("-") or "://" in line or "@" in line] == []


def test_the_lock_pins_every_distribution_with_a_hash() -> None:
    lock = (ROOT / "constraints.txt").read_text()
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert entries
    loose = [e.split()[0] for e in entries if "==" not in e.split()[0] or "--hash=sha256:" not in e]
    assert loose == []


def test_the_lock_covers_every_dependency_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in wanted}
    lock = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0] for line in lock.splitlines() if re.match(r"[a-z0-9]", line)}
    assert names - pinned == set()
