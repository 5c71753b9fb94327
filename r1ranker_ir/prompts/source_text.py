"""What some systems do to a document's text before it goes into a prompt: repair its characters, count its words."""

from __future__ import annotations

from r1ranker_ir.errors import MissingExtraError


def repaired(text: str, *, entities: bool = True) -> str:
    """Repairs characters that were decoded or escaped the wrong way, with ftfy, as rank_llm and ReasonRank do.

    With `entities`, HTML entities such as `&amp;` become characters too, where no `<` stands in the text.
    """
    try:
        import ftfy
    except ImportError as error:
        raise MissingExtraError(
            f"repair_text needs ftfy ({error}). Install it with: pip install ftfy, or turn repair_text off "
            "(--no-repair-text): prompts then hold the texts as they are"
        ) from error
    fixed = ftfy.fix_text(text, unescape_html="auto" if entities else False)
    # A text of nothing but control characters would be gone.
    return fixed if fixed.strip() or not text.strip() else text


def first_words(text: str, most: int) -> tuple[str, bool]:
    """The first `most` words with single spaces, and whether any were left out; a text short enough stays as it is."""
    words = text.split()
    return (" ".join(words[:most]), True) if len(words) > most else (text, False)
