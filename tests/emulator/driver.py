"""Runs a relay as the agent does, in a child with a conversation, and passes JSON lines on both ways.

`python driver.py ARGUMENTS...`: the first line out is the child's pid, then its first message; each
line in is a request. At the end of its input it ends the conversation, and tells how the child ended.
"""

from __future__ import annotations

import json
import os
import sys

from patchbay.emulator.relay import main
from patchbay.sandbox.inside import wire

ours, theirs = wire.pair()
child = os.fork()
if child == 0:
    ours.close()
    main(sys.argv[1:], theirs)
    os._exit(0)
theirs.close()
print(json.dumps(child), flush=True)
print(json.dumps(wire.receive(ours)[0]), flush=True)
for line in sys.stdin:
    wire.send(ours, json.loads(line))
    print(json.dumps(wire.receive(ours)[0]), flush=True)
ours.close()
print(json.dumps(os.waitpid(child, 0)[1]), flush=True)
