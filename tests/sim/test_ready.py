"""When a command that goes on is ready."""

from pathlib import Path

import pytest

from tests.sim.running import log, outcome_of, sh

pytestmark = pytest.mark.kernel


async def test_a_spawned_step_is_over_when_it_is_ready_and_goes_on(tmp_path: Path) -> None:
    steps = sh("echo starting; sleep 0.2; echo up; read never < /dev/zero", """
action = "spawn"
ready = "up"
captures.up.regex = "up"
""") + sh("cat $0", f'args = ["{tmp_path}/run/it/nodes/a/stdout.log"]', device="b")  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert outcome.error == ""
    assert log(outcome, "b") == "starting\nup\n"


async def test_ready_after_lets_that_time_pass(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, sh("sleep 1000", 'action = "spawn"\nready_after = "150ms"'))
    assert outcome.error == ""
    assert (outcome.steps[0].elapsed or 0) >= 0.15


async def test_a_spawned_process_that_ends_while_it_gets_ready_fails_the_sim(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, sh("exit 1", 'action = "spawn"\nready_after = "60s"'))
    assert outcome.error.startswith("step[0] (spawn on a): sh exited 1")


SERVE = "import signal, socket; s = socket.socket(type={kind}); s.bind(('', {port})); {more}signal.pause()"


@pytest.mark.parametrize(("protocol", "kind", "more"), [("tcp", 1, "s.listen(); "), ("udp", 2, "")])
async def test_a_spawned_step_is_over_when_its_port_is_open(
    tmp_path: Path, protocol: str, kind: int, more: str
) -> None:
    serve = SERVE.format(kind=kind, port=8000, more=more)
    look = f"set -- $(ss -Hl{protocol[0]}n sport = :8000); echo $4 || echo $5"
    steps = sh(f'sleep 0.2; exec python3 -c "{serve}"', f'action = "spawn"\nready = {{ {protocol} = 8000 }}')
    outcome = await outcome_of(tmp_path, steps + sh(look))
    assert outcome.error == ""
    assert log(outcome, "a").strip() == "0.0.0.0:8000"


async def test_a_port_that_is_not_opened_fails_the_sim_with_those_that_are(tmp_path: Path) -> None:
    serve = SERVE.format(kind=1, port=8001, more="s.listen(); ")
    first = sh(f'exec python3 -c "{serve}"', 'action = "spawn"\nready = { tcp = 8001 }')
    second = sh("exec sleep 1000", 'action = "spawn"\nready = { tcp = 8000 }\ncapture_timeout = "100ms"')
    outcome = await outcome_of(tmp_path, first + second)
    why = "nothing in 'a' listens on TCP port 8000; open there: 8001\n  command    sh -c 'exec sleep 1000'"
    assert outcome.error.startswith(f"step[1] (spawn on a): not ready within 100ms: {why}")


async def test_a_spawned_process_that_ends_without_opening_its_port_fails_at_once(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, sh("exit 3", 'action = "spawn"\nready = { udp = 53 }'))
    assert outcome.error.startswith("step[0] (spawn on a): it ended before it was ready: nothing in 'a'")
