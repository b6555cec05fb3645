"""`enter()`: trio's sockets go to the node, and nothing else gets out by the host."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import trio

import patchbay
from tests.kernel.labs import HOME, home_lab, serve_echo
from tests.patience import DEADLINE

pytestmark = pytest.mark.kernel

PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


@pytest.mark.ordinary
async def test_an_unmodified_httpx_client_fetches_a_page_through_the_home_nat() -> None:
    peers: list[Any] = []

    async def page(stream: trio.SocketStream) -> None:
        peers.append(stream.socket.getpeername()[0])
        await stream.receive_some()
        await stream.send_all(PAGE)
        await stream.aclose()

    async with home_lab() as lab, trio.open_nursery() as nursery:
        address = lab.device("server").ip
        assert address
        lab.dns_entry("www.example", address)
        await nursery.start(lab.device("server").task, trio.serve_tcp, page, 80)
        with lab.device("laptop").enter():
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get("http://www.example/")
        assert answer.text == "hello"
        assert peers == [str(lab.router("home").uplink_ip)]
        nursery.cancel_scope.cancel()


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def test_a_listener_in_a_node_is_not_reachable_from_the_host_and_its_address_is_the_nodes() -> None:
    async with home_lab() as lab, trio.open_nursery() as nursery:
        # The host's own port is held, so that nobody listens there.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            with lab.device("server").enter():
                (listener,) = await trio.open_tcp_listeners(port, host="0.0.0.0")
            nursery.start_soon(partial(trio.serve_listeners, hang_up, [listener]))
            with pytest.raises(OSError):
                await trio.open_tcp_stream("127.0.0.1", port)
        target = (str(lab.device("server").ip), port)
        with lab.device("laptop").enter():
            stream = await trio.open_tcp_stream(*target)
        assert stream.socket.getpeername() == target
        nursery.cancel_scope.cancel()


def in_a_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> None:
        raised: list[BaseException] = []

        def body() -> None:
            try:
                function()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]

    return run


POOL = ThreadPoolExecutor(1)
POOL.submit(int).result()


def with_unix_socket(use: Callable[[socket.socket], Any]) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        use(sock)


LEAKS: dict[str, Callable[[], Any]] = {
    "requests": lambda: requests.get("http://127.0.0.1:9/", timeout=DEADLINE),
    "requests by name": lambda: requests.get("http://example.invalid/", timeout=DEADLINE),
    "create_connection": lambda: socket.create_connection(("127.0.0.1", 9), timeout=DEADLINE),
    "plain socket": socket.socket,
    "plain IPv6 UDP socket": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "C socket": lambda: socket.SocketType(socket.AF_INET, socket.SOCK_STREAM),
    "getaddrinfo": lambda: socket.getaddrinfo("example.invalid", 80),
    "gethostbyname": lambda: socket.gethostbyname("example.invalid"),
    "gethostbyaddr": lambda: socket.gethostbyaddr("192.0.2.1"),
    "getnameinfo": lambda: socket.getnameinfo(("192.0.2.1", 80), 0),
    "an interface's number": lambda: socket.getaddrinfo("fe80::1%lo", 80),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "abstract unix socket": lambda: with_unix_socket(lambda sock: sock.bind("\0patchbay-test")),
    "abstract unix socket's peer": lambda: with_unix_socket(lambda sock: sock.connect("\0patchbay-test")),
    "a socket in a pool's thread that is older": lambda: POOL.submit(socket.socket).result(),
    "a thread's socket": in_a_thread(socket.socket),
    "a thread's look-up": in_a_thread(lambda: socket.getaddrinfo("example.invalid", 80)),
}


@pytest.mark.parametrize("leak", LEAKS)
async def test_what_would_use_the_hosts_network_raises(leak: str) -> None:
    async with home_lab() as lab:
        with lab.device("laptop").enter():
            with pytest.raises(patchbay.OutsideNodeError, match="laptop"):
                LEAKS[leak]()
            with pytest.raises(patchbay.OutsideNodeError, match="laptop"):
                await trio.to_thread.run_sync(LEAKS[leak])
        with socket.socket() as outside:
            assert outside.family == socket.AF_INET


async def test_sockets_that_are_no_network_are_left_alone_inside() -> None:
    async with home_lab() as lab:
        with lab.device("laptop").enter():
            one, other = socket.socketpair()
            with one, other, other.dup() as copy:
                one.send(b"x")
                assert copy.recv(1) == b"x"


async def test_abstract_unix_sockets_are_the_nodes_and_those_in_files_the_machines(tmp_path: Path) -> None:
    async with home_lab() as lab:
        laptop, server = lab.device("laptop"), lab.device("server")
        for name in ("\0patchbay-test", str(tmp_path / "socket")):
            with laptop.enter(), trio.socket.socket(socket.AF_UNIX) as listener:
                await listener.bind(name)
                listener.listen()
                with trio.socket.socket(socket.AF_UNIX) as client:
                    await client.connect(name)
                with server.enter(), trio.socket.socket(socket.AF_UNIX) as other:
                    if name.startswith("\0"):
                        with pytest.raises(ConnectionRefusedError):
                            await other.connect(name)
                    else:
                        await other.connect(name)


async def test_netlink_sockets_of_trio_are_the_nodes() -> None:
    # linux/rtnetlink.h and netlink.h: a request for all links, and the name attribute of an answer.
    request = struct.pack("=IHHII", 17, 18, 0x301, 1, 0) + b"\0"
    async with home_lab() as lab:
        with lab.device("laptop").enter():
            sock = trio.socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        with sock:
            await sock.send(request)
            answer = await sock.recv(65536)
    assert b"eth0\0" in answer and b"lo\0" in answer
    assert answer.count(b"\3\0eth") == 1  # attribute 3 is IFLA_IFNAME


async def test_numbers_of_interfaces_are_the_nodes() -> None:
    async with home_lab() as lab:
        laptop, home = lab.device("laptop"), lab.router("home")
        for number in range(3):  # the machine's numbers, and other nodes', are others
            await lab.add_device(f"d{number}", uplink=home)
        done = await laptop.run(["ip", "-j", "link", "show", "dev", "eth0"], capture_stdout=True)
        (link,) = json.loads(done.stdout)
        assert laptop.iface("eth0").index == link["ifindex"]
        ll6 = f"{laptop.iface('eth0').ll6}%eth0"
        with laptop.enter():
            found = await trio.socket.getaddrinfo(ll6, 80, type=socket.SOCK_DGRAM)
            assert found[0][4][3:] == (link["ifindex"],)
            sock = trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            await sock.connect((ll6, 80))
            assert sock.getsockname()[3] == link["ifindex"]


async def test_reverse_look_ups_are_the_nodes() -> None:
    async with home_lab() as lab:
        lab.dns_entry("db.lab", "192.0.2.1")
        with lab.device("laptop").enter():
            assert await trio.socket.getnameinfo(("192.0.2.1", 80), 0) == ("db.lab", "http")
            assert await trio.socket.getnameinfo(("127.0.0.1", 80), 0) == ("localhost", "http")


async def test_trios_own_threads_are_free_again_after_the_block() -> None:
    async with home_lab() as lab:
        with lab.device("laptop").enter():
            await trio.to_thread.run_sync(lambda: None)
        (await trio.to_thread.run_sync(socket.socket)).close()


async def test_trios_threads_are_free_for_tasks_outside_while_the_block_lasts() -> None:
    again = threading.Barrier(10)

    def socket_in_a_thread() -> None:
        again.wait()
        socket.socket().close()

    async def outside(*, task_status: Any) -> None:
        task_status.started()
        await used_inside.wait()
        async with trio.open_nursery() as many:
            for _ in range(10):
                many.start_soon(trio.to_thread.run_sync, socket_in_a_thread)
        used_outside.set()

    used_inside, used_outside = trio.Event(), trio.Event()
    async with home_lab() as lab, trio.open_nursery() as nursery:
        await nursery.start(outside)
        with lab.device("laptop").enter():
            # At once, and more than may be idle from before: some of these threads start in here.
            together = threading.Barrier(10)
            async with trio.open_nursery() as inside:
                for _ in range(10):
                    inside.start_soon(partial(trio.to_thread.run_sync, together.wait))
            used_inside.set()
            await used_outside.wait()


async def test_a_task_that_waits_for_a_socket_is_woken_by_the_end_of_the_lab() -> None:
    told: list[type[BaseException]] = []

    async def wait(sock: trio.socket.SocketType) -> None:
        try:
            await sock.recv(1)
        except Exception as error:
            told.append(type(error))

    async with trio.open_nursery() as nursery:
        async with home_lab() as lab:
            with lab.device("laptop").enter():
                sock = trio.socket.socket(type=socket.SOCK_DGRAM)
            await sock.bind(("", 0))
            nursery.start_soon(wait, sock)
            await trio.testing.wait_all_tasks_blocked()
    assert told == [trio.ClosedResourceError]


async def test_a_task_started_inside_belongs_to_the_node_and_one_outside_does_not() -> None:
    seen: dict[str, str] = {}

    async def connect(name: str) -> None:
        sock = trio.socket.socket(type=socket.SOCK_DGRAM)
        try:
            await sock.connect(("55.0.0.1", 9))
            seen[name] = sock.getsockname()[0]
        except OSError as error:
            seen[name] = type(error).__name__
        finally:
            sock.close()

    async with home_lab() as lab, trio.open_nursery() as nursery:
        laptop = lab.device("laptop")
        with laptop.enter():
            nursery.start_soon(connect, "inside")
        nursery.start_soon(connect, "outside")
        nursery.start_soon(laptop.task, connect, "task")
    assert seen["inside"] == seen["task"] == str(laptop.ip)
    assert seen["outside"] != str(laptop.ip)


async def test_nested_blocks_of_two_labs_each_go_to_their_own() -> None:
    async with home_lab(label="one") as one, home_lab(label="two") as two:
        with one.device("laptop").enter():
            with two.device("server").enter():
                inner = trio.socket.socket()
                await inner.bind((str(two.device("server").ip), 0))
            outer = trio.socket.socket()
            await outer.bind((str(one.device("laptop").ip), 0))


async def test_names_are_the_nodes_inside_and_unknown_ones_fail_as_they_do_there() -> None:
    async with home_lab() as lab:
        laptop, server = lab.device("laptop"), lab.device("server")
        lab.dns_entry("db.lab", "192.0.2.1")
        laptop.dns_entry("db.lab", "192.0.2.2")
        with laptop.enter():
            assert (await trio.socket.getaddrinfo("db.lab", 80))[0][4] == ("192.0.2.2", 80)
            with pytest.raises(socket.gaierror):
                await trio.socket.getaddrinfo("unknown.lab", 80)
        with server.enter():
            assert (await trio.socket.getaddrinfo(b"db.lab", "http"))[0][4] == ("192.0.2.1", 80)
        printed = await laptop.run(["getent", "hosts", "db.lab"], capture_stdout=True)
        assert printed.stdout.split() == [b"192.0.2.2", b"db.lab", b"db.lab."]
        assert (lab.resolve("db.lab"), laptop.resolve("db.lab")) == (
            ip_address("192.0.2.1"),
            ip_address("192.0.2.2"),
        )


class CountingFactory(trio.abc.SocketFactory):
    def __init__(self) -> None:
        self.made = 0

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> trio.socket.SocketType:
        self.made += 1
        return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))


def test_other_socket_factories_keep_working_and_two_runs_follow_each_other() -> None:
    factory = CountingFactory()

    async def main() -> None:
        trio.socket.set_custom_socket_factory(factory)
        async with home_lab() as lab:
            with lab.device("laptop").enter():
                trio.socket.socket().close()
            assert factory.made == 0
            trio.socket.socket().close()
            assert factory.made == 1
        trio.socket.socket().close()
        assert factory.made == 2

    async def plain() -> None:
        trio.socket.socket().close()
        async with patchbay.open_lab(HOME) as lab:
            with lab.device("laptop").enter():
                trio.socket.socket().close()

    trio.run(main)
    assert factory.made == 2
    trio.run(plain)
    assert factory.made == 2


@pytest.mark.ordinary
async def test_sockets_handed_out_or_accepted_are_dead_after_the_lab() -> None:
    peers: list[Any] = []
    async with home_lab() as lab, trio.open_nursery() as nursery:
        server, laptop = lab.device("server"), lab.device("laptop")
        plain = server.socket()
        plain.bind(("", 8001))
        plain.listen()
        await nursery.start(server.task, serve_echo, 8000)
        client = laptop.socket()
        client.connect((str(server.ip), 8001))
        accepted, _ = plain.accept()
        detached = client.dup()
        peers += [plain, client, accepted, detached]
        nursery.cancel_scope.cancel()
    for sock in peers:
        with pytest.raises(OSError):
            sock.send(b"x")
    accepted.close()
    detached.close()
