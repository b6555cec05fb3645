"""The process behind `node.call()`: runs functions that the program sends, each in a thread of its own.

Started in the node with the program's interpreter. Frames are a length and a pickle, so that only
what users send goes through cloudpickle.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import sys
import threading
import traceback
from typing import Any

__all__ = ["frame", "main", "read_frame"]

_LENGTH = struct.Struct(">Q")


def frame(message: tuple[Any, ...]) -> bytes:
    """A message as it travels."""
    data = pickle.dumps(message)
    return _LENGTH.pack(len(data)) + data


def read_frame(sock: socket.socket) -> Any:
    """The next message; None at the end."""
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


class _Calls:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._cancel: dict[int, Any] = {}

    def serve(self) -> None:
        while (message := read_frame(self._sock)) is not None:
            number, kind, payload = message
            if kind == "cancel":
                if cancel := self._cancel.get(number):
                    cancel()
                continue
            threading.Thread(target=self._run, args=(number, kind, payload), daemon=True).start()

    def _run(self, number: int, kind: str, payload: bytes) -> None:
        import cloudpickle

        try:
            function, args = pickle.loads(payload)
            value = self._run_async(number, function, args) if kind == "async" else function(*args)
            answer = (number, "value", cloudpickle.dumps(value))
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


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(sock.fileno(), False)
    _, _, path = read_frame(sock)
    sys.path[:] = path
    _Calls(sock).serve()
    os._exit(0)


if __name__ == "__main__":
    main()
