"""Every block of code in README and docs works, in a lab that has what the block names."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from pytest_examples import CodeExample, find_examples

import patchbay
from patchbay.lab.lab import Lab
from tests.cli.in_process import call
from tests.processes import run

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [block for block in find_examples(*DOCS) if block.prefix.startswith("py")]

# What a block may name without making it, and how it is made. A device comes with its router.
MAKERS: dict[str, Callable[[Lab], Awaitable[object]]] = {
    "home": lambda lab: lab.add_router("home", preset="home"),
    "office": lambda lab: lab.add_router("office", preset="corporate"),
    "carrier": lambda lab: lab.add_router("carrier", preset="mobile"),
    "laptop": lambda lab: lab.add_device("laptop", uplink="home"),
    "server": lambda lab: lab.add_device("server", uplink="office-1"),
    "other_server": lambda lab: lab.add_device("other-server", uplink="office-2"),
}
NEEDS = {"laptop": ("home",)}


def place(block: CodeExample) -> str:
    return f"{block.path.name}:{block.start_line}"


def named(block: CodeExample) -> set[str]:
    """Return the names in a block, as variables or as texts, that the block does not make itself."""
    nodes = [*ast.walk(ast.parse(block.source))]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    wanted = (used & MAKERS.keys()) - made
    return wanted | {needed for name in wanted for needed in NEEDS.get(name, ()) if needed not in made}


async def set_up(lab: Lab, names: set[str]) -> dict[str, Any]:
    for number in (1, 2):
        await lab.add_router(f"office-{number}", preset="datacenter")
    return {name: await make(lab) for name, make in MAKERS.items() if name in names}


@pytest.mark.kernel
@pytest.mark.parametrize("block", [b for b in BLOCKS if "trio.run(" not in b.source], ids=place)
async def test_a_block_of_python_works_in_a_lab(block: CodeExample) -> None:
    lines = "\n" * block.start_line + block.source
    code = compile(lines, str(block.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with patchbay.open_lab() as lab:
        names = {"lab": lab, "patchbay": patchbay, "trio": trio, **await set_up(lab, named(block))}
        done = eval(code, names)
        if inspect.iscoroutine(done):
            await done


@pytest.mark.kernel
@pytest.mark.ordinary
@pytest.mark.parametrize("block", [b for b in BLOCKS if "trio.run(" in b.source], ids=place)
def test_a_program_prints_what_it_should(block: CodeExample, tmp_path: Path) -> None:
    file = tmp_path / "demo.py"
    file.write_text(block.source)
    done = run([sys.executable, file], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert "b'hello from behind the NAT'" in done.stdout


TOML = [
    pytest.param(text, id=f"{file.name}:{text.split()[0]}")
    for file in DOCS
    for text in re.findall(r"^```toml\n(.*?)^```", file.read_text(), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("text", TOML)
def test_a_lab_file_is_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(text)
    done = call("plan", "lab.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_there_are_blocks_to_try() -> None:
    assert len(BLOCKS) >= 10 and TOML
