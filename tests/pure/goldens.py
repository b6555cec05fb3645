"""Texts that are kept as files, and compared."""

import os
from pathlib import Path

FOLDER = Path(__file__).with_name("goldens")
UPDATE = "PATCHBAY_UPDATE_GOLDENS"


def assert_golden(name: str, text: str) -> None:
    """`text` is what the file says; with PATCHBAY_UPDATE_GOLDENS=1 the file is made to say it."""
    file = FOLDER / name
    if os.environ.get(UPDATE) == "1":
        file.write_text(text, encoding="utf-8")
    known = file.read_text(encoding="utf-8") if file.exists() else ""
    assert text == known, (
        f"{name} differs; if the new text is right: {UPDATE}=1 pytest tests/pure, then git diff"
    )
