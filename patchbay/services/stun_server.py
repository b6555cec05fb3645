"""The STUN server of a device: Binding over UDP and TCP, at all addresses of the device (RFC 8489).

Manually, in the device's namespace; it goes on in the background:

    python3 -m patchbay.services.stun_server --port 3478

It has one port, so it offers no other address and refuses requests for a change, as RFC 5780 section 6.1 has
it. One thread.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial

from patchbay.sandbox.inside import wire
from patchbay.sandbox.inside.service import Control, UsageError, serve
from patchbay.services import stun_messages as stun

__all__ = ["StunServer", "main"]

_CHANGE_REQUEST = 0x0003
_UNKNOWN_ATTRIBUTE = 420
_BACKLOG = 128

_IP_PKTINFO = 8  # linux/in.h; Python has no name for it
# Of ip(7) and ipv6(7): an interface, and the local address at which a packet has arrived. An answer that is
# sent with the address leaves from there, whichever address of the device is the first.
_IN_PKTINFO, _IN6_PKTINFO = struct.Struct("=I4s4s"), struct.Struct("=16sI")


class StunServer:
    """Sockets at one port, and who is connected. Raises `OSError` where the port is taken."""

    def __init__(self, argv: list[str], control: Control | None) -> None:
        self._port = _parse(argv)
        self._control = control
        self._waiter = selectors.DefaultSelector()
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                self._open(family)
            except OSError as error:
                # A kernel may be without IPv6.
                if family == socket.AF_INET or error.errno != errno.EAFNOSUPPORT:
                    raise

    def _open(self, family: socket.AddressFamily) -> None:
        udp, tcp = (socket.socket(family, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        for sock in (udp, tcp):
            sock.setblocking(False)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind(("", self._port))
        tcp.bind(("", self._port))
        tcp.listen(_BACKLOG)
        self._watch(udp, partial(self._datagram, udp))
        self._watch(tcp, partial(self._accept, tcp))

    def _watch(self, sock: socket.socket, ready: Callable[[], None]) -> None:
        self._waiter.register(sock, selectors.EVENT_READ, ready)

    def _forget(self, sock: socket.socket) -> None:
        self._waiter.unregister(sock)
        sock.close()

    def close(self) -> None:
        for key in list(self._waiter.get_map().values()):
            self._forget(key.fileobj)  # type: ignore[arg-type]
        self._waiter.close()

    def serve(self) -> None:
        """Serve until the conversation ends."""
        if self._control:
            self._waiter.register(self._control.fileno(), selectors.EVENT_READ, None)
        while True:
            for key, _ in self._waiter.select():
                if key.data is not None:
                    key.data()
                elif self._control and not self._control.attend(_answer_nothing):
                    self._waiter.unregister(key.fileobj)
                    return

    def _datagram(self, sock: socket.socket) -> None:
        # An error is that of an answer sent before, by ICMP.
        with contextlib.suppress(OSError):
            data, control, _, address = sock.recvmsg(65535, socket.CMSG_SPACE(_IN6_PKTINFO.size))
            request = stun.decode(data)
            if not isinstance(request, stun.Request) or not control:
                return
            level, kind, raw = control[0]
            local, info = _arrival(level, raw)
            answer = _answer(request, _endpoint(address), (local, self._port))
            port = address[1] if request.response_port is None else request.response_port
            sock.sendmsg([stun.encode(answer)], [(level, kind, info)], 0, (address[0], port, *address[2:]))

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, address = listener.accept()
            client.setblocking(False)
            self._watch(client, partial(self._read, client, _endpoint(address), bytearray()))

    def _read(self, client: socket.socket, address: stun.Endpoint, unread: bytearray) -> None:
        """Answer what has come by a connection. End the connection at its end, and for other protocols."""
        try:
            data = client.recv(65535)
            unread += data
            own = _endpoint(client.getsockname())
            while len(unread) >= stun.HEADER:
                length = stun.body_length(bytes(unread[: stun.HEADER]))
                if length is None:
                    raise ConnectionAbortedError
                if len(unread) < stun.HEADER + length:
                    break
                request = stun.decode(bytes(unread[: stun.HEADER + length]))
                del unread[: stun.HEADER + length]
                if isinstance(request, stun.Request):
                    client.sendall(stun.encode(_answer(request, address, own)))
        except OSError:
            data = b""
        if not data:
            self._forget(client)


def _arrival(level: int, raw: bytes) -> tuple[str, bytes]:
    """Return the local address of a packet, and what makes an answer leave from there.

    Routes choose the interface, unless the address means nothing without one.
    """
    if level == socket.IPPROTO_IPV6:
        local, interface = _IN6_PKTINFO.unpack(raw)
        text = socket.inet_ntop(socket.AF_INET6, local)
        return text, _IN6_PKTINFO.pack(local, interface if text.startswith("fe80:") else 0)
    _, local, _ = _IN_PKTINFO.unpack(raw)
    return socket.inet_ntop(socket.AF_INET, local), _IN_PKTINFO.pack(0, local, bytes(4))


def _answer(request: stun.Request, client: stun.Endpoint, own: stun.Endpoint) -> stun.Message:
    changes = request.change_address or request.change_port
    unknown = (*request.unknown, *((_CHANGE_REQUEST,) if changes else ()))
    if unknown:
        return stun.Refusal(request.transaction, _UNKNOWN_ATTRIBUTE, unknown)
    return stun.Response(request.transaction, client, own)


def _endpoint(address: tuple[str, int]) -> stun.Endpoint:
    return address[0].partition("%")[0], address[1]


def _answer_nothing(_: wire.Message) -> wire.Message:
    return {"set": True}


def _parse(argv: list[str]) -> int:
    match argv:
        case ["--port", port] if port.isdecimal() and 0 < int(port) < 65536:
            return int(port)
    raise UsageError("usage: --port PORT")


def main(argv: list[str], control: socket.socket | None) -> None:
    """Serve until `control` ends; without it, from the background."""
    serve("stun_server", StunServer, argv, control)


if __name__ == "__main__":
    main(sys.argv[1:], None)
