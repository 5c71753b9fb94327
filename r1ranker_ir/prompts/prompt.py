"""A template bound to a model's limits: requests in, calls out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, Protocol

from r1ranker_ir.cutting import LONGEST_CLUSTER, cut_at_word
from r1ranker_ir.errors import ContextLengthError, InputError
from r1ranker_ir.types import Answer, Call, Message, Question, RankingRequest, Task

from .answers import Reading
from .neutral import Neutraliser
from .normal_forms import normalize
from .template import TaskForm
from .text_cache import TextCache

logger = logging.getLogger(__name__)

# What is remembered of passages: neutral, cut and counted, each up to so many bytes.
_TEXT_BYTES = 32 * 2**20
# A query comes again with the next step of its ranking, while a batch of others is under way.
_QUERY_BYTES = 2 * 2**20
_CACHED_SECTIONS = 256
# A backend's answer_reserve holds an order of so many identifiers, such as "[12] > " spelt out in single characters.
_RESERVED_IDENTIFIERS, _TOKENS_PER_IDENTIFIER = 20, 8
# What a text's tokens may be more inside a prompt than alone, and a wording's around what is filled in.
_TOKENS_AT_SEAMS, _TOKENS_AT_WORDING_SEAMS = 8, 64
# Tags that a template of one's own writes around candidates; those of the protocol are always neutralised.
_TAG_NAME = re.compile(r"</?([^\W\d][\w-]*)")
GRADES = tuple(f"[{grade}]" for grade in range(11))
"""What may be answered of a candidate that is shown alone, from useless to perfect."""


class TextLimits(Protocol):
    """What a prompt must know of the model: its context and how it counts; every backend fulfils it."""

    context_length: int | None
    answer_reserve: int
    control_tokens: tuple[str, ...]

    def count_tokens(self, text: str) -> int: ...

    def cut_text(self, text: str, max_tokens: int) -> str: ...

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int: ...


class PromptTemplate(Protocol):
    """What a prompt must know of a template: `Template` and `FamilyTemplate` fulfil it, and document it."""

    @property
    def name(self) -> str: ...

    @property
    def wordings(self) -> Mapping[str, Any]: ...

    @property
    def thinks(self) -> bool: ...

    @property
    def tagged(self) -> bool: ...

    @property
    def keeps_brackets(self) -> bool: ...

    @property
    def identifier_pattern(self) -> re.Pattern[str]: ...

    def wording(self, strategy: str, task: str) -> Any: ...

    def form(self, task: str) -> TaskForm: ...

    def shows_aim(self, strategy: str, task: str) -> bool: ...

    def only(self, strategy: str) -> PromptTemplate: ...

    def digest(self, *, mark: bool = False) -> str: ...

    def texts(self) -> Iterable[str]: ...

    def identifiers(self, count: int) -> tuple[str, ...]: ...

    def messages(
        self, strategy: str, query: str, texts: Sequence[str], task: str, aim: str = "", excluded: str = ""
    ) -> tuple[Message, ...]: ...

    def unfilled(self, strategy: str, task: str) -> tuple[Message, ...] | None: ...

    def read(self, output: str, count: int, form: Literal["one", "order"], *, published: bool = False) -> Reading: ...


def answer_tokens(limits: TextLimits, call: Call) -> int:
    """The most tokens that thought and answer of a call may take."""
    return _reserve(limits, len(call.identifiers) if call.form == "order" else 1)


def _reserve(limits: TextLimits, ordered: int) -> int:
    """What is kept free of the context for a thought and an order of so many identifiers."""
    return limits.answer_reserve + _TOKENS_PER_IDENTIFIER * max(0, ordered - _RESERVED_IDENTIFIERS)


def _equal_limit(lengths: Sequence[int], room: int) -> int:
    """The greatest limit under which texts of these lengths, each cut to it, fit into the room together."""
    limit, left = 0, room
    for rank, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - rank)
        if length > share:
            return share
        limit, left = length, left - length
    return limit


def _bytes(text: str) -> int:
    """The most bytes that a text takes as a tokenizer may read it, and so the most tokens: each stands for one or more.

    Compatible decomposition is the longest form that normalisers make.
    """
    if text.isascii():
        return len(text)
    return max(len(form.encode("utf-8", "replace")) for form in (text, normalize("NFKD", text)))


def _own_tags(template: PromptTemplate) -> set[str]:
    """How the tags begin that a template writes around queries and candidates."""
    names = {name for text in template.texts() for name in _TAG_NAME.findall(text)} - {"think", "answer"}
    return {f"{opening}{name}" for opening in ("<", "</") for name in names}


class Prompt:
    """Renders the calls of the strategies so that they fit the model.

    Args:
        template: the wording.
        limits: the model's context and tokenizer.
        max_passage_tokens: a passage is cut to this many tokens, at a word's end where one fits; `None` for no limit of
            its own. Something is left of each text: where the first letter alone takes more tokens, that letter.
        max_query_tokens: the same of a query; of one that is a user's choices, the latest ones are kept.
        published: have answers written freely and read as the template's own system does, in place of choosing among
            the identifiers.

    Raises:
        InputError: if a limit is less than 1.
    """

    def __init__(
        self,
        template: PromptTemplate,
        limits: TextLimits,
        *,
        max_passage_tokens: int | None = None,
        max_query_tokens: int | None = None,
        published: bool = False,
    ) -> None:
        for name, limit in (("max_passage_tokens", max_passage_tokens), ("max_query_tokens", max_query_tokens)):
            if limit is not None and limit < 1:
                raise InputError(f"{name} is {limit}: give at least 1, or None for no limit")
        self.template = template
        self.limits = limits
        self.max_passage_tokens = max_passage_tokens
        self.max_query_tokens = max_query_tokens
        self.published = published
        self._warned: set[tuple[str, str]] = set()
        structure = (*limits.control_tokens, *_own_tags(template))
        kept = published and template.keeps_brackets
        neutraliser = Neutraliser(structure, None if kept else template.identifier_pattern)
        self._neutral: Callable[[str], str] = TextCache(neutraliser, _TEXT_BYTES)
        self._neutral_query: Callable[[str], str] = TextCache(neutraliser, _QUERY_BYTES)
        self._cut: Callable[[str, int], str] = TextCache(self._cut_text, _TEXT_BYTES)
        self._shown_query: Callable[[str, Task], tuple[str, bool]] = TextCache(self._query, _QUERY_BYTES)
        self._count: Callable[[str], int] = TextCache(limits.count_tokens, _TEXT_BYTES)
        self._unfilled: Callable[[str, Task], int | None] = lru_cache(maxsize=_CACHED_SECTIONS)(self._count_unfilled)

    def exclude_one(self, request: RankingRequest, shown: Sequence[int], repairs_before: int = 0) -> Call:
        """Asks for the least relevant of the shown candidates.

        Args:
            request: the query and all candidates.
            shown: positions of those to show, in prompt order.
            repairs_before: repairs of the same ranking so far.

        Returns:
            The call.

        Raises:
            ContextLengthError: if query and instructions leave no room for passages.
        """
        return self._call("iterative", "one", request, shown, repairs_before)

    def exclude_unmarked(
        self, request: RankingRequest, shown: Sequence[int], marked: Sequence[int], repairs_before: int = 0
    ) -> Call:
        """Asks for the least relevant of those shown candidates that are not excluded yet, and names the excluded.

        Args:
            request: the query and all candidates.
            shown: positions of those to show, in prompt order: the same ones with every call.
            marked: positions of those excluded, in the order of their exclusion, so that the line that names them
                only grows.
            repairs_before: repairs of the same ranking so far.

        Returns:
            The call; its identifiers are those of the candidates that are left.

        Raises:
            InputError: if the template has no section for it.
            ContextLengthError: if query and instructions leave no room for passages.
        """
        return self._call("mark", "one", request, shown, repairs_before, marked)

    def order_all(self, request: RankingRequest, shown: Sequence[int], repairs_before: int = 0) -> Call:
        """Asks for the order of all shown candidates; arguments and errors as for `exclude_one`."""
        return self._call("direct", "order", request, shown, repairs_before)

    def choose_best(self, request: RankingRequest, shown: Sequence[int], repairs_before: int = 0) -> Call:
        """Asks for the most relevant of the shown candidates; arguments and errors as for `exclude_one`."""
        return self._call("setwise", "one", request, shown, repairs_before)

    def read(self, call: Call, answer: Answer) -> Reading:
        """Reads an answer of which the text is all there is.

        Args:
            call: the question, which let every candidate shown be answered.
            answer: without a choice.

        Returns:
            The indices of the call's identifiers that were answered, and whether all was in order.
        """
        return self.template.read(answer.text, len(call.identifiers), call.form, published=self.published)

    def grade_one(self, request: RankingRequest, position: int, repairs_before: int = 0) -> Call:
        """Asks how well one candidate serves the query, from 0 to 10; arguments and errors as for `exclude_one`."""
        return self._call("pointwise", "one", request, (position,), repairs_before)

    def ask(self, question: Question, repairs_before: int = 0) -> Call:
        """Renders a question, such as another call's with its candidates in another order; as the methods above do."""
        form: Literal["one", "order"] = "order" if question.section == "direct" else "one"
        return self._call(question.section, form, question.request, question.shown, repairs_before, question.marked)

    def _call(
        self,
        strategy: str,
        form: Literal["one", "order"],
        request: RankingRequest,
        shown: Sequence[int],
        repairs_before: int,
        marked: Sequence[int] = (),
    ) -> Call:
        if request.aim and (strategy, request.task) not in self._warned:
            self._warned.add((strategy, request.task))
            if not self.template.shows_aim(strategy, request.task):
                logger.warning(
                    "template %r does not show what is wanted (%r): the model is not told. Put {aim} into its "
                    "wording for task %r, or use another template",
                    self.template.name,
                    request.aim,
                    request.task,
                )
        full = [self._neutral(request.candidates[position].text) for position in shown]
        limit = self.max_passage_tokens
        texts = full if limit is None else [self._cut(text, limit) for text in full]
        query, cut_query = self._shown_query(request.query, request.task)
        names = self.template.identifiers(len(shown))
        # What fits with the longest line of exclusions fits with every one: passages are cut alike in all calls.
        longest = "".join(names) if strategy == "mark" else ""
        texts, messages = self._fit(strategy, request, query, full, texts, longest)
        excluded = [names[shown.index(position)] for position in marked]
        if strategy == "mark":
            messages = self._render(strategy, request, query, texts, "".join(excluded))
        cut = sum(text != whole for text, whole in zip(texts, full, strict=True))
        left = tuple(name for name in names if name not in excluded)
        return Call(
            messages,
            GRADES if strategy == "pointwise" else left,
            form,
            cut,
            repairs_before,
            cut_query,
            thinks=self.template.thinks,
            tagged=self.template.tagged,
            free=self.published,
            question=Question(strategy, request, tuple(shown), tuple(marked)),
        )

    def _query(self, query: str, task: Task) -> tuple[str, bool]:
        """The query as it is shown, and whether it was cut."""
        form, limit = self.template.form(task), self.max_query_tokens
        if task != "item":
            whole = self._neutral_query(query)
            shown = whole if limit is None else self._cut_text(whole, limit)
            return shown, shown != whole
        lines = [line for each in query.splitlines() if (line := self._neutral(each))]
        kept = list(lines)
        while limit is not None and len(kept) > 1 and self.limits.count_tokens(form.query_separator.join(kept)) > limit:
            kept = kept[1:]
        if limit is not None and len(kept) == 1:
            kept = [self._cut_text(kept[0], limit)]
        joined = form.query_separator.join(reversed(kept) if form.query_reversed else kept)
        # What two lines make together must be as harmless as each of them.
        plain = " ".join(joined.split())
        harmless = self._neutral_query(plain)
        return (joined if harmless == plain else harmless), kept != lines

    def _cut_text(self, text: str, limit: int) -> str:
        """Cuts a text; what is left is not blank unless the text is."""
        cut = self.limits.cut_text(text, limit)
        if not cut and text:
            # A backend of one's own may cut between words only.
            cut = cut_at_word(text, limit, self.limits.count_tokens)
        return text if cut == text else cut

    def _render(
        self, strategy: str, request: RankingRequest, query: str, texts: Sequence[str], excluded: str = ""
    ) -> tuple[Message, ...]:
        aim = self._neutral(request.aim)
        return self.template.messages(strategy, query, texts, request.task, aim, excluded)

    def _fit(
        self, strategy: str, request: RankingRequest, query: str, full: list[str], texts: list[str], excluded: str
    ) -> tuple[list[str], tuple[Message, ...]]:
        """Cuts the longest passages until the prompt leaves room for the answer.

        `texts` are the passages as they are to be shown where there is room for them, `full` the whole ones. Cuts are
        made of the whole ones: whether one may fall inside a word depends on how long the whole word is.
        """
        messages = self._render(strategy, request, query, texts, excluded)
        if self.limits.context_length is None:
            return texts, messages
        reserve = _reserve(self.limits, len(texts) if strategy == "direct" else 1)
        budget = self.limits.context_length - reserve
        if self._fits_surely(strategy, request.task, messages, texts, budget):
            return texts, messages
        total = self.limits.count_prompt_tokens(messages)
        shown, lengths = texts, [self._count(text) for text in texts]
        around = total - sum(lengths)
        room = budget - around
        while total > budget:
            limit = _equal_limit(lengths, room)
            if limit < 1:
                raise ContextLengthError(self._no_room(request, strategy, around, reserve, len(texts)))
            texts = [
                text if length <= limit else self._cut(whole, limit)
                for text, whole, length in zip(shown, full, lengths, strict=True)
            ]
            messages = self._render(strategy, request, query, texts, excluded)
            total = self.limits.count_prompt_tokens(messages)
            # Tokens at the seams can differ from the sum of the parts: take the excess off and try again.
            room = sum(min(length, limit) for length in lengths) - max(1, total - budget)
        return texts, messages

    def _count_unfilled(self, strategy: str, task: Task) -> int | None:
        """How many tokens less than bytes a prompt takes that has next to nothing filled in, seams considered.

        `None` where every candidate brings turns of its own, with what the chat template writes around each.
        """
        messages = self.template.unfilled(strategy, task)
        if messages is None:
            return None
        saved = sum(_bytes(message.content) for message in messages) - self.limits.count_prompt_tokens(messages)
        return saved - _TOKENS_AT_WORDING_SEAMS

    def _fits_surely(
        self, strategy: str, task: Task, messages: Sequence[Message], texts: Sequence[str], budget: int
    ) -> bool:
        """Whether a prompt fits by what it takes at most: to tokenize it takes longer than all else about a call."""
        unfilled = self._unfilled(strategy, task)
        if unfilled is None:
            return False
        most = sum(_bytes(message.content) for message in messages) - unfilled
        limit = self.max_passage_tokens
        if most > budget:
            # Of a text that was cut to its first letter, the limit says nothing.
            known = [self._count(text) if limit is None or len(text) <= LONGEST_CLUSTER else limit for text in texts]
            spared = (_bytes(text) - tokens - _TOKENS_AT_SEAMS for text, tokens in zip(texts, known, strict=True))
            most -= sum(spare for spare in spared if spare > 0)
        return most <= budget

    def _no_room(self, request: RankingRequest, strategy: str, around: int, reserve: int, count: int) -> str:
        name = f"query {request.query_id!r}" if request.query_id else f"query {request.query[:60]!r}"
        query_tokens = self.limits.count_tokens(self._neutral_query(request.query))
        return (
            f"{name} does not fit: the {strategy} prompt takes {around} tokens without any passage ({query_tokens} of "
            f"them the query's), {reserve} are kept for thought and answer, and the model's context "
            f"is {self.limits.context_length}. Shorten the query (max_query_tokens), show fewer than {count} "
            f"candidates (window_size), or lower max_thought_tokens."
        )
