"""Sims in real labs: what steps do, and how they fail."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from patchbay.sim.spec.outcome import Printed, RunEvent, SimBegan, SimOutcome
from tests.patience import DEADLINE
from tests.sim.running import STOPPED, F, P, W, log, outcome_of, sh, statuses
from tests.sim.sim_files import has_begun, until_there_is

pytestmark = pytest.mark.kernel

# What steps do


async def test_what_one_step_prints_is_what_the_next_one_gets(tmp_path: Path) -> None:
    steps = sh("echo port 80; echo port 81; echo key x >&2", """
id = "first"
captures.port.regex = 'port (\\d+)'
captures.key = { pipe = "stderr", regex = "key (.)" }
""") + sh('echo "$0 $1 $NAME $2 $3"; printenv PATCHBAY_IP_A NETSIM_IP_A_ETH0', """
args = ["${first.port}", "${first.key}", "$NETSIM_IP_B", "${NETSIM_IP_B_ETH0}"]
env = { NAME = "n-${first.port}" }
""", device="b")  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert outcome.error == ""
    assert log(outcome, "b").split() == ["81", "x", "n-81", "55.0.0.3", "55.0.0.3", "55.0.0.2", "55.0.0.2"]
    assert log(outcome, "a", "stderr") == "key x\n"


async def test_variables_name_the_addresses_of_each_interface(tmp_path: Path) -> None:
    steps = sh('echo "$0 $1 $2 $(printenv NETSIM_IP_TWO_ETH1 PATCHBAY_IP_TWO_ETH0)"', """
args = ["$PATCHBAY_IP_TWO", "${PATCHBAY_IP_TWO_ETH0}", "$NETSIM_IP_TWO_ETH1"]
""")  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    eth0, eth1 = "55.0.0.6", "55.0.0.7"
    assert log(outcome, "a").split() == [eth1, eth0, eth1, eth1, eth0]


async def test_json_is_picked_from_and_measured(tmp_path: Path) -> None:
    steps = sh("""echo '{"end": {"bytes": 3000, "s": 1.5}}'""", """
id = "j"
parser = "json"
captures.bytes.pick = ".end.bytes"
captures.seconds.pick = ".end.s"
results = { down_bytes = ".bytes", duration = "j.seconds", metrics = { same = "j.bytes" } }
""") + '[[step]]\naction = "assert"\nchecks = ["j.bytes == 3000", "j.seconds <= 1.5"]\n'  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert (outcome.error, statuses(outcome)) == ("", [P, P])
    measured = outcome.steps[0].measured
    assert measured
    assert (measured.down_bytes, measured.duration, measured.metrics) == (3000, 1.5, {"same": 3000})


async def test_wait_for_waits_for_the_end_and_notes_the_results(tmp_path: Path) -> None:
    steps = sh("sleep 0.1; echo bytes 5", """
action = "spawn"
id = "late"
captures.bytes.regex = 'bytes (\\d+)'
results.up_bytes = ".bytes"
""") + '[[step]]\naction = "wait-for"\nid = "late"\ntimeout = "10m"\n'  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert outcome.error == ""
    measured = outcome.steps[0].measured
    assert measured and measured.up_bytes == 5


async def test_a_step_waits_for_captures_of_a_process_that_goes_on(tmp_path: Path) -> None:
    spawned = sh("sleep 0.1; echo port 7; sleep 1000", """
action = "spawn"
id = "server"
captures.port.regex = 'port (\\d+)'
""")  # fmt: skip
    check = '[[step]]\naction = "assert"\ncheck = "server.port == 7"\n'
    for steps in (
        check,
        sh("true", 'requires = ["server.port"]'),
        sh("echo $0", 'args = ["${server.port}"]'),
    ):
        folder = tmp_path / str(len(steps))
        folder.mkdir()
        assert (await outcome_of(folder, spawned + steps)).error == ""


async def test_an_exit_status_may_be_expected(tmp_path: Path) -> None:
    steps = sh("exit 3", "expect_exit = 3") + sh("kill -TERM $$", "expect_exit = -15")
    assert (await outcome_of(tmp_path, steps)).error == ""


async def test_a_step_for_a_counted_device_runs_on_each(tmp_path: Path) -> None:
    steps = sh("echo mine $0", """
id = "own"
args = ["${ip.pair}"]
captures.ip.regex = "mine (.*)"
""", device="pair") + '[[step]]\naction = "assert"\ncheck = "own.ip contains 55.0"\n'  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert outcome.error == ""
    assert log(outcome, "pair-0") != log(outcome, "pair-1")


async def test_what_is_left_over_is_ended_and_heard_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchbay.sandbox.process.GRACE", DEADLINE)
    steps = sh("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done", """
action = "spawn"
ready = "up"
captures.up.regex = "up"
""")  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert outcome.error == ""
    assert log(outcome, "a") == "up\nbye\n"


async def test_what_a_spawned_process_measured_counts_if_nobody_waits_for_it_too(tmp_path: Path) -> None:
    steps = sh("echo bytes 5; sleep 1000", """
action = "spawn"
ready = "bytes"
captures.bytes.regex = 'bytes (.)'
captures.never.regex = 'never'
results = { up_bytes = ".bytes", down_bytes = ".never" }
""")  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert outcome.error == ""
    measured = outcome.steps[0].measured
    assert measured
    assert (measured.up_bytes, measured.down_bytes) == (5, None)


async def test_a_child_that_is_left_behind_does_not_hold_up_its_step(tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE):
        outcome = await outcome_of(
            tmp_path, sh("echo v=1; sleep 1000 &", 'id = "x"\ncaptures.v.regex = "v=(.)"')
        )
    assert outcome.error == ""
    assert outcome.steps[0].captured["v"].value == "1"


# How they fail


async def test_a_wrong_exit_fails_the_sim_with_the_end_of_stderr(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, sh("echo worse >&2; exit 3", 'id = "x"') + sh("true"))
    assert statuses(outcome) == [F, W]
    assert outcome.status is F
    assert outcome.error == (
        "step[0] 'x' (run on a): sh exited 3; expected exit status 0\n"
        "  command    sh -c 'echo worse >&2; exit 3'\n"
        "  stderr     worse"
    )


async def test_a_death_by_signal_is_called_by_its_name(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, sh("kill -KILL $$"))
    assert "sh was killed by SIGKILL; expected exit status 0" in outcome.error


@pytest.mark.parametrize("action", ["run", "spawn"])
async def test_a_program_that_is_not_there_fails_the_sim(action: str, tmp_path: Path) -> None:
    step = f'[[step]]\naction = "{action}"\ndevice = "a"\ncmd = ["no-such-program", "x y"]\n'
    outcome = await outcome_of(tmp_path, step)
    assert outcome.error.startswith(f"step[0] ({action} on a): could not start 'no-such-program'")
    assert "no-such-program 'x y'" in outcome.error


async def test_an_assertion_that_does_not_hold_shows_what_was_seen_and_where(tmp_path: Path) -> None:
    steps = sh("echo v=3; echo v=4; echo w=x", """
id = "x"
captures.v.regex = 'v=(.)'
captures.w.regex = 'w=(.)'
""") + '[[step]]\naction = "assert"\nchecks = ["x.v == 3", "x.v == 4", "x.w < 5"]\n'  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert outcome.error == (
        "step[1] (assert): x.v == 3\n"
        "  seen       '4'\n"
        "  from       stdout line 2: v=4\n"
        "x.w < 5: 'x' is not a number\n"
        "  seen       'x'\n"
        "  from       stdout line 3: w=x"
    )


async def test_a_spawned_process_that_dies_fails_the_sim_at_one_of_the_next_steps(tmp_path: Path) -> None:
    durations = ["50ms"] * 20 + ["1s"] * 10 + ["10s"] * 5
    rest = "".join(f'[[step]]\naction = "wait"\nduration = "{each}"\n' for each in durations)
    outcome = await outcome_of(
        tmp_path, sh("echo lost >&2; exit 4", 'action = "spawn"\nid = "server"') + rest
    )
    assert outcome.error.startswith("step[0] 'server' (spawn on a): sh exited 4")
    assert outcome.error.endswith("stderr     lost")
    assert outcome.steps[0].status is F
    assert outcome.steps[-1].status is W


async def test_a_spawned_process_that_died_during_the_last_step_fails_the_sim(tmp_path: Path) -> None:
    went, noticed = tmp_path / "went", tmp_path / "noticed"
    spawned = sh(f"{until_there_is(went)}; exit 4", 'action = "spawn"\nid = "s"')
    last = sh(f"touch {went}; {until_there_is(noticed)}", device="b")
    sims: list[SimOutcome] = []

    def watch(happening: RunEvent) -> None:
        if isinstance(happening, SimBegan):
            sims.append(happening.sim)
        elif sims and sims[0].steps[0].exit is not None:
            noticed.touch()

    outcome = await outcome_of(tmp_path, spawned + last, watch=watch)
    assert statuses(outcome) == [F, P]


async def test_waiting_for_a_process_that_failed_fails(tmp_path: Path) -> None:
    waited_for = tmp_path / "waited-for"
    spawned = sh(f"{until_there_is(waited_for)}; exit 4", """
action = "spawn"
id = "s"
captures.x.regex = "x"
results.up_bytes = ".x"
""")  # fmt: skip

    def watch(happening: RunEvent) -> None:
        if has_begun(happening, "step[1]"):
            waited_for.touch()

    waits = '[[step]]\naction = "wait-for"\nid = "s"\n'
    outcome = await outcome_of(tmp_path, spawned + waits, watch=watch)
    assert outcome.error.startswith("step[0] 's' (spawn on a): sh exited 4")
    assert statuses(outcome) == [P, F]


async def test_waiting_for_a_process_that_did_not_measure_fails(
    tmp_path: Path,
) -> None:
    spawned = sh("echo hello", """
action = "spawn"
id = "s"
captures.x.regex = "x"
results.up_bytes = ".x"
""")  # fmt: skip
    outcome = await outcome_of(tmp_path, spawned + '[[step]]\naction = "wait-for"\nid = "s"\n')
    assert outcome.error.startswith(
        "step[0] 's' (spawn on a): results.up_bytes: nothing was captured as '.x'"
    )


async def test_a_capture_that_can_not_come_any_more_fails_at_once(tmp_path: Path) -> None:
    steps = sh("echo hello", 'action = "spawn"\nid = "s"\ncaptures.port.regex = "port (.*)"')
    outcome = await outcome_of(tmp_path, steps + sh("true", 'requires = ["s.port"]'))
    assert outcome.error.startswith(
        "step[1] (run on a): capture 'port' of step[0] 's' (spawn on a): it ended without it\n"
        "  looked for regex port (.*) in its stdout\n"
    )
    assert outcome.error.endswith("  stdout     hello")


async def test_a_capture_that_does_not_come_is_waited_for_no_longer_than_its_timeout(tmp_path: Path) -> None:
    steps = sh("sleep 1000", 'action = "spawn"\nid = "s"\ncaptures.port.regex = "port (.*)"')
    outcome = await outcome_of(tmp_path, steps + sh("echo ${s.port}", 'capture_timeout = "50ms"'))
    assert "capture 'port' of step[0] 's' (spawn on a): not seen within 50ms" in outcome.error


async def test_a_step_that_takes_too_long_is_ended(tmp_path: Path, mock_clock: MockClock) -> None:
    mock_clock.rate = 1.0

    def watch(happening: RunEvent) -> None:
        if isinstance(happening, Printed):
            mock_clock.jump(600)

    steps = sh("echo begun; exec sleep 1000", 'timeout = "10m"')
    outcome = await outcome_of(tmp_path, steps, watch=watch)
    assert outcome.error == (
        "step[0] (run on a): not done within its timeout of 10m\n"
        "  command    sh -c 'echo begun; exec sleep 1000'\n"
        "  stdout     begun"
    )


async def test_waiting_for_a_process_has_a_timeout_that_shows_the_process(tmp_path: Path) -> None:
    steps = sh(
        "echo begun; exec sleep 1000", 'action = "spawn"\nid = "s"\nready = "up"\ncaptures.up.regex = "begun"'
    )
    outcome = await outcome_of(
        tmp_path, steps + '[[step]]\naction = "wait-for"\nid = "s"\ntimeout = "50ms"\n'
    )
    assert outcome.error.startswith("step[1] (wait-for s): not done within its timeout of 50ms\n")
    assert outcome.error.endswith("stdout     begun")


async def test_a_sim_that_takes_too_long_fails_and_tells_where_it_was(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0

    def watch(happening: RunEvent) -> None:
        if has_begun(happening, "step[1]"):
            mock_clock.jump(600)

    head = '[sim]\ntimeout = "10m"\n'
    steps = sh("true") + sh("exec sleep 1000", device="b") + sh("true")
    outcome = await outcome_of(tmp_path, steps, head, watch=watch)
    assert outcome.error.startswith(
        "the sim did not end within its timeout of 10m; it was at step[1] (run on b)\n"
    )
    assert (outcome.status, statuses(outcome)) == (F, [P, STOPPED, W])


async def test_output_that_should_be_json_and_is_not_fails_the_sim(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, sh("echo '{'", 'parser = "json"'))
    assert outcome.error.startswith("step[0] (run on a): stdout is not JSON")


async def test_a_result_that_is_missing_or_no_number_fails_the_sim(tmp_path: Path) -> None:
    steps = sh("echo rtt=fast", """
captures.rtt.regex = 'rtt=(.*)'
captures.no.regex = 'nothing'
results = { latency_ms = ".rtt", duration = ".no" }
""")  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert "results.duration: nothing was captured as '.no'" in outcome.error
    assert "results.latency_ms: '.rtt' is 'fast', which is not a number" in outcome.error


async def test_a_failing_step_tells_of_a_spawned_process_that_died_before(tmp_path: Path) -> None:
    steps = (
        sh("exit 1", 'action = "spawn"\nid = "server"\ncaptures.x.regex = "x"')
        + sh("true", 'requires = ["server.x"]', device="b")
    )  # fmt: skip
    outcome = await outcome_of(tmp_path, steps)
    assert "step[0] 'server' (spawn on a): sh exited 1; expected exit status 0" in outcome.error
