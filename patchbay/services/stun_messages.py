"""STUN on the wire: what telling NATs apart needs of RFC 8489 and RFC 5780. Pure: bytes in, values out.

What is read may be anybody's: it is a message as a whole, or nothing. Attributes that are not needed here
(SOFTWARE, FINGERPRINT and others) are passed over; so are those that a server should not send, as servers of
RFC 3489 send many.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from ipaddress import ip_address

from attrs import frozen

__all__ = [
    "HEADER",
    "Indication",
    "Message",
    "Refusal",
    "Request",
    "Response",
    "body_length",
    "decode",
    "encode",
]

# A host, as the text of an IP address, and a port.
Endpoint = tuple[str, int]

HEADER = 20  # bytes (RFC 8489 section 5)
_COOKIE = 0x2112A442
_REQUEST, _INDICATION, _RESPONSE, _REFUSAL = 0x0001, 0x0011, 0x0101, 0x0111
_CHANGE_ADDRESS, _CHANGE_PORT = 4, 2  # RFC 5780 section 7.2
_OPTIONAL = 0x8000  # from here on, unknown attributes may be ignored (RFC 8489 section 14)


class _Attribute(IntEnum):
    MAPPED_ADDRESS = 0x0001
    CHANGE_REQUEST = 0x0003
    SOURCE_ADDRESS = 0x0004  # RFC 3489's RESPONSE-ORIGIN
    CHANGED_ADDRESS = 0x0005  # RFC 3489's OTHER-ADDRESS
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    XOR_MAPPED_ADDRESS = 0x0020
    RESPONSE_PORT = 0x0027
    RESPONSE_ORIGIN = 0x802B
    OTHER_ADDRESS = 0x802C


@frozen
class Request:
    """A Binding request. `transaction` is 12 bytes; `unknown` are the attributes that forbid an answer."""

    transaction: bytes
    change_address: bool = False
    change_port: bool = False
    response_port: int | None = None
    unknown: tuple[int, ...] = ()


@frozen
class Indication:
    """A Binding indication, which nobody answers."""

    transaction: bytes


@frozen
class Response:
    """A Binding success response. `other` is the server's second endpoint, at another address and port."""

    transaction: bytes
    mapped: Endpoint
    origin: Endpoint | None = None
    other: Endpoint | None = None


@frozen
class Refusal:
    """A Binding error response; 420 where the server does not know the attributes `unknown`."""

    transaction: bytes
    code: int
    unknown: tuple[int, ...] = ()


Message = Request | Indication | Response | Refusal


# Writing


def encode(message: Message) -> bytes:
    """Return the message as bytes, for datagrams and streams. Raises `ValueError` if a value does not fit."""
    if len(message.transaction) != 12:
        raise ValueError(f"a transaction id has 12 bytes, found {len(message.transaction)}")
    kind, attributes = _contents(message)
    body = b"".join(_attribute(number, value) for number, value in attributes.items())
    return struct.pack("!HHI", kind, len(body), _COOKIE) + message.transaction + body


def _contents(message: Message) -> tuple[int, dict[_Attribute, bytes]]:
    match message:
        case Request():
            return _REQUEST, _request_attributes(message)
        case Indication():
            return _INDICATION, {}
        case Response():
            return _RESPONSE, _response_attributes(message)
        case Refusal():
            attributes = {_Attribute.ERROR_CODE: struct.pack("!HBB", 0, *divmod(message.code, 100))}
            if message.unknown:
                numbers = struct.pack(f"!{len(message.unknown)}H", *message.unknown)
                attributes[_Attribute.UNKNOWN_ATTRIBUTES] = numbers
            return _REFUSAL, attributes


def _request_attributes(request: Request) -> dict[_Attribute, bytes]:
    attributes = {}
    if flags := _CHANGE_ADDRESS * request.change_address | _CHANGE_PORT * request.change_port:
        attributes[_Attribute.CHANGE_REQUEST] = struct.pack("!I", flags)
    if request.response_port is not None:
        attributes[_Attribute.RESPONSE_PORT] = struct.pack("!H", request.response_port)
    return attributes


def _response_attributes(response: Response) -> dict[_Attribute, bytes]:
    # Both kinds of mapped address: clients of RFC 3489 know only the plain one.
    attributes = {
        _Attribute.MAPPED_ADDRESS: _address(response.mapped),
        _Attribute.XOR_MAPPED_ADDRESS: _crossed(_address(response.mapped), response.transaction),
    }
    if response.origin:
        attributes[_Attribute.RESPONSE_ORIGIN] = _address(response.origin)
    if response.other:
        attributes[_Attribute.OTHER_ADDRESS] = _address(response.other)
    return attributes


def _attribute(number: int, value: bytes) -> bytes:
    return struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4)


def _address(endpoint: Endpoint) -> bytes:
    host = ip_address(endpoint[0])
    return struct.pack("!BBH", 0, 1 if host.version == 4 else 2, endpoint[1]) + host.packed


def _crossed(value: bytes, transaction: bytes) -> bytes:
    """To and from the form of XOR-MAPPED-ADDRESS (RFC 8489 section 14.2), which no NAT recognizes."""
    key = struct.pack("!I", _COOKIE) + transaction
    mask = bytes(2) + key[:2] + key
    return bytes(byte ^ with_ for byte, with_ in zip(value, mask[: len(value)], strict=True))


# Reading


def body_length(header: bytes) -> int | None:
    """Return how many bytes follow a header on a stream; None if it is no header of STUN."""
    kind, length, cookie = struct.unpack_from("!HHI", header)
    return length if kind < 0x4000 and length % 4 == 0 and cookie == _COOKIE else None


def decode(data: bytes) -> Message | None:
    """Return the message that `data` is, exactly; None for anything else."""
    if len(data) < HEADER or body_length(data[:HEADER]) != len(data) - HEADER:
        return None
    attributes = _attributes(data[HEADER:])
    if attributes is None:
        return None
    kind, transaction = int.from_bytes(data[:2], "big"), data[8:HEADER]
    try:
        return _message(kind, transaction, attributes)
    except (struct.error, ValueError):  # an attribute of a wrong form
        return None


def _attributes(body: bytes) -> dict[int, bytes] | None:
    """Return attributes by number. The first of several counts (RFC 8489 section 14)."""
    found: dict[int, bytes] = {}
    while body:
        number, length = struct.unpack_from("!HH", body)
        padded = 4 + length + -length % 4
        if padded > len(body):
            return None
        found.setdefault(number, body[4 : 4 + length])
        body = body[padded:]
    return found


def _message(kind: int, transaction: bytes, attributes: Mapping[int, bytes]) -> Message | None:
    if kind == _REQUEST:
        return _request(transaction, attributes)
    if kind == _INDICATION:
        return Indication(transaction)
    if kind == _RESPONSE:
        return _response(transaction, attributes)
    return _refusal(transaction, attributes) if kind == _REFUSAL else None


def _refusal(transaction: bytes, attributes: Mapping[int, bytes]) -> Refusal:
    group, number = struct.unpack_from("!2xBB", attributes.get(_Attribute.ERROR_CODE, b""))
    numbers = attributes.get(_Attribute.UNKNOWN_ATTRIBUTES, b"")
    unknown = struct.unpack(f"!{len(numbers) // 2}H", numbers)
    return Refusal(transaction, (group & 7) * 100 + number, unknown)


def _request(transaction: bytes, attributes: Mapping[int, bytes]) -> Request:
    known = {_Attribute.CHANGE_REQUEST, _Attribute.RESPONSE_PORT}
    (flags,) = struct.unpack("!I", attributes.get(_Attribute.CHANGE_REQUEST, bytes(4)))
    port = attributes.get(_Attribute.RESPONSE_PORT)
    return Request(
        transaction,
        bool(flags & _CHANGE_ADDRESS),
        bool(flags & _CHANGE_PORT),
        # 16 bits (RFC 5780 section 7.5), which some pad within the attribute.
        struct.unpack_from("!H", port)[0] if port is not None else None,
        tuple(number for number in attributes if number < _OPTIONAL and number not in known),
    )


def _response(transaction: bytes, attributes: Mapping[int, bytes]) -> Response | None:
    def endpoint(*numbers: _Attribute) -> Endpoint | None:
        values = (attributes[number] for number in numbers if number in attributes)
        return next(map(_endpoint, values), None)

    # NATs exist that rewrite whatever looks like an address of theirs, hence the first choice.
    crossed = attributes.get(_Attribute.XOR_MAPPED_ADDRESS)
    mapped = (
        _endpoint(_crossed(crossed, transaction))
        if crossed is not None
        else endpoint(_Attribute.MAPPED_ADDRESS)
    )
    if mapped is None:
        return None
    origin = endpoint(_Attribute.RESPONSE_ORIGIN, _Attribute.SOURCE_ADDRESS)
    other = endpoint(_Attribute.OTHER_ADDRESS, _Attribute.CHANGED_ADDRESS)
    return Response(transaction, mapped, origin, other)


def _endpoint(value: bytes) -> Endpoint:
    family, port = struct.unpack_from("!xBH", value)
    if len(value) != {1: 8, 2: 20}.get(family):
        raise ValueError("an address is of family 1 with 4 bytes, or of family 2 with 16")
    return str(ip_address(value[4:])), port
