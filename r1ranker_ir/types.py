"""What travels between callers, strategies, the engine and backends."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

Task = Literal["passage", "item", "model"]
TASKS: tuple[Task, ...] = ("passage", "item", "model")
Asked = Literal["worst", "best", "order", "grade", "grades", "likelihood"]
"""What a prompt asks for: the worst or the best of the candidates shown, their order, a grade of the only one or grades
of all, or how likely the query is behind the only one."""
COMPARED: tuple[Asked, ...] = ("worst", "best", "order")
"""What is asked of candidates that are compared, and answered by identifiers alone."""
OF_ONE: tuple[Asked, ...] = ("grade", "likelihood")
"""What is asked of a candidate that is shown alone."""
ClosedAt = Literal["limit", "end_of_turn", "answer"]
"""Where a thought ended that the model did not close: at its limit, with the model's turn, or before its answer."""
CLOSED_AT: tuple[ClosedAt, ...] = ("limit", "end_of_turn", "answer")

ChosenBy = Literal["constraint", "log_probabilities", "parsing"]
"""How a server's answer was chosen: it was held to the identifiers, they were compared by what it told of them, or its
text was read."""
CHOSEN_BY: tuple[ChosenBy, ...] = ("constraint", "log_probabilities", "parsing")


Condition = str | int | float | bool
"""A value of what rankings are made under, see `rankers.conditions`."""


@dataclass(frozen=True)
class Candidate:
    """One thing to rank.

    Args:
        id: the caller's name for it; may repeat within a request (chunks of one document do).
        text: what the model reads.
        score: what the first stage gave it, for templates that show it; `None` where it is unknown. Not compared.
        name: what prompts call it, where that is not its id; not compared either.
    """

    id: str
    text: str
    score: float | None = field(default=None, compare=False)
    name: str = field(default="", compare=False)


@dataclass(frozen=True)
class GivenPrompt:
    """A prompt that came with a request, as Ranking-bench's rows have: its candidates and what stands around them."""

    before: str
    candidates: str
    behind: str


@dataclass(frozen=True)
class RankingRequest:
    """A query and its candidates in first-stage order.

    Args:
        query: the information need: a question; of an item, a user's choices so far, one per line, oldest first. Not
            blank.
        candidates: best first by the first stage; ties and repairs fall back to this order.
        task: which noun the prompt uses for a candidate.
        query_id: a name for logs and errors.
        aim: what the best candidate should be, if the query does not say it: "a good answer at a low cost".
        given: a prompt that came with it, for templates that show it; not compared.

    Raises:
        InputError: if the query is blank or the task is unknown.
    """

    query: str
    candidates: tuple[Candidate, ...]
    task: Task = "passage"
    query_id: str = ""
    aim: str = ""
    given: GivenPrompt | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.query.strip():
            named = f" {self.query_id!r}" if self.query_id else ""
            raise InputError(f"query{named} is blank: give at least one word")
        if self.task not in TASKS:
            raise InputError(f"task is {self.task!r}: use one of {', '.join(TASKS)}")


@dataclass(frozen=True)
class Message:
    """One turn of a prompt; a last turn of the assistant's is the beginning of its answer, which it is to continue.

    The roles `query` and `document` are those of rerankers whose chat templates have them.
    """

    role: Literal["system", "user", "assistant", "query", "document"]
    content: str


@dataclass(frozen=True)
class Question:
    """What a call asks, before it is rendered: by which section of the template, of which request.

    `shown` are positions of the candidates in the order of the prompt; of these, it names `marked` as excluded, in the
    order of exclusion. Where it compares thoughts, these are the candidates of its request, and `judged` says whose.
    """

    section: str
    asks: Asked
    request: RankingRequest
    shown: tuple[int, ...]
    marked: tuple[int, ...] = ()
    judged: Judged | None = None

    @property
    def decided(self) -> Question:
        """The question about the user's candidates that it helps to decide: itself, unless it compares thoughts."""
        return self if self.judged is None else self.judged.question

    @property
    def answerable(self) -> tuple[int, ...]:
        """Positions of the candidates that may be answered, in the order of the prompt."""
        return tuple(position for position in self.shown if position not in self.marked)


@dataclass(frozen=True)
class Judged:
    """What a question compares thoughts about: the question that they answered, and what each of them answered.

    `answers` are positions of candidates, of an order best first; `grades` are there where a grade was asked for.
    """

    question: Question
    answers: tuple[tuple[int, ...], ...]
    grades: tuple[float, ...] = ()


@dataclass(frozen=True)
class Call:
    """One question to a language model.

    Args:
        messages: the rendered prompt, before the model's chat template.
        identifiers: what may be answered, in the order of the prompt: `("[1]", "[2]")`; all that it shows, or fewer.
        form: `one` asks for a single identifier, `order` for all of them, best first.
        cut_passages: how many passages were shortened to fit.
        repairs_before: how many answers of the same ranking were repaired before this call, for the engine's limit.
        cut_query: the query was shortened.
        thought: what stands before the answer in place of a thought of the model's own; empty for none at all.
        top: of an order, how many places are wanted; 0 for all.
        ranking: the same number for the calls of one ranking, for backends that keep states; no influence on answers.
        thinks: a thought stands before the answer; else the answer comes straight away.
        tagged: the answer stands in `<answer>` tags.
        free: the model writes its answer freely, and it is read from the text, as the published systems have it.
        named: the identifiers are labels, names or texts, which may begin one another; an order has a line for each.
        sample: tells calls apart that ask the same of a model whose thoughts are sampled.
        question: what the messages were rendered from; `None` where they are all that is known. A model is not told.
        continuation: a text of the assistant's whose log-probability is asked for; empty where an answer is wanted.
        ahead: what the same ranking asks next, whatever is answered: engines may have it answered along with this one.
    """

    messages: tuple[Message, ...]
    identifiers: tuple[str, ...]
    form: Literal["one", "order"]
    cut_passages: int = 0
    repairs_before: int = 0
    cut_query: bool = False
    thought: str | None = None
    top: int = 0
    ranking: int = 0
    thinks: bool = True
    tagged: bool = True
    free: bool = False
    named: bool = False
    sample: int = 0
    question: Question | None = field(default=None, compare=False, repr=False)
    continuation: str = ""
    ahead: tuple[Call, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Usage:
    """What a call, a ranking or a run has cost.

    Args:
        calls: model calls.
        prompt_tokens: tokens read, summed over calls.
        completion_tokens: tokens written or forced after the prompt, summed over calls.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
        )


@dataclass(frozen=True)
class Answer:
    """What a backend brings back for one call.

    Args:
        text: everything after the prompt, from the thought to the closing tag.
        thought: the reasoning alone.
        choice: the identifiers chosen under constraint, best first; `None` where the text must be parsed.
        probabilities: identifier to probability at the answer; for `order`, at its first place. Sums to 1.
        thought_closed: the model did not close its thought, and it counts as closed where it ended, see `ClosedAt`.
        usage: tokens of this call.
        prompt_tokens_computed: how many of the prompt's tokens were computed for it, and not known from the call
            before; `None` where the backend can't tell. Neither compared nor kept.
        closed_at: where a thought ended that the model did not close; `None` also for answers of earlier versions.
        provisional: another try may bring more: the server left the answer empty, or cut it off. No cache keeps it.
        log_probabilities: of each token of the call's continuation, given all before it; `None` for an answer.
        chosen_by: how the identifiers were chosen on a server; `None` of other backends. Not compared.
    """

    text: str
    thought: str = ""
    choice: tuple[str, ...] | None = None
    probabilities: Mapping[str, float] | None = None
    thought_closed: bool = False
    usage: Usage = field(default_factory=Usage)
    prompt_tokens_computed: int | None = field(default=None, compare=False)
    closed_at: ClosedAt | None = None
    provisional: bool = field(default=False, compare=False)
    log_probabilities: tuple[float, ...] | None = None
    chosen_by: ChosenBy | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Step:
    """One call of a ranking as the trace shows it.

    Args:
        shown: positions in the request's candidates (0-based) that the prompt held, in prompt order.
        outcome: for an exclusion, the positions excluded, worst first (one, as published); for an ordering, all shown
            positions, best first; for a choice or a grade, the position chosen or graded.
        thought: the model's reasoning.
        text: the model's whole output.
        probabilities: position to probability of being answered; `None` where the backend gives none.
        repaired: the answer could not be used as it stood and was completed from the input order.
        thought_closed: the model did not close its thought.
        cut_passages: how many passages were shortened to fit the prompt.
        usage: tokens of this call.
        prompt_hash: the first 16 digits of the rendered messages' SHA-256: equal prompts have equal ones.
        cut_query: the query was shortened.
        marked: of the positions shown, those that the prompt named as excluded already, in the order of exclusion.
        thought_given: the thought is not this call's own: an earlier one's, or none was asked for.
        grade: what the one candidate shown was given, where candidates are graded one by one.
        confidence: where several calls vote, how far their answers agree with what they decide together, from 0 to 1;
            of a call that compares thoughts, by how much the chosen one leads.
        closed_at: where a thought ended that the model did not close; see `Answer`.
        score: the log-likelihood of the query behind the one candidate shown, where that is what is asked for; where
            several calls vote on its grade, the grade that they decide together.
        chosen_by: how the identifiers were chosen on a server; see `Answer`.
        judged: of a call that compares thoughts, how many steps before it each of them stands, in the order of its
            prompt; what was shown and the outcome are then those of the thoughts' question. Empty for all other calls.
        passed_over: the thought is one of several, of which another one's answer was taken.
    """

    shown: tuple[int, ...]
    outcome: tuple[int, ...]
    thought: str
    text: str
    probabilities: Mapping[int, float] | None
    repaired: bool
    thought_closed: bool
    cut_passages: int
    usage: Usage
    prompt_hash: str = ""
    cut_query: bool = False
    marked: tuple[int, ...] = ()
    thought_given: bool = False
    grade: float | None = None
    confidence: float | None = None
    closed_at: ClosedAt | None = None
    score: float | None = None
    chosen_by: ChosenBy | None = None
    judged: tuple[int, ...] = ()
    passed_over: bool = False

    @property
    def decides(self) -> bool:
        """Whether its own answer about the candidates counts: it neither compares thoughts nor was passed over."""
        return not self.judged and not self.passed_over


_SELDOM = frozenset(
    {"marked", "thought_given", "grade", "confidence", "closed_at", "score", "chosen_by", "judged", "passed_over"}
)
"""Fields of a step that plain data leave out where they are at their defaults."""


@dataclass(frozen=True)
class Ranking:
    """The result for one request.

    Args:
        request: what was ranked.
        order: positions in `request.candidates` (0-based), best first: always a permutation.
        steps: the trace, one entry a call, in the order of the calls.
        budget_reached: it was ended by its budget of calls or tokens, and the order is the best that was known then.

    Raises:
        InputError: if `order` is not a permutation of the candidates' positions.
    """

    request: RankingRequest
    order: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    budget_reached: bool = False

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.request.candidates))):
            raise InputError(f"order {self.order} is not a permutation of {len(self.request.candidates)} candidates")

    @property
    def repairs(self) -> int:
        """How many answers had to be repaired."""
        return sum(step.repaired for step in self.steps)

    @property
    def best_first(self) -> tuple[Candidate, ...]:
        """The candidates in their new order."""
        return tuple(self.request.candidates[place] for place in self.order)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Beside each of `best_first` the thought of the last call that showed it; empty where no call was made.

        Of thoughts that were compared, the one counts whose answer was taken.
        """
        thoughts: dict[int, str] = {}
        for step in self.steps:
            if step.decides:
                thoughts.update(dict.fromkeys(step.shown, step.thought))
        return tuple(thoughts.get(place, "") for place in self.order)

    @property
    def scores(self) -> tuple[float | None, ...]:
        """Beside each of `best_first` its score: a log-likelihood or a grade; `None` where the strategy gives none."""
        deciding = (step for step in self.steps if step.decides)
        found = ((step.shown[0], step.grade if step.score is None else step.score) for step in deciding)
        given = {place: score for place, score in found if score is not None}
        return tuple(given.get(place) for place in self.order)

    @property
    def usage(self) -> Usage:
        """Calls and tokens over all steps."""
        return sum((step.usage for step in self.steps), Usage())

    def __repr__(self) -> str:
        ids = [candidate.id for candidate in self.best_first]
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        repairs = f", {self.repairs} repaired" if self.repairs else ""
        ended = ", ended by its budget" if self.budget_reached else ""
        best = ", ".join(map(quoted, ids[:_SHOWN])) + more
        return (
            f"<Ranking of {quoted(self.request.query)}: {best or 'nothing'}; {len(self.steps)} steps{repairs}{ended}>"
        )

    def to_dict(self) -> dict[str, Any]:
        """The ranking as plain data for JSON: what a line of a trace has, but for the strategy.

        Candidates go by their ids; where ids repeat, the later ones get a number, as in `a#2`.
        """
        request, ids = self.request, _distinct([candidate.id for candidate in self.request.candidates])
        return {
            "query_id": request.query_id,
            "query": request.query,
            "task": request.task,
            "aim": request.aim,
            "texts": {name: candidate.text for name, candidate in zip(ids, request.candidates, strict=True)},
            "order": [ids[place] for place in self.order],
            "repairs": self.repairs,
            "usage": asdict(self.usage),
            **({"budget_reached": True} if self.budget_reached else {}),
            "steps": [_step_data(step, ids) for step in self.steps],
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict())


_SHOWN = 5
"""How many candidates a `repr` names."""


def _distinct(ids: Sequence[str]) -> list[str]:
    """Ids of which each names one candidate: those that repeat get the next free number behind them."""
    taken, found = set(ids), dict[str, None]()
    for name in ids:
        number, free = 2, name
        while free in found or (free != name and free in taken):
            free, number = f"{name}#{number}", number + 1
        found[free] = None
    return list(found)


def _step_data(step: Step, ids: Sequence[str]) -> dict[str, Any]:
    """A step as plain data, with the ids of candidates in place of their positions."""
    said = [each for each in fields(step) if each.name not in _SELDOM or getattr(step, each.name) != each.default]
    data = {each.name: getattr(step, each.name) for each in said}
    for name in {"shown", "outcome", "marked"} & data.keys():
        data[name] = [ids[place] for place in data[name]]
    if step.probabilities is not None:
        data["probabilities"] = [step.probabilities.get(place) for place in step.shown]
    data["usage"] = asdict(step.usage)
    return data


def place_score(place: int, count: int) -> float:
    """1 for the first of `count` places, in equal steps down to 1/count for the last; places count from 0."""
    return 1 - place / count


Program = Generator[Call, Answer, Ranking]
"""A ranking program: yields calls, is sent answers, returns a ranking."""
