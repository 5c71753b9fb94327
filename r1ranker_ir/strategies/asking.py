"""One call of a ranking: it is rendered and asked, its answer is read and repaired, and the step is recorded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ranker_ir.prompts.answers import Reading, complete_order, read_answer
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.types import Answer, Call, Question, RankingRequest, Step

from .grades import grade_of
from .windows import record_step


@dataclass(frozen=True)
class Heard:
    """What was read from an answer, of a call's identifiers, by their places in it.

    Args:
        places: one for the worst, the best or a grade; all for an order, best first.
        repaired: the answer could not be used as it stood.
        grade: of the only candidate, where one is asked for.
    """

    places: tuple[int, ...]
    repaired: bool
    grade: float | None = None


Reads = Callable[[Call, Answer, Prompt], Heard]


@dataclass
class Asker:
    """Asks the questions of one ranking, and keeps its trace and the number of answers repaired."""

    request: RankingRequest
    prompt: Prompt
    steps: list[Step] = field(default_factory=list)
    repairs: int = 0

    def ask(
        self,
        section: Section,
        shown: Sequence[int],
        *,
        marked: Sequence[int] = (),
        read: Reads | None = None,
        **given: Any,
    ) -> Generator[Call, Answer, Step]:
        """Asks a question, for `yield from`, and returns the step as recorded: its outcome are the positions answered.

        `shown` and `marked` are positions of candidates, as for `Prompt.ask`; `read` reads the answer in place of what
        the section asks for; `given` are fields of the call, such as `thought` or `top`.
        """
        # The engine stops a run by the number of repairs before its rankings are finished.
        call = self.prompt.ask(section, self.request, shown, marked, repairs_before=self.repairs, **given)
        answer = yield call
        heard = (read or (read_grade if section.asks == "grade" else read_named))(call, answer, self.prompt)
        answerable = asked_in(call).answerable
        outcome = [answerable[place] for place in heard.places]
        step = record_step(call, answer, shown, outcome, repaired=heard.repaired, marked=marked, grade=heard.grade)
        self.steps.append(step)
        self.repairs += step.repaired
        return step


def asked_in(call: Call) -> Question:
    assert call.question is not None, "a call that no Prompt has rendered"
    return call.question


def read_places(call: Call, answer: Answer, prompt: Prompt) -> Reading:
    """Which of a call's identifiers are answered, by their places, and whether that needs no repair."""
    if answer.choice is not None:
        return Reading(tuple(map(call.identifiers.index, answer.choice)), True)
    listed = len(asked_in(call).shown)
    if len(call.identifiers) == listed:
        return prompt.read(call, answer)
    # Excluded ones are shown as well and can be named.
    reading = read_answer(answer.text, listed, call.form)
    named = [f"[{index + 1}]" for index in reading.indices]
    places = tuple(call.identifiers.index(name) for name in named if name in call.identifiers)
    return Reading(places, reading.clean and len(places) == len(named))


def read_named(call: Call, answer: Answer, prompt: Prompt) -> Heard:
    """Which of the call's identifiers are answered, by what is asked for; the input order fills in what is missing.

    Of what can't be read, the worst is the last one, and the best the first one by the first stage.
    """
    reading, question = read_places(call, answer, prompt), asked_in(call)
    if question.asks == "order":
        places = complete_order(reading.indices, len(call.identifiers))
    elif question.asks == "best":
        places = reading.indices[:1] or (question.answerable.index(min(question.answerable)),)
    else:
        places = reading.indices[:1] or (len(call.identifiers) - 1,)
    return Heard(places, not reading.clean)


def read_grade(call: Call, answer: Answer, prompt: Prompt) -> Heard:
    """The grade of the only candidate; the middle one where that can't be read."""
    grade, repaired = grade_of(answer, call.identifiers)
    return Heard((0,), repaired, grade)
