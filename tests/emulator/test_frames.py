"""What is done to the bytes of a frame."""

from __future__ import annotations

import struct
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from patchbay.emulator.frames import VNET, corrupt, with_tag
from tests.pure.labs import QUICK

MACS = bytes(range(12))
GSO_TCPV4 = 1


def header(flags: int = 0, gso_type: int = 0, hdr_len: int = 0, start: int = 0, offset: int = 0) -> bytes:
    return struct.pack("=BBHHHH", flags, gso_type, hdr_len, 1448 if gso_type else 0, start, offset)


def frame(payload: bytes, vnet: bytes) -> bytes:
    return vnet + MACS + b"\x08\x00" + payload


def ones_complement_sum(data: bytes) -> int:
    """As RFC 1071 writes it."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def differing_bits(one: bytes, other: bytes) -> list[int]:
    pairs = enumerate(zip(one, other, strict=True))
    return [i * 8 + bit for i, (a, b) in pairs for bit in range(8) if (a ^ b) >> bit & 1]


def test_a_tag_comes_back_behind_the_addresses_and_moves_what_is_counted_from_the_start() -> None:
    plain = frame(b"payload", header(flags=1, gso_type=GSO_TCPV4, hdr_len=54, start=34, offset=16))
    tagged = with_tag(memoryview(plain), 42, 0x8100)
    vnet = header(flags=1, gso_type=GSO_TCPV4, hdr_len=58, start=38, offset=16)
    assert tagged == vnet + MACS + b"\x81\x00\x00\x2a\x08\x00payload"
    assert with_tag(frame(b"", header()), 42, 0x88A8)[:VNET] == header()


@QUICK
@given(payload=st.binary(min_size=1, max_size=200), seed=st.integers(0, 2**32))
def test_one_bit_behind_the_ethernet_header_is_flipped(payload: bytes, seed: int) -> None:
    whole = frame(payload, header())
    damaged = corrupt(whole, Random(seed))
    assert damaged is not None
    (bit,) = differing_bits(whole, damaged)
    assert bit >= (VNET + 14) * 8


@QUICK
@given(payload=st.binary(min_size=8, max_size=201), pseudo=st.integers(1, 0xFFFF), seed=st.integers(0, 99))
def test_a_checksum_left_to_the_hardware_is_completed_before_and_wrong_after(
    payload: bytes, pseudo: int, seed: int
) -> None:
    # A "segment" from 20 on whose checksum stands at 6, where the kernel put that of the pseudo header.
    before = bytes(20)
    segment = payload[:6] + struct.pack(">H", pseudo) + payload[8:]
    damaged = corrupt(frame(before + segment, header(flags=1, start=34, offset=6)), Random(seed))
    assert damaged is not None
    assert damaged[:VNET] == header()
    received = damaged[VNET + 34 :]
    total = ones_complement_sum(struct.pack(">H", pseudo) + received)
    intact_ip = damaged[VNET + 14 : VNET + 34] == before
    assert (total == 0xFFFF) == (not intact_ip)


def test_a_frame_of_several_segments_is_not_to_be_repaired() -> None:
    segments = frame(bytes(3000), header(flags=1, gso_type=GSO_TCPV4, hdr_len=54, start=34, offset=16))
    assert corrupt(segments, Random(1)) is None
    assert corrupt(frame(b"", header()), Random(1)) is None
