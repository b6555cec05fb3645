"""`enter()`: trio's sockets and look-ups go to a node, for this task and those it starts."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Protocol

import trio

from patchbay.sandbox import guard

__all__ = ["EnterableNode", "enter_node"]


class EnterableNode(Protocol):
    """The methods that `enter()` needs of a node."""

    @property
    def name(self) -> str: ...

    def socket(self, family: int, type: int, proto: int = 0) -> socket.socket: ...

    async def getaddrinfo(
        self, host: Any, port: Any, family: int, type: int, proto: int, flags: int
    ) -> list[Any]: ...

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]: ...


@contextlib.contextmanager
def enter_node(node: EnterableNode) -> Iterator[None]:
    """See `Node.enter`."""
    guard.install()
    _install()
    scope = guard.EnterBlock(node)
    token = guard.current.set(scope)
    try:
        yield
    finally:
        scope.active = False
        # Not with the token: a generator may be closed in another context than it was opened in.
        with contextlib.suppress(ValueError):
            guard.current.reset(token)


def _install() -> None:
    """Put our hooks into the running trio, in front of those that are there.

    They stay for the whole `trio.run`, doing nothing outside `enter()`: taking them out for one lab
    would take them from another that is still open.
    """
    factory = trio.socket.set_custom_socket_factory(None)
    trio.socket.set_custom_socket_factory(
        factory if isinstance(factory, _SocketFactory) else _SocketFactory(factory)
    )
    resolver = trio.socket.set_custom_hostname_resolver(None)
    trio.socket.set_custom_hostname_resolver(
        resolver if isinstance(resolver, _Resolver) else _Resolver(resolver)
    )


class _SocketFactory(trio.abc.SocketFactory):
    def __init__(self, before: trio.abc.SocketFactory | None) -> None:
        self._before = before

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> trio.socket.SocketType:
        scope = guard.current.get()
        if scope is not None:
            defaults = (socket.AF_INET, socket.SOCK_STREAM, 0)
            family, type, proto = (
                default if given == -1 else given
                for given, default in zip((family, type, proto), defaults, strict=True)
            )
            return trio.socket.from_stdlib_socket(scope.node.socket(family, type, proto))
        if self._before is not None:
            return self._before.socket(family, type, proto)
        return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))


class _Resolver(trio.abc.HostnameResolver):
    def __init__(self, before: trio.abc.HostnameResolver | None) -> None:
        self._before = before

    async def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        scope = guard.current.get()
        if scope is not None:
            return await scope.node.getaddrinfo(host, port, family, type, proto, flags)
        if self._before is not None:
            return await self._before.getaddrinfo(host, port, family, type, proto, flags)
        # Back to what trio itself would do: a thread, as a look-up blocks.
        return await trio.to_thread.run_sync(
            socket.getaddrinfo, host, port, family, type, proto, flags, abandon_on_cancel=True
        )

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        scope = guard.current.get()
        if scope is not None:
            return await scope.node.getnameinfo(sockaddr, flags)  # type: ignore[no-any-return]
        if self._before is not None:
            return await self._before.getnameinfo(sockaddr, flags)
        return await trio.to_thread.run_sync(socket.getnameinfo, sockaddr, flags, abandon_on_cancel=True)
