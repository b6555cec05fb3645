"""The server of port mappings on a router: runs miniupnpd.

Manually, in the router's namespace; it goes on in the background once miniupnpd serves:

    python3 -m patchbay.services.port_mapper --config FILE --generation N

`--config` is miniupnpd's file. Another generation restarts it without mappings. Standard library only, one
thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from patchbay.sandbox.inside import wire
from patchbay.sandbox.inside.service import Control, UsageError, serve
from patchbay.services.daemon import Daemon, environ, logged, readable_of

__all__ = ["PortMapper", "main"]

# Seconds, because an earlier server may be about to end.
_FREE_WITHIN = 2.0

# The last line that it logs before it serves (miniupnpd.c, main): all its sockets are bound by then.
_READY = b"Listening for NAT-PMP/PCP traffic"

# It logs each request to syslog too, and where there is none to the console (LOG_CONS): the host's, seen
# from a lab. Both are covered, in a mount namespace of its own.
_MUTE = 'for log in /dev/log /dev/console; do [ ! -e $log ] || mount --bind /dev/null $log; done; exec "$@"'

_CHAINS = ("upnp_nat_chain", "upnp_forward_chain", "upnp_nat_postrouting_chain")


def _argv(config: str) -> list[str]:
    """Return the command: it stays in the foreground, logs to stderr, which must be read, ends on SIGTERM.

    `-N` and not `enable_natpmp`, which is called `enable_pcp_pmp` in later versions. A pid file is made
    anyhow, and a stale one keeps it from starting; where none can be made, it goes on without (daemonize.c).
    Never name a device here: at the end the file is unlinked.
    """
    return ["miniupnpd", "-d", "-N", "-f", config, "-P", "/proc/none"]


class PortMapper:
    """A miniupnpd, and the conversation about it. Raises `OSError`."""

    def __init__(self, argv: list[str], control: Control | None) -> None:
        self._config = _parse(argv)["--config"]
        self._control = control
        # An earlier server may be about to end, and still have the ports.
        self._lock = _locked(self._config)
        self._server: Daemon | None = None
        self._start()

    def _start(self) -> None:
        self._server = Daemon(
            _argv(self._config),
            package="miniupnpd-nftables",
            ready=logged(_READY),
            through=("unshare", "--mount", "sh", "-c", _MUTE, "sh"),
            pass_fds=(self._lock,),
            # That it has no pid file is as it should be.
            ignored=("pidfile",),
        )
        self._server.wait_ready()

    def close(self) -> None:
        self._ended()

    def _ended(self) -> str:
        server, self._server = self._server, None
        return server.end() if server else ""

    def serve(self) -> None:
        """Serve until the conversation ends, or miniupnpd does."""
        while True:
            control = self._control.fileno() if self._control else -1
            log = self._server.fd if self._server else -1
            readable = readable_of([fd for fd in (log, control) if fd >= 0], None)
            if log in readable and self._server and not self._server.read():
                words = self._ended()
                if self._control:
                    self._control.tell({"died": words})
                return
            if control in readable and self._control and not self._control.attend(self._answer):
                return

    def _answer(self, message: wire.Message) -> wire.Message:
        self._again(message["set"])
        return {"set": True}

    def _again(self, argv: list[str]) -> None:
        """Restart without mappings.

        The rules of mappings are deleted first, because miniupnpd takes rules that it finds for mappings
        without an end (nftnlrdr.c, get_timestamp).
        """
        if _parse(argv)["--config"] != self._config:
            raise OSError(errno.EINVAL, f"this one serves {self._config}")
        self._ended()
        lines = Path(self._config).read_text("utf-8", "surrogateescape").splitlines()
        options = {name: value for name, _, value in (line.partition("=") for line in lines)}
        chains = [f"flush chain inet {options['upnp_table_name']} {options[name]}\n" for name in _CHAINS]
        nft = ["nft", "-f", "-"]
        done = subprocess.run(
            nft, input="".join(chains), env=environ(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise OSError(errno.EIO, f"the mappings stay: {done.stderr.strip()}")
        self._start()


def _parse(argv: list[str]) -> dict[str, str]:
    arguments = dict(zip(argv[::2], argv[1::2], strict=False))
    if len(argv) % 2 or "--config" not in arguments:
        raise UsageError("usage: --config FILE --generation N")
    return arguments


def _locked(config: str) -> int:
    fd = os.open(config, os.O_RDONLY | os.O_CLOEXEC)
    until = time.monotonic() + _FREE_WITHIN
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > until:
                raise OSError(errno.EBUSY, f"there is one that serves {config}") from None
        time.sleep(0.005)


def main(argv: list[str], control: socket.socket | None) -> None:
    """Serve until `control` ends; without it, from the background."""
    serve("port_mapper", PortMapper, argv, control)


if __name__ == "__main__":
    main(sys.argv[1:], None)
