"""Commands that were run in a lab, or that rebuild it, as a shell script and as other texts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence

from attrs import asdict

from patchbay.layout.layout import Layout
from patchbay.plan.change import between
from patchbay.record.journal import Record
from patchbay.tools.commands import Command, describe, heading

__all__ = ["Item", "as_json", "as_script", "commands_of", "of_node"]

# A command that makes a part of the present lab, or the record of one that was run.
Item = Command | Record

_HEAD = """\
#!/bin/sh
# {title}
#
# Rebuilds the lab without patchbay: as root or as an ordinary user,
#   sh THIS_FILE             then a shell in the lab
#   sh THIS_FILE COMMAND...  then COMMAND in the lab
# Inside, `nsenter --net=/run/netns/NODE COMMAND...` runs something in a node:
{nodes}
# When the shell or the command ends, everything is gone.
#
# These are the commands that patchbay applies. Where it is quicker it gives the `ip` ones to one
# `ip -batch -`, and writes kernel settings through /proc/sys: `patchbay trace --all --format json`.

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


def commands_of(layout: Layout) -> tuple[Command, ...]:
    """Return the commands that make a lab what it is now. In a lab that never changed these were applied."""
    return tuple(between(None, layout))


def of_node(items: Iterable[Item], ns: str) -> list[Item]:
    """Return what is done for a node, or in its namespace."""
    return [item for item in items if ns in (item.ns, _node(item))]


def _node(item: Item) -> str:
    """Return the namespace of the node that the command is for."""
    return item.owner.partition("#")[0]


def as_json(items: Iterable[Item]) -> str:
    """Return a JSON array with a table for each command."""
    tables = [_table(item, number) for number, item in enumerate(items, 1)]
    return json.dumps(tables, indent=1, ensure_ascii=False)


def _table(item: Item, number: int) -> dict[str, object]:
    """Return the fields of a record; of a command that was not run, those that a record has before."""
    if isinstance(item, Record):
        return asdict(item)
    return {
        "seq": number,
        "ns": item.ns,
        "why": item.why,
        "tool": item.argv[0],
        "argv": list(item.argv),
        "input": item.stdin,
        "how": item.how,
        "owner": item.owner,
    }


def as_script(items: Sequence[Item], title: str) -> str:
    """Return a plain shell script that does what the commands do; undone records are comments in it."""
    nodes = dict.fromkeys(_node(item) for item in items if not _comment_of(item))
    head = _HEAD.format(title=" ".join(title.split()), nodes="\n".join(f"#   {ns}" for ns in nodes))
    return head + "".join(_blocks(items)) + _TAIL


def as_part(items: Sequence[Item], title: str) -> str:
    """Return the commands as in `as_script`, without what makes a script of them."""
    head = f"# {title}\n#\n# A part of the lab's script, to be read: the rest of the lab is missing.\n"
    return head + "".join(_blocks(items))


def _blocks(items: Sequence[Item]) -> Iterator[str]:
    before = None
    for item in items:
        if (title := heading(item)) != before:
            before = title
            yield title
        text = describe(item) + _shown_in_etc(item)
        comment = _comment_of(item)
        yield "".join(f"# {comment}: {line}\n" for line in text.splitlines()) if comment else text


def _comment_of(item: Item) -> str:
    """Return why the command is not repeated; nothing for a command that is."""
    if not isinstance(item, Record):
        return ""
    if item.status != 0:
        return "not run" if item.status is None else f"exited {item.status}"
    return "undone" if item.undone else "found done" if item.stderr else ""


def _shown_in_etc(item: Item) -> str:
    """Return the command that shows the lab's names in /etc.

    A node's own names are for its own processes alone, which have no mount namespace in a script.
    """
    folder, _, name = item.argv[-1].rpartition("/")
    if item.argv[0] != "tee" or folder != "/run/patchbay":
        return ""
    return f"mount --bind {shlex.quote(item.argv[-1])} /etc/{name}\n"
