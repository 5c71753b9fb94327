"""From graded candidates to a list: positives, and the hard negatives that the first stage ranks highest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from r1ranker_ir.data.trec_runs import RunEntry
from r1ranker_ir.training.data.records import judged, shown_of
from r1ranker_ir.types import Candidate, RankingRequest

from .near_duplicates import NearTexts
from .queries import Query
from .settings import Synthesis
from .teachers import Labelled

NOT_FOUND = "its passage is not among what the first stage finds"
TOO_FEW = "fewer than 2 candidates found"
NO_POSITIVE, NO_NEGATIVE = "no candidate graded as a positive", "no candidate graded as a negative"
OWN_NOT_POSITIVE = "its own passage is not graded as a positive"
BLANK, NEAR, UNSURE = (
    "blank or not in the corpus",
    "near-duplicates of a candidate above",
    "neither positive nor negative",
)


def found_request(
    query: Query, entries: Sequence[RunEntry], texts: Mapping[str, str], left_out: Counter[str]
) -> RankingRequest | str:
    """The request of what the first stage has found, without near-duplicates; or why there is none."""
    seen, candidates = NearTexts(), []
    # The passage that a query was written for is kept, whatever it repeats.
    own = [entry for entry in entries if entry.doc_id == query.passage]
    if query.passage and not own:
        return NOT_FOUND
    near = {entry.doc_id for entry in own if seen.is_new(texts.get(entry.doc_id, ""))}
    for entry in entries:
        text = texts.get(entry.doc_id, "")
        if not text.strip():
            left_out[BLANK] += 1
        elif entry.doc_id in near or seen.is_new(text):
            candidates.append(Candidate(entry.doc_id, text, entry.score))
        else:
            left_out[NEAR] += 1
    return RankingRequest(query.text, tuple(candidates), query_id=query.id) if len(candidates) > 1 else TOO_FEW


def labelled_list(
    query: Query,
    request: RankingRequest,
    grades: Sequence[float],
    source: str,
    settings: Synthesis,
    left_out: Counter[str],
) -> Labelled | str:
    """The list of a query in the first stage's order, or why there is none.

    Positives fill at most half of it, the passage that the query was written for and the best grades first. Negatives
    are those that the first stage ranks highest; what lies between the two is left out, since it may be either. A
    positive's gain is its grade, a whole number, and that of a negative 0.
    """
    whole = [round(grade) for grade in grades]
    places = range(len(whole))
    own = {place for place in places if request.candidates[place].id == query.passage}
    positives = [place for place in places if whole[place] >= settings.min_grade]
    negatives = [place for place in places if whole[place] <= settings.max_negative]
    left_out.update({UNSURE: unsure} if (unsure := len(whole) - len(positives) - len(negatives)) else {})
    if not positives:
        return NO_POSITIVE
    if own - set(positives):
        return OWN_NOT_POSITIVE
    if not negatives:
        return NO_NEGATIVE
    positives.sort(key=lambda place: (place not in own, -whole[place]))
    kept = positives[: max(1, settings.candidates // 2)]
    chosen = sorted([*kept, *negatives[: settings.candidates - len(kept)]])
    gains = [float(whole[place]) if place in kept else 0.0 for place in places]
    record = judged(request.query, request.candidates, gains, id=query.id, source=source)
    return Labelled(shown_of(record, chosen), tuple(grades[place] for place in chosen))
