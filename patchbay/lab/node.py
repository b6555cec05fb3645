"""The methods of every node: run processes, open sockets, call functions."""

from __future__ import annotations

import contextlib
import socket as stdlib_socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from attrs import field, frozen

from patchbay.errors import PatchbayError, StaleHandleError
from patchbay.lab.core import Core
from patchbay.lab.named import Named
from patchbay.lab.running import Input, StreamSink, run_to_end
from patchbay.layout.layout import Address, IfaceLayout, Layout, NodeLayout, of_version
from patchbay.layout.wires import condition_of
from patchbay.model.link import Condition
from patchbay.sandbox.lookups import look_up
from patchbay.sandbox.process import NodePopen, NodeProcess, spawn
from patchbay.sandbox.spawn import Argv, Folder, Spawn, Variables
from patchbay.sandbox.view import NodeView

if TYPE_CHECKING:
    from patchbay.lab.lab import Lab

__all__ = ["Interface", "Node"]

T = TypeVar("T")


@frozen
class Interface:
    """An interface of a node: `ip` and `ip6` are None where it has none, `mtu` is in bytes.

    `link` is the present condition of its link.
    """

    name: str
    ip: IPv4Address | None
    ip6: IPv6Address | None
    ll6: IPv6Address
    mac: str
    mtu: int
    router: str
    link: Condition
    _find_index: Callable[[str], int] = field(alias="find_index", eq=False, repr=False)

    @property
    def index(self) -> int:
        """Return the kernel's number of the interface in its node, for scope ids and the like.

        Blocks for some 100 µs.
        """
        return self._find_index(self.name)


def _interface(iface: IfaceLayout, link: Condition, find_index: Callable[[str], int]) -> Interface:
    v4, v6 = of_version(iface.addresses, 4), of_version(iface.addresses, 6)
    return Interface(
        name=iface.name,
        ip=v4.ip if v4 else None,  # type: ignore[arg-type]
        ip6=v6.ip if v6 else None,  # type: ignore[arg-type]
        ll6=_link_local(iface.mac),
        mac=iface.mac,
        mtu=iface.mtu or 1500,
        router=iface.router,
        link=link,
        find_index=find_index,
    )


def _link_local(mac: str) -> IPv6Address:
    """Return the kernel's link-local address for a MAC: modified EUI-64, RFC 4291 appendix A."""
    raw = bytes.fromhex(mac.replace(":", ""))
    eui = bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + eui)


class Node(Named):
    """A device, router or exchange of a live lab. Made by the lab; there is no constructor to call."""

    def __init__(self, core: Core, name: str) -> None:
        self._core = core
        self._name = name
        # The node is not in the lab any more, or was never made. A namesake has a handle of its own.
        self._gone = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of lab {self._core.label!r}>"

    @property
    def _scope(self) -> str:
        return self.name

    # -- what it is

    @property
    def name(self) -> str:
        """Return the name of the node in the lab."""
        return self._name

    @property
    def ns(self) -> str:
        """Return the network namespace of the node, in the lab's own /run/netns."""
        return self._layout.ns

    @property
    def lab(self) -> Lab:
        return self._core.lab

    @property
    def ifaces(self) -> tuple[Interface, ...]:
        """Return the uplinks in order. A router's LAN is not among them: see `downstream_gw`."""
        return tuple(
            _interface(
                iface, condition_of(self._core.visible, ("link", self.name, iface.name)), self._index_of
            )
            for iface in self._layout.ifaces
        )

    def _index_of(self, iface: str) -> int:
        return self._view().index_of(iface)

    def iface(self, name: str) -> Interface:
        """Return the interface of that name. Raises `KeyError` with the known names."""
        for iface in self.ifaces:
            if iface.name == name:
                return iface
        known = ", ".join(iface.name for iface in self.ifaces)
        raise KeyError(f"'{self.name}' has no interface '{name}'; it has: {known}")

    @property
    def ip(self) -> IPv4Address | None:
        """Return the IPv4 address of the default interface, or None."""
        return self._address(4)  # type: ignore[return-value]

    @property
    def ip6(self) -> IPv6Address | None:
        """Return the IPv6 address of the default interface, or None."""
        return self._address(6)  # type: ignore[return-value]

    def _address(self, version: int) -> Address | None:
        raise NotImplementedError

    def filepath(self, suffix: str) -> Path:
        """Return a path in the node's folder of the run. Raises `PatchbayError` in a lab without files."""
        return self._core.node_file(self.name, suffix)

    # -- processes

    async def run(
        self,
        argv: Argv,
        *,
        check: bool = True,
        capture_stdout: bool = False,
        capture_stderr: bool = False,
        stdin: Input = b"",
        env: Variables | None = None,
        cwd: Folder | None = None,
        timeout: float | None = None,
        user: str | int | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the node to its end, as `trio.run_process` runs one on the host.

        `env` is added to the caller's environment; `cwd` is the caller's by default. `stdin` is bytes, a
        descriptor or a file. Output that is not captured goes on to the caller's own. `timeout` is in
        seconds. When the call is cancelled or too slow, the command and its process group are sent SIGTERM,
        and SIGKILL 2 s later. `user` is the name or the number of an account, whose groups the command then
        has.

        Raises `subprocess.CalledProcessError` for a failing exit unless `check` is false, with the node and
        the end of stderr in its text; `trio.TooSlowError` after `timeout`; `FileNotFoundError` if there is
        no such program or `cwd`; `KeyError` for an unknown `user`; `PatchbayError` for one whose id the lab
        lacks.
        """
        view = self._view()
        what = Spawn(argv, env, cwd, view.account(user))
        with contextlib.ExitStack() as files:
            logs = [files.enter_context(log) if log else None for log in self._core.output_logs(self.name)]
            started: list[NodeProcess] = []

            def note_start(process: NodeProcess) -> None:
                started.append(process)
                self._core.event("command_started", node=self.name, argv=what.args, pid=process.pid)

            try:
                return await run_to_end(
                    view,
                    what,
                    stdin=stdin,
                    stdout=StreamSink(capture=capture_stdout, own=1, log=logs[0]),
                    stderr=StreamSink(capture=capture_stderr, own=2, log=logs[1]),
                    check=check,
                    timeout=timeout,
                    started=note_start,
                )
            finally:
                for process in started:
                    self._note_exit(process)

    def _note_exit(self, process: NodeProcess) -> None:
        code = process.returncode
        self._core.event("command_exited", node=self.name, argv=process.args, pid=process.pid, status=code)

    @contextlib.asynccontextmanager
    async def open_process(
        self,
        argv: Argv,
        *,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        env: Variables | None = None,
        cwd: Folder | None = None,
        user: str | int | None = None,
    ) -> AsyncIterator[NodeProcess]:
        """Run a process in the node for as long as the block lasts, in the shape of a `trio.Process`.

        `stdin`, `stdout`, `stderr` are as for `subprocess.Popen`: None for the program's own,
        `subprocess.PIPE` for a trio stream, `DEVNULL`, a descriptor or a file. On leaving, the process
        and its group are sent SIGTERM, and SIGKILL 2 s later, and are waited for.
        """
        view = self._view()
        what = Spawn(argv, env, cwd, view.account(user))
        process = await spawn(view, what, stdin, stdout, stderr)
        self._core.event("command_started", node=self.name, argv=process.args, pid=process.pid)
        try:
            yield process
        finally:
            await process.end()
            self._note_exit(process)

    def popen(
        self,
        argv: Argv,
        *,
        env: Variables | None = None,
        cwd: Folder | None = None,
        user: str | int | None = None,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Start a `subprocess.Popen` in the node, for code without trio; `options` are those of Popen.

        It is a true child of the program, in its process group, so that Ctrl-C reaches it too; and it ends
        with the lab. Raises `TypeError` for options that a process in a node cannot have: `preexec_fn`,
        `shell`, `executable`, `group`, `extra_groups`.
        """
        view = self._view()
        return NodePopen(view, Spawn(argv, env, cwd, view.account(user)), options)

    # -- sockets

    def socket(
        self, family: int = stdlib_socket.AF_INET, type: int = stdlib_socket.SOCK_STREAM, proto: int = 0
    ) -> stdlib_socket.socket:
        """Return a plain socket in the node's network, closed with the lab. May be called from any thread."""
        return self._view().socket(family, type, proto)

    def enter(self) -> AbstractContextManager[None]:
        """Let trio's sockets and look-ups be the node's, in this block and in tasks that start in it.

        Whatever is built on trio's sockets works unchanged. A plain `socket.socket()` of an internet
        family that other code makes in the block raises `OutsideNodeError`, because it would use the host's
        network.
        """
        from patchbay.sandbox.enter import enter_node

        self._view()
        return enter_node(self)

    async def task(
        self,
        async_fn: Callable[..., Awaitable[T]],
        *args: Any,
        task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
    ) -> T:
        """Run `async_fn(*args)` inside `enter()`; made for `nursery.start_soon` and `nursery.start`.

        `task_status` is passed on only when it is given, as `nursery.start` does.
        """
        with self.enter():
            if task_status is trio.TASK_STATUS_IGNORED:
                return await async_fn(*args)
            return await async_fn(*args, task_status=task_status)

    async def listening(self, port: int, *, protocol: str = "tcp", timeout: float = 10.0) -> None:
        """Wait until a TCP socket of the node listens on `port`, or with "udp" one is bound to it.

        Any address of the node counts, and both IP versions. After `timeout` seconds, 0 for a single look,
        it raises `trio.TooSlowError`, which names the ports that are open. Raises `ValueError` for a wrong
        port or protocol.
        """
        from patchbay.lab.listening import until_listening

        await until_listening(self._view, port, protocol, timeout)

    async def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """Call `socket.getaddrinfo` as the node's processes would. Raises `socket.gaierror`."""
        args = (host, port, family, type, proto, flags)
        return await look_up(self._view(), "getaddrinfo", *args)  # type: ignore[no-any-return]

    async def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int = 0) -> tuple[str, str]:
        """Call `socket.getnameinfo` as the node's processes would. Raises `socket.gaierror`."""
        return await look_up(self._view(), "getnameinfo", sockaddr, flags)  # type: ignore[no-any-return]

    # -- calls

    async def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(*args)` in a worker process inside the node, in a thread of its own.

        Function, arguments and result travel by cloudpickle; functions of `__main__`, notebooks and
        tests travel by value. An exception comes back as itself, with the remote traceback as a note.
        When cancelled, the thread goes on unheard. Raises `WorkerError` if the worker process dies.
        """
        return await self._call("sync", fn, args)  # type: ignore[no-any-return]

    async def call_async(self, async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run an async function likewise, under the worker's own `trio.run`, cancelled with this call."""
        return await self._call("async", async_fn, args)  # type: ignore[no-any-return]

    async def _call(self, kind: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self._view()
        caller = await self._core.session.caller(self._layout)
        return await caller.call(kind, fn, args)

    # -- small services

    @contextlib.asynccontextmanager
    async def reflector(self, port_or_address: int | tuple[str, int] = 0) -> AsyncIterator[tuple[str, int]]:
        """Serve UDP echo in the node for the length of the block, which gets the server's address.

        It answers a STUN Binding request as a STUN server does (RFC 8489), with the endpoint that it sees.

        With a port alone it listens on every address, and gives the node's own; port 0 is any free one.
        """
        from patchbay.lab.reflector import background, reflect

        host, port = port_or_address if isinstance(port_or_address, tuple) else (None, port_or_address)
        own = str(self.ip or self.ip6)
        family = stdlib_socket.AF_INET6 if ":" in (host or own) else stdlib_socket.AF_INET
        plain = self.socket(family, stdlib_socket.SOCK_DGRAM)
        with trio.socket.from_stdlib_socket(plain) as sock:
            plain.bind((host or ("::" if family == stdlib_socket.AF_INET6 else "0.0.0.0"), port))
            async with background(self.gone) as tasks:
                tasks.start_soon(reflect, sock)
                yield (host or own, sock.getsockname()[1])

    # -- inside

    def _find(self, layout: Layout) -> NodeLayout | None:
        """Return the node as that layout has it."""
        raise NotImplementedError

    def let_go(self, *layouts: Layout) -> bool:
        """Make the handle stale for good unless one of the layouts has the node. Return whether it is."""
        self._gone = not any(self._find(layout) for layout in layouts)
        return self._gone

    @property
    def _layout(self) -> NodeLayout:
        """Return the node as the present layout has it. Raises `StaleHandleError` if it has not."""
        if not self._gone and (found := self._find(self._core.visible)):
            return found
        raise self._stale()

    def _stale(self) -> StaleHandleError:
        waiting = None if self._gone else self._core.changes.waiting
        if waiting and self._find(waiting):
            return StaleHandleError(f"'{self.name}' waits for its batch: leave the `batch()` block first")
        return StaleHandleError(f"the node '{self.name}' behind this handle is not in the lab (any more)")

    def _usable(self) -> NodeLayout:
        """Return the node as the kernel has it. Raises `StaleHandleError` for a node that it has not."""
        self._core.check_open()
        if not self._gone and (found := self._find(self._core.changes.applied)):
            return found
        raise self._stale()

    def gone(self) -> PatchbayError | None:
        """Return the error of using the node now, or None if it can be used."""
        try:
            self._usable()
        except PatchbayError as error:
            return error
        return None

    def _view(self) -> NodeView:
        return self._core.view_of(self._usable())
