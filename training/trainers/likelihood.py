"""Distillation into query likelihoods: the softmax of log P(query | candidate) over a list learns the gains' shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from r1ranker_ir.errors import ContextLengthError, InputError, missing_extra
from r1ranker_ir.training.data.prompting import PromptRenderer, sample_of

try:
    import torch
    from torch.nn import functional
    from transformers import Trainer, TrainingArguments
except ImportError as error:
    raise missing_extra("Distillation", "train", error) from error

NO_SCORE = -100
"""The label of a token that is read and not scored."""


@dataclass
class LikelihoodConfig(TrainingArguments):
    """transformers' `TrainingArguments` and what query likelihoods add; a row of a batch is a list."""

    score_scale: float = field(
        default=0.4, metadata={"help": "What a log-likelihood is multiplied by before the softmax over a list."}
    )
    base_weight: float = field(
        default=0.0, metadata={"help": "Power of the base's own softmax, by which gains are multiplied."}
    )
    pad_to_multiple_of: int = field(default=32, metadata={"help": "Widths of batches are rounded up to it."})
    held_out_every: int = field(default=0, metadata={"help": "Steps between measurements on the held-out lists."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Leave it off."})

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        for name, makes_sense, wanted in (
            ("score_scale", self.score_scale > 0, "a number above 0, such as 0.4"),
            ("base_weight", self.base_weight >= 0, "at least 0"),
            ("pad_to_multiple_of", self.pad_to_multiple_of >= 1, "at least 1"),
        ):
            if not makes_sense:
                raise InputError(f"{name} is {getattr(self, name)}: give {wanted}")


def query_likelihoods(model: Any, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Computes log P(query | prompt) of each row, summed over the query's tokens, in float32: (rows,).

    `input_ids` are prompts, each with its query behind it, padded on the right: (rows, width); `labels` are the same at
    the query's tokens, and `NO_SCORE` elsewhere.
    """
    scored = (labels != NO_SCORE).any(0).nonzero()
    first, last = int(scored[0]), int(scored[-1])
    # A token is predicted where the one before it stands.
    places = torch.arange(first - 1, last, device=input_ids.device)
    logits = model(input_ids=input_ids[:, : last + 1], use_cache=False, logits_to_keep=places).logits
    wanted = labels[:, first : last + 1]
    rows, columns = (wanted != NO_SCORE).nonzero(as_tuple=True)
    told = -functional.cross_entropy(logits[rows, columns].float(), wanted[rows, columns], reduction="none")
    return torch.zeros(len(labels), device=told.device).index_add(0, rows, told)


def list_loss(scores: torch.Tensor, shares: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Computes the mean over lists of KL(shares || softmax of scores), in nats; lists stand one after the other."""
    losses = [
        functional.kl_div(each.log_softmax(0), share, reduction="sum")
        for each, share in zip(scores.split(list(lengths)), shares.split(list(lengths)), strict=True)
    ]
    return torch.stack(losses).mean()


def shares_with_base(shares: torch.Tensor, scores: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Multiplies each list's shares by the softmax of its scores, and makes them sum to 1 again."""
    both = shares.log() + scores
    return torch.cat([each.softmax(0) for each in both.split(list(lengths))])


@dataclass(frozen=True)
class ListCollator:
    """Renders lists as the strategy `likelihood` asks about them, and pads them to a multiple of `multiple`."""

    renderer: PromptRenderer
    pad_id: int
    multiple: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Puts lists together: `input_ids` and `labels` a candidate a row, `shares` and `lengths`."""
        pairs, shares, lengths = [], [], []
        for row in rows:
            record = sample_of(row).record
            pairs += self.renderer.scored_ids(record)
            shares += [gain / sum(record.gains) for gain in record.gains]
            lengths.append(len(record.gains))
        width = max(len(prompt) + len(query) for prompt, query in pairs)
        width += -width % self.multiple
        ids = torch.full((len(pairs), width), self.pad_id)
        labels = torch.full((len(pairs), width), NO_SCORE)
        for number, (prompt, query) in enumerate(pairs):
            end = len(prompt) + len(query)
            ids[number, :end] = torch.tensor([*prompt, *query])
            labels[number, len(prompt) : end] = torch.tensor(query)
        return {"input_ids": ids, "labels": labels, "shares": torch.tensor(shares), "lengths": lengths}


class LikelihoodTrainer(Trainer):
    """transformers' trainer with whole lists for rows, each of which needs a gain and room in the context."""

    def __init__(
        self,
        model: Any,
        *,
        args: LikelihoodConfig,
        train_dataset: Any,
        renderer: PromptRenderer,
        processing_class: Any,
        peft_config: Any = None,
        **options: Any,
    ) -> None:
        _check_rows(train_dataset, renderer)
        if peft_config is not None:
            from peft import get_peft_model

            model = get_peft_model(model, peft_config)
        if args.base_weight and not hasattr(model, "peft_config"):
            raise InputError(f"base_weight is {args.base_weight}, and there is no adapter on a base: add use_peft")
        # Padding is on the right, behind what is scored: any token will do.
        collator = ListCollator(renderer, processing_class.pad_token_id or 0, args.pad_to_multiple_of)
        super().__init__(model, args, collator, train_dataset, processing_class=processing_class, **options)
        # Accumulated losses are averaged by the trainer: ours are means over lists already.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Computes `list_loss` of a batch."""
        config: Any = self.args
        shares = inputs["shares"]
        if config.base_weight:
            with torch.no_grad(), self.accelerator.unwrap_model(self.model).disable_adapter():
                base = self._likelihoods(model, inputs)
            shares = shares_with_base(shares, config.base_weight * config.score_scale * base, inputs["lengths"])
        scores = config.score_scale * self._likelihoods(model, inputs)
        loss = list_loss(scores, shares, inputs["lengths"])
        return (loss, {"scores": scores}) if return_outputs else loss

    def _likelihoods(self, model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        unwrapped = self.accelerator.unwrap_model(self.model)
        without_casts: AbstractContextManager[Any] = nullcontext()
        if self.accelerator.mixed_precision != "no" and hasattr(unwrapped, "peft_config"):
            from peft.helpers import disable_input_dtype_casting

            # Spares an adapter in float32 the copies that peft makes of its inputs, which autocast takes back at once.
            without_casts = disable_input_dtype_casting(unwrapped)
        with self.accelerator.autocast(), without_casts:
            return query_likelihoods(model, inputs["input_ids"], inputs["labels"])


def _check_rows(rows: Any, renderer: PromptRenderer) -> None:
    for number, row in enumerate(rows, 1):
        record = sample_of(row).record
        named = f"row {number}, request {record.request.query_id!r}"
        if not max(record.gains) > 0:
            raise InputError(f"{named}: no candidate has a gain: leave such lists out")
        try:
            renderer.scored_ids(record)
        except ContextLengthError as error:
            raise InputError(f"{named}: {error}") from error
