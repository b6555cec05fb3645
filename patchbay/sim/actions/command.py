"""What `run` and `spawn` share: a command in a node, what is taken from its output, how it must end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from attrs import evolve, field, frozen

from patchbay.config.converter import Unacceptable
from patchbay.errors import Problem, did_you_mean
from patchbay.sim.actions.base import BaseStep, Rewriter, some_ref
from patchbay.sim.captures import Capture, Parser
from patchbay.sim.measure import Results
from patchbay.sim.refs import Ref, name_problem, parse_ref

if TYPE_CHECKING:
    from patchbay.sim.acting import Acting

__all__ = ["CommandStep"]


@frozen(kw_only=True)
class CommandStep(BaseStep):
    """A command in a node.

    `args` are appended to `cmd`; `env` is added to the environment; `expect_exit` is the exit status
    that is none of failure (default 0; minus the signal's number for a death by signal).
    """

    cmd: tuple[str, ...]
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(factory=dict)
    parser: Parser = Parser.TEXT
    captures: dict[str, Capture] = field(factory=dict)
    results: Results = field(factory=Results)
    expect_exit: int = 0

    @property
    def declares(self) -> dict[str, Capture]:
        return self.captures

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.device is None:
            yield Problem("device", "is missing, and required")
        if not self.cmd:
            yield Problem("cmd", 'found an empty array; accepted: a command such as ["ping", "-c1", "ix"]')
        for name in self.env:
            if not name or "=" in name or "\0" in name:
                yield Problem(f"env.{name}", "accepted: the name of an environment variable")
        for name, capture in self.captures.items():
            if problem := name_problem(name):
                yield Problem(f"captures.{name}", problem)
            for inner in capture.problems(self.parser):
                yield Problem(f"captures.{name}" + (f".{inner.path}" if inner.path else ""), inner.message)
        yield from self._result_problems()

    def _result_problems(self) -> Iterator[Problem]:
        for path, text in self.results.named():
            if text.startswith("."):
                if text[1:] not in self.captures:
                    yield Problem(f"results.{path}", unknown_capture(text[1:], self.captures))
                continue
            try:
                parse_ref(text)
            except Unacceptable:
                yield Problem(f"results.{path}", f"found {text!r}; accepted: id.capture or .capture")

    def texts(self) -> Iterator[tuple[str, str]]:
        yield from ((f"cmd[{index}]", word) for index, word in enumerate(self.cmd))
        yield from ((f"args[{index}]", word) for index, word in enumerate(self.args))
        yield from ((f"env.{name}", value) for name, value in self.env.items())

    def refs(self) -> Iterator[tuple[str, Ref]]:
        yield from super().refs()
        for path, text in self.results.named():
            if ref := some_ref(text):
                yield f"results.{path}", ref

    def rewritten(self, rewriter: Rewriter) -> Self:
        def result(path: str, text: str | None) -> str | None:
            ref = some_ref(text) if text else None
            return str(rewriter.one(f"results.{path}", ref)) if ref else text

        metrics = {name: result(f"metrics.{name}", text) for name, text in self.results.metrics.items()}
        plain = {
            name: result(name, getattr(self.results, name))
            for name in ("duration", "up_bytes", "down_bytes", "latency_ms")
        }
        return evolve(
            super().rewritten(rewriter),
            cmd=tuple(rewriter.text(f"cmd[{index}]", word) for index, word in enumerate(self.cmd)),
            args=tuple(rewriter.text(f"args[{index}]", word) for index, word in enumerate(self.args)),
            env={name: rewriter.text(f"env.{name}", value) for name, value in self.env.items()},
            results=Results(**plain, metrics=metrics),  # type: ignore[arg-type]
        )

    async def command(self, act: Acting) -> tuple[list[str], dict[str, str]]:
        """The command line and environment, with every variable replaced."""
        argv = [await act.text(word) for word in (*self.cmd, *self.args)]
        return argv, {name: await act.text(value) for name, value in self.env.items()}


def unknown_capture(name: str, known: dict[str, Capture]) -> str:
    """The message for a capture that a step does not declare."""
    listed = f"it captures: {', '.join(known)}{did_you_mean(name, known)}" if known else "it captures nothing"
    return f"unknown capture '{name}'; {listed}"
