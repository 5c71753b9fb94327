"""Keys and values kept between the calls of a ranking: the same answers, with most of a prompt not computed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from references import FAMILIES, MODELS, NARROW, VOCABULARY, WORDS, Open, assert_rows, tokens
from stand_ins import WordLimits

from r1ranker_ir.backends.base import KeepsStates
from r1ranker_ir.backends.decoding import DecodingSession, SeparateSession
from r1ranker_ir.backends.local import TransformersBackend
from r1ranker_ir.backends.states import PromptStates, StateStore, depends_on_beginning_only, shared_length
from r1ranker_ir.engine.engine import Engine, RunSummary
from r1ranker_ir.errors import BackendError, InputError
from r1ranker_ir.files.byte_sizes import parse_bytes
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import Template, load_template
from r1ranker_ir.strategies.iterative import eliminate
from r1ranker_ir.strategies.options import PUBLISHED, Layout, RankingOptions
from r1ranker_ir.types import Answer, Call, Candidate, Program, Ranking, RankingRequest, Task, Usage


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template()


@pytest.fixture(scope="module")
def embedded() -> TransformersBackend:
    """The embedded model, with room for prompts that it was never made for."""
    return TransformersBackend(str(TINY_CHECKPOINT), device="cpu", max_thought_tokens=0, context_length=8192)


# --- the store -----------------------------------------------------------------------------------------------------


def states_of(length: int, mark: int = 0) -> PromptStates:
    """States of 8 bytes a token."""
    return PromptStates([mark] * length, {0: (torch.zeros(1, length, 1), torch.full((1, length, 1), float(mark)))})


actions = st.tuples(st.sampled_from(["keep", "take", "forget"]), st.integers(1, 5), st.integers(1, 6))


@given(done=st.lists(actions, max_size=30), room=st.integers(0, 12))
def test_the_store_holds_the_latest_kept_that_fit(done: list[tuple[str, int, int]], room: int) -> None:
    store = StateStore(room * 8)
    model: dict[int, int] = {}
    peak = 0
    for action, ranking, length in done:
        if action == "keep":
            store.keep(ranking, states_of(length, ranking))
            model.pop(ranking, None)
            if length <= room:
                while sum(model.values()) + length > room:
                    del model[next(iter(model))]
                model[ranking] = length
            peak = max(peak, sum(model.values()))
        elif action == "take":
            taken = store.take(ranking, [ranking] * length)
            shared = min(model.pop(ranking, 0), length - 1)
            assert (0 if taken is None else len(taken.tokens)) == shared
            assert taken is None or taken.layers[0][1].tolist() == [[[float(ranking)]] * shared]
        else:
            store.forget(ranking)
            model.pop(ranking, None)
        assert (len(store), store.peak_bytes) == (len(model), peak * 8)


# --- sessions ------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def check_reuse(model: Any, open_session: Callable[[list[list[int]], list[PromptStates | None]], Any]) -> None:
    """Three rounds of prompts that share less and less with those before, each with a thought that is not kept."""
    store = StateStore(2**20)
    texts = [tokens(1, 5), tokens(2, 90), tokens(3, 150), tokens(4, 33)]
    for round_, cuts in enumerate([(0, 0, 0, 0), (3, 20, 140, 0), (40, 89, 7, 2)]):
        before = texts
        texts = [
            text[:cut] + tokens(9 * round_ + cut, 70 - 9 * row)
            for row, (text, cut) in enumerate(zip(texts, cuts, strict=True))
        ]
        known = [store.take(row, text) for row, text in enumerate(texts)]
        shared = [0 if states is None else len(states.tokens) for states in known]
        assert all(length >= min(cut, len(text)) for length, cut, text in zip(shared, cuts, before, strict=True))
        session = open_session(texts, known)
        assert not any(states.layers for states in known if states is not None), "nothing is held twice"
        assert_rows(model, session.logits, texts)
        ahead = [tokens(round_, 2), [], tokens(round_, 3), [7]]
        assert_rows(model, session.look_ahead(ahead), [text + more for text, more in zip(texts, ahead, strict=True)])
        session.append([5, None, 6, 7])
        assert_rows(model, session.logits, [[*texts[0], 5], texts[1], [*texts[2], 6], [*texts[3], 7]])
        for row, states in enumerate(session.take_prompts()):
            assert states.tokens == texts[row]
            store.keep(row, states)


@pytest.mark.parametrize(
    "family", ["qwen2", "gpt2", "bloom", "deepseek_v3", "mistral", "gemma3_text", "gpt_oss", "mpt"]
)
def test_a_batch_goes_on_from_what_each_row_knows(family: str, make_model: Open) -> None:
    """Models with windows row by row."""
    model = make_model(family, VOCABULARY, **(FAMILIES[family] if family in FAMILIES else NARROW[family][1]))
    assert depends_on_beginning_only(model)
    if family in FAMILIES:
        check_reuse(model, lambda texts, known: DecodingSession(model, texts, 0, known))
    else:
        check_reuse(model, lambda texts, known: SeparateSession(model, texts, known))


def test_states_that_cannot_be_cut_are_not_kept(make_model: Open) -> None:
    rotation = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}
    assert not depends_on_beginning_only(make_model("lfm2", VOCABULARY, layer_types=["conv", "full_attention"]))
    assert not depends_on_beginning_only(make_model("llama", VOCABULARY, **rotation))


# --- the backend ---------------------------------------------------------------------------------------------------


def request(count: int, shift: int = 0, words: int = 5) -> RankingRequest:
    texts = [" ".join(WORDS[(n * 7 + shift + word * n) % 12] for word in range(words)) for n in range(count)]
    candidates = tuple(Candidate(f"d{n}", text) for n, text in enumerate(texts))
    return RankingRequest(f"{WORDS[shift % 12]} and wool", candidates)


def rank(
    backend: Any, template: Template, counts: Sequence[int], options: RankingOptions = PUBLISHED
) -> tuple[list[Ranking], RunSummary]:
    engine, prompt = Engine(backend), Prompt(template, backend)
    programs = [eliminate(request(count, count), prompt, options=options) for count in counts]
    return engine.run(programs), engine.summary


def assert_same(rankings: list[Ranking], others: list[Ranking]) -> None:
    for ranking, other in zip(rankings, others, strict=True):
        assert len(ranking.steps) == len(other.steps)
        assert [c.id for c in ranking.best_first] == [c.id for c in other.best_first]
        for step, another in zip(ranking.steps, other.steps, strict=True):
            assert step.probabilities == pytest.approx(another.probabilities, abs=1e-4)
            assert replace(step, probabilities=None) == replace(another, probabilities=None)


@pytest.mark.parametrize("name", MODELS)
def test_rankings_are_the_same_with_and_without_reuse(name: str, open_model: Open, template: Template) -> None:
    # More rankings than places: some begin while others are half through.
    counts = [4, 2, 5, 3]
    plain = open_model(name, max_thought_tokens=6, batch_size=3, cache_memory=0)
    kept = open_model(name, max_thought_tokens=6, batch_size=3)
    for options in (PUBLISHED, RankingOptions(layout="mark", think="first")):
        expected, without = rank(plain, template, counts, options)
        rankings, with_reuse = rank(kept, template, counts, options)
        assert_same(rankings, expected)
        assert with_reuse.usage == without.usage
        assert without.prompt_tokens_computed == without.usage.prompt_tokens
        assert with_reuse.prompt_tokens_computed < without.prompt_tokens_computed
        assert (without.cache_memory_peak, with_reuse.cache_memory_peak > 0) == (0, True)
        assert len(kept._states) == 0, "rankings that have ended are forgotten"


@pytest.mark.parametrize(
    "options",
    [
        RankingOptions(schedule="halving:2"),
        RankingOptions(schedule="confident:0.5", layout="mark"),
        RankingOptions(schedule="fixed:2", think="first"),
        RankingOptions(schedule="one", think="never", show_best_first=True),
        RankingOptions(top_k=2, layout="mark", think="never"),
    ],
    ids=lambda options: ",".join(f"{name}={value}" for name, value in options.stated().items()),
)
def test_every_option_reuses_with_the_same_results_in_little_memory_too(
    options: RankingOptions, open_model: Open, template: Template
) -> None:
    def run(**memory: Any) -> tuple[list[Ranking], RunSummary]:
        return rank(open_model("llama3", max_thought_tokens=4, batch_size=3, **memory), template, [6, 3, 5, 4], options)

    # Room for all, and for one and a half of three prompts.
    (expected, without), (ample, most), (tight, some) = run(cache_memory=0), run(), run(cache_memory="180KiB")
    assert_same(ample, expected)
    assert_same(tight, expected)
    assert most.cache_memory_peak > 180 * 1024 >= some.cache_memory_peak > 0
    computed = [each.prompt_tokens_computed for each in (most, some, without)]
    assert computed[0] <= computed[1] <= computed[2] == without.usage.prompt_tokens


def test_sizes_are_read_with_and_without_units(open_model: Open) -> None:
    sizes = {7: 7, "0": 0, "512": 512, "4GiB": 2**32, " 1.5 gib ": 3 * 2**29, "512MB": 512 * 10**6, "2 kB": 2000}
    assert {text: parse_bytes(text, "cache_memory") for text in sizes} == sizes
    for wrong in (-1, 1.5, "", "4 cows", "GiB", "1.5", "1e9", "-4GiB", "nan", None):
        with pytest.raises(InputError, match=f"cache_memory is {wrong!r}: give bytes, or a size such as 4GiB or 512MB"):
            open_model("chatml", cache_memory=wrong)


def test_calls_of_no_known_ranking_share_nothing(open_model: Open, template: Template) -> None:
    backend = open_model("chatml", max_thought_tokens=2)
    call = Prompt(template, backend).ask("iterative", request(4), range(4))
    for _ in range(2):
        [answer] = backend.answer([call])
        assert answer.prompt_tokens_computed == answer.usage.prompt_tokens
    first, second = backend.answer([replace(call, ranking=-1), replace(call, ranking=-2)])
    again, new = backend.answer([replace(call, ranking=-1), call])
    assert (again.prompt_tokens_computed, new.prompt_tokens_computed) == (1, new.usage.prompt_tokens)
    # A batch's rounding depends on where its memory lies.
    for one in (second, new):
        assert one.probabilities == pytest.approx(first.probabilities)
        assert replace(one, probabilities=first.probabilities) == first
    assert (again.choice, again.text) == (new.choice, new.text)
    for ranking in (-1, -2):
        backend.forget(ranking)
    assert len(backend._states) == 0


# --- how much is computed ------------------------------------------------------------------------------------------


def long_request(backend: Any, task: Task) -> RankingRequest:
    """Twenty candidates of a hundred tokens."""
    text = " ".join(WORDS * 20)
    texts = [backend.cut_text(f"{place} {text}", 100) for place in range(20)]
    return RankingRequest("which water boils", tuple(Candidate(text, text) for text in texts), task)


@pytest.mark.parametrize(
    ("layout", "goal", "task"),
    [("shrink", 2.0, "passage"), ("shrink", 2.0, "item"), ("shrink", 2.0, "model"), ("mark", 1.4, "model")],
)
def test_prompt_tokens_computed_of_an_elimination(
    layout: Layout, goal: float, task: Task, embedded: Any, template: Template, conversation: Any
) -> None:
    """The project's own prompts, with the last candidate excluded each time; the embedded model reads them."""

    def reply(call: Call) -> Answer:
        [answer] = embedded.answer([replace(call, ranking=-3)])
        answers.append(answer)
        return replace(answer, choice=call.identifiers[-1:])

    answers: list[Answer] = []
    prompt, asked = Prompt(template, embedded), long_request(embedded, task)
    _, calls = conversation.drive(eliminate(asked, prompt, options=RankingOptions(layout=layout)), reply)
    embedded.forget(-3)
    full = answers[0].usage.prompt_tokens
    computed = sum(answer.prompt_tokens_computed or 0 for answer in answers)
    assert len(answers) == 19 and full < computed <= goal * full
    assert sum(answer.usage.prompt_tokens for answer in answers) > 10 * full
    # The same by comparing token ids alone.
    prompts = [embedded._texts.prompt_ids(call.messages) for call in calls]
    assert computed == full + sum(
        len(after) - min(shared_length(before, after), len(after) - 1) for before, after in pairwise(prompts)
    )


# --- the engine ----------------------------------------------------------------------------------------------------


class Remembering(WordLimits):
    """Answers with the last identifier, and notes who is known to it."""

    name, batch_size = "remembering", 3
    identity = MappingProxyType({"not_cacheable": "this is a test"})
    cache_memory_peak = 0

    def __init__(self, dies_after: int = 10**9) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.seen: list[int] = []
        self._dies_after = dies_after

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        if len(self.seen) >= self._dies_after:
            raise BackendError("gone")
        self.known |= {call.ranking for call in calls}
        self.seen += [call.ranking for call in calls]
        self.cache_memory_peak = max(self.cache_memory_peak, len(self.known))
        return [
            Answer("", choice=call.identifiers[-1:], usage=Usage(1, 10, 1), prompt_tokens_computed=computed)
            for call, computed in zip(calls, (4, None, None), strict=False)
        ]

    def forget(self, ranking: int) -> None:
        self.known.discard(ranking)


def programs(prompt: Prompt, counts: Sequence[int]) -> list[Program]:
    return [eliminate(request(count), prompt) for count in counts]


def test_rankings_are_told_apart_and_forgotten(prompt: Prompt) -> None:
    backend = Remembering()
    assert isinstance(backend, KeepsStates)
    engine = Engine(backend)
    left_over = []
    for _ in engine.stream(programs(prompt, [3, 5, 2, 4, 1])):
        left_over.append(len(backend.known))
    assert backend.known == set() and max(left_over) <= 3
    assert sorted(backend.seen.count(number) for number in set(backend.seen)) == [1, 2, 3, 4]
    before = set(backend.seen)
    engine.run(programs(prompt, [3]))
    assert not before & set(backend.seen[-2:]), "no number is given twice"
    assert engine.summary.cache_memory_peak == backend.cache_memory_peak == 3
    assert 0 < engine.summary.prompt_tokens_computed < engine.summary.usage.prompt_tokens == 120


def test_a_run_that_stops_leaves_nothing_behind(prompt: Prompt) -> None:
    backend = Remembering(dies_after=4)
    with pytest.raises(BackendError):
        Engine(backend).run(programs(prompt, [9, 9, 9]))
    assert backend.known == set()
    backend = Remembering()
    stream = Engine(backend).stream(programs(prompt, [2, 9, 9]))
    next(stream)
    assert len(backend.known) == 2
    stream.close()  # type: ignore[attr-defined]
    assert backend.known == set()


def test_summaries_add_up_but_peaks_do_not() -> None:
    one = RunSummary(2, Usage(3, 40, 5), 1, prompt_tokens_computed=30, cache_memory_peak=900)
    other = RunSummary(1, Usage(1, 10, 2), 0, prompt_tokens_computed=10, cache_memory_peak=700)
    both = one + other
    assert both == RunSummary(3, Usage(4, 50, 7), 1, prompt_tokens_computed=40, cache_memory_peak=900)
    assert both.since(one) == replace(other, cache_memory_peak=900)
