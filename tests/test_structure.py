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
    "import of a higher folder": (
        structure.imports_point_downwards,
        {"patchbay/model/nat.py": "import attrs\nfrom patchbay.plan import nat\n"},
        "patchbay/model/nat.py:2: model must not import plan, which stands above it",
    ),
    "relative import of a higher folder": (
        structure.imports_point_downwards,
        {"patchbay/model/nat.py": "from ..plan.nat import rules\n"},
        "patchbay/model/nat.py:1: model must not import plan, which stands above it",
    ),
    "relative import in a package's own file": (
        structure.imports_point_downwards,
        {"patchbay/model/__init__.py": "from .. import plan\n"},
        "patchbay/model/__init__.py:1: model must not import plan, which stands above it",
    ),
    "import of a higher folder inside a function": (
        structure.imports_point_downwards,
        {"patchbay/plan/nat.py": "def f():\n    try:\n        import patchbay.lab\n    finally: ...\n"},
        "patchbay/plan/nat.py:3: plan must not import lab, which stands above it",
    ),
    "import of the package's top": (
        structure.imports_point_downwards,
        {"patchbay/sim/runner.py": "from patchbay import open_lab\n"},
        "patchbay/sim/runner.py:1: sim must import a folder, not patchbay itself",
    ),
    "folder without a place": (
        structure.imports_point_downwards,
        {"patchbay/utils.py": ""},
        "patchbay/utils.py:1: patchbay.utils has no place in the order (LAYERS)",
    ),
    "library imports a program": (
        structure.programs_are_imported_by_nobody,
        {"patchbay/lab/lab.py": "from patchbay_cli.main import main\n"},
        "patchbay/lab/lab.py:1: patchbay_cli is a program, nobody may import it",
    ),
    "program imports another": (
        structure.programs_are_imported_by_nobody,
        {
            "vm/patchbay_vm/main.py": "from patchbay_cli import main\n",
            "cmds/patchbay_cli/main.py": "import patchbay\nfrom patchbay_cli import run\n",
        },
        "vm/patchbay_vm/main.py:1: patchbay_cli is a program, nobody may import it",
    ),
    "clock in a pure folder": (
        structure.pure_folders_have_no_effects,
        {"patchbay/plan/nat.py": "from time import monotonic\n", "patchbay/lab/lab.py": "import time\n"},
        "patchbay/plan/nat.py:1: plan is pure, it must not import time",
    ),
    "submodule in a pure folder": (
        structure.pure_folders_have_no_effects,
        {"patchbay/model/lab.py": "import os.path\n"},
        "patchbay/model/lab.py:1: model is pure, it must not import os",
    ),
    "paths outside of config": (
        structure.pure_folders_have_no_effects,
        {"patchbay/tools/ip.py": "import pathlib\n", "patchbay/config/read.py": "import pathlib\n"},
        "patchbay/tools/ip.py:1: tools is pure, it must not import pathlib",
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
    "imports downwards, at its own height, and for types": {
        "patchbay/__init__.py": "from .lab import Lab\n__all__ = ['Lab', '__version__']\n__version__ = '1'\n",
        "patchbay/lab/lab.py": "import os\nimport trio\nfrom patchbay import errors\nfrom . import device\n",
        "patchbay/model/nat.py": (
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import os\n    from patchbay.plan import Plan\n"
            "else:\n    Plan = object\n"
        ),
    },
    "a program that imports itself and the library": {
        "cmds/patchbay_cli/main.py": "import patchbay\nfrom . import run\nfrom patchbay_cli.run import go\n",
        "tests/test_cli.py": "import patchbay_cli\n",
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
