"""How many tokens a text takes on a model that is not loaded here: counted by its tokenizer, or estimated."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from r1ranker_ir.errors import CheckpointError, missing_extra
from r1ranker_ir.models.parts import load_tokenizer, needs_foreign_code
from r1ranker_ir.models.small import located
from r1ranker_ir.prompts.cutting import cut_at_word
from r1ranker_ir.types import Message

from .texts import ChatTokenizer

CHAT_CONTROL_TOKENS: tuple[str, ...] = tuple(
    # ChatML, Qwen and many others; Llama 3 and 4; Llama 2; Mistral; Gemma
    "<|im_start|> <|im_end|> <|im_sep|> <|endoftext|> <|begin_of_text|> <|end_of_text|> <|start_header_id|> "
    "<|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|> <|header_start|> <|header_end|> <|eot|> <|eom|> "
    "<s> </s> [INST] [/INST] <<SYS>> <</SYS>> [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] "
    "[TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] [THINK] [/THINK] "
    "<bos> <eos> <start_of_turn> <end_of_turn> <|turn> <turn|> <|channel> <channel|> "
    # Phi, GLM, Granite and Falcon; gpt-oss; DeepSeek, with full-width bars; Command R
    "<|system|> <|user|> <|assistant|> <|end|> <|observation|> <|start_of_role|> <|end_of_role|> "
    "<|start|> <|message|> <|channel|> <|constrain|> <|call|> <|return|> <|startoftext|> "
    "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜> "
    "<｜tool▁calls▁end｜> <｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> "
    "<|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|SYSTEM_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|>".split()
)
"""What the chat templates in common use write as structure; for servers whose tokenizer is not at hand."""

_PIECE = re.compile(r"(?P<letters>[A-Za-z]+)|(?P<other_script>[^\x00-\x7f]+)|\S|\n")
# The dearest common templates spend about 7 tokens on a turn, and add a dated system message of about 30.
_TOKENS_PER_MESSAGE = 8
_TOKENS_PER_PROMPT = 32


def _estimated_prompt(messages: Sequence[Message], count: Callable[[str], int]) -> int:
    return _TOKENS_PER_PROMPT + sum(_TOKENS_PER_MESSAGE + count(message.content) for message in messages)


class EstimatedCounts:
    """Estimates tokens from characters, rather too many than too few.

    A run of ASCII letters counts one token for every four started; every other visible ASCII character and line break
    counts one; text in other scripts counts one for every two bytes of UTF-8. A prompt adds 8 per message and 32 at its
    beginning. On English web passages that is about 1.4 times what a byte-pair tokenizer of 32,000 entries needs.
    """

    control_tokens = CHAT_CONTROL_TOKENS

    def count(self, text: str) -> int:
        total = 0
        for piece in _PIECE.finditer(text):
            letters, others = piece["letters"] or "", piece["other_script"] or ""
            total += -(-len(letters) // 4) + -(-len(others.encode("utf-8", "surrogatepass")) // 2)
            total += not (letters or others)
        return total

    def cut(self, text: str, max_tokens: int) -> str:
        """Returns the longest beginning of at most `max_tokens`, in whole words if one fits."""
        return cut_at_word(text, max_tokens, self.count)

    def turns(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as they are: nothing is known of the template."""
        return tuple(messages)

    def count_prompt(self, messages: Sequence[Message]) -> int:
        return _estimated_prompt(messages, self.count)


class CountedTexts:
    """How long texts and prompts are: by a tokenizer, or estimated for a model whose tokenizer is not at hand."""

    _counts: EstimatedCounts | ChatTokenizer

    def count_tokens(self, text: str) -> int:
        return self._counts.count(text)

    def cut_text(self, text: str, max_tokens: int) -> str:
        return self._counts.cut(text, max_tokens)

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        return self._counts.count_prompt(messages)


def counting_tokenizer(name: str) -> Any:
    """Loads a tokenizer that only counts tokens; code of its own never runs."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise missing_extra("counting tokens with a Hugging Face tokenizer", "local", error) from error
    try:
        # Left out, transformers would ask on standard input whether to run the tokenizer's own code.
        return load_tokenizer(name, {"revision": located(name)[1], "trust_remote_code": False})
    except (OSError, ValueError) as error:
        why, way_out = f"can't be loaded ({error}): give the model's hub name or folder", "or none (`tokenizer=None`)"
        if needs_foreign_code(error):
            why = "needs Python code that comes with it, and such code is not run: give a tokenizer of the same "
            why += "vocabulary that needs none"
        raise CheckpointError(f"the tokenizer {name!r} {why}, {way_out} to have tokens estimated") from error


class TokenizerCounts(ChatTokenizer):
    """Counts tokens for a server, with a tokenizer on the Hugging Face hub, in a folder or in a GGUF file."""

    def __init__(self, tokenizer: str) -> None:
        super().__init__(counting_tokenizer(tokenizer))

    def turns(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as the chat template takes them; all of their texts arrive, or there is a `CheckpointError`."""
        if not self._template:
            return tuple(messages)
        self._template.render(messages)
        return self._template.taken(messages)

    def count_prompt(self, messages: Sequence[Message]) -> int:
        """Counts the tokens of a prompt; without a chat template, what the server's own one adds is estimated."""
        if self._template:
            return self.count(self._template.render(messages))
        return _estimated_prompt(messages, self.count)
