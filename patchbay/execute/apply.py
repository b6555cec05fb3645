"""Plan -> kernel: groups commands into batches, has the agent run them, and says what became of each."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, assert_never

import trio
from attrs import frozen

from patchbay.errors import CommandFailed, LabDiedError
from patchbay.execute.batches import Batch, batches, step
from patchbay.model.names import IfName, NsName
from patchbay.plan.plan import Plan, Stage
from patchbay.sandbox.inside import wire
from patchbay.sandbox.sandbox import Sandbox
from patchbay.sandbox.services import Services
from patchbay.tools import tc
from patchbay.tools.commands import (
    CheckQdiscs,
    Command,
    EndService,
    Ip,
    Nft,
    RemoveFile,
    SetSysctl,
    StartService,
    Tc,
    WriteFile,
    by_hand,
    in_namespace,
)

__all__ = ["Outcome", "Result", "apply", "apply_now"]

Lanes = list[list["Batch"]]

_SERVICES_AT_ONCE = 24


@frozen
class Outcome:
    """The outcome of a batch: each command's status and stderr, or None if the command was not run."""

    batch: Batch
    time: float
    elapsed: float
    results: tuple[Result | None, ...]


@frozen
class Result:
    """A command's exit status and its stderr."""

    status: int
    stderr: str = ""


async def apply(sandbox: Sandbox, services: Services, plan: Plan, done: list[Outcome]) -> None:
    """Carry out `plan`, adding to `done` what was tried. Raises `CommandFailed` for the first failure.

    What runs is never abandoned in the middle: also when cancelled, this returns only once nothing
    is under way, so that undoing starts from rest.
    """
    run = _Run(sandbox, services, done)
    with trio.CancelScope(shield=True):
        try:
            for stages in _between_rests(plan.stages):
                await run.stages(stages)
        except BaseExceptionGroup as group:
            if group.split(KeyboardInterrupt)[0] is None:
                raise
            raise KeyboardInterrupt from None  # as itself, whichever nursery it came through
        if not run.failed and plan.settle:
            await run.settle(plan.settle)
    if run.failed:
        raise run.failed
    await trio.lowlevel.checkpoint_if_cancelled()


def apply_now(sandbox: Sandbox, plan: Plan, done: list[Outcome]) -> None:
    """Apply a plan of files alone, without trio, because the agent writes files in no time."""
    run = _Run(sandbox, None, done)
    for stage in plan.stages:
        lanes = [list(batches(stage.make))]
        run.take(lanes, sandbox.agent.request_now(run.message(lanes)))
    if run.failed:
        raise run.failed


def _about_service(batch: Batch) -> bool:
    return isinstance(batch.commands[0], StartService | EndService)


def _by_namespace(commands: Sequence[Command]) -> list[list[Batch]]:
    lanes: dict[str | None, list[Command]] = {}
    for command in commands:
        lanes.setdefault(command.ns, []).append(command)
    return [list(batches(lane)) for lane in lanes.values()]


def _between_rests(stages: Sequence[Stage]) -> Iterator[list[Stage]]:
    """Yield the stages that may overlap, up to the next barrier."""
    group: list[Stage] = []
    for stage in stages:
        if stage.barrier and group:
            yield group
            group = []
        group.append(stage)
    if group:
        yield group


class _Run:
    def __init__(self, sandbox: Sandbox, services: Services | None, done: list[Outcome]) -> None:
        self._sandbox = sandbox
        self._services = services
        self._done = done
        self.failed: CommandFailed | LabDiedError | None = None

    async def stages(self, stages: Sequence[Stage]) -> None:
        async with trio.open_nursery() as nursery:
            for stage in stages:
                if self.failed:
                    return
                await self._part([list(batches(stage.make))])
                if stage.configure:
                    nursery.start_soon(self._part, _by_namespace(stage.configure))

    async def settle(self, ifaces: Sequence[tuple[NsName, IfName]]) -> None:
        """Wait until these carry packets."""
        wanted = [list(iface) for iface in ifaces]
        try:
            answer = await self._sandbox.agent.request({"lanes": [["", [["settle", wanted]]]]})
        except LabDiedError as error:
            self.failed = error
            return
        result = answer["results"][0][0]
        if result["status"] != 0:
            ns, dev = ifaces[int(result["out"])]
            argv = ("ip", "link", "show", "dev", dev)
            self.failed = CommandFailed(
                intent=f"wait until {dev} carries packets",
                namespace=ns,
                command=" ".join(argv),
                status=result["status"],
                stderr=result["err"],
                repeat=in_namespace(ns, argv),
            )

    async def _part(self, lanes: Lanes) -> None:
        """Run the batches of lanes, and then their services."""
        await self._lanes([[batch for batch in lane if not _about_service(batch)] for lane in lanes])
        # Their start is mostly waiting: for RCU, while packet sockets are made.
        limit = trio.CapacityLimiter(_SERVICES_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for lane in lanes:
                for batch in filter(_about_service, lane):
                    nursery.start_soon(self._service, batch, limit)

    async def _service(self, batch: Batch, limit: trio.CapacityLimiter) -> None:
        async with limit:
            if not self.failed:
                await self._serve(batch)

    async def _serve(self, batch: Batch) -> None:
        command, started = batch.commands[0], time.time()
        assert self._services is not None
        result = Result(0)
        try:
            match command:
                case StartService():
                    await self._services.put(command.service)
                case EndService():
                    self._services.end(command.service)
                case _:
                    raise TypeError(f"not about a service: {command}")
        except LabDiedError as error:
            self.failed = error
            return
        except (OSError, trio.TooSlowError) as error:
            result = Result(1, str(error))
        self._note(Outcome(batch, started, time.time() - started, (result,)))

    async def _lanes(self, lanes: Lanes) -> None:
        wanted = [lane for lane in lanes if lane]
        if not wanted or self.failed:
            return
        try:
            answer = await self._sandbox.agent.request(self.message(wanted))
        except LabDiedError as error:
            self.failed = error
            return
        self.take(wanted, answer)

    def message(self, lanes: list[list[Batch]]) -> wire.Message:
        return {"lanes": [[lane[0].lane, [step(batch) for batch in lane]] for lane in lanes]}

    def take(self, lanes: list[list[Batch]], answer: wire.Message) -> None:
        for lane, results in zip(lanes, answer["results"], strict=True):
            for batch, raw in zip(lane, results, strict=False):
                self._take(batch, raw)

    def _take(self, batch: Batch, raw: dict[str, Any]) -> None:
        self._note(Outcome(batch, raw["time"], raw["elapsed"], _results(batch, raw)))

    def _note(self, outcome: Outcome) -> None:
        batch = outcome.batch
        self._done.append(outcome)
        for number, result in enumerate(outcome.results):
            if result and result.status != 0 and self.failed is None:
                self.failed = _failure(batch, number, result)


def _results(batch: Batch, raw: dict[str, Any]) -> tuple[Result | None, ...]:
    """Return the result of each command of a batch, from that of the whole."""
    status, stderr, count = raw["status"], raw["err"], len(batch.commands)
    match batch.commands[0]:
        case CheckQdiscs() as check:
            wrong = [] if status else tc.differences(check.wanted, raw["out"])
            return (Result(1, "\n".join(wrong)) if wrong else Result(status, stderr),)
        case _ if status == 0:
            return (Result(0),) * count
        case Nft():
            # Of a transaction nothing was done.
            failed, _, _ = _failed_rule(batch, stderr)
            return (*(None,) * failed, Result(status, stderr), *(None,) * (count - failed - 1))
        case Ip() | Tc():
            return _of_lines(batch, status, stderr)
        case SetSysctl() | WriteFile() | RemoveFile():
            return _up_to(int(raw["out"]), Result(status, stderr), count)
        case StartService() | EndService():
            raise TypeError("services are not in a batch")
        case first:
            assert_never(first)


def _of_lines(batch: Batch, status: int, stderr: str) -> tuple[Result | None, ...]:
    """Return the results of a batch of lines that failed."""
    if batch.forgiving:
        return _tried(batch, status, stderr)
    match = re.search(r"Command failed \S+:(\d+)", stderr)
    failed = int(match[1]) - 1 if match else _stopped_at(batch, stderr, 0)
    return _up_to(failed, Result(status, stderr), len(batch.commands))


def _up_to(failed: int, result: Result, count: int) -> tuple[Result | None, ...]:
    return (*(Result(0),) * failed, result, *(None,) * (count - failed - 1))


def _tried(batch: Batch, status: int, stderr: str) -> tuple[Result | None, ...]:
    """Return the results of `ip -force -batch -`, which goes on after an error, but not after each."""
    errors, last_words = _batch_errors(stderr)
    results = [_forgiven(command, errors.get(n, "")) for n, command in enumerate(batch.commands)]
    if status in (0, 1) and not last_words:
        return tuple(results)
    stopped = _stopped_at(batch, last_words, max(errors, default=-1) + 1)
    rest = len(results) - stopped - 1
    return (*results[:stopped], Result(status, last_words), *(None,) * rest)


def _forgiven(command: Command, error: str) -> Result:
    tolerated = isinstance(command, Ip | Tc) and any(text in error for text in command.tolerate)
    return Result(0 if not error or tolerated else 1, error)


def _batch_errors(stderr: str) -> tuple[dict[int, str], str]:
    """Return the text of each error by its 0-based line, and the output after the last."""
    errors: dict[int, str] = {}
    text: list[str] = []
    for line in stderr.splitlines():
        if match := re.fullmatch(r"Command failed \S+:(\d+)", line):
            errors[int(match[1]) - 1] = "\n".join(text)
            text = []
        else:
            text.append(line)
    return errors, "\n".join(text)


def _stopped_at(batch: Batch, errors: str, begin: int) -> int:
    """Return the 0-based line at which `ip` ended in the middle of a batch, from `begin` on.

    A word that it cannot read makes it exit at once without telling the line (invarg in
    lib/utils.c), but it quotes the word: the line is the first with the most of what is quoted.
    """
    quoted = set(re.findall(r'"([^"]+)"', errors))
    lines = [quoted.intersection(command.argv) for command in batch.commands[begin:]]
    return begin + max(range(len(lines)), key=lambda number: len(lines[number]), default=0)


def _failed_rule(batch: Batch, stderr: str) -> tuple[int, int | None, str]:
    """Return the number of the command that nft complains of, the line of it, and what is there."""
    match = re.search(r":(\d+):\d+(?:-\d+)?: Error", stderr)
    if match is None:
        # Then it is about the whole: most likely the largest.
        sizes = [len(command.stdin) for command in batch.commands]
        return sizes.index(max(sizes)), None, ""
    line = int(match[1])
    for number, command in enumerate(batch.commands):
        lines = command.stdin.splitlines()
        # An unexpected end is reported for the line after the last.
        if line <= len(lines) or number == len(batch.commands) - 1:
            return number, line, "".join(lines[line - 1 : line]).strip() or "(the end)"
        line -= len(lines)
    raise AssertionError("a batch has commands")


def _failure(batch: Batch, number: int, result: Result) -> CommandFailed:
    command = batch.commands[number]
    line, text = None, ""
    if isinstance(command, Nft):
        _, line, text = _failed_rule(batch, result.stderr)
    elif isinstance(command, Ip | Tc):
        line, text = number + 1, " ".join(command.args)
    return CommandFailed(
        intent=command.why,
        namespace=command.ns or "(the lab's own)",
        command=" ".join(command.argv),
        status=result.status,
        stderr=result.stderr,
        repeat=by_hand(command),
        line=line,
        input_line=text,
        hint=_hint(result.stderr),
    )


def _hint(stderr: str) -> str:
    if "No such file or directory" in stderr and "rule" in stderr:
        return "the kernel lacks a part of nftables; `patchbay doctor` lists what else"
    if "qdisc kind is unknown" in stderr:
        return "the kernel has no sch_netem: open the lab with emulator='userspace' or 'auto'"
    if "Operation not supported" in stderr or "Unknown device type" in stderr:
        return "the kernel lacks this kind of link; `patchbay doctor` lists what else"
    if "Message too long" in stderr:
        return "the ruleset is larger than a user namespace's send buffer takes at once"
    return ""
