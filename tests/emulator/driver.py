"""Runs a relay as the agent does, in a child with a conversation, and passes JSON lines on both ways.

`python driver.py alone|shared ARGUMENTS...`: as where there are few links, or many. The first line out is the
child's pid, then its first message; each line in is a request. At the end of its input it ends the
conversation, and tells how the child ended.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial

from patchbay.emulator.relay import relays_of_one
from patchbay.sandbox.inside import wire
from patchbay.sandbox.inside.service import serve

ours, theirs = wire.pair()
child = os.fork()
if child == 0:
    ours.close()
    serve("relay", partial(relays_of_one, alone=sys.argv[1] == "alone"), sys.argv[2:], theirs)
    os._exit(0)
theirs.close()
print(json.dumps(child), flush=True)
print(json.dumps(wire.receive(ours)[0]), flush=True)
for line in sys.stdin:
    wire.send(ours, json.loads(line))
    # A report that the relay cannot keep up is no answer.
    while (message := wire.receive(ours)[0]) and "overloaded" in message:
        pass
    print(json.dumps(message), flush=True)
ours.close()
print(json.dumps(os.waitpid(child, 0)[1]), flush=True)
