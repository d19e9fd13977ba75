"""Check names against docs/glossary.md, and the sentences that people read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "distconvd",
    "plugins",
    "spool",
    "engine",
    "client",
    "tests",
    "tools",
    "bench",
    "contrib",
)
RETIRED = frozenset(
    [
        "tell",
        "tells",
        "told",
        "telling",
        "teller",
        "untold",
        "told_s",
        "hear",
        "heard",
        "hold",
        "holds",
        "held",
        "holder",
        "holding",
        "holdings",
        "take_back",
        "settle",
        "readopt",
        "readopted",
        "adopt",
        "adopted",
        "park",
        "parked",
        "woken",
        "shunned",
        "undelivered",
        "uncollected",
        "withdraw",
        "offer",
        "offers",
        "offered",
        "came",
        "left",
        "standing",
        "workshop",
        "shop",
        "upkeep",
        "room",
        "no_room",
        "shortage",
        "beside",
        "twin",
        "kept",
        "ended",
        "judge",
        "judge_end",
        "blame",
        "prove",
        "proved",
        "proven",
        "away",
        "obey",
        "say_goodbye",
        "goodbye",
        "door",
        "doors",
        "place_of",
        "places",
        "looking",
        "looked",
        "complaints",
        "let_pass",
        "only_leaf",
        "desk",
        "ticket",
        "tickets",
        "patient",
        "examine",
        "hindrance",
        "teaching",
        "house",
        "floors",
        "rooms",
        "anew",
        "for_ever",
        "demand",
        "demands",
        "lane",
        "lanes",
        "posted",
        "filed",
        "shed",
        "born_us",
        "fold",
        "folder_thread",
        "suspect",
        "forgive",
        "frozen",
        "is_frozen",
    ]
)
# Names on the wire, in settings, in stored records or of public classes, each with its place.
EXEMPT = {
    ("distconvd/distconvd/model/job.py", "kept"): "a field of the result on the wire",
    ("distconvd/distconvd/model/messages.py", "kept"): "the same field, as it is reported",
    (
        "engine/distconv_engine/transfer/range_reader.py",
        "tell",
    ): "a method of Python's file objects",
    ("distconvd/distconvd/policy.py", "Hold"): "a public class: the policy's answer",
    ("distconvd/distconvd/policy.py", "held"): "a public field of what a policy sees",
}
SOURCES = ("distconvd", "plugins", "spool", "engine", "client")
LINE_CHARS_MAX = 90
"""Of the first line of a module, which says what it does: a verb and its object."""
_QUESTION = re.compile(r"(What|Who|Is|Where|When)\b")
_DIALECT = re.compile(r"\b(told|is none|for ever|anew)\b")
_PRINTS = re.compile(r"^(str|repr|print)$|\.?log\.\w+$")
Named = tuple[str, int, str]
"""A file, a line, and a name that is defined there."""


def names_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every function, class, parameter and attribute that a module defines, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
                    yield child.lineno, child.target.id


def is_retired(name: str) -> bool:
    """Whether the whole name is a retired word, whatever its case and its underscores."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip("_"))
    return words.lower() in RETIRED


def retired_names() -> Iterator[Named]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = str(path.relative_to(ROOT))
            if is_retired(path.stem):
                yield place, 0, path.stem
            for line, name in names_in(ast.parse(path.read_text(encoding="utf-8"))):
                if is_retired(name):
                    yield place, line, name


def test_no_name_is_a_retired_word_of_the_glossary() -> None:
    found = [
        (path, line, name) for path, line, name in retired_names() if (path, name) not in EXEMPT
    ]
    assert found == []


def test_every_exemption_is_still_needed() -> None:
    there = {(path, name) for path, _, name in retired_names()}
    assert EXEMPT.keys() - there == set()


@pytest.mark.parametrize("name", ["tell", "_told", "Standing", "take_back", "TakeBack"])
def test_a_retired_word_is_found_in_any_case_and_with_underscores(name: str) -> None:
    assert is_retired(name)


@pytest.mark.parametrize(
    "name", ["frame", "livez", "threshold", "held_jobs", "settle_s", "until_told"]
)
def test_a_longer_name_that_contains_a_retired_word_is_allowed(name: str) -> None:
    assert not is_retired(name)


def first_sentence(path: Path) -> str | None:
    """Return the first line of a module's docstring; None for an empty module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0] if tree.body else None


def faults_of(line: str) -> Iterator[str]:
    """Say what keeps the first line of a module from being a plain sentence."""
    if len(line) > LINE_CHARS_MAX:
        yield f"longer than {LINE_CHARS_MAX} characters"
    if not line.endswith("."):
        yield "does not end with a period"
    if _QUESTION.match(line):
        yield "does not begin with a verb"
    if found := _DIALECT.search(line):
        yield f"says {found[0]!r}"


def test_a_module_begins_with_a_short_plain_sentence() -> None:
    found = [
        (str(path.relative_to(ROOT)), fault)
        for folder in sorted(set(FOLDERS) - {"tests"})
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (line := first_sentence(path)) is not None
        for fault in faults_of(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Check what was told.",
        "Retry for ever.",
        "Read it anew.",
        "List what is none.",
        "Where a file is.",
        "Keep the queue",
        "Keep " + "a" * LINE_CHARS_MAX + ".",
    ],
)
def test_a_bad_first_sentence_is_seen(line: str) -> None:
    assert list(faults_of(line))


def prints_number(handler: ast.ExceptHandler) -> Iterator[int]:
    """Find the lines where a handler of `OSError` prints it whole: `[Errno 13] …`."""
    # `error.strerror or str(error)` is good: an error without strerror has no number either.
    guarded = {
        id(inner)
        for node in ast.walk(handler)
        if isinstance(node, ast.BoolOp)
        for inner in ast.walk(node)
    }
    for node in ast.walk(handler):
        if id(node) in guarded:
            continue
        printed: list[ast.expr] = []
        if isinstance(node, ast.FormattedValue):
            printed = [node.value]
        elif isinstance(node, ast.Call) and _PRINTS.search(ast.unparse(node.func)):
            printed = node.args
        for value in printed:
            if isinstance(value, ast.Name) and value.id == handler.name:
                yield value.lineno


def numbers_in(tree: ast.Module) -> list[int]:
    """Find the lines of a module that print an `OSError` with its number."""
    return [
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is not None
        if re.search(r"\bOSError\b", ast.unparse(node.type))
        for line in prints_number(node)
    ]


def test_no_sentence_contains_the_number_of_an_operating_system_error() -> None:
    found = [
        (str(path.relative_to(ROOT)), line)
        for folder in SOURCES
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in numbers_in(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("use", ['f"{e}"', 'log.warning("no: %s", e)', "str(e)"])
def test_a_printed_number_is_seen(use: str) -> None:
    tree = ast.parse(f"try:\n  f()\nexcept (OSError, ValueError) as e:\n  print({use})")
    assert numbers_in(tree)


def test_the_glossary_lists_the_refused_words() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    for word in ("tell", "take_back", "Standing", "Door", "let_pass", "Patient", "anew"):
        assert re.search(rf"\b{word}\b", glossary.partition("## Retired words")[2]), word


# ------------------------------------------------------------------- the glossary's last column

Term = tuple[str, str | None]
"""A name in the code, and the module or package that uses it, if the glossary states one."""
_NAMES = re.compile(r"(`[\w.]+`(?:, `[\w.]+`)*)(?: / `([\w.]+)`)?")


def terms() -> list[Term]:
    """Return each name of the last column with its module."""
    listed, _, _ = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").partition("## Retired")
    return [
        (name, module or None)
        for row in re.findall(r"^\| .*\| (.*) \|$", listed, re.MULTILINE)
        for names, module in _NAMES.findall(row)
        for name in re.findall(r"[\w.]+", names)
    ]


def names_by_module() -> dict[str, frozenset[str]]:
    """Return every identifier that each of our modules contains, by the module's dotted name."""
    found = {}
    for folder in ("distconvd", "plugins", "spool", "engine", "client"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found[module] = frozenset(
                {name for _, name in names_in(tree)}
                | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
                | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            )
    return found


NAMES_BY_MODULE = names_by_module()


def is_used(name: str, place: str | None) -> bool:
    """Whether a name, or a module of that name, exists: anywhere, or in or below `place`."""
    if place is None:
        return any(f".{module}.".find(f".{name}.") >= 0 for module in NAMES_BY_MODULE)
    return any(
        name in names
        for module, names in NAMES_BY_MODULE.items()
        if f".{module}.".find(f".{place}.") >= 0
    )


@pytest.mark.parametrize("name, place", terms())
def test_a_name_in_the_glossary_exists_in_the_module_that_the_glossary_states(
    name: str, place: str | None
) -> None:
    assert is_used(name, place)


@pytest.mark.parametrize(
    "name, place",
    [
        ("take_back", "dispatch.dispatcher"),
        ("Journal", "attempts.progress_tracker"),
        ("Journal", "attempts.no_such_module"),
        ("audit", "no_such_package"),
        ("distconvd.audit", None),
    ],
)
def test_a_name_that_its_module_does_not_contain_is_noticed(name: str, place: str | None) -> None:
    assert not is_used(name, place)


def test_every_row_of_the_glossary_names_its_code_or_states_that_there_is_none() -> None:
    listed, _, _ = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").partition("## Retired")
    cells = re.findall(r"^\| .*\| (.*) \|$", listed, re.MULTILINE)
    without = [cell for cell in cells if not _NAMES.search(cell)]
    assert [cell for cell in without if cell not in ("–", "Name in the code")] == []
