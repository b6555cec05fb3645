"""Changes of NATs and firewalls as a real kernel takes them: their transactions, one after another."""

import subprocess

import pytest

from patchbay.change.base import Change
from patchbay.layout.layout import Layout
from patchbay.plan.change import between
from tests.pure.fake_namespaces import TIMEOUTS
from tests.pure.policies import (
    ALL_PORTS,
    BLOCKS,
    LAB,
    after,
    built,
    device,
    firewall,
    flush,
    nat,
    router,
    transactions,
)

pytestmark = pytest.mark.kernel

NS = router().ns


def shell(script: str) -> str:
    """What a shell in a network namespace of its own said."""
    done = subprocess.run(
        ["unshare", "-Urn", "sh", "-e", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def rules(*layouts: Layout, undone: bool = False) -> str:
    """A script that loads the rules of router r in the first layout, and makes those of the next of them."""
    plans = [between(old, new) for old, new in zip((None, *layouts), layouts, strict=False)]
    if undone:
        plans += [between(layouts[-1], layouts[-2], undoing=True)]
    texts = ["".join(texts) for plan in plans for ns, texts in transactions(plan) if ns == NS]
    return "".join(f"nft -f - <<'EOF'\n{text}EOF\n" for text in texts)


LISTED = "nft -s list ruleset"

CHANGES: dict[str, tuple[Change, ...]] = {
    "another nat": (nat("home"), nat("full-cone")),
    "a nat of blocks": (nat("home"), nat(BLOCKS)),
    "a nat of other blocks": (nat(BLOCKS), nat({"port_allocation": "block:64"})),
    "no nat": (nat(BLOCKS), nat("none")),
    "what is forgotten": (nat(BLOCKS), flush()),
    "another firewall": (firewall("corporate"), firewall({"outbound_tcp": "none"})),
    "no firewall": (firewall("corporate"), firewall("none")),
    "a firewall after none": (firewall("none"), firewall("corporate")),
    "a host with a block": (nat(BLOCKS), device("four")),
    "all of it": (nat(BLOCKS), device("four"), nat(ALL_PORTS), firewall("none")),
}


def in_order(listed: str) -> str:
    """Tables are listed in the order in which they were made."""
    return "\n".join(sorted(table.strip() for table in listed.split("\ntable ")))


def of_a_new(layout: Layout) -> str:
    return in_order("\n" + shell(rules(layout) + LISTED))


@pytest.mark.parametrize("case", CHANGES)
def test_a_kernel_has_after_a_change_what_it_has_when_made_so(case: str) -> None:
    first, *then = CHANGES[case]
    old, new = after(LAB, first), after(LAB, first, *then)
    assert in_order("\n" + shell(rules(old, new) + LISTED)) == of_a_new(new)


@pytest.mark.parametrize("case", CHANGES)
def test_a_kernel_has_after_undoing_what_it_had_before(case: str) -> None:
    first, *then = CHANGES[case]
    old, new = after(LAB, first), after(LAB, first, *then)
    assert in_order("\n" + shell(rules(old, new, undone=True) + LISTED)) == of_a_new(old)


@pytest.mark.parametrize("case", CHANGES)
def test_what_was_not_done_can_be_undone(case: str) -> None:
    first, *then = CHANGES[case]
    old, new = after(LAB, first), after(LAB, first, *then)
    back = [texts for ns, texts in transactions(between(new, old, undoing=True)) if ns == NS]
    script = "".join(f"nft -f - <<'EOF'\n{''.join(texts)}EOF\n" for texts in back)
    assert in_order("\n" + shell(rules(old) + script + LISTED)) == of_a_new(old)


def test_timeouts_of_a_new_namespace_are_those_that_are_set_back_to() -> None:
    """And of the fake kernel."""
    names = [f"/proc/sys/net/netfilter/nf_conntrack_{name}" for name in TIMEOUTS]
    values = shell(f"cat {' '.join(names)}").split()
    assert dict(zip(TIMEOUTS, values, strict=True)) == TIMEOUTS
    assert built(LAB).namespaces["ix"].sysctls.items() >= {
        (name.removeprefix("/proc/sys/"), value) for name, value in zip(names, values, strict=True)
    }
