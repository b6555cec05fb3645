"""The body of `open_lab`, which is loaded while the agent starts."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
from attrs import evolve

from patchbay.change.fields import router_fields
from patchbay.config.converter import describe_value
from patchbay.config.draft import Draft
from patchbay.errors import Problem, SpecError
from patchbay.lab.core import Core
from patchbay.lab.lab import Lab
from patchbay.lab.session import Session
from patchbay.layout.allocate import lay_out
from patchbay.model.checked import one_of, refuse_wrong
from patchbay.model.lab import Addresses, Ipv6, LabSpec
from patchbay.model.link import Emulator
from patchbay.record.folder import LabFolder
from patchbay.record.recorder import Recorder
from patchbay.sandbox.sandbox import Sandbox

__all__ = ["opened"]

_numbers = itertools.count(1)

Spec = LabSpec | Mapping[str, Any] | str | os.PathLike[str] | None


@contextlib.asynccontextmanager
async def opened(
    sandbox: Sandbox,
    spec: Spec,
    *,
    label: str | None,
    outdir: str | os.PathLike[str] | None,
    run_dir: str | os.PathLike[str] | None,
    ipv6: Ipv6 | str,
    emulator: Emulator | str,
    addresses: Addresses | str | None,
) -> AsyncIterator[Lab]:
    """Open a lab in a sandbox that is starting; see `open_lab`."""
    ranges = Addresses.GLOBAL if addresses is None else addresses
    given = SimpleNamespace(ipv6=ipv6, emulator=emulator, addresses=ranges)
    kinds = {"ipv6": Ipv6, "emulator": Emulator, "addresses": Addresses}
    refuse_wrong(given, {name: partial(one_of, kind=kind) for name, kind in kinds.items()})
    draft = _draft(spec)
    if addresses is not None:
        draft = evolve(draft, spec=evolve(draft.spec, addresses=Addresses(addresses)))
    layout = lay_out(draft)
    name = _label(label, spec)
    async with _session(sandbox) as session:
        folder = LabFolder(Path(run_dir)) if run_dir is not None else _folder(outdir, name)
        prefix = f"lab{next(_numbers)}"
        core = Core(session, Recorder(folder), label=name, prefix=prefix, emulator=Emulator(emulator))
        try:
            exchange = router_fields(layout, layout.ix)
            core.event("lab_created", label=name, prefix=prefix, exchange=exchange)
            await core.changes.build(draft.spec, layout)
            yield Lab(core)
            core.losses.check_all_there()
        finally:
            core.close()


def _label(label: object, spec: Spec) -> str:
    if label is None:
        return (Path(spec).stem if isinstance(spec, str | os.PathLike) else "") or f"lab{os.getpid()}"
    if not isinstance(label, str) or not label or not label.isprintable():
        raise SpecError([Problem("label", f"found {describe_value(label)}; accepted: printable text")])
    return label


def _draft(spec: Spec) -> Draft:
    if spec is None or isinstance(spec, LabSpec):
        return Draft(spec or LabSpec())
    from patchbay.config.lab_file import read_lab

    if not isinstance(spec, Mapping | str | os.PathLike):
        accepted = "accepted: the path of a TOML file, a dict, or a LabSpec"
        raise SpecError([Problem("spec", f"found {describe_value(spec)}; {accepted}")])
    return read_lab(spec if isinstance(spec, Mapping) else Path(spec))


def _folder(outdir: str | os.PathLike[str] | None, label: str) -> LabFolder | None:
    chosen = outdir if outdir is not None else os.environ.get("PATCHBAY_OUTDIR")
    try:
        return LabFolder.timestamped(Path(chosen), label) if chosen else None
    except OSError as error:
        why = f"no folder can be made in {os.fspath(chosen)!r}: {error.strerror}"  # type: ignore[arg-type]
        raise SpecError([Problem("outdir", why)]) from None


@contextlib.asynccontextmanager
async def _session(sandbox: Sandbox) -> AsyncIterator[Session]:
    """Hold a session whose end is shielded, and whose agent's death ends the block.

    The block's own exception is carried round the nursery, which would wrap it in a group.
    """
    failure: BaseException | None = None
    await sandbox.up()
    async with trio.open_nursery() as nursery:
        session = Session(sandbox, nursery)
        with trio.CancelScope() as scope:
            nursery.start_soon(session.watch, scope)
            try:
                yield session
            except BaseException as error:
                failure = error
        with trio.CancelScope(shield=True):
            await session.close()
        nursery.cancel_scope.cancel()
    if session.died and _only_cancelled(failure):
        raise session.died
    if failure is not None:
        raise failure


def _only_cancelled(failure: BaseException | None) -> bool:
    """Return True if the block failed by its cancellation alone: once, or once for each of its tasks."""
    if isinstance(failure, BaseExceptionGroup):
        return failure.split(trio.Cancelled)[1] is None
    return failure is None or isinstance(failure, trio.Cancelled)
