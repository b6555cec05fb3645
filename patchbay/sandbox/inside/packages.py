"""Making a fork of the agent an interpreter like the program's, with its packages. Standard library only."""

from __future__ import annotations

import os
import sys

__all__ = ["program_path", "use_packages"]


def program_path() -> list[str]:
    """Return sys.path as it means the same to a process in another folder."""
    return [os.path.abspath(entry) for entry in sys.path]


def use_packages(path: list[str]) -> None:
    """Read the .pth files of site-packages, which may import things, and take over the program's path."""
    import site

    site.main()
    if (user := site.getusersitepackages()) in path:
        site.addsitedir(user)
    sys.path[:] = path
