"""What the architecture promises and a program can count. Imports are looked at by import-linter.

A rule is a function from the root of a source tree to its violations, each `file:line: what is wrong`.
Only syntax trees are read and nothing is imported, so that a broken tree can be judged too.
"""

import ast
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Programs, and the folder each lives in.
PROGRAMS = {"patchbay_cli": "cmds", "patchbay_vm": "vm"}
CODE = ("patchbay", "cmds", "vm")

FILE_LINES = 400
FUNCTION_LINES = 60
USUAL_FUNCTION_LINES = 30  # of nine functions in ten

Rule = Callable[[Path], Iterator[str]]


# The rules


def files_are_short(root: Path) -> Iterator[str]:
    for file in [*python_files(root, *CODE, "tests"), *sorted((root / "ui_static").rglob("*.js"))]:
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES:
            yield f"{place(root, file, FILE_LINES + 1)}: a file of {lines} lines, {FILE_LINES} are allowed"


def functions_are_short(root: Path) -> Iterator[str]:
    for lines, name, where in functions(root, *CODE, "tests"):
        if lines > FUNCTION_LINES:
            yield f"{where}: {name} has {lines} lines, {FUNCTION_LINES} are allowed"


def most_functions_are_very_short(root: Path) -> Iterator[str]:
    """The 90th percentile of the code's functions; tests would only flatter it."""
    found = sorted(functions(root, *CODE))
    if not found or found[math.ceil(0.9 * len(found)) - 1][0] <= USUAL_FUNCTION_LINES:
        return
    for lines, name, where in found:
        if lines > USUAL_FUNCTION_LINES:
            yield f"{where}: {name} has {lines} lines, one of too many with over {USUAL_FUNCTION_LINES}"


def all_names_exist(root: Path) -> Iterator[str]:
    for file in python_files(root, *CODE):
        (line, listed), bound = read(root, file).listed, read(root, file).bindings
        if listed is None:
            yield f"{place(root, file, line)}: __all__ must be a plain list of strings"
        elif "__getattr__" not in bound:
            for name in sorted(set(listed) - bound.keys()):
                yield f"{place(root, file, line)}: __all__ lists {name}, which does not exist"


def packages_list_what_they_export(root: Path) -> Iterator[str]:
    """A package that re-exports names of patchbay lists these and its own public ones, nothing else."""
    for file in python_files(root, "patchbay"):
        (line, listed), bindings = read(root, file).listed, read(root, file).bindings
        bound = {name: made for name, made in bindings.items() if not name.startswith("_")}
        passed_on = {name for name, made in bound.items() if made.origin.startswith("patchbay.")}
        if file.name != "__init__.py" or listed is None or not passed_on:
            continue
        foreign = {name for name, made in bound.items() if made.origin} - passed_on
        for name in sorted(bound.keys() - foreign - set(listed)):
            yield f"{place(root, file, bound[name].line)}: {name} is missing in __all__"
        for name in sorted(foreign & set(listed)):
            yield f"{place(root, file, line)}: __all__ lists {name}, which is not of patchbay"


def docstrings_start_with_a_verb(root: Path) -> Iterator[str]:
    """A function does something, and its docstring says so first: these words begin a riddle."""
    for file in python_files(root, *CODE):
        for function in read(root, file).functions:
            if function.begins and (not function.begins[0].isalpha() or function.begins in _NO_VERBS):
                where = place(root, file, function.line)
                yield f"{where}: the docstring of {function.name} starts with {function.begins!r}"


_NO_VERBS = frozenset(
    (
        *(
            "A",
            "All",
            "An",
            "Both",
            "By",
            "Each",
            "Every",
            "Everything",
            "For",
            "From",
            "How",
            "In",
            "It",
            "Its",
        ),
        *("Like", "Nothing", "Of", "One", "Several", "So", "Some", "The", "There", "Those", "Two", "What"),
        *("Where", "Whether"),
    )
)


def sleeps_have_a_reason(root: Path) -> Iterator[str]:
    """Tests wait for events (tests/patience.py): a sleep is a pace, or itself what is tested."""
    for file in python_files(root, "tests"):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if _SLEEP.search(line) and "  # " not in line:
                yield f"{place(root, file, number)}: a sleep wants its reason in a comment on the same line"


_SLEEP = re.compile(r"\.sleep\(")


# Words that made readers stop: old ones, and those whose meaning depends on what they refer to.
_BANNED = re.compile(
    r"(?<![a-z])(anew|be it|for want of|wished|told|said|so many|so long|taken back|comes? to be|came to be"
    r"|goes with|strangers?|newcomers?|stands|hangs on|find again|found again|in there|in here|by hand)"
    r"(?![a-z])",
    re.IGNORECASE,
)
_PROSE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")


_TEST = re.compile(r"def test_\w+")


def no_word_is_banned(root: Path) -> Iterator[str]:
    """Plain English, in names of tests too: these words have plainer ones."""
    docs = [*(root / "docs").glob("*.md"), *(root / name for name in _PROSE)]
    for file in (*python_files(root, "patchbay", "cmds", "vm"), *filter(Path.exists, docs)):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if found := _BANNED.search(line):
                yield f"{place(root, file, number)}: a plainer word for '{found[0]}'"
    for file in python_files(root, "tests"):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            name = _TEST.search(line)
            if name and (found := _BANNED.search(name[0].replace("_", " "))):
                yield f"{place(root, file, number)}: a plainer word for '{found[0]}'"


_RIDDLE = re.compile(r"(What|Whether|Of|Those|Some|That|How|Who|Where|Which|If|When)\b")


def no_docstring_is_a_riddle(root: Path) -> Iterator[str]:
    """The docstring of a module or class starts with its noun: "The rules of a NAT"."""
    for file in python_files(root, *CODE):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                if found := _RIDDLE.match(text):
                    line = getattr(node, "lineno", 1)
                    yield f"{place(root, file, line)}: the docstring starts with '{found[0]}'"


RULES: tuple[Rule, ...] = (
    files_are_short,
    functions_are_short,
    most_functions_are_very_short,
    all_names_exist,
    packages_list_what_they_export,
    docstrings_start_with_a_verb,
    no_word_is_banned,
    no_docstring_is_a_riddle,
    sleeps_have_a_reason,
)


# Names of modules


def python_files(root: Path, *folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]


def place(root: Path, file: Path, line: int = 1) -> str:
    return f"{file.relative_to(root)}:{line}"


def module_name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    first = 1 if parts[0] in PROGRAMS.values() else 0
    return ".".join(parts[first:]).removesuffix(".__init__")


def top(module: str) -> str:
    return module.partition(".")[0]


# Reading a file

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORTS = (ast.Import, ast.ImportFrom)


class Source(NamedTuple):
    """What the rules ask of a file. Its syntax tree is not kept, because those of all files are large."""

    bindings: dict[str, "Binding"]  # the names that a module has once it is imported
    listed: tuple[int, list[str] | None]  # of __all__
    functions: tuple["Function", ...]


class Binding(NamedTuple):
    line: int
    origin: (
        str  # "trio.socket" for both `import trio.socket` and `from trio import socket`; empty for its own
    )


class Function(NamedTuple):
    name: str
    line: int
    lines: int  # from `def` to the end, docstring and all
    begins: str  # the first word of its docstring


@cache
def read(root: Path, file: Path) -> Source:
    body = ast.parse(file.read_text(encoding="utf-8"), str(file)).body
    return Source(
        {
            name: Binding(node.lineno, origin)
            for node, runs in statements(body, scopes=False)
            if runs
            for name, origin in bound_by(node, root, file)
        },
        dunder_all(body),
        tuple(
            Function(
                node.name,
                node.lineno,
                (node.end_lineno or node.lineno) - node.lineno + 1,
                ((ast.get_docstring(node) or "").split() or [""])[0].rstrip(",.:;"),
            )
            for node, _ in statements(body, scopes=True)
            if isinstance(node, FUNCTIONS)
        ),
    )


def statements(body: list[ast.stmt], *, scopes: bool, runs: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Every statement, and whether it is ever run; with `scopes` those in functions and classes too."""
    for node in body:
        yield node, runs
        if not scopes and isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        typing = isinstance(node, ast.If) and names_type_checking(node.test)
        yield from statements(getattr(node, "body", []), scopes=scopes, runs=runs and not typing)
        branches = [*getattr(node, "handlers", []), *getattr(node, "cases", [])]
        rest = [getattr(node, "orelse", []), getattr(node, "finalbody", []), *(b.body for b in branches)]
        for block in rest:
            yield from statements(block, scopes=scopes, runs=runs)


def names_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def from_where(node: ast.Import | ast.ImportFrom, root: Path, file: Path) -> str:
    """The module behind `from`, dots resolved; empty for a plain import."""
    if isinstance(node, ast.Import):
        return ""
    if not node.level:
        return node.module or ""
    package = module_name(root, file).split(".")
    up = node.level - (file.name == "__init__.py")
    return ".".join([*package[: len(package) - up], *filter(None, [node.module])])


def bound_by(node: ast.stmt, root: Path, file: Path) -> Iterator[tuple[str, str]]:
    """(name, origin) of what a statement binds; what is no import has no origin."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name, ""
    elif isinstance(node, IMPORTS):
        origin = from_where(node, root, file)
        for alias in node.names:
            yield alias.asname or top(alias.name), f"{origin}.{alias.name}" if origin else alias.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        names = (n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        yield from ((name.id, "") for name in names)


def dunder_all(body: list[ast.stmt]) -> tuple[int, list[str] | None]:
    """Its line and names; no names where it is absent, None where it is not plain."""
    line, listed = 1, list[str]()
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if "__all__" not in map(ast.unparse, targets):
            continue
        line = node.lineno
        try:
            listed += ast.literal_eval(node.value or ast.List([]))
        except ValueError:
            return line, None
    return line, listed


def functions(root: Path, *folders: str) -> Iterator[tuple[int, str, str]]:
    """(lines, name, place) of each function."""
    for file in python_files(root, *folders):
        for each in read(root, file).functions:
            yield each.lines, each.name, place(root, file, each.line)
