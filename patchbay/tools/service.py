"""What a service is: a process that runs in a namespace on the lab's behalf."""

from __future__ import annotations

from attrs import frozen

from patchbay.model.names import NsName

__all__ = ["Service"]


@frozen
class Service:
    """A service as a plan has it; `name` tells it from others in its namespace.

    `module` is what it runs, with `args`; its command line begins with `name`. When these arguments change,
    one that runs is told, or `restarts` where it cannot be. `packages`: it needs the packages of the program,
    not the standard library alone.

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
