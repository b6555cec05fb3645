"""`assert`: what was captured is what it should be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Self

from attrs import evolve, frozen

from patchbay.config.converter import Unacceptable
from patchbay.errors import Problem
from patchbay.sim.actions.base import BaseStep, Rewriter
from patchbay.sim.asserts import Check, NotANumber, holds, parse_check
from patchbay.sim.refs import Ref

if TYPE_CHECKING:
    from patchbay.sim.acting import Acting

__all__ = ["AssertStep"]


@frozen(kw_only=True)
class AssertStep(BaseStep):
    """Fails the sim unless every one of `checks` (and `check`) holds; all that do not are reported.

    The newest value counts; where there is none yet it is waited for.
    """

    action: ClassVar[str] = "assert"

    check: str | None = None
    checks: tuple[str, ...] = ()

    def _written(self) -> Iterator[tuple[str, str]]:
        if self.check is not None:
            yield "check", self.check
        yield from ((f"checks[{index}]", text) for index, text in enumerate(self.checks))

    def _parsed(self) -> Iterator[tuple[str, Check]]:
        for path, text in self._written():
            # `problems` tells of what cannot be read, and then the sim does not run.
            with contextlib.suppress(Unacceptable):
                yield path, parse_check(text)

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if not list(self._written()):
            yield Problem("", "an assert without a check; accepted: `check` or `checks`")
        for path, text in self._written():
            try:
                parse_check(text)
            except Unacceptable as error:
                yield Problem(path, str(error))

    def refs(self) -> Iterator[tuple[str, Ref]]:
        yield from super().refs()
        yield from ((path, check.ref) for path, check in self._parsed())

    def rewritten(self, rewriter: Rewriter) -> Self:
        checks = [evolve(check, ref=ref) for _, check in self._parsed() for ref in rewriter.many(check.ref)]
        return evolve(super().rewritten(rewriter), check=None, checks=tuple(str(check) for check in checks))

    async def perform(self, act: Acting) -> None:
        failures = []
        for _, check in self._parsed():
            seen = await act.value(check.ref)
            try:
                why = "" if holds(check, seen.value) else f"{check}"
            except NotANumber as error:
                why = f"{check}: {error}"
            if why:
                failures.append(f"{why}\n  seen       {seen.value!r}\n  from       {seen.origin}")
        if failures:
            raise act.unmet("\n".join(failures))
