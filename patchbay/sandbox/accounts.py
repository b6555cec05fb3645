"""Accounts of the machine, and which of their ids a lab has."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Container, Iterable

from attrs import frozen

from patchbay.errors import PatchbayError, did_you_mean

__all__ = ["Account", "account_of", "own_range", "subordinate_ids"]


@frozen
class Account:
    """The ids under which a program runs."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def account_of(user: str | int, ids: int) -> Account:
    """Return the ids of a user, by name or number, in a lab that has the ids from 0 to `ids` - 1.

    A number without an account has group 0 and no other, as in containers. Raises `KeyError` for a name
    that /etc/passwd does not have, `ValueError` for a negative number, `PatchbayError` for an id that the
    lab lacks.
    """
    found = _find(user)
    for kind, number in (("user", found.uid), ("group", found.gid)):
        if number >= ids:
            has = "only id 0" if ids == 1 else f"the ids 0 to {ids - 1}"
            raise PatchbayError(
                f"cannot run as {user!r}: {kind} id {number} is not in the lab, which has {has}; "
                "`patchbay doctor` says how to get more"
            )
    mapped = tuple(group for group in found.groups if group < ids)
    return Account(found.uid, found.gid, mapped)


def _find(user: str | int) -> Account:
    if isinstance(user, int) or user.isdecimal():
        uid = int(user)
        if uid < 0:
            raise ValueError(f"a user id cannot be negative, got {uid}")
        try:
            return _account(pwd.getpwuid(uid))
        except (KeyError, OverflowError):
            return Account(uid, 0)
    try:
        return _account(pwd.getpwnam(user))
    except KeyError:
        known = [entry.pw_name for entry in pwd.getpwall()]
        raise KeyError(f"this machine has no user '{user}'{did_you_mean(user, known)}") from None


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def subordinate_ids(kind: str) -> tuple[int, int] | None:
    """Return the first id and the count of this process's own range, or None if there is none.

    `kind` is "uid" for /etc/subuid or "gid" for /etc/subgid. Both name the owner of a range by the name or
    the number of the user (subuid(5)). Lines that are no range are left out, as newuidmap(1) does.
    """
    owners = {str(os.getuid())}
    with contextlib.suppress(KeyError):
        owners.add(pwd.getpwuid(os.getuid()).pw_name)
    try:
        with open(f"/etc/sub{kind}", encoding="utf-8", errors="surrogateescape") as file:
            return own_range(file, owners)
    except OSError:
        return None


def own_range(lines: Iterable[str], owners: Container[str]) -> tuple[int, int] | None:
    """Return the first range of one of the owners in lines of /etc/subuid, or None."""
    for line in lines:
        owner, *numbers = line.strip().split(":")
        if owner in owners and len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            return int(numbers[0]), int(numbers[1])
    return None
