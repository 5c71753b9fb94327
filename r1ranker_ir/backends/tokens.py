"""How many tokens a text takes on a model that is not loaded here: counted by its tokenizer, or estimated."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Protocol

from r1ranker_ir.errors import CheckpointError, missing_extra
from r1ranker_ir.small_model import located
from r1ranker_ir.types import Message

from .chat_template import ChatTemplate
from .checkpoint_parts import load_tokenizer
from .foreign_code import needs_foreign_code
from .texts import ChatTokenizer

CHAT_CONTROL_TOKENS: tuple[str, ...] = (
    # ChatML: Qwen and many others
    *("<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>"),
    # Llama 3 and 4
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
    *("<|python_tag|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|eom|>"),
    # Llama 2 and Mistral
    *("<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    *("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    *("[THINK]", "[/THINK]"),
    # Gemma
    *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"),
    # Phi, GLM, Granite and Falcon
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|observation|>", "<|start_of_role|>", "<|end_of_role|>"),
    # gpt-oss
    *("<|start|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>", "<|return|>", "<|startoftext|>"),
    # DeepSeek, with full-width bars
    *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>"),
    *("<｜tool▁calls▁end｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"),
    # Command R
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
)
"""What the chat templates in common use write as structure; for servers whose tokenizer is not at hand."""

_PIECE = re.compile(r"(?P<letters>[A-Za-z]+)|(?P<other_script>[^\x00-\x7f]+)|\S|\n")
# The dearest common templates spend about 7 tokens on a turn, and add a dated system message of about 30.
_TOKENS_PER_MESSAGE = 8
_TOKENS_PER_PROMPT = 32


class TokenCounts(Protocol):
    """What can be known of a served model's tokens.

    Attributes:
        control_tokens: strings that the tokenizer reads as structure.
    """

    control_tokens: tuple[str, ...]

    def count(self, text: str) -> int:
        """Counts the tokens of plain text, without special ones."""
        ...

    def count_prompt(self, messages: Sequence[Message]) -> int:
        """Counts the tokens of a prompt with its chat template."""
        ...

    def turns(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as the served model's chat template takes them, so that no text is left out."""
        ...


class EstimatedCounts:
    """Estimates tokens from characters, rather too many than too few.

    A run of ASCII letters counts one token for every four started; every other visible ASCII character and every
    line break counts one; text in other scripts counts one for every two bytes of UTF-8. A prompt adds 8 for each
    message and 32 at its beginning. On English web passages that is about 1.4 times what a byte-pair tokenizer of
    32,000 entries needs, so passages are cut earlier than they would have to be; give a tokenizer where that matters.
    """

    control_tokens = CHAT_CONTROL_TOKENS

    def count(self, text: str) -> int:
        """Estimates the tokens of plain text."""
        total = 0
        for piece in _PIECE.finditer(text):
            if piece["letters"]:
                total += math.ceil(len(piece["letters"]) / 4)
            elif piece["other_script"]:
                total += math.ceil(len(piece["other_script"].encode("utf-8", "surrogatepass")) / 2)
            else:
                total += 1
        return total

    def turns(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as they are: of the template, nothing is known."""
        return tuple(messages)

    def count_prompt(self, messages: Sequence[Message]) -> int:
        """Estimates the tokens of a prompt, template included."""
        return _TOKENS_PER_PROMPT + sum(_TOKENS_PER_MESSAGE + self.count(message.content) for message in messages)


def counting_tokenizer(name: str, without: str) -> Any:
    """Loads a Hugging Face tokenizer that only counts tokens; code of its own is never run.

    Args:
        name: on the Hugging Face hub, or a folder.
        without: how to do without it, for errors.

    Returns:
        The tokenizer.

    Raises:
        MissingExtraError: if transformers is not installed.
        CheckpointError: if it can't be loaded, or needs code of its own.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise missing_extra("counting tokens with a Hugging Face tokenizer", "local", error) from error
    try:
        # Left out, transformers would ask on standard input whether to run the tokenizer's own code.
        return load_tokenizer(name, {"revision": located(name)[1], "trust_remote_code": False})
    except (OSError, ValueError) as error:
        if needs_foreign_code(error):
            raise CheckpointError(
                f"the tokenizer {name!r} needs Python code that comes with it, and such code is not run: give a "
                f"tokenizer of the same vocabulary that needs none, or {without}"
            ) from error
        raise CheckpointError(
            f"the tokenizer {name!r} can't be loaded ({error}): give the model's hub name or folder, or {without}"
        ) from error


class TokenizerCounts:
    """Counts tokens with a Hugging Face tokenizer.

    Args:
        tokenizer: name on the Hugging Face hub, folder or GGUF file.

    Raises:
        MissingExtraError: if transformers is not installed.
        CheckpointError: if the tokenizer can't be loaded.
    """

    def __init__(self, tokenizer: str) -> None:
        loaded = counting_tokenizer(tokenizer, "`tokenizer=None` to have tokens estimated")
        self._tokenizer = loaded
        self._chat: ChatTokenizer | None = None
        self._template = ChatTemplate(loaded)
        self.control_tokens = tuple(
            sorted({*loaded.get_added_vocab(), *loaded.all_special_tokens, *self._template.marks})
        )

    def count(self, text: str) -> int:
        """Counts the tokens of plain text, without special ones."""
        return len(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def turns(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as the chat template takes them; all of their texts arrive, or there is a `CheckpointError`."""
        if not self._template:
            return tuple(messages)
        self._template.render(messages)
        return self._template.taken(messages)

    def rendered(self, messages: Sequence[Message], *, thinks: bool | None) -> str:
        """The prompt as the chat template writes it, opened as on the `transformers` backend; see `ChatTemplate.open`.

        Raises:
            CheckpointError: if there is no chat template, it raises an error, or it leaves a turn's text out.
        """
        if not self._template:
            raise CheckpointError(f"the tokenizer of {self._template.name!r} has no chat template: give one that has")
        return self._template.open(messages, thinks=thinks)

    def scored_ids(self, messages: Sequence[Message], continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens of a prompt and of what the assistant says behind it, as on the `transformers` backend."""
        if self._chat is None:
            self._chat = ChatTokenizer(self._tokenizer)
        return tuple(self._chat.prompt_ids(messages, thinks=False)), self._chat.said_ids(continuation)

    def count_prompt(self, messages: Sequence[Message]) -> int:
        """Counts the tokens of a prompt as the tokenizer's chat template renders it.

        Where the tokenizer has no chat template, the server's own template is not known; its tokens are then estimated
        at 8 a message and 32 for the prompt.

        Raises:
            CheckpointError: if the chat template raises an error, or leaves a turn's text out.
        """
        if self._template:
            return self.count(self._template.render(messages))
        return _TOKENS_PER_PROMPT + sum(_TOKENS_PER_MESSAGE + self.count(message.content) for message in messages)
