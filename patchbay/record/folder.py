"""The folder of a run: files written whole or line by line, so that a reader never sees half a record."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import IO, Any

__all__ = ["LabFolder", "file_stem", "new_folder", "write_json", "write_whole"]

# NAME_MAX is 255; a time stamp, a number and an ending are put around the stem.
_STEM_BYTES = 200


def write_whole(path: Path, text: str) -> None:
    """Replace `path` with `text` in one step."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace `path` with `value` as JSON in one step."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def file_stem(text: str) -> str:
    """Return `text` as a part of a file's name, cut where the name would be too long (NAME_MAX)."""
    plain = re.sub(r"[^\w.-]+", "-", text).strip("-.").encode()[:_STEM_BYTES]
    return plain.decode(errors="ignore") or "lab"


def new_folder(parent: Path, stem: str) -> Path:
    """Make a folder in `parent`, numbered if there is one of that name."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


class LabFolder:
    """The files of one lab: events, commands, state, and what its nodes printed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lines: dict[str, IO[str]] = {
            name: (path / name).open("a", encoding="utf-8", errors="surrogateescape", buffering=1 << 20)
            for name in ("events.jsonl", "commands.jsonl", "changes.jsonl")
        }

    @classmethod
    def timestamped(cls, outdir: Path, label: str) -> LabFolder:
        """Make `<outdir>/<timestamp>-<label>`, the folder of a lab that was opened from Python."""
        stamp = datetime.now().strftime("%y%m%d-%H%M%S")
        return cls(new_folder(outdir, f"{stamp}-{file_stem(label)}"))

    def append(self, name: str, lines: Iterable[str]) -> None:
        """Add whole lines to a file. Whoever reads along must take only lines that end."""
        file = self._lines[name]
        file.writelines(lines)
        file.flush()

    def write_state(self, state: Any) -> None:
        write_json(self.path / "state.json", state)

    def node_file(self, node: str, name: str) -> Path:
        """Return the path of a file in a node's folder, and make the folder.

        Raises `ValueError` for a path that leads out of the folder.
        """
        folder = self.path / "nodes" / node
        if not Path(os.path.normpath(folder / name)).is_relative_to(folder):
            raise ValueError(f"found {name!r}; accepted: a name within the node's folder")
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def close(self) -> None:
        for file in self._lines.values():
            file.close()
