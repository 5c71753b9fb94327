"""Files that are not what they should be: every reader says so in an error of this project, soon and in few words."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r1ranker_ir.adapters.problems import Problems
from r1ranker_ir.adapters.ranking_bench import ranking_bench_requests
from r1ranker_ir.adapters.recommendation.sources import open_interactions
from r1ranker_ir.adapters.routing.observations import read_observations
from r1ranker_ir.adapters.routing.profiles import read_profiles
from r1ranker_ir.data.corpora import open_corpus
from r1ranker_ir.data.long_runs import open_run
from r1ranker_ir.data.request_corpus import holds_requests
from r1ranker_ir.data.request_files import read_requests
from r1ranker_ir.data.trec_runs import read_run
from r1ranker_ir.errors import R1RankerError
from r1ranker_ir.eval.shootouts.entries import read_entries
from r1ranker_ir.eval.suites.tables import open_suite
from r1ranker_ir.files.json_lines import raw_lines
from r1ranker_ir.models.checkpoints import read_settings
from r1ranker_ir.models.identity import checkpoint_identity
from r1ranker_ir.models.random_weights import read_configuration
from r1ranker_ir.prompts.files import open_template
from r1ranker_ir.runs.traces import find_rankings, read_trace
from r1ranker_ir.training.data.completion_files import read_completions
from r1ranker_ir.training.data.from_traces import read_traces
from r1ranker_ir.training.data.sample_files import check_samples, read_metadata
from r1ranker_ir.training.jobs.arguments import parse_arguments
from r1ranker_ir.training.jobs.comparison import read_run as read_trained_run
from r1ranker_ir.training.jobs.curves import read_history, series_of
from r1ranker_ir.training.jobs.record import read_ranks

LONGEST_MESSAGE = 5000


@dataclass(frozen=True)
class Reader:
    """Something that reads a file: its name in an empty folder, and content that is read without an error."""

    file: str
    read: Callable[[Path], Any]
    valid: bytes
    beside: tuple[tuple[str, bytes], ...] = ()  # other files that it needs, name to content


def _corpus(path: Path) -> Any:
    return open_corpus(path.parent if path.parent.name != "qrels" else path.parent.parent)


def _both_ways(path: Path) -> None:
    read_run(path)
    with open_run(path) as run:
        list(run)


def _interactions(path: Path) -> None:
    open_interactions(path.parent, Problems("skip"))


def _observations(path: Path) -> None:
    read_observations(path, Problems("skip"))


def _documents(path: Path) -> None:
    corpus = _corpus(path)
    list(corpus.iterate_documents())
    corpus.documents(["1"])


def _rank_every_query(path: Path) -> None:
    list(read_trace(path))
    find_rankings(path, "q")


TRACE = {
    "query_id": "q", "query": "fleas", "task": "passage", "aim": "", "strategy": "iterative", "order": ["b", "a"],
    "texts": {"a": "one", "b": "two"}, "repairs": 0,
    "usage": {"calls": 1, "prompt_tokens": 2, "completion_tokens": 3},
    "steps": [
        {
            "shown": ["a", "b"], "outcome": ["a"], "thought": "", "text": "", "probabilities": [0.5, 0.5],
            "repaired": False, "thought_closed": False, "cut_passages": 0, "cut_query": False, "prompt_hash": "",
            "usage": {"calls": 1, "prompt_tokens": 2, "completion_tokens": 3},
        }
    ],
}  # fmt: skip
REQUEST = b'{"query": "fleas", "candidates": [{"text": "a", "gain": 1}, {"text": "b", "scores": {}}]}\n'
PROFILE = b'[{"name": "a", "price_in": 0.1, "price_out": 1}]'
OURS = b'name = "own"\n[direct]\nuser = "{query} {candidates}"\n'
RANK_R1 = b'prompt_system = "s"\nprompt_user = "{query} {docs}"\npattern = "<answer>(.*?)</answer>"\n'
REASONRANK = b'system_prompt_reasoning = "s"\npattern = "<answer>(.*?)</answer>"\n'
RANK_LLM = b'method: "singleturn_listwise"\nprefix: "{query} {num}"\nbody: "[{rank}] {candidate}\\n"\n'
SUITE = b'title = "own"\n[datasets.one]\ncorpus = "cranfield"\n'
STATE = b'{"log_history": [{"step": 1, "loss": 0.5}, {"step": 2, "loss": NaN}]}'
TRAINED = json.dumps({"training": {"seed": 1, "before": {"RR": 0.1}, "after": {"RR": 0.2}, "held_out": []}}).encode()

LINE_OF_TRACE = json.dumps(TRACE).encode() + b"\n"
NO_DOCUMENTS = (("corpus.jsonl", b""),)
CHOICES = b"user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\nu\tb\t2\n"
ITEMS = b"item_id:token\ttitle:token_seq\na\tone\nb\ttwo\n"
RATINGS, MOVIES = b"1::1::5::1\n1::2::5::2\n", b"1::a::x\n2::b::y\n"
SEEN = b'{"query": "fleas", "effect": {"a": 1, "b": 0.5}, "cost": {"a": 1, "b": 2}}\n'
RECIPE = b"model: tiny\ntrain_files: [a.parquet]\noutput_dir: out\nuse_cpu: true\nbf16: false\n"
ENTRIES = b"- {name: a, oracle: {noise: 1}, strategy: direct}\n"
RANKS = b'{"ids": ["a"], "before": [1.0], "after": [2.0]}'


def _identity(path: Path) -> None:
    checkpoint_identity(str(path.parent), None, loading_began=time.time())


READERS = {
    "shootout": Reader("own.yaml", lambda path: read_entries(str(path)), ENTRIES),
    "suite": Reader("own.toml", lambda path: open_suite(str(path)), SUITE),
    "template": Reader("own.toml", open_template, OURS),
    "template of Rank-R1": Reader("own.toml", open_template, RANK_R1),
    "template of ReasonRank": Reader("own.toml", open_template, REASONRANK),
    "template of rank_llm": Reader("own.yaml", open_template, RANK_LLM),
    "recipe": Reader("own.yaml", lambda path: parse_arguments("sft", ["--config", str(path)]), RECIPE),
    "profiles": Reader("llms.json", read_profiles, PROFILE),
    "profiles in CSV": Reader("llms.csv", read_profiles, b"name,price_in,price_out\na,0.1,1\n"),
    "settings": Reader("r1ranker.json", lambda path: read_settings(path.parent), b'{"window_size": 7}'),
    "adapter": Reader("adapter_config.json", _identity, b'{"base_model_name_or_path": "/nowhere"}'),
    "configuration": Reader("config.json", lambda path: read_configuration(str(path)), b'{"model_type": "qwen2"}'),
    "requests": Reader("own.jsonl", lambda path: list(read_requests(path)), REQUEST),
    "requests as a corpus": Reader(
        "own.jsonl", lambda path: holds_requests(path) and open_corpus(path).qrels(), REQUEST
    ),
    "observations": Reader("seen.jsonl", _observations, SEEN),
    "observations in CSV": Reader("seen.csv", _observations, b"query,a,b\nfleas,1,0.5\n"),
    "run": Reader("own.trec", _both_ways, b"q Q0 a 1 2.5 tag\nq Q0 b 2 1.5 tag\n"),
    "trace": Reader("own.jsonl", _rank_every_query, LINE_OF_TRACE),
    "trace to learn from": Reader("own.jsonl", lambda path: list(read_traces(path)), LINE_OF_TRACE),
    "documents": Reader("corpus.jsonl", _documents, b'{"_id": "1", "title": "a", "text": "b"}\n'),
    "queries": Reader(
        "queries.jsonl", lambda path: _corpus(path).queries(), b'{"_id": "1", "text": "b"}\n', NO_DOCUMENTS
    ),
    "qrels in BEIR's form": Reader(
        "qrels/test.tsv", lambda path: _corpus(path).qrels(), b"query-id\tcorpus-id\tscore\nq\ta\t1\n", NO_DOCUMENTS
    ),
    "qrels in TREC's form": Reader("qrels.trec", lambda path: _corpus(path).qrels(), b"q 0 a 1\n", NO_DOCUMENTS),
    "RecBole's choices": Reader("own.inter", _interactions, CHOICES, (("own.item", ITEMS),)),
    "RecBole's items": Reader("own.item", _interactions, ITEMS, (("own.inter", CHOICES),)),
    "MovieLens' ratings": Reader("ratings.dat", _interactions, RATINGS, (("movies.dat", MOVIES),)),
    "MovieLens' movies": Reader("movies.dat", _interactions, MOVIES, (("ratings.dat", RATINGS),)),
    "state of a trainer": Reader("trainer_state.json", lambda path: series_of(read_history(path), "loss"), STATE),
    "held-out ranks": Reader("held_out.json", lambda path: read_ranks(path.parent), RANKS),
    "trained folder": Reader("r1ranker.json", lambda path: read_trained_run(path.parent), TRAINED),
    "completions": Reader("own.jsonl", read_completions, b'{"prompt": "a", "completion": "b"}\n'),
    "completions in Parquet": Reader("own.parquet", read_completions, b""),
    "samples": Reader("own.parquet", lambda path: (check_samples(path), read_metadata(path)), b""),
    "Ranking-bench": Reader("own.jsonl", lambda path: list(ranking_bench_requests(path, Counter())), b""),
}
SMALL = {name: reader for name, reader in READERS.items() if "Ranking-bench" not in name}

_FOLDERS = itertools.count()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Reader], Path]:
    """Lays out a reader's folder; a new one each time, with the other files in it."""
    root = tmp_path_factory.mktemp("hostile")

    def laid_out(reader: Reader) -> Path:
        path = root / str(next(_FOLDERS)) / reader.file
        path.parent.mkdir(parents=True)
        for name, content in reader.beside:
            folder = path.parent if path.parent.name != "qrels" else path.parent.parent
            (folder / name).write_bytes(content)
        return path

    return laid_out


def refused(reader: Reader, path: Path) -> str | None:
    """Reads, and returns the message of the error; `None` where there is none. Any other error fails the test."""
    try:
        reader.read(path)
        message = None
    except R1RankerError as error:
        message = str(error)
        assert message.strip()
        assert len(message) < LONGEST_MESSAGE
    return message


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.valid])
def test_the_valid_content_is_read(name: str, mark: bytes, place: Callable[[Reader], Path]) -> None:
    path = place(READERS[name])
    path.write_bytes(mark + READERS[name].valid)
    assert refused(READERS[name], path) is None


HUGE = b"9" * 5000
DEEP = 200_000
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (at, at, b", ".join([b"*%c" % (at - 1)] * 9)) for at in range(ord("b"), ord("m"))
)
MERGE_BOMB = b"a: &a {x: 1, y: 2}\n" + b"".join(
    b"%c: &%c {<<: [%s]}\n" % (at, at, b", ".join([b"*%c" % (at - 1)] * 9)) for at in range(ord("b"), ord("m"))
)
HOSTILE = {
    "empty": b"",
    "one line break": b"\n",
    "UTF-16": "name: value\n".encode("utf-16"),
    "Latin-1": "name: déjà vu\n".encode("latin-1"),
    "null characters": b"\0" * 1000,
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)),
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + b"\xff" * 50,
    "a pickle": b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep lists that do not close": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep list in a field": b'{"query": ' + b"[" * DEEP + b"]" * DEEP + b"}\n",
    "deep TOML": b"a = " + b"[" * 5000 + b"]" * 5000,
    "deep TOML table": b"a" + b".a" * 5000 + b" = 1",
    "deep YAML": b"- " * 5000 + b"a",
    "deep YAML by lines": b"".join(b" " * depth + b"a:\n" for depth in range(1500)),
    "a huge number": HUGE,
    "a huge number in TOML": b"window = " + HUGE,
    "a huge hexadecimal number": b"name = 0x" + b"f" * 5000,
    "a huge number in YAML": b"name: " + HUGE + b"\n",
    "a huge number in an object": b'{"query": ' + HUGE + b', "_id": ' + HUGE + b', "window_size": ' + HUGE + b"}\n",
    "a huge number in a run": b"q Q0 a " + HUGE + b" 1 tag\n",
    "a huge score in a run": b"q Q0 a 1 " + HUGE + b" tag\n",
    "a huge grade": b"q\ta\t" + HUGE + b"\n",
    "a huge grade in TREC's form": b"q 0 a " + HUGE + b"\n",
    "a large grade": b"q\ta\t99999999999\n",
    "a huge time": b"1::1::5::" + HUGE + b"\n",
    "a number beyond floats": b'{"query": 1e999, "window_size": 1e999, "log_history": [{"step": 1e999, "loss": 1}]}\n',
    "NaN": b'{"query": NaN, "window_size": NaN, "ids": ["a"], "before": [NaN], "after": [Infinity]}\n',
    "NaN in a list": b'[{"name": "a", "price_in": NaN, "price_out": Infinity}]',
    "nan in YAML": b"- {name: a, oracle: {noise: .nan}, strategy: direct}\n",
    "aliases without end": BOMB,
    "aliases without end by merging": MERGE_BOMB,
    "an alias of a long text": b"a: &a " + b"x" * 100_000 + b"\nb: [" + b", ".join([b"*a"] * 5000) + b"]\n",
    "an alias inside itself": b"&a [*a, *a]\n",
    "an alias as a key": b"&a {*a : 1}\n",
    "no such alias": b"a: *b\n",
    "a date that is none": b"name: 2024-02-31\n",
    "no whole number": b"name: !!int x\n",
    "no truth value": b"name: !!bool x\n",
    "no binary": "name: !!binary é\n".encode(),
    "no mapping": b"name: !!map x\n",
    "no set": b"name: !!set [a]\n",
    "a list as a key": b"? [a, b]\n: c\n",
    "code in YAML": b'name: !!python/object/apply:os.system ["exit 1"]\n',
    "a key of null": b"~: a\n",
    "keys of other types": b"1: a\n2.5: b\ntrue: c\n2024-01-01: d\n",
    "a key twice": b"name: a\nname: b\n",
    "a key twice in JSON": b'{"window_size": 3, "window_size": 4}',
    "several documents": b"--- a\n--- b\n",
    "a tab": b"a:\n\t- b\n",
    "null": b"null",
    "a text": b'"text"',
    "an empty list": b"[]",
    "an object of objects": b'{"a": {}, "template": {}, "training": {}, "datasets": {}, "log_history": {}}',
    "an object of lists": b'{"a": [], "template": [], "training": [], "datasets": [[]], "log_history": [[]]}',
    "a surrogate": b'{"query": "\\ud800", "candidates": [{"text": "\\udfff"}], "_id": "\\ud800", "text": "\\ud800"}\n',
    "a list where a text goes": b'{"strategy": ["a"], "task": {"a": 1}, "candidates": [["a"]], "query_id": []}\n',
    "a long line": b'{"query": "' + b"x" * 3_000_000 + b'"}\n',
    "a long word": b"x" * 1_000_000,
    "many columns": b"a\t" * 200_000,
    "a quotation mark": b'a,b\n"c,d\n',
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_content_is_refused_or_read(hostile: str, place: Callable[[Reader], Path]) -> None:
    # Some contents are valid for some readers; what none may do is raise anything else, or take for ever.
    for name, reader in SMALL.items():
        path = place(reader)
        path.write_bytes(HOSTILE[hostile])
        try:
            refused(reader, path)
        except BaseException as error:
            error.add_note(f"reader: {name}")
            raise


@pytest.mark.parametrize("name", SMALL)
def test_folder_device_and_missing_file(name: str, place: Callable[[Reader], Path]) -> None:
    reader = READERS[name]
    path = place(reader)
    refused(reader, path)  # some files may be missing
    path.mkdir()
    refused(reader, path)
    path.rmdir()
    path.symlink_to("/dev/zero")
    refused(reader, path)
    path.unlink()
    path.symlink_to(path)
    refused(reader, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", ["template", "template of rank_llm", "configuration"])
def test_a_pipe_with_a_writer_is_read(name: str, place: Callable[[Reader], Path]) -> None:
    reader = READERS[name]
    path = place(reader)
    os.mkfifo(path)
    writing = threading.Thread(target=lambda: path.write_bytes(reader.valid))
    writing.start()
    assert refused(reader, path) is None
    writing.join()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lines_come_through_a_pipe(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"lines{suffix}"
    os.mkfifo(path)
    content = b"".join(b"%d\n" % number for number in range(50_000))
    packed = gzip.compress(content) if suffix else content
    writing = threading.Thread(target=lambda: path.write_bytes(packed))
    writing.start()
    assert b"".join(raw for _, raw in raw_lines(path)) == content
    writing.join()


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["direct", "iterative", "oracle", "passage", "item", "{query}", "a", "0"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=4)
            | st.sampled_from(
                "name strategy oracle reranker model cascade first second depth query context candidates text gain "
                "id _id title scores values effect cost usage steps texts order shown outcome template direct user "
                "before after ids datasets counts log_history step loss model_list model_name litellm_params "
                "model_info price_in price_out window_size strategies prompt completion method body prefix "
                "system training prompt_user pattern corpus groups published shared nouns mark passage".split()
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_content(name: str, place: Callable[[Reader], Path], data: st.DataObject) -> None:
    reader = READERS[name]
    valid = reader.valid
    content = data.draw(
        st.binary(max_size=60)
        | plain.map(lambda value: json.dumps(value).encode())
        | st.lists(plain, min_size=1, max_size=3).map(lambda rows: b"\n".join(json.dumps(row).encode() for row in rows))
        | st.tuples(
            st.integers(0, len(valid)), st.integers(0, 12), st.binary(max_size=6) | st.text(max_size=4).map(str.encode)
        ).map(lambda cut: valid[: cut[0]] + cut[2] + valid[cut[0] + cut[1] :])
    )
    path = place(reader)
    path.write_bytes(content)
    refused(reader, path)


def changed(value: Any, data: st.DataObject) -> Any:
    """A value with one part of it put in place of by another."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 4)):
        key = data.draw(st.sampled_from(sorted(value)))
        return value | {key: changed(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.integers(0, 4)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], changed(value[at], data), *value[at + 1 :]]
    return data.draw(plain)


@pytest.mark.parametrize("name", [name for name in SMALL if READERS[name].valid[:1] in (b"{", b"[")])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_valid_content_with_another_part(name: str, place: Callable[[Reader], Path], data: st.DataObject) -> None:
    path = place(READERS[name])
    path.write_text(json.dumps(changed(json.loads(READERS[name].valid), data)) + "\n", encoding="utf-8")
    refused(READERS[name], path)
