"""Every error patchbay raises on purpose.

PatchbayError
├── SpecError           the input is wrong; `.problems` holds all of it at once
├── AllocationError     the address plan has no room left
├── HostError           this machine lacks something; `.lacks` holds all of it at once
├── CommandFailed       the kernel or a tool refused a command
├── StepFailed          a step of a sim failed
│   └── ExpectationFailed   an assertion of a sim did not hold
├── StaleHandleError    the node behind a handle is gone, or not there yet
├── OutsideNodeError    a socket that would have left the node it was meant for
├── WorkerError         the worker process behind `call()` died
├── LabClosedError      the lab was used after its block
├── LabBrokenError      a failed change could not be undone
├── LabDiedError        the lab's agent is gone
└── ServiceLostError    a service of the lab ended by itself
    ├── LinkLostError           the relay of a link, and the link with it
    └── PortMappingLostError    the server of a router's port mappings
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

__all__ = [
    "AllocationError",
    "CommandFailed",
    "ExpectationFailed",
    "HostError",
    "LabBrokenError",
    "LabClosedError",
    "LabDiedError",
    "Lack",
    "LinkLostError",
    "OutsideNodeError",
    "PatchbayError",
    "PortMappingLostError",
    "Problem",
    "ServiceLostError",
    "SpecError",
    "StaleHandleError",
    "StepFailed",
    "WorkerError",
    "did_you_mean",
]


# Words of other tools for what patchbay names after RFCs and units.
_SYNONYMS = {
    "bandwidth": "rate_kbit",
    "bw": "rate_kbit",
    "delay": "latency_ms",
    "limit": "buffer_kb",
    "parent": "upstream",
    "router": "gateway",
}


def did_you_mean(wrong: object, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing where no known word is close.

    A known word of which `wrong` is the beginning is closer than any other: "rate" means "rate_kbit".
    """
    import difflib

    if not isinstance(wrong, str):
        return ""
    words = sorted(known)
    longer = [word for word in words if wrong and word.startswith(f"{wrong}_")]
    synonym = [word for word in words if _SYNONYMS.get(wrong.removesuffix("_ms")) == word]
    close = longer or synonym or difflib.get_close_matches(wrong, words, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


class PatchbayError(Exception):
    """The root of patchbay's errors."""


@frozen
class Problem:
    """One thing that is wrong with an input: where, and what in one sentence."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(PatchbayError):
    """The input is wrong. Nothing was run; `problems` holds everything found, not just the first.

    `source` is the file the input came from, where there was one.
    """

    def __init__(self, problems: Sequence[Problem], source: str | None = None) -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        where = ":".join(part for part in (self.source, problem.path) if part)
        return f"{where}: {problem.message}" if where else problem.message


class AllocationError(PatchbayError):
    """The address plan has no room left; the text says which pool and how to widen it."""


@frozen
class Lack:
    """Something this machine does not have, and the line that repairs it."""

    what: str
    repair: str

    def __str__(self) -> str:
        return f"{self.what}\n  repair  {self.repair}"


class HostError(PatchbayError):
    """This machine cannot run a lab; `lacks` holds all that is missing, each with its repair."""

    def __init__(self, lacks: Sequence[Lack]) -> None:
        self.lacks = tuple(lacks)
        super().__init__("this machine cannot run a lab:\n" + "\n".join(str(lack) for lack in self.lacks))


class CommandFailed(PatchbayError):
    """A command of the lab failed, and what the call had changed was undone.

    `intent` is what the command was for, `command` what was run, `line` the 1-based line of
    `input` on which it failed where the tool names it, `repeat` how to run it again in a shell.
    """

    def __init__(
        self,
        *,
        intent: str,
        namespace: str,
        command: str,
        status: int,
        stderr: str,
        repeat: str,
        line: int | None = None,
        input_line: str = "",
        hint: str = "",
    ) -> None:
        self.intent = intent
        self.namespace = namespace
        self.command = command
        self.status = status
        self.stderr = stderr
        self.repeat = repeat
        self.line = line
        self.input_line = input_line
        self.hint = hint
        super().__init__("\n".join(self._lines()))

    def _lines(self) -> Iterable[str]:
        yield f"could not {self.intent}: {self.command.split(maxsplit=1)[0]} exited {self.status}"
        yield f"  namespace  {self.namespace}"
        yield f"  command    {self.command}"
        if self.line is not None:
            yield f"  input      line {self.line}: {self.input_line}"
        yield "  stderr     " + "\n             ".join(self.stderr.strip().splitlines() or ["(nothing)"])
        yield f"  repeat     {self.repeat}"
        if self.hint:
            yield f"  hint       {self.hint}"


class StepFailed(PatchbayError):
    """A step of a sim failed; the text names the step and shows the evidence."""


class ExpectationFailed(StepFailed):
    """An assertion of a sim did not hold; the text shows the value seen."""


class StaleHandleError(PatchbayError):
    """The node behind this handle was removed, was never made, or waits for its batch."""


class OutsideNodeError(PatchbayError):
    """Code inside `enter()` asked for a socket or a look-up that would have used the host's network."""


class WorkerError(PatchbayError):
    """The worker process that runs a node's `call()`s died, or its answer could not be read."""


class LabClosedError(PatchbayError):
    """The lab was used after its `async with` block."""

    def __init__(self, text: str = "the lab is closed: it lives as long as its `async with` block") -> None:
        super().__init__(text)


class LabBrokenError(PatchbayError):
    """A change failed and could not be undone: the lab's state is not known any more."""


class LabDiedError(PatchbayError):
    """The lab's agent process is gone, and with it every process and namespace of the lab."""


class ServiceLostError(PatchbayError):
    """A process that serves the lab ended by itself and did not come back; raised at the end of the block."""


class LinkLostError(ServiceLostError):
    """The relay process of a link ended, and the link went down; raised by its counters too."""


class PortMappingLostError(ServiceLostError):
    """A router's server of port mappings ended."""
