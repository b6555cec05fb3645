"""ICE sessions (aioice) in a process inside a node. Reads requests as lines of JSON, answers each by a line.

{"number": 1, "session": "x", "do": "gather", "controlling": true, "servers": {"stun_server": [host, port]}}
    ->  the description: username, password, candidates
{"number": 2, "session": "x", "do": "connect", "remote": description}
    ->  connected; then also which pair was chosen, and whether the other end was heard through it

The argument is the deadline of each wait in seconds. An end that does not control waits without end for a
pair to be nominated.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aioice
from aioice import stun

# A check is sent at 0, 0.5, 1.5 and 3.5 s and given up at 7.5 s; by aioice's own count of 6 it would be 63 s.
stun.RETRY_MAX = 3
DEADLINE = float(sys.argv[1])
HELLO = b"hello through ICE"


async def gather(sessions: dict[str, aioice.Connection], request: dict[str, Any]) -> dict[str, Any]:
    # Addresses have to be tuples; aioice goes on without the candidate that an exception costs it.
    servers: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in request["servers"].items()
    }
    connection = aioice.Connection(ice_controlling=request["controlling"], use_ipv6=False, **servers)
    sessions[request["session"]] = connection
    await connection.gather_candidates()
    return {
        "username": connection.local_username,
        "password": connection.local_password,
        "candidates": [candidate.to_sdp() for candidate in connection.local_candidates],
    }


async def connect(sessions: dict[str, aioice.Connection], request: dict[str, Any]) -> dict[str, Any]:
    connection = sessions[request["session"]]
    remote = request["remote"]
    connection.remote_username, connection.remote_password = remote["username"], remote["password"]
    for candidate in remote["candidates"]:
        await connection.add_remote_candidate(aioice.Candidate.from_sdp(candidate))
    await connection.add_remote_candidate(None)
    try:
        await asyncio.wait_for(connection.connect(), DEADLINE)
    except (ConnectionError, TimeoutError) as error:
        return {"connected": False, "why": repr(error)}
    pair = connection._nominated[1]
    # No way is found before packets have gone it in both directions, so nothing has to be repeated.
    await connection.send(HELLO)
    try:
        heard = await asyncio.wait_for(connection.recv(), DEADLINE)
    except TimeoutError:
        heard = b""
    return {
        "connected": True,
        "pair": [
            f"{end.type} {end.host}:{end.port}" for end in (pair.local_candidate, pair.remote_candidate)
        ],
        "heard": heard == HELLO,
    }


async def main() -> None:
    lines = asyncio.StreamReader(limit=1 << 20)
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    sessions: dict[str, aioice.Connection] = {}

    async def answer(request: dict[str, Any]) -> None:
        do = {"gather": gather, "connect": connect}[request["do"]]
        print(json.dumps({"number": request["number"], **await do(sessions, request)}), flush=True)

    async with asyncio.TaskGroup() as group:
        while line := await lines.readline():
            group.create_task(answer(json.loads(line)))


asyncio.run(main())
