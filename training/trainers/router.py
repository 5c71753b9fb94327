"""Distils utilities into a router: the softmax of what each answer was worth is what a small classifier learns.

Zooter's form (arXiv 2311.08692), with measured utilities in the place of a reward model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from r1ranker_ir.data.request_files import JudgedRequest
from r1ranker_ir.errors import InputError, missing_extra
from r1ranker_ir.models.encoder import SentenceEncoder
from r1ranker_ir.models.router import Numbers, Router, tfidf

from .distillation import Distillation

UTILITY = "utility"
_MOST_STEPS = 200


@dataclass(frozen=True)
class Observed:
    """Questions and the utility of each language model, a row each, with tags (empty for none)."""

    questions: tuple[str, ...]
    tags: tuple[str, ...]
    llms: tuple[str, ...]
    utilities: Numbers = field(repr=False)

    def without(self, questions: frozenset[str]) -> Observed:
        """Those that are not among these questions."""
        kept = [place for place, question in enumerate(self.questions) if question not in questions]
        texts, tags = ((tuple(column[place] for place in kept)) for column in (self.questions, self.tags))
        return Observed(texts, tags, self.llms, self.utilities[kept])


@dataclass(frozen=True)
class Distilled:
    """A trained router, what cross-validation chose, and what its folds gave on questions that it had not seen.

    Args:
        leads: its utility there, less that of the best single language model of these folds.
        margins: by how much the first chance was greater than the second one there.
    """

    router: Router
    temperature: float
    strength: float
    leads: Numbers
    margins: Numbers


def observed_in(requests: Sequence[JudgedRequest], where: str) -> Observed:
    """What requests of `r1ranker data routing` say of the same language models."""
    if not requests:
        raise InputError(f"{where} holds no ranking request: make some with r1ranker data routing")
    llms = tuple(sorted(candidate.id for candidate in requests[0].request.candidates))
    rows = []
    for judged in requests:
        if UTILITY not in judged.values:
            raise InputError(
                f"{where}: request {judged.request.query_id!r} has no utilities: see r1ranker data routing"
            )
        names = [candidate.id for candidate in judged.request.candidates]
        own = dict(zip(names, judged.values[UTILITY], strict=True))
        if tuple(sorted(names)) != llms:
            raise InputError(
                f"{where}: request {judged.request.query_id!r} has other language models than the first one: give each "
                f"question the same, {', '.join(llms)}"
            )
        rows.append([own[name] for name in llms])
    texts = tuple(judged.request.query for judged in requests)
    return Observed(texts, tuple(judged.tag for judged in requests), llms, np.array(rows, np.float64))


def soft_labels(utilities: Numbers, tags: Sequence[str], temperature: float, tag_share: float) -> Numbers:
    """Softmaxes of the rows, mixed with the mean row of their tag; a row without a tag stays as it is."""
    powers = np.exp((utilities - utilities.max(axis=1, keepdims=True)) / temperature)
    labels: Numbers = powers / powers.sum(axis=1, keepdims=True)
    smoothed = labels.copy()
    for tag in sorted(set(tags) - {""}):
        of_tag = [place for place, own in enumerate(tags) if own == tag]
        smoothed[of_tag] = (1 - tag_share) * labels[of_tag] + tag_share * labels[of_tag].mean(axis=0)
    return smoothed


def distil(observed: Observed, told: Distillation) -> Distilled:
    """Chooses temperature and strength by the utility of first choices in cross-validation, and trains on all."""
    if len(observed.questions) < 2 * told.folds:
        raise InputError(f"{len(observed.questions)} questions for {told.folds} folds: give at least two a fold")
    if len(observed.llms) < 2:
        raise InputError(f"{observed.llms[0]!r} is the only language model: there is nothing to choose")
    embedded = SentenceEncoder(told.encoder).embed(observed.questions).astype(np.float64) if told.encoder else None
    count, best = len(observed.questions), -np.inf
    parts = [(rest, part, *_features(observed, rest, part, told, embedded)) for rest, part in _folds(count, told)]
    single = np.zeros(count)
    for rest, part, *_ in parts:
        single[part] = observed.utilities[part, observed.utilities[rest].mean(axis=0).argmax()]
    chosen = None
    for temperature in told.temperatures:
        starts: list[Numbers | None] = [None] * len(parts)
        for strength in sorted(told.strengths):
            scores = np.zeros_like(observed.utilities)
            for place, (rest, part, seen, unseen, _) in enumerate(parts):
                # Tags of questions that are predicted must not tell of them: labels are smoothed within the others.
                own = soft_labels(
                    observed.utilities[rest], [observed.tags[each] for each in rest], temperature, told.tag_share
                )
                weights, intercepts = _fit(seen, own, strength, starts[place])
                starts[place] = np.concatenate((weights.ravel(), intercepts))
                scores[part] = unseen @ weights + intercepts
            reached = observed.utilities[np.arange(count), scores.argmax(axis=1)]
            if reached.mean() > best:
                best, chosen = float(reached.mean()), (temperature, strength, reached - single, _margins(scores))
    assert chosen is not None
    temperature, strength, leads, margins = chosen
    everything = np.arange(count)
    seen, _, vectorizer = _features(observed, everything, everything[:1], told, embedded)
    labels = soft_labels(observed.utilities, observed.tags, temperature, told.tag_share)
    weights, intercepts = _fit(seen, labels, strength, None)
    terms = () if vectorizer is None else tuple(map(str, vectorizer.get_feature_names_out()))
    idf = np.zeros(0) if vectorizer is None else vectorizer.idf_
    router = Router(observed.llms, terms, idf, weights, intercepts, told.encoder)
    return Distilled(router, temperature, strength, leads, margins)


def first_choices_of(router: Router, observed: Observed) -> Numbers:
    """The utility of the router's first choice on each question."""
    columns = [router.llms.index(name) for name in observed.llms]
    chosen = router.scores(observed.questions)[:, columns].argmax(axis=1)
    found: Numbers = observed.utilities[np.arange(len(chosen)), chosen]
    return found


@dataclass(frozen=True)
class Repeated:
    """Questions that were observed twice, by what the second observation was worth: a row of means.

    Args:
        single: of the best single language model.
        foreseen: of the best one by the first observation: what knowing the question whole could reach.
        oracle: of the best one by the second observation itself.
    """

    questions: int
    single: float
    foreseen: float
    oracle: float


def repeated_in(first: Observed, second: Observed, single: str) -> Repeated | None:
    """How far one observation of a question foretells another; of equals the mean counts. `None` if none repeats."""
    known = {question: place for place, question in enumerate(first.questions)}
    pairs = [(known[question], place) for place, question in enumerate(second.questions) if question in known]
    if not pairs:
        return None
    before = first.utilities[[each for each, _ in pairs]]
    after = second.utilities[[each for _, each in pairs]][:, [second.llms.index(name) for name in first.llms]]
    ties = before >= before.max(axis=1, keepdims=True) - 1e-9
    foreseen = (after * ties).sum(axis=1) / ties.sum(axis=1)
    own = float(after[:, first.llms.index(single)].mean())
    return Repeated(len(pairs), own, float(foreseen.mean()), float(after.max(axis=1).mean()))


def _folds(count: int, told: Distillation) -> Iterator[tuple[Any, Any]]:
    """The other questions and those of the part, for each part."""
    shuffled = np.random.default_rng(told.seed).permutation(count)
    parts = [np.sort(part) for part in np.array_split(shuffled, told.folds)]
    for own in parts:
        yield np.sort(np.concatenate([part for part in parts if part is not own])), own


def _features(observed: Observed, rest: Any, part: Any, told: Distillation, embedded: Numbers | None) -> Any:
    """Features to learn from and to predict by, and the vectorizer, which has seen the first alone."""
    if not told.most_terms:
        assert embedded is not None
        return embedded[rest], embedded[part], None
    vectorizer = tfidf(max_features=told.most_terms, min_df=2)
    try:
        seen = vectorizer.fit_transform([observed.questions[place] for place in rest])
    except ValueError as error:
        raise InputError(f"the questions have no words in common ({error}): give more of them") from error
    unseen = vectorizer.transform([observed.questions[place] for place in part])
    if embedded is not None:
        from scipy.sparse import csr_array, hstack

        seen, unseen = (
            hstack([terms, csr_array(embedded[places])], format="csr")
            for terms, places in ((seen, rest), (unseen, part))
        )
    return seen, unseen, vectorizer


def _fit(features: Any, labels: Numbers, strength: float, start: Numbers | None) -> tuple[Numbers, Numbers]:
    """Multinomial logistic regression on soft labels, which scikit-learn's own does not take."""
    try:
        from scipy.optimize import minimize
        from scipy.special import log_softmax
    except ImportError as error:
        raise missing_extra("Training a router", "router", error) from error
    (count, width), classes = features.shape, labels.shape[1]
    turned = features.T.tocsr() if hasattr(features, "tocsr") else features.T

    def loss(numbers: Numbers) -> tuple[float, Numbers]:
        weights, intercepts = numbers[: width * classes].reshape(width, classes), numbers[width * classes :]
        told = log_softmax(features @ weights + intercepts, axis=1)
        wrong = (np.exp(told) - labels) / count
        penalty = weights / (strength * count)
        slope = np.concatenate(((turned @ wrong + penalty).ravel(), wrong.sum(axis=0)))
        return -float((labels * told).sum()) / count + 0.5 * float((penalty * weights).sum()), slope

    began = np.zeros((width + 1) * classes) if start is None else start
    limits = {"maxiter": _MOST_STEPS, "gtol": 1e-7, "ftol": 1e-9}
    found = minimize(loss, began, jac=True, method="L-BFGS-B", options=limits).x
    return found[: width * classes].reshape(width, classes), found[width * classes :]


def _margins(scores: Numbers) -> Numbers:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    ordered = np.sort(powers / powers.sum(axis=1, keepdims=True), axis=1)
    found: Numbers = ordered[:, -1] - ordered[:, -2]
    return found
