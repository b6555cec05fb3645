"""Names: what users may call nodes and interfaces, and what the kernel will call them."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NewType

__all__ = [
    "KERNEL_IFNAMES",
    "IfName",
    "NsName",
    "env_name",
    "iface_name_problem",
    "node_name_problem",
    "private_folder_problem",
    "slug",
    "unique_name",
]

NsName = NewType("NsName", str)
IfName = NewType("IfName", str)

# NAME_MAX less room for what is put behind a name in the run folder; also RFC 1035's label length.
NODE_NAME_BYTES = 63
# IFNAMSIZ (16) less the closing NUL: include/uapi/linux/if.h.
IFNAME_BYTES = 15
# In every namespace already: lo itself, and the folders beside the interfaces' in /proc/sys/net.
KERNEL_IFNAMES = frozenset({"lo", "all", "default"})


def node_name_problem(name: str) -> str | None:
    """Why `name` cannot name a node or region, or None if it can."""
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= NODE_NAME_BYTES:
        return f"name {name!r} has {size} bytes; accepted: 1 to {NODE_NAME_BYTES}"
    if "/" in name or "\0" in name:
        return f"name {name!r} contains a slash or NUL, and names a folder of the run"
    if name.startswith("-"):
        return f"name {name!r} starts with '-', which commands would read as an option"
    if not name.strip("."):
        return f"name {name!r} is only dots, and names a folder of the run"
    if not name.isprintable():
        return f"name {name!r} contains a control character"
    return None


# Folders that a node has of its own in any case, or without which no program starts.
_NEVER_PRIVATE = frozenset({"/", "/dev", "/etc", "/proc", "/run", "/sys", "/var/run"})


def private_folder_problem(path: str) -> str | None:
    """Return why `path` cannot be a private folder of a node, or None if it can."""
    parts = path.split("/")
    plain = parts[0] == "" and all(part not in ("", ".", "..") for part in parts[1:])
    if path in _NEVER_PRIVATE or path.startswith(("/proc/", "/sys/")):
        return f"found {path!r}, which nodes have of their own already or cannot be without"
    if not plain or not path.isprintable():
        return f"found {path!r}; accepted: the absolute path of a folder such as '/tmp', without '..'"
    return None


def iface_name_problem(name: str) -> str | None:
    """Why `name` cannot name an interface, or None if it can.

    The kernel refuses more than 15 bytes, '.', '..', '/', ':' and white space (dev_valid_name in
    net/core/dev.c) and expands '%d'; quotes, backslash, '#' and '*' would be read by the tools.
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= IFNAME_BYTES:
        return f"interface name {name!r} has {size} bytes; accepted: 1 to {IFNAME_BYTES}"
    if name in {".", "..", *KERNEL_IFNAMES}:
        return f"interface name {name!r} is taken by the kernel"
    if name.startswith("-") or not name.isprintable() or re.search(r"""[\s/:%'"\\#*@]""", name):
        return (
            f"interface name {name!r} contains a character that the kernel or its tools read as something "
            "else; not accepted: a leading '-', white space, / : % ' \" \\ # * @"
        )
    return None


def slug(name: str, limit: int) -> str:
    """Return `name` in letters, digits, '_' and '-', at most `limit` long: safe in every command line.

    No dots: sysctl reads them as separators.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:limit].rstrip("-") or "node"


def unique_name(wanted: str, taken: Container[str], limit: int) -> str:
    """Return `wanted`, or `wanted` with the first free number behind it, at most `limit` long."""
    if wanted not in taken:
        return wanted
    number = 2
    while True:
        tail = f"-{number}"
        candidate = wanted[: limit - len(tail)] + tail
        if candidate not in taken:
            return candidate
        number += 1


def env_name(name: str) -> str:
    """Return `name` as in `PATCHBAY_IP_<NAME>`: upper case, other characters as '_'."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())
