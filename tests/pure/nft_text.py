"""The texts that nft is given, read again: tables of chains and sets, and what rules refer to."""

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

from attrs import field, frozen

__all__ = ["TextChain", "TextTable", "read_commands", "read_table"]

# `key : value` of a map, `key` of a set.
Elements = dict[str, str]


@frozen
class TextChain:
    """`hook` is its first line where it is a base chain."""

    hook: str = ""
    rules: list[str] = field(factory=list)

    @cached_property
    def jumps(self) -> frozenset[str]:
        return frozenset(name for rule in self.rules for name in re.findall(r"\b(?:jump|goto) (\w+)", rule))

    @cached_property
    def sets(self) -> frozenset[str]:
        return frozenset(name for rule in self.rules for name in re.findall(r"(?<!\S)@(\w+)(?!\S)", rule))


@frozen
class TextTable:
    """A table as the text of its definition has it; `elements` are those that were added since."""

    chains: dict[str, TextChain] = field(factory=dict)
    sets: dict[str, list[str]] = field(factory=dict)
    elements: dict[str, Elements] = field(factory=dict)

    @property
    def rules(self) -> Iterator[str]:
        for chain in self.chains.values():
            yield from chain.rules


def read_table(text: str) -> TextTable:
    """The one table that a text defines."""
    ((verb, _, table),) = read_commands(text)
    assert verb == "define" and isinstance(table, TextTable)
    return table


@lru_cache(maxsize=1024)  # labs have many routers of the same few kinds
def read_commands(text: str) -> tuple[tuple[str, str, Any], ...]:
    """(verb, table, what) of each command: `define` a table, `create` or `delete` one, and elements of
    (set, elements) to `add` or to `remove`.
    """
    return tuple(_commands(text))


def _commands(text: str) -> Iterator[tuple[str, str, Any]]:
    lines = iter(text.splitlines())
    for line in lines:
        if match := re.fullmatch(r"table inet (\w+) \{", line):
            yield "define", match[1], _table(lines)
        elif match := re.fullmatch(r"table inet (\w+)", line):
            yield "create", match[1], None
        elif match := re.fullmatch(r"delete table inet (\w+)", line):
            yield "delete", match[1], None
        else:
            match = re.fullmatch(r"(add|delete) element inet (\w+) (\w+) \{ (.*) \}", line)
            assert match, f"no command of nft that is known here: {line!r}"
            pairs = (element.partition(" : ") for element in match[4].split(", "))
            elements = {key: value for key, _, value in pairs}
            yield "add" if match[1] == "add" else "remove", match[2], (match[3], elements)


def _table(lines: Iterator[str]) -> TextTable:
    table = TextTable()
    for line in lines:
        if line == "}":
            return table
        match = re.fullmatch(r"\t(chain|set|map) (\w+) \{", line)
        assert match and match[2] not in {**table.chains, **table.sets}, line
        body = _body(lines)
        if match[1] != "chain":
            table.sets[match[2]] = body
        elif body and body[0].startswith("type "):
            table.chains[match[2]] = TextChain(body[0], body[1:])
        else:
            table.chains[match[2]] = TextChain("", body)
    raise AssertionError("a table without an end")


def _body(lines: Iterator[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        if line == "\t}":
            return found
        assert line.startswith("\t\t"), line
        found.append(line[2:])
    raise AssertionError("a chain or a set without an end")
