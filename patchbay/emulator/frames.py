"""Frames as AF_PACKET passes them with PACKET_VNET_HDR: a virtio header, then Ethernet. Pure."""

from __future__ import annotations

import struct
from random import Random

__all__ = ["VNET", "corrupt", "with_tag"]

# include/uapi/linux/virtio_net.h: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
_HEADER = struct.Struct("=BBHHHH")
VNET = _HEADER.size
_NEEDS_CSUM = 1
_ETHERNET = 14
_MACS = 12
_TAG = 4


def with_tag(frame: memoryview | bytes, tci: int, tpid: int) -> bytes:
    """Return a frame with its VLAN tag, which the kernel keeps beside the packet."""
    flags, gso_type, hdr_len, gso_size, start, offset = _HEADER.unpack_from(frame)
    if flags & _NEEDS_CSUM:
        start += _TAG
    if hdr_len:
        hdr_len += _TAG
    header = _HEADER.pack(flags, gso_type, hdr_len, gso_size, start, offset)
    macs = frame[VNET : VNET + _MACS]
    return b"".join((header, macs, struct.pack(">HH", tpid, tci), frame[VNET + _MACS :]))


def corrupt(frame: bytes, chance: Random) -> bytes | None:
    """Return the frame with one bit behind its Ethernet header flipped; None for a frame of several packets.

    Of the latter (GSO) the kernel makes the checksums later and would make them right. All its
    segments are taken for damaged: no socket receives any of them.
    """
    flags, gso_type, _, _, start, offset = _HEADER.unpack_from(frame)
    bits = (len(frame) - VNET - _ETHERNET) * 8
    bit = chance.randrange(max(bits, 1))
    if gso_type or not bits:
        return None
    damaged = bytearray(frame)
    if flags & _NEEDS_CSUM:
        _complete_checksum(damaged, VNET + start, VNET + start + offset)
    damaged[:VNET] = bytes(VNET)
    damaged[VNET + _ETHERNET + bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def _complete_checksum(frame: bytearray, start: int, field: int) -> None:
    """Complete a checksum whose field holds the sum of the pseudo header."""
    covered = frame[start:]
    if len(covered) % 2:
        covered.append(0)
    # A number modulo 2**16 - 1 is the one's complement sum of its 16-bit digits.
    total = int.from_bytes(covered, "big") % 0xFFFF
    # 0 and 0xffff mean the same, save in UDP, where 0 means that there is none.
    struct.pack_into(">H", frame, field, (0xFFFF - total) or 0xFFFF)
