"""The question which of several thoughts is the soundest: thoughts are shown as passages are, as data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from r1ranker_ir.errors import InputError
from r1ranker_ir.types import Call, Candidate, Judged, Question, RankingRequest

from .neutral import any_of
from .prompt import Prompt, PromptTemplate
from .sections import JUDGE
from .template import Template, load_template
from .worked_examples import ASKED_FOR


@dataclass(frozen=True)
class Chain:
    """A thought and what it led to: `answer` are positions of candidates, of an order best first; `grade` of the one.

    `name` tells it from others, in whatever order they are shown; `said` is the answer's own identifier, for a grade.
    """

    name: str
    thought: str
    answer: tuple[int, ...]
    grade: float | None = None
    said: str = ""


_PROMPTS: WeakKeyDictionary[Prompt, dict[int, Prompt]] = WeakKeyDictionary()


def judging_template(template: PromptTemplate) -> PromptTemplate:
    """The template that words the question: the given one, or the project's where that is in another system's form."""
    if not template.thinks:
        raise InputError(
            f"vote_by='judged' compares thoughts, and template {template.name!r} asks for none: use "
            "vote_by='majority', or a template that has the model think"
        )
    return template if isinstance(template, Template) else load_template()


def judging_call(prompt: Prompt, asked: Call, chains: Sequence[Chain], max_tokens: int, **given: Any) -> Call:
    """Renders the question which of the chains, each an answer to `asked`, reasons best; at least two of them.

    A thought is cut to `max_tokens`, and further where the context asks for it; its answer stands before it. The
    candidates that the thoughts are about go by numbers in round brackets. `given` are fields of the call.
    """
    question = asked.question
    assert question is not None, "a call that no Prompt has rendered"
    request = question.request
    candidates = tuple(Candidate(each.name, _text(each, asked, question)) for each in chains)
    shown = RankingRequest(request.query, candidates, request.task, request.query_id, request.aim)
    judged = Judged(
        question,
        tuple(each.answer for each in chains),
        tuple(each.grade for each in chains if each.grade is not None),
    )
    places = tuple(range(len(chains)))
    return judging_prompt(prompt, max_tokens).ask(
        JUDGE,
        shown,
        places,
        about=[request.candidates[position].text for position in question.shown],
        # What is cut are thoughts.
        cut_passages=0,
        question=Question(JUDGE.name, JUDGE.asks, shown, places, judged=judged),
        **given,
    )


def judging_prompt(prompt: Prompt, max_tokens: int) -> Prompt:
    """What renders such questions within the limits of a prompt, and reads the answers."""
    made = _PROMPTS.setdefault(prompt, {})
    if max_tokens not in made:
        template = judging_template(prompt.template)
        limited = replace(prompt, template=template, max_passage_tokens=max_tokens, max_passage_words=None)
        made[max_tokens] = replace(limited, published=False, examples=None)
    return made[max_tokens]


def _text(chain: Chain, asked: Call, question: Question) -> str:
    """An answer and its thought in words; whatever the thought calls a candidate, it is its number here."""
    label, thought = ASKED_FOR[question.asks], chain.thought
    if question.asks == "grade":
        return f"{label}: {chain.said.strip('[]')}. {thought}"
    places = {position: place for place, position in enumerate(question.shown)}
    if asked.identifiers:
        named = dict(zip(asked.identifiers, question.answerable, strict=True))
        thought = re.sub(any_of(named), lambda match: f"({places[named[match[0]]] + 1})", thought)
    answer = ", ".join(f"({places[position] + 1})" for position in chain.answer)
    return f"{label}: {answer}. {thought}"
