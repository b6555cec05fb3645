"""The process behind `node.call()`: runs functions that the program sends, each in a thread of its own.

A fork of the agent, which makes itself an interpreter like the program's. Frames are a length and a pickle,
so that only what users send goes through cloudpickle, and only where pickle cannot carry it.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import socket
import struct
import sys
import threading
import traceback
from typing import Any

from patchbay.sandbox.inside.packages import use_packages

__all__ = ["frame", "is_plain", "main", "pickled", "read_frame"]

_LENGTH = struct.Struct(">Q")


def frame(message: tuple[Any, ...]) -> bytes:
    """Return a message as bytes: its length, and its pickle."""
    data = pickle.dumps(message)
    return _LENGTH.pack(len(data)) + data


def read_frame(sock: socket.socket) -> Any:
    """Read the next message. Return None at the end."""
    head = _read(sock, _LENGTH.size)
    return pickle.loads(_read(sock, _LENGTH.unpack(head)[0])) if head else None


def _read(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            return b""
        data += part
    return bytes(data)


# Exact types whose values are the same to every interpreter.
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})


def is_plain(value: object) -> bool:
    """Return whether pickle alone carries the value as cloudpickle would."""
    return type(value) in _PLAIN


def pickled(value: object, *, plain: bool) -> bytes:
    """Pickle a value; by cloudpickle where pickle alone cannot, because that takes 20 ms to load."""
    if plain:
        with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError):
            return pickle.dumps(value)
    import cloudpickle

    return cloudpickle.dumps(value)  # type: ignore[no-any-return]


class _Calls:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._cancel: dict[int, Any] = {}
        # Idle threads, each by what it waits for: to start a thread takes longer than most calls.
        self._idle: list[queue.SimpleQueue[tuple[int, str, bytes]]] = []

    def serve(self) -> None:
        while (message := read_frame(self._sock)) is not None:
            number, kind, _payload = message
            if kind == "cancel":
                if cancel := self._cancel.get(number):
                    cancel()
            elif self._idle:
                self._idle.pop().put(message)
            else:
                threading.Thread(target=self._work, args=(message,), daemon=True).start()

    def _work(self, message: tuple[int, str, bytes]) -> None:
        calls: queue.SimpleQueue[tuple[int, str, bytes]] = queue.SimpleQueue()
        while True:
            self._run(*message)
            self._idle.append(calls)
            message = calls.get()

    def _run(self, number: int, kind: str, payload: bytes) -> None:
        try:
            function, args = pickle.loads(payload)
            value = self._run_async(number, function, args) if kind == "async" else function(*args)
            answer = (number, "value", pickled(value, plain=is_plain(value)))
        except BaseException as error:
            answer = (number, "error", _pickled_error(error))
        finally:
            self._cancel.pop(number, None)
        with self._sending:
            self._sock.sendall(frame(answer))

    def _run_async(self, number: int, function: Any, args: tuple[Any, ...]) -> Any:
        import trio

        async def cancellable() -> Any:
            token = trio.lowlevel.current_trio_token()
            with trio.CancelScope() as scope:
                self._cancel[number] = lambda: token.run_sync_soon(scope.cancel)
                return await function(*args)

        return trio.run(cancellable)


def _pickled_error(error: BaseException | None) -> bytes:
    import cloudpickle

    text = "".join(traceback.format_exception(error))
    # SystemExit and the like are about a process, and it is not the program's that they mean.
    if not isinstance(error, Exception):
        error = None
    try:
        data: bytes = cloudpickle.dumps((error, text))
        pickle.loads(data)
    except Exception:  # an exception that cannot travel: its text does
        data = cloudpickle.dumps((None, text))
    return data


def main(request: dict[str, Any], fds: list[int]) -> None:
    """Serve calls with the program's `sys.path`, folder, environment and output: 0, 1, 2, and the socket."""
    *streams, calls = fds
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdout = _text_stream(1, sys.stdout)
    sys.stderr = _text_stream(2, sys.stderr)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = [""]
    use_packages(request["path"])
    _Calls(socket.socket(fileno=calls)).serve()


def _text_stream(fd: int, like: Any) -> Any:
    # By line, because this process ends without a chance to flush.
    return io.TextIOWrapper(
        open(fd, "wb", closefd=False), encoding=like.encoding, errors=like.errors, line_buffering=True
    )
