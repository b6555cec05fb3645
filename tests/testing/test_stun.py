"""STUN on the wire."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchbay.services.stun_messages import (
    HEADER,
    Indication,
    Message,
    Refusal,
    Request,
    Response,
    body_length,
    decode,
    encode,
)

# RFC 5769 section 2.2: a response with SOFTWARE, XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY and FINGERPRINT.
RFC_5769 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
TRANSACTION = bytes(range(12))

transactions = st.binary(min_size=12, max_size=12)
ports = st.integers(0, 65535)
endpoints = st.tuples(st.ip_addresses().map(str), ports)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Request, transactions, st.booleans(), st.booleans(), st.none() | ports),
    st.builds(Indication, transactions),
    st.builds(Response, transactions, endpoints, st.none() | endpoints, st.none() | endpoints),
    st.builds(
        Refusal, transactions, st.integers(300, 699), st.lists(st.integers(1, 0xFFFF), max_size=5).map(tuple)
    ),
)


def with_attributes(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("!HH", n, len(v)) + v + bytes(-len(v) % 4) for n, v in attributes)
    return struct.pack("!HHI", kind, len(body), 0x2112A442) + TRANSACTION + body


@given(messages)
def test_what_is_written_is_read(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert body_length(data[:HEADER]) == len(data) - HEADER


@given(messages, st.data())
def test_a_part_of_a_message_or_more_than_one_is_none(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    assert decode(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    assert decode(whole + data.draw(st.binary(min_size=1, max_size=30))) is None


@given(st.binary(max_size=100), st.integers(0, 0xFFFF))
def test_garbage_raises_nothing(body: bytes, kind: int) -> None:
    decode(body)
    decode(struct.pack("!HHI", kind, len(body), 0x2112A442) + TRANSACTION + body)


def test_the_example_of_rfc_5769_is_read() -> None:
    response = decode(RFC_5769)
    assert isinstance(response, Response)
    assert response.mapped == ("192.0.2.1", 32853)
    assert response.transaction == RFC_5769[8:20]


def test_a_request_is_what_rfc_8489_and_5780_say() -> None:
    request = Request(TRANSACTION, change_address=True, change_port=True, response_port=0x1234)
    assert encode(request) == with_attributes(1, (3, b"\0\0\0\6"), (0x27, b"\x12\x34"))
    assert encode(Request(TRANSACTION, change_port=True))[-4:] == b"\0\0\0\2"


def test_servers_of_rfc_3489_are_understood() -> None:
    def address(port: int, *host: int) -> bytes:
        return struct.pack("!BBH", 0, 1, port) + bytes(host)

    data = with_attributes(
        0x0101,
        (1, address(7, 192, 0, 2, 1)),
        (4, address(3478, 192, 0, 2, 2)),
        (5, address(3479, 192, 0, 2, 3)),
        (0x000B, b"reflected-from??"),
    )
    expected = Response(TRANSACTION, ("192.0.2.1", 7), ("192.0.2.2", 3478), ("192.0.2.3", 3479))
    assert decode(data) == expected


def test_the_address_that_no_nat_rewrites_is_believed() -> None:
    data = bytearray(encode(Response(TRANSACTION, ("192.0.2.1", 7))))
    place = data.index(bytes((192, 0, 2, 1)))
    data[place : place + 4] = bytes(4)
    response = decode(bytes(data))
    assert isinstance(response, Response)
    assert response.mapped == ("192.0.2.1", 7)


def test_some_pad_a_port_within_its_attribute() -> None:
    assert decode(with_attributes(1, (0x27, b"\x12\x34\0\0"))) == Request(TRANSACTION, response_port=0x1234)


def test_unknown_attributes_of_a_request_are_reported_if_they_must_be_known() -> None:
    request = decode(with_attributes(1, (0x8022, b"software"), (0x26, b"padding."), (0x7777, b"")))
    assert isinstance(request, Request)
    assert request.unknown == (0x26, 0x7777)


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n  "),
        ("another cookie", encode(Request(TRANSACTION))[:4] + bytes(16)),
        ("another method", with_attributes(0x0003)),
        ("no address", with_attributes(0x0101)),
        ("a short address", with_attributes(0x0101, (0x20, bytes((0, 1, 1, 1))))),
        ("a long address", with_attributes(0x0101, (0x20, bytes((0, 2)) + bytes(30)))),
        ("another family", with_attributes(0x0101, (1, bytes((0, 3, 1, 1, 1, 1, 1, 1))))),
        ("no flags", with_attributes(1, (3, b""))),
        ("no error code", with_attributes(0x0111)),
        (
            "an attribute beyond the end",
            with_attributes(1, (0x8022, b"x" * 8)).replace(b"\0\x08xx", b"\0\x09xx"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_whole_is_none(what: str, data: bytes) -> None:
    assert decode(data) is None, what


def test_a_transaction_id_has_twelve_bytes() -> None:
    with pytest.raises(ValueError, match="12 bytes, found 3"):
        encode(Request(b"abc"))
