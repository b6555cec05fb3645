"""The prepared interpreter, started by the path of this folder: `python -I -S .../inside CHANNEL PROGRAM`."""

import os
import sys

# The folder that has `patchbay` in it takes the place of this one, so that all of it is one package here too.
sys.path[0] = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))

from patchbay.sandbox.inside.prepared import main  # noqa: E402  the path has to be set first

if __name__ == "__main__":
    main()
