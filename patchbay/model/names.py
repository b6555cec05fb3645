"""Names: what users may call nodes and interfaces, and what the kernel will call them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from typing import NewType

__all__ = [
    "KERNEL_IFNAMES",
    "LOOPBACK_NAMES",
    "IfName",
    "NsName",
    "dns_name",
    "env_name",
    "env_names",
    "host_name_problem",
    "iface_name_problem",
    "node_name_problem",
    "private_folder_problem",
    "slug",
    "spellings",
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
# In the hosts file of every node already.
LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")


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
    if name.lower() in LOOPBACK_NAMES or _is_address(name):
        return f"name {name!r} is the host name of the node too, and programs read it as an address"
    return None


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(name))
    return False


# RFC 1035 section 2.3.4: 255 bytes on the wire, of which the first length and the root take two.
_DNS_NAME_BYTES = 253
# What getaddrinfo(3) takes for an IPv4 address by inet_aton(3), such as `127.1`.
_INET_ADDRESS = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}")


def host_name_problem(name: str) -> str | None:
    """Return why no host can be looked up by `name`, or None if one can."""
    if not name.isprintable() or re.search(r"[\s#]", name):
        return f"{name!r} cannot be in a hosts file; accepted: a host name"
    try:
        plain = dns_name(name)
    except UnicodeError:
        plain = ""
    if not 1 <= len(plain) <= _DNS_NAME_BYTES:
        limits = f"labels of 1 to 63 bytes, {_DNS_NAME_BYTES} together with their dots"
        return f"{name!r} cannot be a host name; accepted: {limits}"
    if plain in LOOPBACK_NAMES:
        return f"{name!r} is the loopback interface of each node (RFC 6761 section 6.3)"
    if _is_address(name) or _INET_ADDRESS.fullmatch(plain):
        return f"{name!r} is an address, which no program looks up; accepted: a host name"
    return None


def dns_name(name: str) -> str:
    """Return the one form of a host name's spellings: RFC 4343 for case, RFC 3490 for other alphabets.

    A final dot is left out. Raises `UnicodeError` where a label is empty or has more than 63 bytes.
    """
    return name.encode("idna").decode().lower().removesuffix(".")


def spellings(name: str) -> tuple[str, ...]:
    """Return how programs may ask for a host name, `name` first: its own alphabet and ASCII, and a final dot.

    Case is not varied, because readers of a hosts file ignore it.
    """
    plain = dns_name(name)
    forms = [name.removesuffix("."), plain]
    with suppress(UnicodeError):
        forms.append(plain.encode().decode("idna"))
    different: dict[str, str] = {}
    for form in forms:
        different.setdefault(form.lower(), form)
    return tuple(f"{form}{end}" for end in ("", ".") for form in different.values())


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


@cache
def env_name(name: str) -> str:
    """Return `name` as in `PATCHBAY_IP_<NAME>`: upper case, other characters as '_'."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def env_names(device: str, ifaces: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the ends of a device's variables `PATCHBAY_IP_…`, each with the interface whose address it has.

    The first is for the address by which others know the device, with None for the interface.
    """
    yield env_name(device), None
    for iface in ifaces:
        yield f"{env_name(device)}_{env_name(iface)}", iface
