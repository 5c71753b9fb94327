"""The requests to one chat server: what they hold, and what they hold no longer once the server has refused it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from r1ranker_ir.backends.chat_template import merged
from r1ranker_ir.backends.refusals import LIMIT_FIELDS, PARTS, LimitField, Part, RequestForm, is_vague
from r1ranker_ir.backends.replies import Reply
from r1ranker_ir.backends.structured import response_format, takes_schema
from r1ranker_ir.types import Answer, Call

_log = logging.getLogger(__name__)

# Between the samples of one call; runs with the seeds 0, 1, 2, … must not share any.
SEEDS_APART = 1_000_003
# With the likeliest 20 tokens beside each, a longer reply would take more than 10 MB.
_MOST_TOKENS_WITH_LOGPROBS = 4096
# Fields of `extra_body` by which users ask for what these parts ask for.
_ASKED_BY_HAND: Mapping[Part, tuple[str, ...]] = {
    "response_format": tuple(
        "response_format structured_outputs guided_json guided_choice guided_regex guided_grammar json_schema regex "
        "grammar ebnf tools".split()
    ),
    "logprobs": ("logprobs", "top_logprobs"),
}


class ChatRequests:
    """Makes the requests for calls, and remembers what a server takes.

    Args:
        model: the served model.
        options: fields of every request: temperature, seed and extra_body, where they are sent.
        limit_field: the field for the token limit; `auto` for the first of `limit_fields` that the server takes.
        left_out: fields that are never sent.
    """

    def __init__(
        self,
        model: str,
        options: Mapping[str, Any],
        limit_field: LimitField | Literal["auto"],
        limit_fields: tuple[LimitField, ...],
        left_out: frozenset[str],
    ) -> None:
        self._model = model
        self._options = options
        allowed = [field for field in limit_fields if field not in left_out and limit_field in ("auto", field)]
        body = options.get("extra_body") or {}
        by_hand = {part for part, names in _ASKED_BY_HAND.items() if any(name in body for name in names)}
        self.form = RequestForm(
            limit=allowed[0] if allowed else None,
            limit_is_fixed=len(allowed) < len(LIMIT_FIELDS),
            left_out=frozenset(part for part in PARTS if part in left_out or part in by_hand),
        )
        self._first_limit = self.form.limit
        self._followed: set[Part] = set()
        self._extras_matter = True

    def fields(self, call: Call, form: RequestForm, limit: int) -> dict[str, Any]:
        """What a request for a call holds, with a token limit."""
        turns = call.messages if form.sends("system") else merged(call.messages)
        # Lone surrogates, as broken JSON leaves them in passages, can't be sent as UTF-8.
        messages = [
            {"role": turn.role, "content": turn.content.encode("utf-8", "replace").decode("utf-8")} for turn in turns
        ]
        fields: dict[str, Any] = {"model": self._model, "messages": messages, **self._options}
        if form.limit is not None:
            fields[form.limit] = limit
        if "seed" in fields:
            fields["seed"] += SEEDS_APART * call.sample
        if takes_schema(call):
            fields["response_format"] = response_format(call)
            if call.form == "one" and form.sends("logprobs") and limit <= _MOST_TOKENS_WITH_LOGPROBS:
                fields |= {"logprobs": True, "top_logprobs": form.alternatives}
        return {name: value for name, value in fields.items() if name not in form.left_out}

    def after(self, form: RequestForm, status: int | None, words: str, fields: Mapping[str, Any]) -> RequestForm | None:
        """What to send after a refusal, if anything else may help."""
        parts = [*fields, *(["system"] if any(turn["role"] == "system" for turn in fields["messages"]) else [])]
        # The limit's other name was tried already.
        renamed = form.limit != self.form.limit
        further = form.after_refusal(status, words, parts, may_change_limit=not renamed)
        if further is None and renamed:
            return form.without_limit(status, words)
        if further is None and form.has_extras and self._extras_matter and not self._followed:
            return form.plain if is_vague(status, words) else None
        return further

    def refused(self, form: RequestForm) -> None:
        """Takes note that a request of this form was refused in the end: it was not for any extras."""
        if not form.has_extras:
            self._extras_matter = False

    def answered(self, form: RequestForm, fields: Mapping[str, Any], reply: Reply, answer: Answer) -> None:
        """Takes note of what the server took, and of what it knows nothing of."""
        if reply.content.strip() or answer.choice is not None:
            follows: dict[Part, bool] = {
                "response_format": answer.choice is not None or reply.content.lstrip().startswith("{"),
                "logprobs": bool(reply.tokens),
            }
            for part, followed in follows.items():
                if part in fields and followed:
                    self._followed.add(part)
                elif part in fields and part not in self._followed:
                    form = form.without(part)
        self.take(form)

    def take(self, form: RequestForm) -> None:
        """Takes note of a form that the server answers; what it refused of other requests meanwhile stays left out."""
        known = self.form
        form = replace(
            form,
            limit=known.limit if form.limit == self._first_limit else form.limit,
            left_out=form.left_out | known.left_out,
            alternatives=min(form.alternatives, known.alternatives),
        )
        if form == known:
            return
        # Without these, answers differ from what was asked for.
        counts = {"temperature", "seed"} & (form.left_out - self.form.left_out) & {*self._options}
        _log.log(
            logging.WARNING if counts else logging.INFO,
            "from here on %s is sent %s for the token limit, and not sent %s: the server does not take it",
            self._model,
            form.limit or "nothing",
            ", ".join(sorted(form.left_out)) or "nothing",
        )
        self.form = form

    def is_repeatable(self, form: RequestForm) -> bool:
        """Whether an answer is what was asked for: greedy, or by a seed, unless sampling without one was meant."""
        if not {"temperature", "seed"} & form.left_out & {*self._options}:
            return True
        greedy = self._options.get("temperature") == 0 and form.sends("temperature")
        return greedy or ("seed" in self._options and form.sends("seed"))
