from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import evolve

from patchbay.execute import apply as apply_module
from patchbay.plan.plan import Plan, Stage
from patchbay.tools.commands import Command, Ip, Nft, SetSysctl

BREAK = {
    Ip: lambda command: evolve(command, args=("route", "add", "10.9.9.0/24", "via", "192.0.2.77")),
    Nft: lambda command: evolve(command, ruleset=command.ruleset + "add rule inet nowhere nochain drop\n"),
    SetSysctl: lambda command: evolve(command, name="net/no/such/setting", optional=False),
}


@pytest.fixture
def break_command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Puts a really wrong line into the real batch, in the place of the first command that is chosen."""
    really_apply = apply_module.apply

    @contextlib.contextmanager
    def breaking(
        choose: Callable[[Command], bool], how: Callable[[Any], Any] | None = None
    ) -> Iterator[None]:
        done: list[Command] = []

        def maybe(command: Command) -> Command:
            if done or not choose(command):
                return command
            done.append(command)
            broken: Command = (how or BREAK[type(command)])(command)
            return broken

        async def apply(sandbox: Any, services: Any, plan: Plan, outcomes: Any) -> None:
            stages = tuple(
                Stage(tuple(map(maybe, stage.make)), tuple(map(maybe, stage.configure)), stage.barrier)
                for stage in plan.stages
            )
            await really_apply(sandbox, services, Plan(stages, plan.settle), outcomes)

        with monkeypatch.context() as patch:
            patch.setattr("patchbay.lab.changes.apply", apply)
            yield
        assert done, "no command was chosen"

    return breaking
