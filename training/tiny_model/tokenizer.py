"""The embedded model's tokenizer: whole words in pieces, and one token for every mark of its protocol."""

from __future__ import annotations

import string
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from r1ranker_ir.training.demo.lexicon import PLURAL
from r1ranker_ir.training.demo.lists import IDENTIFIERS

from .examples import ASSISTANT, END, USER

WORD_END = "</w>"
PAD = "<|pad|>"
COUNTS = tuple(f"={count}" for count in range(10))
PLACES = tuple(f"@{place}" for place in range(1, 10))
MARKS = ("<think>", "</think>", "<answer>", "</answer>", ">", "\n", "+", "-", ";", *IDENTIFIERS, *COUNTS, *PLACES)

# Where decoding leaves no space between marks.
_NO_SPACE = ("\n [", "\n =", "> \n", "<answer> [", "] </answer>")

# The generation prompt opens the thought, so that any server that applies it gets one.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)


def train_tokenizer(words: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Trains a byte-pair encoding over lower-case words and adds the protocol's marks.

    The end of a word belongs to its last piece, so that a causal model can tell `cat` from `catalogue` at the piece
    itself. Everything but Latin letters and digits becomes a space: other scripts are lost.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex("[^a-z0-9]+"), " "),
            normalizers.Replace(Regex(PLURAL), ""),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    alphabet = string.ascii_lowercase + string.digits
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        end_of_word_suffix=WORD_END,
        initial_alphabet=list(alphabet),
        show_progress=False,
    )
    # Every character also ends a word somewhere, or a word ending in a rare one could not be encoded.
    tokenizer.train_from_iterator([*words, *alphabet, *alphabet], trainer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(WORD_END, " ")]
        + [decoders.Replace(mark, f"{mark} ") for mark in ("]", "+", "-", ">", ";")]
        + [decoders.Replace(mark, f" {mark}") for mark in ("[", "=", "@")]
        # From here on the whole text is one piece.
        + [decoders.Fuse(), decoders.Replace(Regex(" +"), " ")]
        + [decoders.Replace(spaced, spaced.replace(" ", "")) for spaced in _NO_SPACE]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (USER, ASSISTANT, END, PAD)])
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
