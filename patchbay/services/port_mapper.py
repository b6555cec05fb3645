"""The server of port mappings on a router: runs miniupnpd, and is the STUN server that it asks.

By hand, in the router's namespace; it goes on in the background once miniupnpd serves:

    python3 -m patchbay.services.port_mapper --config FILE --stun HOST:PORT --outside ADDRESS --generation N

`--config` is miniupnpd's file. With `--stun` it answers there that its own address is ADDRESS. Another
generation is a start from nothing. Standard library only, one thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from patchbay.emulator.system import detach
from patchbay.sandbox.inside import wire
from patchbay.services.stun import answer

__all__ = ["PortMapper", "main"]

# In seconds. To start takes 30 ms, to end 10, on a quiet machine; who asked waits 10 s for both together.
_STARTS_WITHIN, _ENDS_WITHIN = 5.0, 2.0
_LAST_LINES, _KEPT = 8, 4096

# The last line that it logs before it serves (miniupnpd.c, main): all its sockets are bound by then.
_READY = b"Listening for NAT-PMP/PCP traffic"

# It logs each request to syslog too, and where there is none to the console (LOG_CONS): the host's, seen
# from a lab. Both are covered, in a mount namespace of its own.
_MUTE = 'for log in /dev/log /dev/console; do [ ! -e $log ] || mount --bind /dev/null $log; done; exec "$@"'

_CHAINS = ("upnp_nat_chain", "upnp_forward_chain", "upnp_nat_postrouting_chain")


def _environ() -> dict[str, str]:
    # Behind PATH, where an ordinary user's does not lead.
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return {"PATH": path, "LC_ALL": "C"}


def _argv(config: str) -> list[str]:
    """The command, which stays in the foreground, logs to stderr (which must be read), and ends on SIGTERM.

    `-N` and not `enable_natpmp`, which is called `enable_pcp_pmp` in later versions. A pid file is made
    anyhow, and a stale one keeps it from starting; where none can be made, it goes on without (daemonize.c).
    Never name a device here: at the end the file is unlinked.
    """
    command = ("miniupnpd", "-d", "-N", "-f", config, "-P", "/proc/none")
    return ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", _MUTE, "sh", *command]


class _Miniupnpd:
    """The process. `lock` is a descriptor that is open as long as it lives."""

    def __init__(self, config: str, lock: int) -> None:
        environ = _environ()
        if shutil.which("miniupnpd", path=environ["PATH"]) is None:
            way_out = "sudo apt-get install miniupnpd-nftables"
            raise FileNotFoundError(errno.ENOENT, f"there is no miniupnpd on PATH; repair: {way_out}")
        self._process = subprocess.Popen(
            _argv(config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environ,
            cwd="/",
            pass_fds=(lock,),
        )
        assert self._process.stderr
        self.fd = self._process.stderr.fileno()
        self.ready = False
        self._log = b""

    def read(self) -> bool:
        """Take in what it has logged; whether it goes on."""
        chunk = os.read(self.fd, 1 << 16)
        self._log += chunk
        self.ready |= _READY in self._log
        self._log = self._log[-_KEPT:]
        return bool(chunk)

    def end(self) -> str:
        """End it, if it has not ended; how it ended, and its last words."""
        self._process.terminate()
        try:
            status = self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        assert self._process.stderr
        self._process.stderr.close()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        # That it has no pid file is as it should be.
        lines = [line for line in self._log.decode(errors="replace").splitlines() if "pidfile" not in line]
        return "\n".join([f"miniupnpd ended: {how}", *lines[-_LAST_LINES:]])


class PortMapper:
    """A miniupnpd, what it asks, and the conversation about it. Raises `OSError`."""

    def __init__(self, argv: list[str], control: socket.socket | None) -> None:
        arguments = _parse(argv)
        self._config = arguments["--config"]
        self._control = control
        # The one before may be about to end, and still have the ports.
        self._lock = _locked(self._config)
        self._outside = IPv4Address(arguments.get("--outside", "0.0.0.0"))
        self._stun = _bound(arguments["--stun"]) if "--stun" in arguments else None
        self._server: _Miniupnpd | None = None
        self._start()

    def _start(self) -> None:
        server = self._server = _Miniupnpd(self._config, self._lock)
        until = time.monotonic() + _STARTS_WITHIN
        while not server.ready:
            stun = self._stun.fileno() if self._stun else -1
            readable = _readable((server.fd, stun), until - time.monotonic())
            if stun in readable:
                self._answer_stun()
            if not readable or (server.fd in readable and not server.read()):
                when = "before it served" if readable else f"as it did not serve within {_STARTS_WITHIN} s"
                raise OSError(errno.EIO, f"{when}, {self._ended()}")

    def _ended(self) -> str:
        server, self._server = self._server, None
        return server.end() if server else ""

    def close(self) -> None:
        self._ended()

    def serve(self) -> None:
        """Until the conversation ends, or miniupnpd does."""
        while True:
            stun = self._stun.fileno() if self._stun else -1
            control = self._control.fileno() if self._control else -1
            log = self._server.fd if self._server else -1
            readable = _readable((stun, log, control), None)
            if stun in readable:
                self._answer_stun()
            if log in readable and self._server and not self._server.read():
                words = self._ended()
                if self._control:
                    _tell(self._control, {"died": words})
                return
            if control in readable and self._control and not self._converse(self._control):
                return

    def _answer_stun(self) -> None:
        assert self._stun
        request, source = self._stun.recvfrom(2048)
        if reply := answer(request, source[1], self._outside):
            self._stun.sendto(reply, source)

    def _converse(self, control: socket.socket) -> bool:
        message, fds = wire.receive(control)
        for fd in fds:
            os.close(fd)
        if message is None:
            return False
        try:
            self._again(message["set"])
            reply: dict[str, Any] = {"set": True}
        except OSError as error:
            reply = _failure(error)
        return _tell(control, reply)

    def _again(self, argv: list[str]) -> None:
        """A start from nothing. What it mapped until its end is gone, or the next one would keep it for ever:
        it takes rules that are there for mappings without an end (nftnlrdr.c, get_timestamp).
        """
        if _parse(argv)["--config"] != self._config:
            raise OSError(errno.EINVAL, f"this one serves {self._config}")
        self._ended()
        lines = Path(self._config).read_text("utf-8", "surrogateescape").splitlines()
        options = dict(line.partition("=")[::2] for line in lines)
        chains = [f"flush chain inet {options['upnp_table_name']} {options[name]}\n" for name in _CHAINS]
        nft = ["nft", "-f", "-"]
        done = subprocess.run(
            nft, input="".join(chains), env=_environ(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise OSError(errno.EIO, f"the mappings stay: {done.stderr.strip()}")
        self._start()


def _parse(argv: list[str]) -> dict[str, str]:
    arguments = dict(zip(argv[::2], argv[1::2], strict=False))
    if len(argv) % 2 or "--config" not in arguments or ("--stun" in arguments) != ("--outside" in arguments):
        usage = "--config FILE [--stun HOST:PORT --outside ADDRESS] --generation N"
        raise OSError(errno.EINVAL, f"usage: {usage}")
    return arguments


def _locked(config: str) -> int:
    fd = os.open(config, os.O_RDONLY | os.O_CLOEXEC)
    until = time.monotonic() + _ENDS_WITHIN
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > until:
                raise OSError(errno.EBUSY, f"there is one that serves {config}") from None
        time.sleep(0.005)


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((host, int(port)))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: UDP {address}, for STUN") from None
    return sock


def _readable(fds: tuple[int, ...], within: float | None) -> set[int]:
    """Those that are readable, or at their end, once one of them is; none after so many seconds."""
    poll = select.poll()
    for fd in fds:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if within is None else max(0, within) * 1000)}


def _tell(control: socket.socket, message: wire.Message) -> bool:
    """Say something; whether somebody was there to hear it."""
    try:
        wire.send(control, message)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _failure(error: OSError) -> dict[str, Any]:
    what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return {"errno": error.errno or errno.EIO, "error": what or str(error)}


def main(argv: list[str], control: socket.socket | None) -> None:
    """Serve until `control` ends; without it, from the background."""
    if control is None:
        _by_hand(argv)
        return
    try:
        mapper = PortMapper(argv, control)
    except OSError as error:
        _tell(control, _failure(error))
        return
    try:
        if _tell(control, {"up": True}):
            mapper.serve()
    finally:
        mapper.close()


def _by_hand(argv: list[str]) -> None:
    # A process ends with its parent here, so the one that goes on has to start it.
    reader, writer = os.pipe()
    if not detach():
        os.close(writer)
        with os.fdopen(reader) as said:
            sys.exit(f"port_mapper: {problem}" if (problem := said.read()) else 0)
    try:
        mapper = PortMapper(argv, None)
    except OSError as error:
        os.write(writer, _failure(error)["error"].encode())
        return
    os.close(writer)
    try:
        mapper.serve()
    finally:
        mapper.close()


if __name__ == "__main__":
    main(sys.argv[1:], None)
