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

__all__ = ["EnterBlock", "allowed", "current", "inside", "install"]


class EnterBlock:
    """One `with enter():` block."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.active = True


# The block that the running code is in; inherited by tasks, and by trio's threads.
current: ContextVar[EnterBlock | None] = ContextVar("patchbay_node", default=None)
_allowed: ContextVar[bool] = ContextVar("patchbay_allowed", default=False)
# A thread that `threading` starts inherits no context: what it was started in is kept here.
_started_in: weakref.WeakKeyDictionary[threading.Thread, EnterBlock] = weakref.WeakKeyDictionary()

# Families that are of no network namespace. A name of a unix socket may be: `_check_name`.
_LOCAL = frozenset({socket.AF_UNIX, getattr(socket, "AF_ALG", socket.AF_UNIX)})
_NAMED = frozenset({"socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg"})
# Each asks for the name of an address, so an address as argument does not make it harmless.
_REVERSE = frozenset({"socket.gethostbyaddr", "socket.getnameinfo"})
_LOOK_UPS = _REVERSE | {"socket.getaddrinfo", "socket.gethostbyname"}


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """Exempt this block from the guard: its sockets come from a worker, or are the host's on purpose."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def inside() -> EnterBlock | None:
    """Return the block in which the calling code runs, in whichever thread; None outside of any."""
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
        _check_look_up(event, args[0])
    elif event in _NAMED:
        _check_name(args[0], args[1])


def _inside_unless_allowed() -> EnterBlock | None:
    scope = inside()
    return None if scope is None or _allowed.get() else scope


def _check_socket(family: int) -> None:
    scope = _inside_unless_allowed()
    if scope is None or family in _LOCAL:
        return
    # accept(), dup() and fromfd() wrap a descriptor that is of some namespace already.
    if sys._getframe(2).f_locals.get("fileno") is not None:
        return
    raise OutsideNodeError(
        f"a plain socket inside `enter()` of '{scope.node.name}' would use the host's network: "
        "use trio's sockets here, `node.socket()`, or run the code in the node with `await node.call(fn)`"
    )


def _check_name(sock: socket.socket, address: Any) -> None:
    """Refuse an abstract name of a unix socket, which belongs to a network namespace (unix(7))."""
    abstract = isinstance(address, str | bytes) and address[:1] in ("\0", b"\0")
    if not abstract or (scope := _inside_unless_allowed()) is None:
        return
    if not scope.node._view().owns(sock.fileno()):
        raise OutsideNodeError(
            f"the abstract unix socket {address!r} inside `enter()` of '{scope.node.name}' would be the "
            "host's: use trio's sockets here, or `node.socket(socket.AF_UNIX)`"
        )


def _check_look_up(event: str, host: Any) -> None:
    scope = _inside_unless_allowed()
    if scope is None or host is None:
        return
    if event not in _REVERSE:
        if not isinstance(host, str | bytes):
            return
        # trio asks first whether the name is an address after all, which sends nothing.
        first_try = bool(sys._getframe(2).f_locals.get("flags", 0) & socket.AI_NUMERICHOST)
        if first_try and _has_interface(host):
            # `fe80::1%eth0` holds an interface's name, which has another number in the node.
            raise socket.gaierror(socket.EAI_NONAME, "an address with an interface of the node")
        if first_try or (_is_address(host) and not _has_interface(host)):
            return
    raise OutsideNodeError(
        f"{event}({host!r}) inside `enter()` of '{scope.node.name}' would ask the host's name services: "
        "use the look-ups of trio.socket here, or run the code in the node with `await node.call(fn)`"
    )


def _has_interface(host: str | bytes) -> bool:
    return ("%" if isinstance(host, str) else b"%") in host  # type: ignore[operator]


def _is_address(host: str | bytes) -> bool:
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host.partition("%")[0])
    except ValueError:
        return False
    return True


def _submit(pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Replace `ThreadPoolExecutor.submit`, because a pool's threads may be older than the block."""
    scope = inside()
    if scope is None:
        return _really_submit(pool, fn, *args, **kwargs)
    context = copy_context()
    context.run(current.set, scope)
    return _really_submit(pool, context.run, fn, *args, **kwargs)


def _start_thread(thread: threading.Thread) -> None:
    """Replace `Thread.start`, because Python 3.11 has no audit event for it."""
    scope = inside()
    # trio keeps its threads for other work later, and hands each piece of work its own context.
    target = getattr(thread, "_target", None)
    if scope is not None and not (getattr(target, "__module__", None) or "").startswith("trio."):
        _started_in[thread] = scope
    _really_start(thread)
