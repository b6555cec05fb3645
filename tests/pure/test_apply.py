"""A plan on its way to the agent: what is asked in which order, and what comes of an answer."""

import json
from typing import Any, cast

import pytest
import trio
from attrs import define, field

from patchbay.errors import CommandFailed, LabDiedError
from patchbay.execute.apply import Outcome, apply
from patchbay.model.link import Impairment
from patchbay.model.names import IfName, NsName
from patchbay.plan.plan import Plan, Stage
from patchbay.sandbox.sandbox import Sandbox
from patchbay.sandbox.services import Services
from patchbay.tools.commands import CheckQdiscs, Command, EndService, Ip, SetSysctl, StartService, Tc
from patchbay.tools.service import Service
from patchbay.tools.tc import Netem
from tests.pure.labs import a_relay
from tests.pure.qdiscs import DEV, EVERYTHING, recorded, wanted_of

A, B = NsName("a"), NsName("b")


def ip(line: str, ns: NsName | None = None) -> Ip:
    return Ip(ns, tuple(line.split()), why=f"do {line}", owner=A)


def tc(line: str, ns: NsName = A) -> Tc:
    return Tc(ns, tuple(line.split()), why=f"do {line}", owner=A)


def service(name: str, ns: NsName = A) -> StartService:
    return StartService(a_relay(name, ns), why=f"start {name}", owner=A)


def end(name: str) -> EndService:
    return EndService(a_relay(name), why=f"end {name}", owner=A)


def check(ns: NsName = A) -> CheckQdiscs:
    return CheckQdiscs(ns, {DEV: wanted_of(EVERYTHING)}, why="see that the kernel took it", owner=A)


@define
class Fake:
    """An agent and services that note what they are told; `answers` has what to say to a step, by its tool,
    or by its kind where the agent does it itself.
    """

    told: list[str] = field(factory=list)
    answers: dict[str, dict[str, Any]] = field(factory=dict)
    refused: dict[str, BaseException] = field(factory=dict)
    slow: float = 0
    busy: int = 0

    @property
    def agent(self) -> "Fake":
        return self

    async def request(self, message: dict[str, Any]) -> dict[str, Any]:
        self.busy += 1
        lanes = message["lanes"]
        texts = [text for _, steps in lanes for step in steps for text in self._texts(step)]
        self.told.append(" & ".join(texts))
        await trio.sleep(self.slow)  # by the clock of the test, which jumps ahead
        self.busy -= 1
        self.told.append(f"done {texts[0]}")
        return {"results": [[self._result(step) for step in steps] for _, steps in lanes]}

    def _texts(self, step: list[Any]) -> list[str]:
        if step[0] in ("settle", "sysctl"):
            return [step[0]]
        return [" ".join(step[2])] if not step[3] else step[3].splitlines()

    def _result(self, step: list[Any]) -> dict[str, Any]:
        ok = {"time": 1.0, "elapsed": 0.1, "status": 0, "err": "", "out": ""}
        return {**ok, **self.answers.get(step[2][0] if step[0] in ("exec", "try") else step[0], {})}

    async def put(self, service: Service) -> None:
        assert not self.busy
        self.told.append(f"start {service.name} in {service.ns}: {service.module} {' '.join(service.args)}")
        if service.name in self.refused:
            raise self.refused[service.name]

    def end(self, service: Service) -> None:
        assert not self.busy
        self.told.append(f"end {service.name} in {service.ns}")


async def really_apply(fake: Fake, plan: Plan, done: list[Outcome]) -> None:
    await apply(cast("Sandbox", fake), cast("Services", fake), plan, done)


async def applied(
    fake: Fake, *stages: Stage, settle: tuple[tuple[NsName, IfName], ...] = ()
) -> list[Outcome]:
    done: list[Outcome] = []
    await really_apply(fake, Plan(stages, settle), done)
    return done


async def failure(
    fake: Fake, *stages: Stage, settle: tuple[tuple[NsName, IfName], ...] = ()
) -> tuple[CommandFailed, list[Outcome]]:
    done: list[Outcome] = []
    with pytest.raises(CommandFailed) as raised:
        await really_apply(fake, Plan(stages, settle), done)
    return raised.value, done


def commands(done: list[Outcome]) -> list[Command]:
    return [command for outcome in done for command in outcome.batch.commands]


async def test_services_come_after_the_other_commands_of_their_part() -> None:
    fake = Fake()
    stage = Stage(
        make=(service("x"), ip("one"), end("y"), ip("two")), configure=(service("z"), ip("three", B))
    )
    done = await applied(fake, stage)
    told = [line for line in fake.told if not line.startswith("done")]
    # Services of one part are started and ended side by side.
    assert [told[0], *sorted(told[1:3]), *told[3:]] == [
        "one & two",
        "end y in a",
        "start x in a: relay --far x",
        "three",
        "start z in a: relay --far z",
    ]
    assert {*commands(done)} == {*stage}
    assert all(result and result.status == 0 for outcome in done for result in outcome.results)


async def test_a_settled_stage_begins_when_all_before_it_is_done(autojump_clock: object) -> None:
    fake = Fake(slow=1)
    stages = (Stage(configure=(ip("slow", A),)), Stage(make=(ip("next"),), barrier=True))
    await applied(fake, *stages)
    assert fake.told == ["slow", "done slow", "next", "done next"]
    assert trio.current_time() >= 2


async def test_another_stage_does_not_wait_for_what_is_configured(autojump_clock: object) -> None:
    fake = Fake(slow=1)
    await applied(fake, Stage(configure=(ip("slow", A),)), Stage(make=(ip("next"),)))
    assert {*fake.told[:2]} == {"slow", "next"}


async def test_interfaces_are_settled_at_the_very_end() -> None:
    fake = Fake()
    await applied(fake, Stage(make=(ip("one"),), configure=(service("x"),)), settle=((A, IfName("lan")),))
    assert [line for line in fake.told if not line.startswith("done")][-1] == "settle"


async def test_an_interface_that_does_not_settle_is_named() -> None:
    lan, wire = IfName("lan"), IfName("wire1")
    fake = Fake(answers={"settle": {"status": 1, "out": "1", "err": "No such device: wire1"}})
    stage = Stage(make=(ip("one"),))
    error, done = await failure(fake, stage, settle=((A, lan), (B, wire), (A, wire)))
    assert str(error).splitlines()[:3] == [
        "could not wait until wire1 carries packets: ip exited 1",
        "  namespace  b",
        "  command    ip link show dev wire1",
    ]
    assert error.stderr == "No such device: wire1"
    assert error.repeat == "nsenter --net=/run/netns/b ip link show dev wire1"
    # All commands before were done, and are to be undone.
    assert commands(done) == list(stage)


@pytest.mark.parametrize("where", ["make", "configure", "another namespace"])
async def test_after_a_failure_no_helper_is_started_and_nothing_settled(where: str) -> None:
    fake = Fake(answers={"ip": {"status": 1, "err": "Cannot find device\nCommand failed -:1\n"}})
    stages = {
        "make": Stage(make=(ip("bad"), service("x"))),
        "configure": Stage(configure=(ip("bad", A), service("x"))),
        "another namespace": Stage(configure=(ip("bad", B), service("x"))),
    }
    never = Stage(make=(ip("never"),), barrier=True)
    error, done = await failure(fake, stages[where], never, settle=((A, IfName("lan")),))
    assert error.command == "ip bad"
    assert [line for line in fake.told if not line.startswith("done")] == ["bad"]
    assert len(done) == 1


REFUSED = {
    "an error of the system": OSError(19, "No such device"),
    "no answer": trio.TooSlowError("the relay did not start"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_helper_that_does_not_start_is_a_failed_command_for(case: str) -> None:
    fake = Fake(refused={"x": REFUSED[case]})
    error, done = await failure(fake, Stage(make=(service("x"),)), Stage(make=(service("y"),)))
    assert (error.intent, error.namespace, error.status) == ("start x", "a", 1)
    assert error.command == "python3 -m relay --far x"
    assert error.stderr == str(REFUSED[case])
    assert error.repeat == "nsenter --net=/run/netns/a python3 -m relay --far x"
    assert [outcome.results[0].status for outcome in done if outcome.results[0]] == [1]


async def test_ctrl_c_comes_as_itself() -> None:
    fake = Fake(refused={"x": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        await really_apply(fake, Plan((Stage(make=(service("x"),)),)), [])


async def test_with_a_dead_lab_a_helper_is_no_failed_command() -> None:
    fake = Fake(refused={"x": LabDiedError("gone")})
    done: list[Outcome] = []
    with pytest.raises(LabDiedError):
        await really_apply(fake, Plan((Stage(make=(service("x"),)),)), done)
    assert done == []


# Reading back


async def test_qdiscs_that_are_as_they_were_asked_for_are_no_error() -> None:
    fake = Fake(answers={"tc": {"out": json.dumps(recorded()["every option"]["shown"])}})
    (outcome,) = await applied(fake, Stage(configure=(check(),)))
    assert fake.told[0] == "tc -j qdisc show"
    assert outcome.results[0] and outcome.results[0].status == 0


async def test_qdiscs_that_are_not_are_reported_with_what_was_asked_and_what_is_there() -> None:
    shown = json.dumps(recorded()["no option but loss"]["shown"])
    error, done = await failure(Fake(answers={"tc": {"out": shown}}), Stage(configure=(check(),)))
    assert str(error).splitlines()[:3] == [
        "could not see that the kernel took it: tc exited 1",
        "  namespace  a",
        "  command    tc -j qdisc show",
    ]
    assert error.repeat == "nsenter --net=/run/netns/a tc -j qdisc show"
    lines = error.stderr.splitlines()
    assert "wire1-near: asked for delay 0.04; the kernel has 0" in lines
    assert "wire1-near: asked for loss 0.015; the kernel has 0.01" in lines
    assert "wire1-near: asked for a rate; the kernel has no token bucket" in lines
    assert len(lines) == 9
    assert [outcome.results[0].status for outcome in done if outcome.results[0]] == [1]


async def test_a_tc_that_cannot_read_them_is_an_error_too() -> None:
    fake = Fake(answers={"tc": {"status": 2, "err": "no memory"}})
    error, _ = await failure(fake, Stage(configure=(check(),)))
    assert (error.status, error.stderr) == (2, "no memory")


async def test_each_namespace_is_read_back_by_itself() -> None:
    fake = Fake(answers={"tc": {"out": json.dumps(recorded()["every option"]["shown"])}})
    done = await applied(
        fake, Stage(configure=(check(A), SetSysctl(A, "net/x", "1", why="set", owner=A), check(B)))
    )
    assert len(done) == 3


async def test_qdiscs_are_set_before_they_are_read_back() -> None:
    wanted = {DEV: (Netem(Impairment(loss_pct=1), 1000), None)}
    reading = CheckQdiscs(A, wanted, why="look", owner=A)
    shown = json.dumps(recorded()["no option but loss"]["shown"])
    fake = Fake(answers={"tc": {"out": shown}})
    stage = Stage(configure=(tc("qdisc replace dev x root"), reading, service("x")))
    assert commands(await applied(fake, stage)) == list(stage)
