"""The journal as a shell script that rebuilds the lab by hand, and as other texts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence

from attrs import asdict

from patchbay.record.journal import Record, final_state
from patchbay.tools.commands import describe, heading

__all__ = ["as_json", "as_script", "select"]

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
#
# These are the commands that patchbay applied. Where it was quicker it gave the `ip` ones to one
# `ip -batch -`, and wrote kernel settings through /proc/sys; `patchbay trace --format json` tells each.

set -eu
# Where nft, sysctl and tc are, and an ordinary user's PATH may not lead.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
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
    return [r for r in chosen if node_ns is None or node_ns in (r.ns, r.owner.partition("#")[0])]


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
    before = None
    for record in records:
        if (title := heading(record)) != before:
            before = title
            yield title
        text = describe(record) + _shown_in_etc(record)
        yield text if not record.undone and record.status == 0 else _comment(record, text)


def _comment(record: Record, text: str) -> str:
    state = "not run" if record.status is None else f"exited {record.status}" if record.status else "undone"
    return "".join(f"# {state}: {line}\n" for line in text.splitlines())


def _shown_in_etc(record: Record) -> str:
    """The lab's names are seen in /etc by everybody. A node's own are for its own processes alone,
    which by hand have no mount namespace of their own to see them in."""
    folder, _, name = record.argv[-1].rpartition("/")
    if record.tool != "tee" or folder != "/run/patchbay":
        return ""
    return f"mount --bind {shlex.quote(record.argv[-1])} /etc/{name}\n"
