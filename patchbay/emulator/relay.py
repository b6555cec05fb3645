"""The userspace link emulator: a process that relays packets between two interfaces, both ways.

For kernels without netem. In a lab a process serves several links. Run manually it serves one, in the
namespace of the two interfaces, and goes on in the background:

    python3 -m patchbay.emulator.relay --far IF --near IF --seed N --up KEY=VALUE... --down KEY=VALUE...

What arrives at `far` goes up and leaves by `near`, and the reverse. Both must be of no other use to
the kernel, such as ports of a bridge that is down: a packet socket sees packets, it does not take them
away. Standard library only; one thread but for what waits for RCU.
"""

from __future__ import annotations

import gc
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from random import Random

from patchbay.emulator.conditions import Arguments, Conditions, parse
from patchbay.emulator.frames import VNET
from patchbay.emulator.line import Line
from patchbay.emulator.packets import Frame
from patchbay.emulator.system import Cable, Waiter, keep_memory, wall_ahead
from patchbay.emulator.tap import Tap, Watch, make_room
from patchbay.sandbox.inside import wire
from patchbay.sandbox.inside.service import Control, UsageError, serve, serve_many

__all__ = ["Relays", "main", "main_of_many", "relays_of_one"]

# So much is admitted before anything is sent, and so often one link has its turn without a look at others.
_ROUNDS = 8
# Nanoseconds between two looks for missed frames.
_LOOK_EVERY = 1_000_000_000


class Way:
    """One direction: from a tap over a line to the other tap."""

    def __init__(self, source: Tap, target: Tap, conditions: Conditions, seed: str) -> None:
        self.line = Line(conditions, Random(seed), time.monotonic_ns())
        self._source = source
        self._target = target
        self._received = self._received_bytes = self._sent = self._sent_bytes = self._refused = 0
        self._last_arrival = 0

    def take_in(self, now: int, ahead: int) -> bool:
        """Read what has arrived; whether there was anything. `ahead`: the wall clock of `now`.

        To admit a frame is quicker than to send one. So all are admitted before any is sent, and if there
        are too many, the line drops them by its rules and not the ring by chance.
        """
        busy = False
        for _ in range(_ROUNDS):
            frames = self._source.read(now + ahead)
            self._received += len(frames)
            self._received_bytes += sum([len(frame) for _, frame in frames]) - VNET * len(frames)
            transparent = self.line.transparent
            if transparent:
                self._send([frame for _, frame in frames])
            else:
                self._admit(frames, ahead)
            more = self._source.release()
            busy |= more
            if transparent or not more:
                break
        return busy

    def _admit(self, frames: list[Frame], ahead: int) -> None:
        admit, last, now = self.line.admit, self._last_arrival, time.monotonic_ns()
        for stamp, frame in frames:
            # Never in the future nor backwards, even if somebody sets the clock.
            last = max(last, min(stamp - ahead, now))
            admit(frame, last)
        self._last_arrival = last

    def put_out(self, now: int) -> None:
        """Send what is due."""
        if due := self.line.due(now):
            self._send(due)

    def _send(self, frames: list[memoryview | bytes] | list[bytes]) -> None:
        send = self._target.send
        sent = total = 0
        for frame in frames:
            if send(frame):
                sent += 1
                total += len(frame)
        self._sent += sent
        self._sent_bytes += total - VNET * sent
        self._refused += len(frames) - sent

    def flush(self) -> None:
        self._source.discard()
        self.line.flush(time.monotonic_ns())

    @property
    def missed(self) -> int:
        """Return the number of frames that the kernel dropped because nobody read them in time."""
        return self._source.count_missed()

    def stats(self) -> dict[str, int]:
        line = self.line
        return {
            "received": self._received,
            "received_bytes": self._received_bytes,
            "sent": self._sent,
            "sent_bytes": self._sent_bytes,
            "lost": line.lost,
            "dropped": line.dropped,
            "duplicated": line.duplicated,
            "reordered": line.reordered,
            "corrupted": line.corrupted,
            "refused": self._refused,
            "missed": self.missed,
            "queued": line.queued,
        }


class Relay:
    """Both ways of one link, and the conversation about them."""

    def __init__(self, argv: list[str], control: Control | None, watch: Watch) -> None:
        arguments = parse(argv)
        self.far, self.near = Tap(arguments.far, watch), Tap(arguments.near, watch)
        self.cable = Cable(self.far.index, self.near.index)
        self.control = control
        self.up = Way(self.far, self.near, arguments.up, f"{arguments.seed} up")
        self.down = Way(self.near, self.far, arguments.down, f"{arguments.seed} down")
        self._names = (arguments.far, arguments.near)
        self._reported = (0, 0)

    def move(self, ahead: int) -> float | None:
        """Relay what there is. Return when there will be something to do: 0 for at once, None for nothing."""
        now = time.monotonic_ns()
        busy = self.up.take_in(now, ahead)
        busy |= self.down.take_in(now, ahead)
        now = time.monotonic_ns()
        self.up.put_out(now)
        self.down.put_out(now)
        if busy:
            return 0
        times = [at for at in (self.up.line.next_time(), self.down.line.next_time()) if at is not None]
        return min(times, default=None)

    def report_missed(self) -> None:
        """Tell the program how many frames nobody read in time, if these have become more."""
        missed = self.up.missed, self.down.missed
        if self.control is not None and missed != self._reported:
            self._reported = missed
            self.control.tell({"overloaded": {"up": missed[0], "down": missed[1]}})

    def wake(self) -> None:
        """Look at both ends next time."""
        self.far.wake()
        self.near.wake()

    def flush(self) -> None:
        self.up.flush()
        self.down.flush()

    def close(self) -> None:
        """Let go of its sockets."""
        self.far.close()
        self.near.close()
        self.cable.sock.close()

    def answer(self, message: wire.Message) -> wire.Message:
        """Do what the program asks for."""
        self.wake()
        ahead = wall_ahead()
        for _ in range(_ROUNDS):
            if self.move(ahead) != 0:  # what arrived before the request is not of the time after it
                break
        if "set" in message:
            self._change(parse(message["set"]))
            return {"set": True}
        if "stats" in message:
            return {"stats": {"up": self.up.stats(), "down": self.down.stats()}}
        if "flush" in message:
            self.flush()
            return {"flush": True}
        raise UsageError(f"no such request: {next(iter(message), None)}")

    def _change(self, arguments: Arguments) -> None:
        if (arguments.far, arguments.near) != self._names:
            raise UsageError(f"this relay is between {self._names[0]} and {self._names[1]}")
        now = time.monotonic_ns()
        self.up.line.change(arguments.up, now)
        self.down.line.change(arguments.down, now)


class Relays:
    """The links of one process: waits for what happens at any of them, and moves their packets in turn."""

    def __init__(self) -> None:
        gc.disable()  # nothing here makes cycles
        keep_memory()
        self._waiter = Waiter()
        self._ready: dict[int, Callable[[int], None]] = {}
        # When each has something to do: 0 for at once, None for nothing.
        self._due: dict[Relay, float | None] = {}
        # When to look for missed frames; None while nothing has arrived since the last look.
        self._look_at: float | None = None

    def add(
        self, argv: list[str], control: Control | None, ended: Callable[[], None], *, alone: bool
    ) -> None:
        """Relay on one more link, until its conversation ends; without one, until an interface is deleted.

        Its interfaces are those of the network namespace in which this is called. A link that is `alone` in
        its process has room for bursts from the beginning. Raises `UsageError` for wrong arguments, and
        `OSError`.
        """
        fds: list[int] = []

        def at_tap(tap: Tap, event: int) -> None:
            tap.wake()
            self._due[relay] = 0
            if event & ~select.EPOLLIN:
                tap.clear_error()

        def at_cable(_event: int) -> None:
            if relay.cable.was_cut():
                relay.flush()
            if relay.cable.gone and control is None:
                end()

        def at_control(_event: int) -> None:
            assert control
            if control.attend(relay.answer):
                self._due[relay] = 0
            else:
                end()

        def watch(fd: int, ready: Callable[[int], None]) -> None:
            self.watch(fd, ready)
            fds.append(fd)

        def watch_tap(tap: Tap, fd: int) -> None:
            watch(fd, partial(at_tap, tap))

        def end() -> None:
            del self._due[relay]
            for fd in fds:
                self.forget(fd)
            # Beside the other links, because each packet socket waits for a grace period of RCU.
            threading.Thread(target=relay.close, daemon=True).start()
            ended()

        relay = Relay(argv, control, watch_tap)
        for tap in (relay.far, relay.near):
            watch_tap(tap, tap.fd)
        if alone:
            make_room((relay.far, relay.near))
        watch(relay.cable.sock.fileno(), at_cable)
        if control is not None:
            watch(control.fileno(), at_control)
        self._due[relay] = None

    def tell_all(self, message: wire.Message) -> None:
        """Say something in the conversation about each link."""
        for relay in self._due:
            if relay.control is not None:
                relay.control.tell(message)

    def watch(self, fd: int, ready: Callable[[int], None]) -> None:
        """Call `ready` whenever there is something at a descriptor, with what (epoll(7))."""
        self._waiter.watch(fd)
        self._ready[fd] = ready

    def forget(self, fd: int) -> None:
        self._waiter.forget(fd)
        del self._ready[fd]

    def close(self) -> None:
        """Do nothing: the sockets end with the process."""

    def serve(self) -> None:
        """Serve until there is nothing to wait for."""
        while self._ready:
            for fd, event in self._waiter.wait(self._time_left()):
                if ready := self._ready.get(fd):
                    ready(event)
            self._move()
            self._look_for_missed(time.monotonic_ns())

    def _move(self) -> None:
        now = time.monotonic_ns()
        due = [relay for relay, at in self._due.items() if at is not None and at <= now]
        ahead = wall_ahead() if due else 0
        if due and self._look_at is None:
            self._look_at = now + _LOOK_EVERY
        for _ in range(_ROUNDS if len(due) == 1 else 1):
            for relay in due:
                self._due[relay] = relay.move(ahead)
            if 0 not in [self._due[relay] for relay in due]:
                break

    def _look_for_missed(self, now: float) -> None:
        """Report missed frames once a second, because to count them takes a system call for each socket."""
        if self._look_at is not None and now >= self._look_at:
            self._look_at = None
            for relay in self._due:
                relay.report_missed()

    def _time_left(self) -> float | None:
        """Return the nanoseconds until there is something to do, or None."""
        times = [at for at in (*self._due.values(), self._look_at) if at is not None]
        first = min(times, default=None)
        return first and max(first - time.monotonic_ns(), 0)


def relays_of_one(argv: list[str], control: Control | None, *, alone: bool = True) -> Relays:
    """Return the relays of a process, with one link."""
    relays = Relays()
    relays.add(argv, control, lambda: None, alone=alone)
    return relays


def main(argv: list[str], control: socket.socket | None) -> None:
    """Relay until `control` ends; without it, from the background, until an interface is deleted."""
    serve("relay", relays_of_one, argv, control)


def main_of_many(channel: socket.socket) -> None:
    """Relay on every link that is announced by `channel`."""
    serve_many("relay", Relays(), channel)


if __name__ == "__main__":
    main(sys.argv[1:], None)
