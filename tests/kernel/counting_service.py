"""A service for tests, which needs a package of the program: it tells what it was started with."""

from __future__ import annotations

import select
import socket
import sys

import attrs

from patchbay.sandbox.inside.service import Control, UsageError, serve


@attrs.define
class Counting:
    """Counts what it was told."""

    args: list[str]
    control: Control | None
    told: int = 0

    def serve(self) -> None:
        assert self.control
        while select.select([self.control], [], []) and self.control.attend(self._answer):
            pass

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self, message: dict[str, object]) -> dict[str, object]:
        if "set" in message:
            self.told += 1
            return {"set": True}
        if "die" in message:
            raise RuntimeError("as it was told")
        return {"told": self.told, "args": self.args, "attrs": attrs.__name__}


def _made(argv: list[str], control: Control | None) -> Counting:
    if "wrong" in argv:
        raise UsageError("accepted: anything but wrong")
    return Counting(argv, control)


def main(argv: list[str], control: socket.socket | None) -> None:
    serve("counting", _made, argv, control)


if __name__ == "__main__":
    main(sys.argv[1:], None)
