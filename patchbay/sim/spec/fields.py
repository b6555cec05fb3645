"""Kinds of fields of a step: each says what a field's value means to the other steps and to the topology.

A step's class names the kind of each of its fields once (`field(metadata=says(Texts()))`); what the step as a
whole has in texts and references, what is wrong with it, and how a repetition of it looks, follows from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from attrs import evolve, frozen

from patchbay.config.converter import Unacceptable
from patchbay.errors import Problem, did_you_mean
from patchbay.sim.spec.asserts import Check, parse_check
from patchbay.sim.spec.captures import Capture, Parser
from patchbay.sim.spec.refs import RESERVED, Ref, name_problem, parse_ref
from patchbay.sim.spec.results import Results

__all__ = [
    "Captures",
    "Checks",
    "Command",
    "DeviceName",
    "Environment",
    "Kind",
    "OtherId",
    "OwnId",
    "Port",
    "Readiness",
    "Refs",
    "ResultNames",
    "Rewriter",
    "Texts",
    "kind_of",
    "says",
    "unknown_capture",
]


class Rewriter(Protocol):
    """Replaces what a step says of repeated steps and devices, for one of its repetitions."""

    @property
    def device(self) -> str | None:
        """Return the device that the repetition is aimed at."""

    def own_id(self, name: str) -> str:
        """Return the id of the repetition."""
        ...

    def one(self, where: str, ref: Ref) -> Ref:
        """Replace a capture that is named at a path of the step, where only one is possible."""
        ...

    def many(self, ref: Ref) -> list[Ref]:
        """Replace a capture where several are possible."""
        ...

    def text(self, where: str, text: str) -> str:
        """Replace the variables of a text at a path of the step."""
        ...


class Declares(Protocol):
    """A step, as far as the kinds of its fields need it."""

    @property
    def declares(self) -> dict[str, Capture]:
        """Return the captures that others may ask it for."""
        ...


class Kind:
    """A field in which nobody else is named, and any value of the right type is fine.

    `path` is the field's name.
    """

    def problems(self, path: str, value: Any, step: Declares) -> Iterator[Problem]:
        """Tell what is wrong with the value by itself."""
        yield from ()

    def texts(self, path: str, value: Any) -> Iterator[tuple[str, str]]:
        """Yield (path, text) of everything in which variables are replaced."""
        yield from ()

    def refs(self, path: str, value: Any) -> Iterator[tuple[str, Ref]]:
        """Yield (path, capture) of every capture that is named outside of texts, as far as it can be read."""
        yield from ()

    def rewritten(self, path: str, value: Any, rewriter: Rewriter) -> Any:
        """Return the value in a repetition of the step."""
        return value


class OwnId(Kind):
    """The id by which others know the step."""

    def problems(self, path: str, value: str | None, step: Declares) -> Iterator[Problem]:
        if value is not None and (problem := name_problem(value, RESERVED)):
            yield Problem(path, problem)

    def rewritten(self, path: str, value: str | None, rewriter: Rewriter) -> str | None:
        return rewriter.own_id(value) if value else None


class OtherId(Kind):
    """The id of an earlier step."""

    def problems(self, path: str, value: str, step: Declares) -> Iterator[Problem]:
        if not value:
            yield Problem(path, "found ''; accepted: the id of an earlier step")

    def rewritten(self, path: str, value: str, rewriter: Rewriter) -> str:
        return rewriter.own_id(value)


class DeviceName(Kind):
    """The node that the step is about."""

    def rewritten(self, path: str, value: str | None, rewriter: Rewriter) -> str | None:
        return rewriter.device


class Texts(Kind):
    """A tuple or a table of texts with variables."""

    def problems(
        self, path: str, value: tuple[str, ...] | Mapping[str, str], step: Declares
    ) -> Iterator[Problem]:
        for where, text in self.texts(path, value):
            if "\0" in text:
                yield Problem(where, f"found {text!r}; accepted: text without a null byte")

    def texts(self, path: str, value: tuple[str, ...] | Mapping[str, str]) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping):
            yield from ((f"{path}.{name}", text) for name, text in value.items())
        else:
            yield from ((f"{path}[{index}]", text) for index, text in enumerate(value))

    def rewritten(self, path: str, value: tuple[str, ...] | Mapping[str, str], rewriter: Rewriter) -> Any:
        new = [rewriter.text(where, text) for where, text in self.texts(path, value)]
        return dict(zip(value, new, strict=True)) if isinstance(value, Mapping) else tuple(new)


class Command(Texts):
    """A command line."""

    def problems(self, path: str, value: Any, step: Declares) -> Iterator[Problem]:
        if not value:
            yield Problem(path, 'found an empty array; accepted: a command such as ["ping", "-c1", "ix"]')
        yield from super().problems(path, value, step)


class Environment(Texts):
    """Environment variables."""

    def problems(self, path: str, value: Any, step: Declares) -> Iterator[Problem]:
        for name in value:
            if not name or "=" in name or "\0" in name:
                yield Problem(f"{path}.{name}", "accepted: the name of an environment variable")
        yield from super().problems(path, value, step)


class Refs(Kind):
    """Captures that are waited for, each `id.capture`."""

    def problems(self, path: str, value: tuple[str, ...], step: Declares) -> Iterator[Problem]:
        for index, text in enumerate(value):
            try:
                parse_ref(text)
            except Unacceptable as error:
                yield Problem(f"{path}[{index}]", str(error))

    def refs(self, path: str, value: tuple[str, ...]) -> Iterator[tuple[str, Ref]]:
        for index, text in enumerate(value):
            if ref := _some_ref(text):
                yield f"{path}[{index}]", ref

    def rewritten(self, path: str, value: tuple[str, ...], rewriter: Rewriter) -> tuple[str, ...]:
        return tuple(str(new) for _, ref in self.refs(path, value) for new in rewriter.many(ref))


class Checks(Kind):
    """Assertions: one, or a tuple."""

    def problems(self, path: str, value: str | tuple[str, ...] | None, step: Declares) -> Iterator[Problem]:
        for where, text in _written(path, value):
            try:
                parse_check(text)
            except Unacceptable as error:
                yield Problem(where, str(error))

    def refs(self, path: str, value: str | tuple[str, ...] | None) -> Iterator[tuple[str, Ref]]:
        for where, text in _written(path, value):
            if check := _some_check(text):
                yield where, check.ref

    def rewritten(self, path: str, value: str | tuple[str, ...] | None, rewriter: Rewriter) -> Any:
        # One check may become several, so a step with a single one must have put it among the others.
        if value is None or isinstance(value, str):
            return value
        checks = [check for text in value if (check := _some_check(text))]
        return tuple(str(evolve(check, ref=ref)) for check in checks for ref in rewriter.many(check.ref))


def _written(path: str, value: str | tuple[str, ...] | None) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    else:
        yield from ((f"{path}[{index}]", text) for index, text in enumerate(value or ()))


class Captures(Kind):
    """The captures of a command's output, by name; the step has a `parser`."""

    def problems(self, path: str, value: Mapping[str, Capture], step: Any) -> Iterator[Problem]:
        parser: Parser = step.parser
        for name, capture in value.items():
            if problem := name_problem(name):
                yield Problem(f"{path}.{name}", problem)
            for inner in capture.problems(parser):
                yield Problem(f"{path}.{name}" + (f".{inner.path}" if inner.path else ""), inner.message)


@frozen
class Port:
    """A port of a node; `protocol` is "tcp" or "udp"."""

    protocol: str
    number: int


class Readiness(Kind):
    """The sign that a command is ready: one of the step's own captures, or a port."""

    def problems(self, path: str, value: str | Port | None, step: Declares) -> Iterator[Problem]:
        if isinstance(value, str) and value not in step.declares:
            yield Problem(path, unknown_capture(value, step.declares))


class ResultNames(Kind):
    """The captures, of the step or of others, that give the step's results."""

    def problems(self, path: str, value: Results, step: Declares) -> Iterator[Problem]:
        for name, text in value.named():
            if text.startswith("."):
                if text[1:] not in step.declares:
                    yield Problem(f"{path}.{name}", unknown_capture(text[1:], step.declares))
            elif not _some_ref(text):
                yield Problem(f"{path}.{name}", f"found {text!r}; accepted: id.capture or .capture")

    def refs(self, path: str, value: Results) -> Iterator[tuple[str, Ref]]:
        for name, text in value.named():
            if ref := _some_ref(text):
                yield f"{path}.{name}", ref

    def rewritten(self, path: str, value: Results, rewriter: Rewriter) -> Results:
        def result(name: str, text: str) -> str:
            ref = _some_ref(text)
            return str(rewriter.one(f"{path}.{name}", ref)) if ref else text

        return value.with_names(result)


_PLAIN = Kind()
_KEY = "patchbay"


def says(kind: Kind) -> dict[str, Kind]:
    """Return the metadata of a field of that kind."""
    return {_KEY: kind}


def kind_of(metadata: Mapping[Any, Any]) -> Kind:
    """Return the kind of the field with that metadata."""
    kind: Kind = metadata.get(_KEY, _PLAIN)
    return kind


def _some_ref(text: str) -> Ref | None:
    """Return the capture that a text names, None where it names none."""
    try:
        return parse_ref(text)
    except Unacceptable:
        return None


def _some_check(text: str) -> Check | None:
    """Return the assertion in a text, None where there is none."""
    try:
        return parse_check(text)
    except Unacceptable:
        return None


def unknown_capture(name: str, known: Mapping[str, Capture]) -> str:
    """Return the message for a capture that a step does not declare."""
    listed = f"it captures: {', '.join(known)}{did_you_mean(name, known)}" if known else "it captures nothing"
    return f"unknown capture '{name}'; {listed}"
