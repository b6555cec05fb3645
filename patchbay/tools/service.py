"""A service: a process that runs in a namespace on the lab's behalf."""

from __future__ import annotations

from attrs import frozen

from patchbay.model.names import NsName

__all__ = ["Service"]


@frozen
class Service:
    """A service as a plan has it; `name` tells it from others in its namespace.

    It runs `module` with `args`; its command line begins with `name`. When the arguments change, a running
    service receives the new ones, or is restarted if `restarts` is set. With `packages` it has the packages
    of the program, and not the standard library alone. With `shares` it runs in a process with others of its
    module, whatever their namespaces.

    `kind` and `key` say what it serves, such as "relay" and the key of a link; `title` is for messages.
    """

    ns: NsName
    name: str
    module: str
    args: tuple[str, ...]
    kind: str
    key: tuple[str, ...]
    title: str
    restarts: bool = False
    packages: bool = False
    shares: bool = False
