"""The userspace link emulator: one process that relays packets between two interfaces, both ways.

For kernels without netem. By hand, in the namespace of the two interfaces, it goes on in the background:

    python3 -m patchbay.emulator.relay --far IF --near IF --seed N --up KEY=VALUE... --down KEY=VALUE...

What arrives at `far` goes up and leaves by `near`, and the reverse. Both must be of no other use to
the kernel, such as ports of a bridge that is down: a packet socket sees packets, it does not take them
away. Standard library only, one thread.
"""

from __future__ import annotations

import gc
import socket
import sys
import time
from random import Random

from patchbay.emulator.conditions import Arguments, Conditions, parse
from patchbay.emulator.frames import VNET
from patchbay.emulator.line import Line
from patchbay.emulator.system import Cable, Waiter, keep_memory, wall_ahead
from patchbay.emulator.tap import Frame, Tap
from patchbay.sandbox.inside import wire
from patchbay.sandbox.inside.service import Control, UsageError, serve

__all__ = ["Relay", "main"]

# Under load the rings are looked at without asking the kernel; all else is seen to every so many rounds.
_ROUNDS = 8


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
            "missed": self._source.count_missed(),
            "queued": line.queued,
        }


class Relay:
    """Both ways, and the conversation about them."""

    def __init__(self, argv: list[str], control: Control | None) -> None:
        arguments = parse(argv)
        self._far, self._near = Tap(arguments.far), Tap(arguments.near)
        self._cable = Cable(self._far.index, self._near.index)
        self._control = control
        self.up = Way(self._far, self._near, arguments.up, f"{arguments.seed} up")
        self.down = Way(self._near, self._far, arguments.down, f"{arguments.seed} down")
        self._names = (arguments.far, arguments.near)

    def serve(self) -> None:
        """Until the conversation ends; without one, until an interface is deleted."""
        gc.disable()  # nothing here makes cycles
        keep_memory()
        fds = [*self._far.fds, *self._near.fds, self._cable.sock.fileno()]
        if self._control is not None:
            fds.append(self._control.fileno())
        waiter = Waiter(*fds)
        wait: float | None = None
        while self._attend(waiter.wait(wait)):
            wait = self._move()

    def _attend(self, events: list[int]) -> bool:
        """See to what is rare; whether to go on."""
        if not events:
            return True
        *of_taps, cable = events[:5]
        for tap, event in zip((self._far, self._far, self._near, self._near), of_taps, strict=True):
            if event & ~1:
                tap.clear_error()
        if cable and self._cable.was_cut():
            self.flush()
        if self._control is None:
            return not self._cable.gone
        return not events[5] or self._control.attend(self._answer)

    def _move(self) -> float | None:
        """Relay what there is; how long there will be nothing to do, in ns."""
        ahead = wall_ahead()
        for _ in range(_ROUNDS):
            now = time.monotonic_ns()
            busy = self.up.take_in(now, ahead)
            busy |= self.down.take_in(now, ahead)
            now = time.monotonic_ns()
            self.up.put_out(now)
            self.down.put_out(now)
            if not busy:
                break
        else:
            return 0
        times = [at for at in (self.up.line.next_time(), self.down.line.next_time()) if at is not None]
        return max(min(times) - time.monotonic_ns(), 0) if times else None

    def close(self) -> None:
        """Its sockets go with the process."""

    def flush(self) -> None:
        self.up.flush()
        self.down.flush()

    def _answer(self, message: wire.Message) -> wire.Message:
        self._move()  # what arrived before the request is not of the time after it
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


def main(argv: list[str], control: socket.socket | None) -> None:
    """Relay until `control` ends; without it, from the background, until an interface is deleted."""
    serve("relay", Relay, argv, control)


if __name__ == "__main__":
    main(sys.argv[1:], None)
