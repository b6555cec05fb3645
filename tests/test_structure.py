"""The architecture's counted rules, held against this repository; and each rule held against bad trees."""

from pathlib import Path

import pytest

from tests import structure
from tests.structure import Rule

REPOSITORY = Path(__file__).parents[1]


def function(lines: int, name: str = "f") -> str:
    return f"def {name}():\n" + "    x = 1\n" * (lines - 1)


# In one process, because each parses all files once.
@pytest.mark.xdist_group("structure")
@pytest.mark.parametrize("rule", structure.RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps(rule: Rule) -> None:
    violations = list(rule(REPOSITORY))
    assert not violations, "\n" + "\n".join(violations)


# A rule, a tree that breaks it in one place, and the message.
BAD = {
    "a sleep to be safe": (
        structure.sleeps_have_a_reason,
        {"tests/test_it.py": "import time\ntime.sleep(1)  # the pace of the sender\ntime.sleep(2)\n"},
        "tests/test_it.py:3: a sleep wants its reason in a comment on the same line",
    ),
    "long file": (
        structure.files_are_short,
        {"patchbay/errors.py": "x = 1\n" * 401, "patchbay/model/lab.py": "x = 1\n" * 400},
        "patchbay/errors.py:401: a file of 401 lines, 400 are allowed",
    ),
    "long script of the web UI": (
        structure.files_are_short,
        {"ui_static/app.js": "//\n" * 500},
        "ui_static/app.js:401: a file of 500 lines, 400 are allowed",
    ),
    "long function": (
        structure.functions_are_short,
        {"tests/test_lab.py": "\n" + function(61, "test_lab") + function(60)},
        "tests/test_lab.py:2: test_lab has 61 lines, 60 are allowed",
    ),
    "too many functions of some length": (
        structure.most_functions_are_very_short,
        {"patchbay/errors.py": function(30) * 4 + function(31, "g")},
        "patchbay/errors.py:121: g has 31 lines, one of too many with over 30",
    ),
    "a docstring that says what a function is": (
        structure.docstrings_start_with_a_verb,
        {"patchbay/errors.py": 'def f():\n    """Return it."""\n\n\ndef g():\n    """The thing."""\n'},
        "patchbay/errors.py:5: the docstring of g starts with 'The'",
    ),
    "a word that readers stop at": (
        structure.no_word_is_banned,
        {"docs/guide.md": "A guide.\nIt stands here.\n", "patchbay/errors.py": "standard = 'untold'\n"},
        "docs/guide.md:2: a plainer word for 'stands'",
    ),
    "a name of a test that readers stop at": (
        structure.no_word_is_banned,
        {"tests/test_it.py": f"said = 1\n\n\ndef {'_'.join(('test', 'by', 'hand'))}(): ...\n"},
        "tests/test_it.py:4: a plainer word for 'by hand'",
    ),
    "a docstring of a class that is a riddle": (
        structure.no_docstring_is_a_riddle,
        {"patchbay/errors.py": '"""Errors."""\n\n\nclass A:\n    """What it is."""\n'},
        "patchbay/errors.py:4: the docstring starts with 'What'",
    ),
    "an identifier that readers stop at": (
        structure.no_word_is_banned,
        {"patchbay/errors.py": "is_wished_for = 1\n"},
        "patchbay/errors.py:1: a plainer word for 'wished'",
    ),
    "unknown name in __all__": (
        structure.all_names_exist,
        {"patchbay/model/nat.py": "__all__ = ['Nat', 'NatConfig']\nclass Nat: ...\n"},
        "patchbay/model/nat.py:1: __all__ lists NatConfig, which does not exist",
    ),
    "computed __all__": (
        structure.all_names_exist,
        {"patchbay/model/nat.py": "import os\n__all__ = [n for n in dir(os)]\n"},
        "patchbay/model/nat.py:2: __all__ must be a plain list of strings",
    ),
    "package without __all__": (
        structure.packages_list_what_they_export,
        {"patchbay/model/__init__.py": "from .nat import Nat as NatKind\n"},
        "patchbay/model/__init__.py:1: NatKind is missing in __all__",
    ),
    "own name missing in __all__": (
        structure.packages_list_what_they_export,
        {"patchbay/__init__.py": "from patchbay.lab import Lab\n__all__ = ['Lab']\ndef emit_event(): ...\n"},
        "patchbay/__init__.py:3: emit_event is missing in __all__",
    ),
    "another's name in __all__": (
        structure.packages_list_what_they_export,
        {"patchbay/lab/__init__.py": "import trio\nfrom .lab import Lab\n__all__ = ['Lab', 'trio']\n"},
        "patchbay/lab/__init__.py:3: __all__ lists trio, which is not of patchbay",
    ),
}

# What looks like a violation and is none.
GOOD = {
    "a package that passes on a name, and has one for types": {
        "patchbay/__init__.py": (
            "from typing import TYPE_CHECKING\nfrom .lab import Lab\n"
            "if TYPE_CHECKING:\n    from patchbay.plan import Plan\n"
            "__all__ = ['Lab', '__version__']\n__version__ = '1'\n"
        ),
    },
    "one long function in ten": {"patchbay/errors.py": function(5) * 9 + function(60)},
    "names in __all__ made by branches, assignments and __getattr__": {
        "patchbay/model/nat.py": (
            "__all__ = ['a', 'b']\n__all__ += ['c']\n"
            "try:\n    import a\nexcept ImportError:\n    a = None\nb: int = 1\nc, d = 1, 2\n"
        ),
        "patchbay/lab/__init__.py": "__all__ = ['Lab']\ndef __getattr__(name): ...\n",
    },
}


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("case", BAD)
def test_a_rule_names_what_breaks_it(case: str, tmp_path: Path) -> None:
    rule, files, message = BAD[case]
    plant(tmp_path, files)
    assert list(rule(tmp_path)) == [message]


@pytest.mark.parametrize("case", GOOD)
def test_no_rule_objects_to(case: str, tmp_path: Path) -> None:
    plant(tmp_path, GOOD[case])
    assert [violation for rule in structure.RULES for violation in rule(tmp_path)] == []


def test_every_rule_has_a_tree_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BAD.values()} == set(structure.RULES)
