"""The results of all sims of a run: JSON, Markdown, JUnit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from patchbay.report.results import as_values, cell, measured_lines, time_in_words
from patchbay.sim.spec.outcome import SimOutcome, Status

__all__ = ["as_combined_markdown", "as_combined_values", "as_junit", "status_of"]


def status_of(outcomes: Sequence[SimOutcome]) -> Status:
    """Return the status of a run: the worst among its sims."""
    found = {outcome.status for outcome in outcomes}
    for status in (Status.FAILED, Status.INTERRUPTED, Status.RUNNING, Status.WAITING):
        if status in found:
            return status
    return Status.PASSED


def as_combined_values(run: str, outcomes: Sequence[SimOutcome], elapsed: float) -> dict[str, Any]:
    """Return `combined-results.json`. `elapsed` is the time that the whole run took, in seconds."""
    return {
        "run": run,
        "status": status_of(outcomes),
        "elapsed": round(elapsed, 6),
        "counts": {str(status): sum(o.status is status for o in outcomes) for status in Status},
        "sims": [{"folder": outcome.folder.name, **as_values(outcome)} for outcome in outcomes],
    }


def as_combined_markdown(run: str, outcomes: Sequence[SimOutcome]) -> str:
    """Return `combined-results.md`."""
    lines = [f"# {run}: {status_of(outcomes)}", ""]
    lines += ["| sim | status | time | results |", "| --- | --- | ---: | --- |"]
    for outcome in outcomes:
        results = "<br>".join(cell(line) for line in measured_lines(outcome))
        name = f"[{cell(outcome.sim.name)}]({outcome.folder.name}/results.md)"
        lines.append(f"| {name} | {outcome.status} | {time_in_words(outcome.elapsed)} | {results} |")
    for outcome in outcomes:
        if outcome.error:
            lines += ["", f"## {outcome.sim.name}", "", "```", outcome.error, "```"]
    return "\n".join(lines) + "\n"


def as_junit(run: str, outcomes: Sequence[SimOutcome]) -> str:
    """Return the run as JUnit XML, a test case for each sim; what was not run to its end is `skipped`."""
    suite = ElementTree.Element(
        "testsuite",
        name=run,
        tests=str(len(outcomes)),
        failures=str(sum(outcome.status is Status.FAILED for outcome in outcomes)),
        skipped=str(sum(outcome.status in _NOT_JUDGED for outcome in outcomes)),
        time=f"{sum(outcome.elapsed or 0.0 for outcome in outcomes):.3f}",
    )
    for outcome in outcomes:
        name, file = outcome.sim.name, str(outcome.sim.file)
        attributes = {"classname": "patchbay", "name": name, "file": file}
        case = ElementTree.SubElement(suite, "testcase", attributes, time=f"{outcome.elapsed or 0.0:.3f}")
        if outcome.status is Status.FAILED:
            message = outcome.error.partition("\n")[0]
            ElementTree.SubElement(case, "failure", message=_xml(message)).text = _xml(outcome.error)
        elif outcome.status in _NOT_JUDGED:
            ElementTree.SubElement(case, "skipped", message=str(outcome.status))
        ElementTree.SubElement(case, "system-out").text = _xml("\n".join(measured_lines(outcome)))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


_NOT_JUDGED = (Status.WAITING, Status.RUNNING, Status.INTERRUPTED)


def _xml(text: str) -> str:
    """Return `text` without the control characters that XML 1.0 (section 2.2) cannot hold."""
    return "".join(c if c in "\n\t" or (c >= " " and not "\ud800" <= c <= "\udfff") else "�" for c in text)
