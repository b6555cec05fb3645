"""Everything that can be wrong with a step, and that all of it is told at once."""

from pathlib import Path

import pytest

from tests.sim.sim_files import RUN, TOPOLOGY, cmd, problems_of, run

# One problem each: the step(s), and how its message begins.
PROBLEMS = {
    **{
        f"ready as {name}": (
            f'[[step]]\naction = "spawn"\ndevice = "server"\ncmd = ["x"]\nready = {value}',
            f"step[0].ready: found {found}; accepted: a capture's name, {{ tcp = PORT }} or {{ udp = PORT }}",
        )
        for name, value, found in (
            ("a number", "8000", "an integer (8000)"),
            ("another protocol", "{ sctp = 1 }", "{'sctp': 1}"),
            ("no port", "{ tcp = 65536 }", "{'tcp': 65536}"),
            ("two ports", "{ tcp = 1, udp = 1 }", "{'tcp': 1, 'udp': 1}"),
            ("a port as a string", "{ tcp = '80' }", "{'tcp': '80'}"),
        )
    },
    "a capture that is not there as ready": (
        '[[step]]\naction = "spawn"\ndevice = "server"\ncmd = ["x"]\nready = "x"',
        "step[0].ready: unknown capture 'x'; it captures nothing",
    ),
    "a null byte in a command": (
        run('cmd = ["echo", "a\\u0000b"]'),
        r"step[0].cmd[1]: found 'a\x00b'; accepted: text without a null byte",
    ),
    "a null byte in a variable": (
        run('cmd = ["x"]\nenv = { A = "\\u0000" }'),
        r"step[0].env.A: found '\x00'; accepted: text without a null byte",
    ),
    "an exit status that none can have": (
        run('cmd = ["x"]\nexpect_exit = 300'),
        "step[0].expect_exit: found 300; accepted: -64 to 255",
    ),
    "a command as a string": (run('cmd = "ls -l"'), "step[0].cmd: found 'ls -l'; accepted: an array"),
    "an empty command": (run("cmd = []"), "step[0].cmd: found an empty array; accepted: a command such as"),
    "a number in a command": (
        run('cmd = ["sleep", 1]'),
        "step[0].cmd[1]: found an integer (1); accepted: a string",
    ),
    "a device as a number": ('[[step]]\ndevice = 3\ncmd = ["true"]', "step[0].device: found an integer (3)"),
    "no device": ('[[step]]\ncmd = ["true"]', "step[0].device: is missing, and required"),
    "no command": ('[[step]]\naction = "run"\ndevice = "server"', "step[0].cmd: is missing, and required"),
    "no action": ('[[step]]\ndevice = "server"', "step[0]: a step without an action; accepted: `action`, or"),
    "an unknown action": (
        '[[step]]\naction = "spwan"',
        "step[0].action: found 'spwan'; accepted: 'run', 'spawn'",
    ),
    "an action as a number": (
        "[[step]]\naction = 1",
        "step[0].action: found an integer (1); accepted: 'run'",
    ),
    "no steps": ("[sim]", "step: a sim without steps; accepted: at least one [[step]]"),
    "a step in single brackets": ("[step]", "step: found a table; accepted: at least one [[step]]"),
    "an unknown key": (
        run('cmd = ["true"]\nexpect_exti = 1'),
        "step[0].expect_exti: unknown key; accepted: id, device, requires, timeout",
    ),
    "a key of another action": (
        '[[step]]\naction = "wait"\nduration = "1s"\ncmd = ["x"]',
        "step[0].cmd: unknown key; accepted: id, device, requires, timeout, capture_timeout, duration",
    ),
    "an unknown parser": (
        run('cmd = ["x"]\nparser = "yaml"'),
        "step[0].parser: found 'yaml'; accepted: 'text', 'json'",
    ),
    "an unknown pipe": (
        run('cmd = ["x"]\ncaptures.x = { pipe = "out", regex = "a" }'),
        "step[0].captures.x.pipe: found",
    ),
    "a capture as a string": (
        run('cmd = ["x"]\ncaptures.x = "a"'),
        "step[0].captures.x: found 'a'; accepted: a table",
    ),
    "captures as a string": (
        run('cmd = ["x"]\ncaptures = "a"'),
        "step[0].captures: found 'a'; accepted: a table",
    ),
    "a bad regex": (run('cmd = ["x"]\ncaptures.x.regex = "("'), "step[0].captures.x.regex: found '('"),
    "a capture with a dot": (
        run('cmd = ["x"]\ncaptures."a.b".regex = "a"'),
        "step[0].captures.a.b: found 'a.b'",
    ),
    "env of a number": (
        run('cmd = ["x"]\nenv = { N = 1 }'),
        "step[0].env.N: found an integer (1); accepted: a string",
    ),
    "env without a name": (
        run('cmd = ["x"]\nenv = { "A=B" = "" }'),
        "step[0].env.A=B: accepted: the name of",
    ),
    "an exit as a string": (
        run('cmd = ["x"]\nexpect_exit = "1"'),
        "step[0].expect_exit: found '1'; accepted: an integer",
    ),
    "a timeout as a number": (
        run('cmd = ["x"]\ntimeout = 5'),
        "step[0].timeout: found an integer (5); accepted: a duration",
    ),
    "an id that is a prefix": (
        run('cmd = ["x"]\nid = "ip"'),
        "step[0].id: found 'ip', with which variables begin",
    ),
    "an id with a dot": (run('cmd = ["x"]\nid = "a.b"'), "step[0].id: found 'a.b'; accepted: letters"),
    "a duplicate id": (RUN + RUN, "step[1].id: duplicate id 'a': step[0] has it too"),
    "an unknown device": (
        run('cmd = ["x"]', device="servr"),
        "step[0].device: unknown device 'servr'; known:",
    ),
    "an unknown device in a text": (cmd("${ip.servr}"), "step[1].cmd[0]: unknown node in ${ip.servr}"),
    "an address that is not there": (cmd("$PATCHBAY_IP6_OLD"), "step[1].cmd[0]: 'old' has no IPv6 address"),
    "an interface's address that is not there": (
        cmd("$PATCHBAY_IP6_OLD_ETH0"),
        "step[1].cmd[0]: 'old' has no IPv6 address on eth0",
    ),
    "a router's address that is not there": (cmd("${ip6.v4}"), "step[1].cmd[0]: 'v4' has no IPv6 address"),
    "an unknown variable": (cmd("a", "${HOME}"), "step[1].cmd[1]: unknown variable ${HOME}"),
    "an unknown step in a text": (cmd("${b.x}"), "step[1].cmd[0]: unknown step 'b'; known: a"),
    "an unknown capture in a text": (
        cmd("${a.y}"),
        "step[1].cmd[0]: in 'a.y': step[0] 'a': unknown capture 'y'; it captures: x",
    ),
    "a capture of a later step": (
        run('cmd = ["${a.x}"]') + RUN,
        "step[0].cmd[0]: 'a' (step[1]) runs after this step; accepted: the id of an earlier step",
    ),
    "its own capture": (
        run('id = "b"\ncmd = ["${b.x}"]\ncaptures.x.regex = "x"'),
        "step[0].cmd[0]: 'b' (step[0]) is this step itself",
    ),
    "requires of nothing": (RUN + run('cmd = ["x"]\nrequires = ["a.y"]'), "step[1].requires[0]: in 'a.y'"),
    "requires without a dot": (
        RUN + run('cmd = ["x"]\nrequires = ["a"]'),
        "step[1].requires[0]: found 'a'; accepted:",
    ),
    "a result of nothing": (
        RUN + run('cmd = ["x"]\nresults.duration = "a.y"'),
        "step[1].results.duration: in 'a.y': step[0] 'a': unknown capture 'y'",
    ),
    "an own result of nothing": (
        run('cmd = ["x"]\ncaptures.rtt.regex = "x"\nresults.metrics.m = ".rrt"'),
        "step[0].results.metrics.m: unknown capture 'rrt'; it captures: rtt; did you mean 'rtt'?",
    ),
    "a result that is no reference": (
        run('cmd = ["x"]\nresults.latency_ms = "rtt"'),
        "step[0].results.latency_ms: found 'rtt'; accepted: id.capture or .capture",
    ),
    "an unknown result": (
        run('cmd = ["x"]\nresults.speed = ".x"'),
        "step[0].results.speed: unknown key; accepted:",
    ),
    "ready by nothing": (
        '[[step]]\naction = "spawn"\ndevice = "server"\ncmd = ["x"]\nready = "up"',
        "step[0].ready: unknown capture 'up'; it captures nothing",
    ),
    "a wait without an end": ('[[step]]\naction = "wait"', "step[0].duration: is missing, and required"),
    "a wait for nobody": ('[[step]]\naction = "wait-for"', "step[0].id: is missing, and required"),
    "a wait for a stranger": ('[[step]]\naction = "wait-for"\nid = "b"', "step[0].id: unknown step 'b'"),
    "a wait for the future": (
        '[[step]]\naction = "wait-for"\nid = "a"\n' + RUN,
        "step[0].id: 'a' (step[1]) runs after this step",
    ),
    "a wait for a wait": (
        '[[step]]\naction = "wait"\nid = "w"\nduration = "1s"\n[[step]]\naction = "wait-for"\nid = "w"',
        "step[1].id: 'w' is a wait step; accepted: a spawn or run step",
    ),
    "an assert of nothing": ('[[step]]\naction = "assert"', "step[0]: an assert without a check"),
    "an assert that is none": (
        RUN + '[[step]]\naction = "assert"\nchecks = ["a.x == 1", "a.x ~ 1"]',
        "step[1].checks[1]: found 'a.x ~ 1'; accepted: id.capture OP value",
    ),
    "an assert of an unknown capture": (
        RUN + '[[step]]\naction = "assert"\ncheck = "a.y == 1"',
        "step[1].check: in 'a.y': step[0] 'a': unknown capture 'y'",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_wrong_step_is_refused(case: str, tmp_path: Path) -> None:
    steps, message = PROBLEMS[case]
    (problem,) = problems_of(tmp_path, steps)
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        *(
            ('[[step]]\naction = "' + action + '"\nfoo = 1', f"step[0].action: '{action}'")
            for action in (
                "set-link-condition",
                "set-impair",
                "link-down",
                "set-nat",
                "gen-certs",
                "parallel",
            )
        ),
        (run('cmd = ["x"]\nparser = "ndjson"'), "step[0].parser: 'ndjson'"),
        (run('cmd = ["x"]\nparser = "iperf3-json"'), "step[0].parser: 'iperf3-json'"),
        (run('cmd = ["x"]\nwhen = "true"'), "step[0].when:"),
        ('[[step]]\nuse = "template"', "step[0].use:"),
        (RUN + '[[extends]]\nfile = "x"', "extends:"),
        (RUN + "[matrix]\nnat = []", "matrix:"),
        (RUN + '[[binary]]\nname = "x"', "binary:"),
        (cmd("${binary.relay}"), "step[1].cmd[0]: ${binary.relay}"),
    ],
)
def test_a_word_that_this_version_lacks_is_reported_as_such(steps: str, place: str, tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, steps)
    assert problem == f"{place} is not available in this version of patchbay"


def test_every_problem_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    topology = TOPOLOGY.replace('gateway = "v4"', 'gateway = "v5"')
    steps = """
[[step]]
id = "a"
device = "server"
cmd = "true"
timeout = "soon"
[[step]]
action = "wait-for"
id = "nobody"
timeout = 3
[[step]]
id = "a"
device = "nowhere"
cmd = ["${ip.nowhere}", "${a.x}", "${b.x}"]
"""
    found = problems_of(
        tmp_path, steps, head='bananas = 1\n[sim]\nnmae = "x"\ntopology = "none"', topology=topology
    )
    assert [problem.partition(": ")[0] for problem in found] == [
        "bananas",
        "sim.nmae",
        "sim.topology",
        "sim.topology",
        "step[0].timeout",
        "step[0].cmd",
        "step[1].timeout",
        "step[1].id",
        "step[2].id",
        "step[2].cmd[2]",
    ]
    found = problems_of(tmp_path, steps, topology=topology)
    assert [problem.partition(": ")[0] for problem in found] == [
        "device.old.eth0.gateway",
        "step[0].timeout",
        "step[0].cmd",
        "step[1].timeout",
        "step[1].id",
        "step[2].id",
        "step[2].device",
        "step[2].cmd[0]",
        "step[2].cmd[2]",
    ]


def test_what_an_unknown_group_may_declare_is_not_judged(tmp_path: Path) -> None:
    steps = '[[step]]\nuse = "relay-setup"\nvars = { device = "server" }\n' + cmd("${relay.ready}")
    assert [problem.partition(":")[0] for problem in problems_of(tmp_path, steps)] == [
        "step[0].use",
        "step[0].vars",
    ]


def test_what_a_step_that_cannot_be_read_captures_is_not_judged(tmp_path: Path) -> None:
    steps = '[[step]]\naction = "gen-certs"\nid = "certs"\n' + cmd("${certs.cert_pem_path}", "${nothing.x}")
    assert [problem.partition(":")[0] for problem in problems_of(tmp_path, steps)] == [
        "step[0].action",
        "step[2].cmd[1]",
    ]
