"""`open_lab`: a lab for the length of a block."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import trio

from patchbay.sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from patchbay.lab.lab import Lab
    from patchbay.model.lab import Addresses, Ipv6, LabSpec
    from patchbay.model.link import Emulator

__all__ = ["open_lab"]


@contextlib.asynccontextmanager
async def open_lab(
    spec: LabSpec | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    label: str | None = None,
    outdir: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    ipv6: Ipv6 | str = "deterministic",
    emulator: Emulator | str = "auto",
    addresses: Addresses | str | None = None,
) -> AsyncIterator[Lab]:
    """Open a lab: network namespaces for the length of the block, and nowhere else.

    `spec` is a path to a TOML file, a dict of the same shape, or a `LabSpec`; it is checked as a whole
    before anything runs. `outdir` is where the run's files go, in a folder `<timestamp>-<label>`
    (default: $PATCHBAY_OUTDIR; unset means that nothing is written); `run_dir` names that folder itself.
    `emulator` is what puts links into their conditions: the kernel's "netem", a relay in "userspace",
    or netem where the kernel has it ("auto"). `addresses` chooses the ranges of public addresses: "global",
    ranges that programs take for public, or "documentation", the ranges of RFC 5737, 3849, 2544 and 5180
    (default: the choice of the spec, or "global").

    Leaving the block, for whatever reason, ends every process of the lab, closes every socket it
    handed out, and so ends every namespace. An exception of the block leaves it as itself.

    Raises `SpecError`, `AllocationError`, `HostError` (everything the machine lacks), `CommandFailed`;
    `LabDiedError`, which cancels the block, when the lab's agent process is gone; `ServiceLostError` at the
    end of a block during which a service of the lab ended: `LinkLostError` for the relay of a link,
    `PortMappingLostError` for the server of a router's port mappings.
    """
    _need_trio()
    async with Sandbox() as sandbox:
        # Loaded while the agent starts, because the first time both take long.
        from patchbay.lab.opening import opened

        async with opened(
            sandbox,
            spec,
            label=label,
            outdir=outdir,
            run_dir=run_dir,
            ipv6=ipv6,
            emulator=emulator,
            addresses=addresses,
        ) as lab:
            yield lab


def _need_trio() -> None:
    """Raise `RuntimeError` for callers that run under another event loop, or under none."""
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "labs need trio: run your program with `trio.run(main)`, tests with pytest-trio, and code that "
            "is written for anyio with `anyio.run(main, backend='trio')`; asyncio cannot run labs"
        )
