"""The program's side of `node.call()`."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import itertools
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import trio

from patchbay.errors import PatchbayError, WorkerError
from patchbay.sandbox.inside import callworker
from patchbay.sandbox.inside.packages import program_path
from patchbay.sandbox.sandbox import Channel
from patchbay.sandbox.view import in_node

__all__ = ["Caller"]


class _Answer:
    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.message: tuple[str, bytes] | None = None


class Caller:
    """A node's call worker: started once, then asked by many tasks at a time."""

    def __init__(self, node: str, conversation: socket.socket, sock: socket.socket) -> None:
        self._node = node
        self._conversation = conversation
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._sending = trio.Lock()
        self._numbers = itertools.count(1)
        self._open: dict[int, _Answer] = {}
        self.dead: PatchbayError | None = None

    @classmethod
    async def start(cls, node: str, ns: str, agent: Channel) -> Caller:
        """Start the worker process. What it prints goes where the program's own output goes."""
        with contextlib.ExitStack() as on_failure:
            conversation = on_failure.enter_context(agent.converse())
            mine, theirs = socket.socketpair()
            on_failure.enter_context(mine)
            mine.setblocking(False)
            request = {"ns": ns, "path": program_path(), "env": dict(os.environ), "cwd": os.getcwd()}
            null = os.open(os.devnull, os.O_RDONLY)
            with theirs:
                try:
                    agent.send(conversation, {"calls": request}, (null, 1, 2, theirs.fileno()))
                finally:
                    os.close(null)
                try:
                    await agent.answer(conversation)
                except OSError as error:
                    raise in_node(node, error) from None
            on_failure.pop_all()
        return cls(node, conversation, mine)

    async def read_answers(self) -> None:
        """Hand out answers until the worker ends; a task of the lab."""
        unread = b""
        try:
            while data := await self._stream.receive_some(1 << 20):
                unread = self._take_frames(unread + data)
        except trio.BrokenResourceError:
            pass  # it died while writing: reported below
        except trio.ClosedResourceError:
            return
        self._died()

    def _take_frames(self, data: bytes) -> bytes:
        head = 8
        while len(data) >= head and len(data) >= head + (size := int.from_bytes(data[:head])):
            number, kind, payload = pickle.loads(data[head : head + size])
            data = data[head + size :]
            if answer := self._open.pop(number, None):
                answer.message = (kind, payload)
                answer.arrived.set()
        return data

    def _died(self) -> None:
        self._end(WorkerError(f"the worker process of '{self._node}' ended in the middle of a call"))

    def _end(self, error: PatchbayError) -> None:
        """Let every call that is under way, and those to come, raise the error."""
        self.dead = self.dead or error
        for answer in self._open.values():
            answer.arrived.set()

    async def call(self, kind: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run `function(*args)` in the node; its value, or its exception as itself."""
        if inspect.iscoroutinefunction(function) != (kind == "async"):
            other = "call()" if kind == "async" else "call_async()"
            raise TypeError(f"{function!r} is for {other}")
        payload = _pickle_call(function, args)
        number = next(self._numbers)
        answer = self._open[number] = _Answer()
        try:
            async with self._sending:
                await self._stream.send_all(callworker.frame((number, kind, payload)))
            await answer.arrived.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._died()
        except trio.Cancelled:
            self._give_up(number)
            raise
        finally:
            self._open.pop(number, None)
        if answer.message is None:
            assert self.dead
            raise self.dead.with_traceback(None)
        return _unpickle(*answer.message)

    def _give_up(self, number: int) -> None:
        """Ask an async function to stop. A synchronous one cannot be: its thread goes on unheard."""
        sock = self._stream.socket
        try:
            socket.socket.send(sock._sock, callworker.frame((number, "cancel", b"")))  # type: ignore[attr-defined]
        except OSError:
            self._died()

    def close(self, error: PatchbayError) -> None:
        """End the worker process. Calls that are under way raise the error."""
        self._end(error)
        self._stream.socket.close()
        self._conversation.close()


def _unpickle(kind: str, payload: bytes) -> Any:
    try:
        value = pickle.loads(payload)
    except Exception as error:
        raise WorkerError(f"the answer of a call could not be read here: {error!r}") from error
    if kind == "value":
        return value
    remote, text = value
    if remote is None:
        raise WorkerError(f"a call failed with an exception that cannot be handed over:\n{text}")
    remote.add_note(f"In the node:\n{text}")
    raise remote


def _pickle_call(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """Pickled by value where the worker could not import it: `__main__`, notebooks, tests."""
    module = inspect.getmodule(inspect.unwrap(getattr(function, "func", function)))
    if module is None or module.__name__ == "__main__":
        # cloudpickle itself takes `__main__` by value.
        return callworker.pickled((function, args), plain=False)
    if _importable(module):
        plain = _is_plain_function(function) and all(map(callworker.is_plain, args))
        return callworker.pickled((function, args), plain=plain)
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    try:
        return callworker.pickled((function, args), plain=False)
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _is_plain_function(function: object) -> bool:
    """Return True for a function that pickle carries by name. A method would bring its object along."""
    of = getattr(function, "__self__", None)
    return isinstance(function, FunctionType | BuiltinFunctionType) and (
        of is None or isinstance(of, ModuleType)
    )


def _importable(module: ModuleType) -> bool:
    """Return True if another interpreter with our sys.path finds the same module by its name."""
    try:
        spec = importlib.util.find_spec(module.__name__)
    except (ImportError, ValueError):
        return False
    name = Path(getattr(module, "__file__", None) or "").name
    is_test = name.startswith("test_") or name == "conftest.py"
    return spec is not None and spec.origin == getattr(module.__spec__, "origin", None) and not is_test
