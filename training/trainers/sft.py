"""Supervised fine-tuning on prompts and completions with TRL's trainer: the loss is the completion's alone."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from r1ranker_ir.backends.chat_template import lost_texts
from r1ranker_ir.backends.texts import ChatTokenizer
from r1ranker_ir.errors import CheckpointError, ContextLengthError, InputError, missing_extra
from r1ranker_ir.training.data.prompting import OPENING, PromptRenderer, sample_of
from r1ranker_ir.training.data.records import TAGS

try:
    import pyarrow
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
except ImportError as error:
    raise missing_extra("Supervised fine-tuning", "train", error) from error

logger = logging.getLogger(__name__)

NO_LOSS = -100
"""The label of a token that is read and not learned."""

_THINK, _THINK_END, *_ = TAGS
_ROWS_AT_ONCE = 1000
_CONTROL_TOKEN = "with a control token of the model in the completion"


@dataclass
class RankingSFTConfig(SFTConfig):  # type: ignore[misc]  # TRL's types are not all there
    """TRL's `SFTConfig`, with rows that are too long left out in place of cut."""

    max_length: int | None = field(
        default=None,
        metadata={"help": "Rows with more tokens are left out, never cut; by default the model's context."},
    )


def end_of_turn(tokenizer: Any, generation_config: Any) -> int:
    """Finds the token that ends each assistant's turn."""
    ends = ChatTokenizer(tokenizer).end_ids(generation_config)
    said = "Agreed."
    if getattr(tokenizer, "chat_template", None):
        turns = [{"role": "user", "content": "Agreed?"}, {"role": "assistant", "content": said}]
        try:
            after = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(said)[2]
        except Exception:  # a template is a program of its own; that it fails on prompts is told where they are made
            after = ""
        for token in tokenizer.encode(after, add_special_tokens=False):
            if token in ends:
                return int(token)
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            f"the tokenizer of {tokenizer.name_or_path!r} names no token that ends a turn: set its eos_token, or the "
            f"model would never learn to stop"
        )
    return int(tokenizer.eos_token_id)


class _LeftOut(Exception):
    """A row can't be trained on; the message is the reason that is counted."""


class CompletionTokenizer:
    """Turns rows of prompts and completions into token ids, the ids that the model gets and writes at inference."""

    def __init__(self, renderer: PromptRenderer, tokenizer: Any, *, end_id: int, max_length: int | None) -> None:
        self._renderer = renderer
        self._tokenizer = tokenizer
        self._end_id = end_id
        self._end_text = str(tokenizer.decode([end_id]))
        self._max_length = max_length
        tags = {token for tag in TAGS for token in self._ids(tag)}
        added = {token for token, told in tokenizer.added_tokens_decoder.items() if told.special}
        self._control_ids = (added | {*tokenizer.all_special_ids, end_id}) - tags

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def tokenize(self, rows: Dataset) -> Dataset:
        """Tokenizes rows, and leaves out and counts what can't be trained on."""
        reasons = Counter[str]()
        schema = pyarrow.schema([(name, pyarrow.list_(pyarrow.int32())) for name in ("input_ids", "labels")])
        tokenized = (ids for number, row in enumerate(rows, 1) if (ids := self._try(row, number, reasons)) is not None)
        tables = [schema.empty_table()]
        while several := list(islice(tokenized, _ROWS_AT_ONCE)):
            tables.append(pyarrow.Table.from_pylist(several, schema))
        table = pyarrow.concat_tables(tables)
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        if not len(table):
            raise InputError(f"none of {len(rows)} rows can be trained on: {why or 'there are no rows'}")
        if reasons:
            logger.warning("%d of %d rows are left out: %s", sum(reasons.values()), len(rows), why)
        return Dataset(table)

    def _try(self, row: Mapping[str, Any], number: int, reasons: Counter[str]) -> dict[str, list[int]] | None:
        try:
            prompt, completion = self.row_ids(row)
            if self._max_length is not None and len(prompt) + len(completion) > self._max_length:
                raise _LeftOut(f"longer than {self._max_length} tokens (max_length)")
        except _LeftOut as left_out:
            reasons[str(left_out)] += 1
            return None
        except (InputError, CheckpointError) as error:
            raise type(error)(f"row {number}: {error}") from error
        return {"input_ids": prompt + completion, "labels": [NO_LOSS] * len(prompt) + completion}

    def row_ids(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Tokenizes one row."""
        if "prompt" not in row:
            try:
                call = self._renderer.render(sample_of(row))
            except ContextLengthError as error:
                logger.info("left out: %s", error)
                raise _LeftOut("whose query leaves no room for passages") from error
            return self._renderer.prompt_ids(call.messages), self._turn_ids(row["completion"])
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str):
            ended = completion if completion.endswith(self._end_text) else completion + self._end_text
            return _parted(self._tokenizer(prompt)["input_ids"], self._tokenizer(prompt + ended)["input_ids"])
        completion = [{**turn, "content": self._unended(turn["content"])} for turn in completion]
        said = [turn["content"] for turn in completion]
        if not self._control_ids.isdisjoint(token for text in said for token in self._ids(text)):
            raise _LeftOut(_CONTROL_TOKEN)
        if len(said) == 1 and (said[0].lstrip().startswith(_THINK) or _THINK_END in said[0]):
            # Many chat templates leave an earlier thought out, so this does not go through one.
            return self._renderer.prompt_ids(prompt), self._turn_ids(said[0])
        return self._rendered_ids(prompt, completion, said)

    def _rendered_ids(
        self, prompt: Sequence[Mapping[str, str]], completion: Sequence[Mapping[str, str]], said: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        """Tokenizes turns without a thought as the chat template writes them, if it writes all that they say."""
        shown = self._renderer.prompt_ids(prompt, thinks=False)
        begun, learned, whole = list[int](), list[int](), False
        try:
            both = (self._turns_ids(prompt, add_generation_prompt=True), self._turns_ids([*prompt, *completion]))
            begun, learned = _parted(*both)
            whole = begun == shown and not self._lost(learned, said)
        except InputError:
            # What the renderer makes of turns that the template refuses, ranking does as well.
            if len(said) > 1 or not getattr(self._tokenizer, "chat_template", None):
                raise
        if len(said) == 1:
            # Where the template ends a turn with something else, the model would not learn to stop.
            return (begun, learned) if whole and self._end_id in learned else (shown, self._plain_ids(said[0]))
        if not whole:
            raise InputError(
                f"the chat template of {self._tokenizer.name_or_path!r} does not write several turns as they are, of "
                f"the completion that begins {said[0][:60]!r}: make a row of each assistant's turn, with the turns "
                "before it as its prompt"
            )
        return begun, learned if self._end_id in learned else [*learned, self._end_id]

    def _lost(self, ids: Sequence[int], said: Sequence[str]) -> list[int]:
        """The places of what was said and tokens do not hold."""
        return lost_texts(self._tokenizer.decode(ids), [self._tokenizer.decode(self._ids(text)) for text in said])

    def _unended(self, text: str) -> str:
        """A turn's text without the token that ends it, which every turn is given anyway."""
        bare = text.rstrip()
        return bare.removesuffix(self._end_text) if bare.endswith(self._end_text) else text

    def _turn_ids(self, completion: str) -> list[int]:
        """Tokenizes an assistant's turn from behind the opening that the prompt holds, and ends it."""
        text = self._unended(completion).strip()
        if text.startswith(_THINK):
            text = text.removeprefix(_THINK).lstrip()
        return self._behind(OPENING, text)

    def _plain_ids(self, completion: str) -> list[int]:
        """Tokenizes an assistant's turn without a thought, as it follows a prompt, and ends it."""
        text = self._unended(completion).strip()
        if not text:
            raise _LeftOut("without a completion")
        return self._behind("\n", text)

    def _behind(self, opening: str, text: str) -> list[int]:
        # Tokenized behind the opening: alone, some tokenizers would put a space in front of it.
        before, both = self._ids(opening), self._ids(opening + text)
        ids = both[len(before) :] if both[: len(before)] == before else self._ids(text)
        if not self._control_ids.isdisjoint(ids):
            raise _LeftOut(_CONTROL_TOKEN)
        return [*ids, self._end_id]

    def _turns_ids(self, turns: Sequence[Mapping[str, str]], **options: Any) -> list[int]:
        try:
            return list(self._tokenizer.apply_chat_template(list(turns), tokenize=True, return_dict=False, **options))
        except Exception as error:  # a template is a program of its own, and may raise anything
            raise InputError(
                f"the tokenizer of {self._tokenizer.name_or_path!r} can't render turns ({error}): give prompt and "
                f"completion as text"
            ) from error


def _parted(prompt: Sequence[int], whole: Sequence[int]) -> tuple[list[int], list[int]]:
    """Splits a whole row where it leaves its prompt, as TRL does: tokens may merge across the seam."""
    pairs = zip(prompt, whole, strict=False)
    length = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(prompt), len(whole)))
    if length == len(whole):
        raise _LeftOut("without a completion")
    return list(whole[:length]), list(whole[length:])


def sft_trainer(
    model: Any, *, args: RankingSFTConfig, train_dataset: Dataset, renderer: PromptRenderer, tokenizer: Any, **more: Any
) -> SFTTrainer:
    """Builds TRL's trainer for supervised fine-tuning of a loaded model on prompts and completions."""
    max_length = args.max_length if args.max_length is not None else renderer.context_length
    if args.packing and args.max_length is None:
        raise InputError("packing is on and max_length is not set: give the length of a packed row in tokens")
    end_id = end_of_turn(tokenizer, model.generation_config)
    rows = CompletionTokenizer(renderer, tokenizer, end_id=end_id, max_length=max_length).tokenize(train_dataset)
    trainer = SFTTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer, **more)
    # Generation stops at the token that the model learns to end its turn with.
    stated = trainer.model.generation_config.eos_token_id
    ends = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if end_id not in ends:
        trainer.model.generation_config.eos_token_id = [end_id, *ends]
    return trainer
