"""Python code that comes with a checkpoint or tokenizer: it runs only for who asks for it, and nobody is asked."""

from __future__ import annotations

FOREIGN_CODE_HINT = (
    "it needs Python code that comes with it, and such code is not run unasked. Use one that needs none; or read the "
    "code, and pass trust_remote_code=True if you trust it"
)


def needs_foreign_code(error: BaseException) -> bool:
    """Whether transformers gave up because something needs code of its own, which it was told not to run."""
    return isinstance(error, ValueError) and "trust_remote_code" in str(error)
