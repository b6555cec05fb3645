"""Sockets that stay open until their lab closes them, though a test lets go of them before."""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

import patchbay
from patchbay.lab.lab import Lab

__all__ = ["held"]

SocketT = TypeVar("SocketT")

_HELD: weakref.WeakKeyDictionary[Lab, list[Any]] = weakref.WeakKeyDictionary()


def held(node: patchbay.Node, sock: SocketT) -> SocketT:
    """Keep a socket of a node, because one that is lost while it is open is a `ResourceWarning`."""
    _HELD.setdefault(node.lab, []).append(sock)
    return sock
