"""A template bound to a model's limits: requests in, calls out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import lru_cache, partial
from typing import Any, Protocol

from r1ranker_ir.errors import ContextLengthError, InputError
from r1ranker_ir.prompts.cutting import LONGEST_CLUSTER, cut_at_word
from r1ranker_ir.types import COMPARED, Answer, Call, Message, Question, RankingRequest, Task

from .answers import Form, Reading
from .details import Filling, details_of
from .neutral import Neutraliser
from .normal_forms import normalize
from .sections import Section, find_section
from .source_text import first_words, repaired
from .template import GRADES as GRADES
from .template import PromptTemplate as PromptTemplate
from .text_cache import TextCache
from .worked_examples import FindsExamples, example_text, examples_text, numbered_texts

logger = logging.getLogger(__name__)

# What is remembered of passages: neutral, cut and counted, each up to this many bytes.
_TEXT_BYTES = 32 * 2**20
# A query comes again with the next step of its ranking, while a batch of others is under way.
_QUERY_BYTES = 2 * 2**20
_CACHED_SECTIONS = 256
# A backend's answer_reserve holds an order of 20 identifiers, such as "[12] > " spelt out in single characters.
_RESERVED_IDENTIFIERS, _TOKENS_PER_IDENTIFIER, _ANSWER_TOKENS = 20, 8, 160
# What a text's tokens may be more inside a prompt than alone, and a wording's around what is filled in.
_TOKENS_AT_SEAMS, _TOKENS_AT_WORDING_SEAMS = 8, 64
# What is kept of a candidate's text where it is not to be answered: in a worked example, or beside thoughts.
_EXAMPLE_PASSAGE_TOKENS = 64
# Tags that a template of one's own writes around candidates; those of the protocol are always neutralised.
_TAG_NAME = re.compile(r"</?([^\W\d][\w-]*)")


class TextLimits(Protocol):
    """What a prompt must know of the model: its context and how it counts; every backend fulfils it."""

    context_length: int | None
    answer_reserve: int
    control_tokens: tuple[str, ...]

    def count_tokens(self, text: str) -> int:
        """Counts the tokens of plain text, without special ones."""
        ...

    def cut_text(self, text: str, max_tokens: int) -> str:
        """Returns the longest beginning that takes at most `max_tokens` tokens, in whole words if one fits."""
        ...

    def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Counts the tokens of a whole prompt with this model's chat template."""
        ...


def answer_tokens(limits: TextLimits, call: Call) -> int:
    """The most tokens that thought and answer of a call may take, or those of the text that it scores."""
    return _reserve(limits, call.form, len(call.identifiers), call.identifiers if call.named else (), call.continuation)


def _reserve(limits: TextLimits, form: Form, count: int, names: Sequence[str], continuation: str) -> int:
    """What is kept free for a thought and the answer: identifiers of `count` candidates, or their names or texts."""
    if continuation:
        return limits.count_tokens(continuation) + _TOKENS_AT_SEAMS
    ordered = count if form == "order" else 1
    reserve = limits.answer_reserve + _TOKENS_PER_IDENTIFIER * max(0, ordered - _RESERVED_IDENTIFIERS)
    lengths = [limits.count_tokens(name) + _TOKENS_AT_SEAMS for name in names]
    return reserve + max(0, (sum(lengths) if form == "order" else max(lengths, default=0)) - _ANSWER_TOKENS)


def _with_edges(plain: Callable[[str], str], text: str) -> str:
    """A neutralised text with the white space that stood around it."""
    inner = text.strip()
    if not inner:
        return text
    start = text.index(inner)
    return f"{text[:start]}{plain(inner)}{text[start + len(inner) :]}"


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


@dataclass(eq=False)
class Prompt:
    """Renders the calls of the strategies so that they fit the model.

    Args:
        template: the wording.
        limits: the model's context and tokenizer.
        max_passage_tokens: a passage is cut to this many tokens, at a word's end where one fits; `None` for no limit of
            its own. Something is left of each text: where the first letter alone takes more tokens, that letter.
        max_query_tokens: the same of a query; of one that is a user's choices, the latest ones are kept.
        published: have answers written freely and read as the template's own system does, in place of choosing among
            the identifiers; texts keep their line breaks where that system keeps them.
        max_passage_words: a passage is cut to this many words, those that white space separates, before its tokens are
            counted; `None` for no limit in words.
        repair_text: repair the characters of queries and passages before anything else; see `source_text.repaired`.
        examples: finds worked examples for a question, the most useful one first; as many are shown as there is room
            for beside whole passages.

    Raises:
        InputError: if a limit is less than 1.
        MissingExtraError: if text must be repaired and ftfy is not installed.
    """

    template: PromptTemplate
    limits: TextLimits
    _: KW_ONLY
    max_passage_tokens: int | None = None
    max_query_tokens: int | None = None
    published: bool = False
    max_passage_words: int | None = None
    repair_text: bool = False
    examples: FindsExamples | None = None

    def __post_init__(self) -> None:
        for name in ("max_passage_tokens", "max_query_tokens", "max_passage_words"):
            if (limit := getattr(self, name)) is not None and limit < 1:
                raise InputError(f"{name} is {limit}: give at least 1, or None for no limit")
        template, limits = self.template, self.limits
        if self.repair_text:
            # What is missing is said before a model is asked, not with the first query.
            repaired("")
        self._warned: set[tuple[str, str]] = set()
        structure = (*limits.control_tokens, *_own_tags(template))
        identifier = None if self.published and template.keeps_brackets else template.identifier_pattern
        # Passages are not remembered by `_neutral` as well: they are shown in no other place.
        self._neutralise = Neutraliser(structure, identifier, keep_lines=self.published and template.keeps_lines)
        self._neutral: Callable[[str], str] = TextCache(self._neutralise, _TEXT_BYTES).of
        whole = Neutraliser(structure, None, keep_lines=True)
        self._neutral_lines: Callable[[str], str] = TextCache(partial(_with_edges, whole), _QUERY_BYTES).of
        self._passage: Callable[[str], tuple[str, bool]] = TextCache(self._read_passage, _TEXT_BYTES).of
        self._cut: Callable[[tuple[str, int]], str] = TextCache(self._cut_text, _TEXT_BYTES).of
        self._shown_query: Callable[[tuple[str, Task]], tuple[str, bool]] = TextCache(self._query, _QUERY_BYTES).of
        self._count: Callable[[str], int] = TextCache(limits.count_tokens, _TEXT_BYTES).of
        self._unfilled: Callable[[str, Task], int | None] = lru_cache(maxsize=_CACHED_SECTIONS)(self._count_unfilled)

    def ask(
        self,
        section: Section | str,
        request: RankingRequest,
        shown: Sequence[int],
        marked: Sequence[int] = (),
        *,
        about: Sequence[str] = (),
        **given: Any,
    ) -> Call:
        """Renders a question about the candidates at the positions `shown`, of which `marked` are excluded already.

        The call's identifiers are those of the candidates that are not excluded, or grades; `about` are the texts that
        thoughts are about, where these are the candidates; `given` are fields of the call that differ from what the
        prompt makes them. Raises an InputError if the section is not known, or the
        template has none of that name; a ContextLengthError if query and instructions leave no room for passages.
        """
        section = find_section(section) if isinstance(section, str) else section
        template, limit = self.template, self.max_passage_tokens
        if request.aim:
            self._warn_of_aim(section.name, request)
        passages = [self._passage(request.candidates[position].text) for position in shown]
        full = [text for text, _ in passages]
        texts = full if limit is None else [self._cut((text, limit)) for text in full]
        query, cut_query = self._shown_query((request.query, request.task))
        details = details_of(request, shown, self._neutral, self._neutral_lines) if template.shows_details else {}
        # What fits with the longest line of exclusions fits with every one: passages are cut alike in all calls.
        longest = "".join(template.identifiers(len(shown))) if section.names_excluded else ""
        filling = Filling(query, texts, request.task, self._neutral(request.aim), longest, **details)
        if about:
            filling = replace(filling, about="\n".join(numbered_texts(about, self._neutral, self._cut_example)))
        filling, messages = self._fit(section, request, filling, full)
        names = template.answers(section.name, filling)
        excluded = [names[shown.index(position)] for position in marked]
        if section.names_excluded:
            messages = self._messages(section, replace(filling, excluded="".join(excluded)))
        cut = sum(short or text != whole for text, (whole, short) in zip(filling.texts, passages, strict=True))
        scored = section.asks == "likelihood"
        made: dict[str, Any] = {
            "cut_passages": cut,
            "cut_query": cut_query,
            "thinks": template.thinks and not scored,
            "tagged": template.tagged and not scored,
            # A choice of two words is scored, as published, and not read.
            "free": self.published and not scored and (section.asks != "grade" or names == GRADES),
            "named": template.named and not scored,
            "question": Question(section.name, section.asks, request, tuple(shown), tuple(marked)),
            "form": "order" if section.asks in ("order", "grades") else "one",
            "identifiers": tuple(name for name in names if name not in excluded) if excluded else names,
            "continuation": query if scored else "",
        }
        return Call(messages, **(made | given))

    def _warn_of_aim(self, strategy: str, request: RankingRequest) -> None:
        if (strategy, request.task) not in self._warned:
            self._warned.add((strategy, request.task))
            if not self.template.shows_aim(strategy, request.task):
                logger.warning(
                    "template %r does not show what is wanted (%r): the model is not told. Put {aim} into its "
                    "wording for task %r, or use another template",
                    *(self.template.name, request.aim, request.task),
                )

    def read(self, call: Call, answer: Answer) -> Reading:
        """Reads an answer of which the text is all there is, to a call that let every candidate shown be answered."""
        return self.template.read(answer.text, call.identifiers, call.form, published=self.published)

    def _read_passage(self, text: str) -> tuple[str, bool]:
        """A passage as plain text, and whether it was cut to its limit in words."""
        if self.max_passage_words is None and not self.repair_text:
            return self._neutralise(text), False
        whole = repaired(text.strip()) if self.repair_text else text
        kept, cut = (whole, False) if self.max_passage_words is None else first_words(whole, self.max_passage_words)
        return self._neutralise(kept), cut

    def _query(self, asked: tuple[str, Task]) -> tuple[str, bool]:
        """A query as it is shown for its task, and whether it was cut."""
        query, task = asked
        if self.repair_text:
            # rank_llm and ReasonRank repair a query as a part of the whole prompt, whose marks are no HTML.
            query = repaired(query, entities=False)
        form, limit = self.template.form(task), self.max_query_tokens
        if task != "item":
            whole = self._neutralise(query)
            shown = whole if limit is None else self._cut_text((whole, limit))
            return shown, shown != whole
        lines = [line for each in query.splitlines() if (line := self._neutral(each))]
        kept = list(lines)
        while limit is not None and len(kept) > 1 and self.limits.count_tokens(form.query_separator.join(kept)) > limit:
            kept = kept[1:]
        if limit is not None and len(kept) == 1:
            kept = [self._cut_text((kept[0], limit))]
        joined = form.query_separator.join(reversed(kept) if form.query_reversed else kept)
        # What two lines make together must be as harmless as each of them.
        plain = " ".join(joined.split())
        harmless = self._neutralise(plain)
        return (joined if harmless == plain else harmless), kept != lines

    def _cut_text(self, given: tuple[str, int]) -> str:
        """Cuts a text to a limit; what is left is not blank unless the text is."""
        text, limit = given
        cut = self.limits.cut_text(text, limit)
        if not cut and text:
            # A backend of one's own may cut between words only.
            cut = cut_at_word(text, limit, self.limits.count_tokens)
        return text if cut == text else cut

    def _fit(
        self, section: Section, request: RankingRequest, filling: Filling, full: Sequence[str]
    ) -> tuple[Filling, tuple[Message, ...]]:
        """Cuts the longest passages until the prompt leaves room for the answer.

        The filling's texts are the passages as shown where there is room. Cuts are made of the whole ones, `full`:
        whether one may fall inside a word depends on how long the whole word is.
        """
        strategy, shown = section.name, filling.texts
        worked = self._worked_examples(section, request)
        filling = replace(filling, examples=examples_text(worked)) if worked else filling
        messages = self._messages(section, filling)
        if self.limits.context_length is None:
            return filling, messages
        form: Form = "order" if section.asks in ("order", "grades") else "one"
        names = self.template.answers(strategy, filling) if self.template.named else ()
        scored = filling.query if section.asks == "likelihood" else ""
        reserve = _reserve(self.limits, form, len(shown), names, scored)
        budget = self.limits.context_length - reserve
        if self._fits_surely(strategy, request.task, messages, shown, budget):
            return filling, messages
        total = self.limits.count_prompt_tokens(messages)
        while worked and total > budget:
            worked = worked[:-1]
            filling = replace(filling, examples=examples_text(worked) if worked else "")
            messages = self._messages(section, filling)
            total = self.limits.count_prompt_tokens(messages)
        lengths = [self._count(text) for text in shown]
        around = total - sum(lengths)
        room = budget - around
        while total > budget:
            limit = _equal_limit(lengths, room)
            if limit < 1:
                raise ContextLengthError(self._no_room(request, strategy, around, reserve, len(shown)))
            texts = [
                text if length <= limit else self._cut((whole, limit))
                for text, whole, length in zip(shown, full, lengths, strict=True)
            ]
            filling = replace(filling, texts=texts)
            messages = self._messages(section, filling)
            total = self.limits.count_prompt_tokens(messages)
            # Tokens at the seams can differ from the sum of the parts: take the excess off and try again.
            room = sum(min(length, limit) for length in lengths) - max(1, total - budget)
        return filling, messages

    def _worked_examples(self, section: Section, request: RankingRequest) -> list[str]:
        """The examples for a question as plain text, the most useful one first."""
        if self.examples is None or section.asks not in COMPARED:
            return []
        return [example_text(each, self._neutral, self._cut_example) for each in self.examples(request, section.asks)]

    def _cut_example(self, text: str) -> str:
        """A text that is not to be answered, cut to its limit."""
        return self._cut((text, min(self.max_passage_tokens or _EXAMPLE_PASSAGE_TOKENS, _EXAMPLE_PASSAGE_TOKENS)))

    def _messages(self, section: Section, filling: Filling) -> tuple[Message, ...]:
        """The turns, with the examples where the template has them, or before the user's first turn."""
        messages = self.template.messages(section.name, filling)
        if not filling.examples or self.template.places_examples(section.name, filling.task):
            return messages
        first = next((place for place, each in enumerate(messages) if each.role == "user"), None)
        if first is None:
            return messages
        turn = Message("user", f"{filling.examples}{messages[first].content}")
        return (*messages[:first], turn, *messages[first + 1 :])

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
        # Texts that are answered take their length of the answer's share as well.
        shorter = "cut the candidates' texts (max_passage_tokens), " if self.template.named else ""
        fewer = f"show fewer than {count} candidates (window_size), " if count > 1 else ""
        query_tokens = self.limits.count_tokens(self._shown_query((request.query, request.task))[0])
        return (
            f"{name} does not fit: the {strategy} prompt takes {around} tokens without any passage ({query_tokens} of "
            f"them the query's), {reserve} are kept for thought and answer, and the model's context "
            f"is {self.limits.context_length}. Shorten the query (max_query_tokens), {shorter}{fewer}or lower "
            "max_thought_tokens."
        )
