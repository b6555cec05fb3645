"""The journal as a shell script that rebuilds the lab by hand, and as other texts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence

from attrs import asdict

from patchbay.record.journal import Record, final_state
from patchbay.tools.commands import in_namespace

__all__ = ["FORMATS", "as_json", "as_script", "select"]

FORMATS = ("sh", "json", "table")

_HEAD = """\
#!/bin/sh
# {title}
#
# Rebuilds the lab by hand, without patchbay: as root or as an ordinary user,
#   sh THIS_FILE             then a shell in the lab
#   sh THIS_FILE COMMAND...  then COMMAND in the lab
# Inside, `nsenter --net=/run/netns/NODE COMMAND...` runs something in a node:
{nodes}
# When the shell or the command ends, everything is gone.

set -eu
if [ "${{PATCHBAY_REPLAY:-}}" != inside ]; then
    PATCHBAY_REPLAY=inside exec unshare --user --map-root-user --net --mount --pid --fork --kill-child \\
        --mount-proc -- /bin/sh "$0" "$@"
fi
unset PATCHBAY_REPLAY

# a place of the lab's own for the names of its namespaces
mount -t tmpfs tmpfs /run
mkdir /run/patchbay
"""

_TAIL = """
# the lab is complete
[ "$#" -gt 0 ] || set -- "${SHELL:-/bin/sh}"
exec "$@"
"""


def select(records: Sequence[Record], *, everything: bool, node_ns: str | None = None) -> list[Record]:
    """The records of the lab's present state, or all of them; of one node's namespace, or of all."""
    chosen = list(records) if everything else final_state(records)
    return [r for r in chosen if node_ns is None or node_ns in (r.ns, r.owner)]


def as_json(records: Iterable[Record]) -> str:
    """A JSON array of the records."""
    return json.dumps([asdict(record) for record in records], indent=1, ensure_ascii=False)


def as_script(records: Sequence[Record], title: str) -> str:
    """A plain shell script that does what the records say; those undone stand in it as comments."""
    nodes = [r.argv[3] for r in records if r.argv[:3] == ("ip", "netns", "add") and not r.undone]
    head = _HEAD.format(title=_one_line(title), nodes="\n".join(f"#   {ns}" for ns in nodes))
    return head + "".join(_blocks(records)) + _TAIL


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _blocks(records: Sequence[Record]) -> Iterator[str]:
    heading = None
    for record in records:
        if (record.why, record.how) != heading:
            heading = (record.why, record.how)
            yield f"\n# {_one_line(record.why)}\n"
            if record.how:
                yield f"# (patchbay: {record.how})\n"
        text = _command(record)
        yield text if not record.undone and record.status == 0 else _comment(record, text)


def _comment(record: Record, text: str) -> str:
    state = "not run" if record.status is None else f"exited {record.status}" if record.status else "undone"
    return "".join(f"# {state}: {line}\n" for line in text.splitlines())


def _command(record: Record) -> str:
    if not record.input:
        return in_namespace(record.ns, record.argv) + "\n"
    end = "EOF"
    while end in record.input.splitlines():
        end += "F"
    text = record.input if record.input.endswith("\n") else record.input + "\n"
    if record.tool == "tee":
        path = shlex.quote(record.argv[1])
        bind = _bound_over(record.argv[1])
        return f"cat > {path} <<'{end}'\n{text}{end}\n" + (f"mount --bind {path} {bind}\n" if bind else "")
    return f"{in_namespace(record.ns, record.argv)} <<'{end}'\n{text}{end}\n"


def _bound_over(path: str) -> str:
    """The file in /etc that everybody in the lab sees this one as; a node's own is for that node alone."""
    name = path.rpartition("/")[2]
    return f"/etc/{name}" if name in ("hosts", "resolv.conf") else ""
