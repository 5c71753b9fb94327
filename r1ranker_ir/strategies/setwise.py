"""One call picks the best of a set, and a sort makes an order of it: Rank-R1 (arXiv 2503.06034)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.sections import Section
from r1ranker_ir.strategies.seeded import seeded_by
from r1ranker_ir.types import Answer, Call, Program, Ranking, RankingRequest

from .asking import Asker
from .budget import BudgetSpent
from .options import PUBLISHED, RankingOptions
from .strategy import Strategy
from .windows import check_window_size, with_rest_as_it_was

CHOOSE = Section("setwise", asks="best")
PUBLISHED_TOP_K = 10

_Sorting = Generator[Call, Answer, None]


def sort_setwise(
    request: RankingRequest,
    prompt: Prompt,
    *,
    window_size: int = 20,
    stride: int = 10,
    options: RankingOptions = PUBLISHED,
) -> Program:
    """Ranks the top k by a heap sort or a bubble sort whose comparison is a call: which of these is the best?

    A node of the heap has `window_size - 1` children (19 in the first version of Rank-R1, 9 in the second); a window of
    the bubble sort moves up by as many places. Candidates below the top k keep the first stage's order, which also
    decides where an answer can't be read. With 2 candidates a call and `sort="bubble"` this is pairwise ranking by
    sliding pairs (PRP-Sliding-K, arXiv 2306.17563). `stride` is unused: sets overlap by one candidate.
    """
    check_window_size(window_size)
    top_k = PUBLISHED_TOP_K if options.top_k is None else options.top_k
    judge = _Judge(request, prompt, options=options)
    order = list(range(len(request.candidates)))
    found: list[int] = []
    with suppress(BudgetSpent):
        if options.sort == "bubble":
            yield from _bubble_sort(judge, order, top_k, window_size)
        else:
            yield from _heap_sort(judge, order, found, top_k, window_size - 1)
    # Those found may still stand in the heap as well.
    best_first = tuple(dict.fromkeys((*found, *order)))
    return Ranking(request, with_rest_as_it_was(best_first, top_k), tuple(judge.steps))


@dataclass
class _Judge(Asker):
    """Says which of some candidates is the best, by a call where it has not been asked before; `known` is what has."""

    options: RankingOptions = PUBLISHED
    known: dict[tuple[int, ...], int] = field(default_factory=dict)

    def best_of(self, candidates: Sequence[int]) -> Generator[Call, Answer, int]:
        """The best of at least two candidates."""
        shown, seed = tuple(candidates), self.options.shuffle_seed
        if seed is not None:
            shuffled = sorted(candidates)
            # By what is shown alone, so that neither other queries nor earlier calls change a prompt.
            seeded_by(f"{seed} {self.request.query} {shuffled}").shuffle(shuffled)
            shown = tuple(shuffled)
        # The same prompt would get the same answer: what has not changed between two passes is not asked again.
        if shown not in self.known:
            thought = "" if self.options.think == "never" else None
            step = yield from self.ask(CHOOSE, shown, thought=thought)
            self.known[shown] = step.outcome[0]
        return self.known[shown]


def _heap_sort(judge: _Judge, heap: list[int], found: list[int], top_k: int, children: int) -> _Sorting:
    """Moves the best ones from a heap to those found; wherever it ends, each candidate is in one of the two."""
    for parent in reversed(range((len(heap) - 2) // children + 1)):
        yield from _sink(judge, heap, heap[parent], parent, len(heap), children)
    while heap:
        found.append(heap[0])
        if len(found) == top_k:
            return
        # The last one takes the free place, or a lower one; until that is known it stays where it is.
        yield from _sink(judge, heap, heap[-1], 0, len(heap) - 1, children)
        heap.pop()


def _sink(judge: _Judge, heap: list[int], candidate: int, place: int, end: int, children: int) -> _Sorting:
    """Lets a candidate sink from a place until nothing below is better, within the first `end` places."""
    while (first := children * place + 1) < end:
        below = heap[first : min(first + children, end)]
        best = yield from judge.best_of((candidate, *below))
        if best == candidate:
            break
        child = first + below.index(best)
        heap[place], heap[child] = heap[child], heap[place]
        place = child
    heap[place] = candidate


def _bubble_sort(judge: _Judge, order: list[int], top_k: int, window_size: int) -> _Sorting:
    """Carries the best of all from the end to the first place, the best of the others to the second, and so on."""
    for place in range(min(top_k, len(order) - 1)):
        end = len(order)
        while end - place > 1:
            start = max(place, end - window_size)
            best = yield from judge.best_of(order[start:end])
            there = order.index(best, start)
            order[start], order[there] = order[there], order[start]
            end = start + 1


SETWISE = Strategy(
    "setwise",
    sort_setwise,
    (CHOOSE,),
    summary="sort by calls for the best of a set",
    own={"sort": ("heap", "bubble"), "shuffle_seed": None},
    listed=3,
)
