"""Which release this is."""

from __future__ import annotations

import importlib.metadata

try:
    VERSION = importlib.metadata.version("r1ranker-ir")
except importlib.metadata.PackageNotFoundError:  # a source tree that was never installed
    VERSION = "0.0.0+source"
