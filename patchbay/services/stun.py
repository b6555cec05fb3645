"""A STUN server that tells everybody the same address: how a router in a lab learns that it is public.

Standard library only, for `port_mapper`.
"""

from __future__ import annotations

from ipaddress import IPv4Address

__all__ = ["answer"]

_HEADER = 20  # RFC 8489 section 5: type, length, cookie, transaction
_BINDING_REQUEST, _BINDING_SUCCESS = b"\x00\x01", b"\x01\x01"
_COOKIE = 0x2112A442
_XOR_MAPPED_ADDRESS, _IPV4 = b"\x00\x20\x00\x08", b"\x00\x01"


def answer(request: bytes, port: int, outside: IPv4Address) -> bytes | None:
    """Return the answer to one who asks from `port`; None for what is no Binding request.

    Its own port unchanged and answers to all of its questions make it a public address for miniupnpd
    (upnpstun.c, perform_stun), which does not ask where the answers with CHANGE-REQUEST come from.
    """
    if len(request) < _HEADER or request[:2] != _BINDING_REQUEST:
        return None
    mapped = (port ^ (_COOKIE >> 16)).to_bytes(2) + (int(outside) ^ _COOKIE).to_bytes(4)
    attribute = _XOR_MAPPED_ADDRESS + _IPV4 + mapped
    return _BINDING_SUCCESS + len(attribute).to_bytes(2) + request[4:_HEADER] + attribute
