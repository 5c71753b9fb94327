"""What the task `small-instructions` counts: whether an answer has the form that was asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def followed(sample: Mapping[str, str], answers: Sequence[str]) -> dict[str, bool]:
    """Whether the sample's pattern matches the whole answer, white space around it aside."""
    return {"followed": re.fullmatch(sample["pattern"], answers[0].strip(), re.DOTALL) is not None}
