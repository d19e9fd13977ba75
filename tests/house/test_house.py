"""The house rules of docs/design.md (section "The house"), held by reading the imports."""

import ast
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSE = {
    "distconvd": "distconvd",
    "plugins": "distconv_plugins",
    "spool": "distconv_spool",
    "engine": "distconv_engine",
    "client": "distconv_client",
}
PACKAGES = frozenset(HOUSE.values())

# Who may import whom. A name allows itself and all below it.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "distconvd": frozenset(),
    "distconv_plugins": frozenset({"distconvd", "distconv_spool"}),
    "distconv_spool": frozenset(),
    "distconv_engine": frozenset({"distconvd.model"}),
    "distconv_client": frozenset({"distconvd.model", "distconv_spool"}),
}
# The rooms of the daemon that decide: no I/O, no clock, no event loop.
SANS_IO = ("distconvd.dispatch", "distconvd.lifecycle", "distconvd.matching", "distconvd.model")
IO_LIBRARIES = ("trio", "h11", "trio_websocket", "socket", "asyncio", "threading", "subprocess")


def is_within(name: str, roof: str) -> bool:
    return name == roof or name.startswith(roof + ".")


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
    for folder, package in HOUSE.items()
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
def test_layers_hold_between_the_packages(package: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if is_within(module, package)
        for target in sorted(targets)
        if target.split(".")[0] in PACKAGES - {package}
        and not any(is_within(target, roof) for roof in MAY_IMPORT[package])
    ]
    assert wrong == []


def test_layers_show_plugins_the_public_names_only() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if is_within(module, "distconv_plugins")
        for target in sorted(targets)
        if is_within(target, "distconvd") and any(p.startswith("_") for p in target.split("."))
    ]
    assert wrong == []


@pytest.mark.parametrize("room", SANS_IO)
def test_layers_keep_io_out_of_the_rooms_that_decide(room: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if is_within(module, room)
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


def test_layers_have_no_import_cycle() -> None:
    def maybe_module(target: str) -> str | None:
        """The module that `target` names, or names something in."""
        while target and target not in MODULES:
            target = target.rpartition(".")[0]
        return target or None

    graph = {
        module: {found for t in targets if (found := maybe_module(t)) not in (None, module)}
        for module, targets in IMPORTS.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_import_reader_sees_every_form_of_import(tmp_path: Path) -> None:
    module = tmp_path / "room.py"
    module.write_text(
        "import trio, h11 as wire\n"
        "from distconvd.model import jobs\n"
        "from . import near\n"
        "from ..far import thing\n"
        "def late():\n    import socket\n"
    )
    assert set(iter_imports("distconvd.edge.room", module)) == {
        *("trio", "h11", "distconvd.model.jobs", "socket"),
        *("distconvd.edge.near", "distconvd.far.thing"),
    }


# -------------------------------------------------------------------------------------- rooms


@pytest.mark.parametrize("folder", sorted(HOUSE))
def test_a_source_root_holds_exactly_its_one_package(folder: str) -> None:
    top = {path.relative_to(ROOT / folder).parts[0] for path in (ROOT / folder).rglob("*.py")}
    assert top == {HOUSE[folder]}


@pytest.mark.parametrize("folder", sorted(HOUSE))
def test_a_package_says_that_it_is_typed(folder: str) -> None:
    assert (ROOT / folder / HOUSE[folder] / "py.typed").is_file()


def test_the_wheel_holds_the_same_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert built == [f"{folder}/{package}" for folder, package in HOUSE.items()]


def test_ci_runs_what_a_person_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^exec make .*\bcheck\b", script.read_text(), re.MULTILINE)


def test_ci_runs_the_engine_with_the_distributions_ffmpeg_too() -> None:
    words = (ROOT / ".ci" / "run").read_text()
    installed = words.index("install -y --no-install-recommends ffmpeg")
    assert installed < words.index("check test-system-ffmpeg")


# ------------------------------------------------------------------------- what is never told


def test_no_committed_file_names_a_registry_host() -> None:
    # Written back to front, so that this file does not name them either.
    backwards = ["org pypi", "org pythonhosted", "org npmjs", "org debian deb", "org golang proxy"]
    hosts = [".".join(reversed(words.split())) for words in backwards]
    named = [
        f"{path}: {host}" for path, text in committed_texts() for host in hosts if host in text
    ]
    assert named == []


def test_no_committed_file_names_a_place_on_this_machine() -> None:
    # Where this clone lies, where the project is worked on, and where one keeps a Python.
    here = re.compile(rf"{re.escape(str(ROOT))}\b|/work/(?:main|shared|\.)|/root/\.|/opt/p[y]pi")
    named = [
        f"{path}: {found[0]}"
        for path, text in committed_texts()
        for found in here.finditer(text)
        if path != Path("tests/house/test_house.py")
    ]
    assert named == []


def test_the_lock_says_what_and_never_from_where() -> None:
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
