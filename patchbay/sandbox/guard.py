"""Keeps code inside `enter()` from quietly using the host's network.

trio's sockets go to the node through trio's own hooks (`enter`). What does not go through trio, such
as `requests`, a thread, or `socket.create_connection`, would get a socket of the host: an audit
hook (PEP 578) sees every one that is made in this process, and refuses those.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any

from patchbay.errors import OutsideNodeError

__all__ = ["Scope", "allowed", "current", "inside", "install"]


class Scope:
    """One `with enter():` block."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.active = True


# The block that the running code is in; inherited by tasks, and by trio's threads.
current: ContextVar[Scope | None] = ContextVar("patchbay_node", default=None)
_allowed: ContextVar[bool] = ContextVar("patchbay_allowed", default=False)
# A thread that is started by hand inherits no context: what it was started in is kept here.
_started_in: weakref.WeakKeyDictionary[threading.Thread, Scope] = weakref.WeakKeyDictionary()

_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_PACKET", -1)})
_LOOK_UPS = frozenset(
    {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
)


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """Sockets made in here are meant: they come from a worker, or are of the host on purpose."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def inside() -> Scope | None:
    """The block in which the calling code runs, in whatever thread."""
    if scope := current.get():
        return scope
    if not _started_in:
        return None
    scope = _started_in.get(threading.current_thread())
    return scope if scope and scope.active else None


_installed = False
_really_start = threading.Thread.start
_really_submit = ThreadPoolExecutor.submit


def install() -> None:
    """Once a process: an audit hook cannot be taken away again."""
    global _installed  # noqa: PLW0603  the process has one list of audit hooks
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)
        ThreadPoolExecutor.submit = _submit  # type: ignore[method-assign, assignment]
        threading.Thread.start = _start_thread  # type: ignore[method-assign, assignment]


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.__new__":
        _check_socket(args[1])
    elif event in _LOOK_UPS:
        _check_look_up(event, args)


def _check_socket(family: int) -> None:
    scope = inside()
    if scope is None or family not in _INTERNET or _allowed.get():
        return
    # accept(), dup() and fromfd() wrap a descriptor that is of some namespace already.
    if sys._getframe(2).f_locals.get("fileno") is not None:
        return
    raise OutsideNodeError(
        f"a plain socket inside `enter()` of '{scope.node.name}' would use the host's network: "
        "use trio's sockets here, `node.socket()`, or run the code in the node with `await node.call(fn)`"
    )


def _check_look_up(event: str, args: tuple[Any, ...]) -> None:
    scope = inside()
    host = args[0] if args else None
    if (
        scope is None
        or _allowed.get()
        or host is None
        or not isinstance(host, str | bytes)
        or _is_address(host)
    ):
        return
    # trio asks first whether the name is an address after all, which sends nothing.
    if sys._getframe(2).f_locals.get("flags", 0) & socket.AI_NUMERICHOST:
        return
    raise OutsideNodeError(
        f"{event}({host!r}) inside `enter()` of '{scope.node.name}' would ask the host's name servers: "
        "use trio.socket.getaddrinfo here, or run the code in the node with `await node.call(fn)`"
    )


def _is_address(host: str | bytes) -> bool:
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host.partition("%")[0])
    except ValueError:
        return False
    return True


def _submit(pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """In place of `ThreadPoolExecutor.submit`: a pool's threads may be older than the block."""
    scope = inside()
    if scope is None:
        return _really_submit(pool, fn, *args, **kwargs)
    context = copy_context()
    context.run(current.set, scope)
    return _really_submit(pool, context.run, fn, *args, **kwargs)


def _start_thread(thread: threading.Thread) -> None:
    """In place of `Thread.start`, for whose event (`_thread.start_new_thread`) Python 3.11 has no hook."""
    scope = inside()
    # trio keeps its threads for other work later, and hands each piece of work its own context.
    target = getattr(thread, "_target", None)
    if scope is not None and not (getattr(target, "__module__", None) or "").startswith("trio."):
        _started_in[thread] = scope
    _really_start(thread)
