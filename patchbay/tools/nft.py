"""Writing rulesets (nft(8)). The rules themselves are decided in `plan`."""

from __future__ import annotations

from attrs import frozen

__all__ = ["Chain", "Hook", "Set", "Table", "dropped", "render"]


@frozen
class Hook:
    """The hook of a base chain. Its policy is accept, so that each drop is a rule that can be read."""

    kind: str
    name: str
    priority: str


@frozen
class Chain:
    """Rules; without a hook they are for other chains to jump to."""

    name: str
    rules: tuple[str, ...]
    hook: Hook | None = None


@frozen
class Set:
    """A set, or a map where `data` is the type of its values; `type` is that of its keys.

    A `dynamic` one is filled by rules, each element for a time. `typeof`: the types are given by expressions.
    """

    name: str
    type: str
    data: str = ""
    dynamic: bool = False
    typeof: bool = False


@frozen
class Table:
    name: str
    chains: tuple[Chain, ...]
    sets: tuple[Set, ...] = ()


# What a hash table of the kernel takes at most here. More mappings than ports there cannot be for one
# outside address and protocol; what does not fit is not translated (the rule that adds it does not match).
MOST_ELEMENTS = 65536


def render(table: Table) -> str:
    """Return the commands that add this table to a namespace that has none of that name.

    Without a `delete` first to be sure: that waits for RCU, 12 to 16 ms where this takes 2.
    """
    lines = [f"table inet {table.name} {{"]
    for each in table.sets:
        lines += _set(each)
    for chain in table.chains:
        lines += [f"\tchain {chain.name} {{", *_hook(chain), *(f"\t\t{rule}" for rule in chain.rules), "\t}"]
    return "\n".join([*lines, "}", ""])


def dropped(name: str) -> str:
    """Return the commands that delete a table, and do not fail if there is none."""
    return f"table inet {name}\ndelete table inet {name}\n"


def _set(each: Set) -> list[str]:
    kind, types = ("map", f"{each.type} : {each.data}") if each.data else ("set", each.type)
    size = [f"\t\tsize {MOST_ELEMENTS}", "\t\tflags dynamic,timeout"] if each.dynamic else []
    return [f"\t{kind} {each.name} {{", f"\t\t{'typeof' if each.typeof else 'type'} {types}", *size, "\t}"]


def _hook(chain: Chain) -> list[str]:
    hook = chain.hook
    return [f"\t\ttype {hook.kind} hook {hook.name} priority {hook.priority}; policy accept;"] if hook else []
