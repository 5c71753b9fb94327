"""What the options of the `r1ranker` command take and say in `--help`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from r1ranker_ir.cli.choices import BackendName, StrategyName, backends_help, listed, repairing_systems, strategies_help
from r1ranker_ir.rankers.registry import REGISTERED
from r1ranker_ir.rankers.systems import FAMILY

NO_FIELD = "none"
"""What leaves a field of a server's requests out."""

CorpusOption = Annotated[
    str,
    typer.Option(
        help="An ir_datasets id, or a folder in BEIR layout: corpus.jsonl, queries.jsonl, and qrels/test.tsv or "
        "qrels.trec. A folder that exists wins.",
        show_default=False,
    ),
]
JudgedCorpusOption = Annotated[
    str,
    typer.Option(
        help="Whose judgments count: an ir_datasets id; a BEIR folder; or a file of ranking requests (.jsonl), "
        "such as a suite's requests.jsonl, whose gains are the judgments.",
        show_default=False,
    ),
]
OnlyRunQueriesOption = Annotated[
    bool,
    typer.Option(
        "--only-run-queries",
        help="Count only the judged queries that all given runs have results for, as after rerank --queries; else a "
        "query that a run lacks counts as 0.",
    ),
]
OutputOption = Annotated[
    str,
    typer.Option(
        help="Run file to write, gzip if it ends in .gz; - for standard output. Grows as <output>.partial until it "
        "is whole.",
        show_default=False,
    ),
]
QueriesOption = Annotated[
    int | None, typer.Option(min=1, help="Only the first N queries of the corpus.", show_default="all")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only warnings and errors on standard error: no progress, no summary.")
]
RunOption = Annotated[
    str,
    typer.Option(help="First-stage TREC run, gzip if it ends in .gz; - for standard input.", show_default=False),
]
RerankerOption = Annotated[
    str,
    typer.Option(
        help=f"{listed(REGISTERED)}; a published system, {listed(FAMILY)}, with its settings; or, with "
        "--strategy, any causal language model: a Hugging Face name, a folder, a GGUF file, or a "
        "server's name for it.",
        show_default=False,
    ),
]
RerankDepthOption = Annotated[
    int,
    typer.Option(min=1, help="Documents to rerank per query, from the top of the run; those below are not written."),
]
RerankQueriesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Only the first N queries of the corpus that the run has.", show_default="all"),
]
StrategyOption = Annotated[
    StrategyName | None,
    typer.Option(
        help=strategies_help(),
        show_default="the one of the registered name",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint in place of a registered name's own (not for the -tiny ones).",
        show_default="the environment variable R1RANKER_MODEL, else Qwen/Qwen2.5-3B-Instruct",
    ),
]
BackendOption = Annotated[
    BackendName,
    typer.Option(help=backends_help()),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(
        help="Address of the server, such as http://localhost:8000/v1, for --backend openai. A key is read from "
        "the environment only (OPENAI_API_KEY).",
        show_default="the environment variable OPENAI_BASE_URL, else OpenAI's",
    ),
]
WindowSizeOption = Annotated[
    int | None,
    typer.Option(min=2, help="Most documents in one prompt.", show_default="the checkpoint's, usually 20"),
]
StrideOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Documents by which a window moves on in lists longer than a window; below the window size.",
        show_default="the checkpoint's, usually 10",
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Calls at once: the batch on the transformers backend, open requests on the openai one.",
        show_default="the checkpoint's, usually 16",
    ),
]
MaxPassageTokensOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cut each passage to N of the model's tokens, at the end of a word where one fits.",
        show_default="only as much as the context asks for",
    ),
]
MaxPassageWordsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cut each passage to N words (separated by white space) before its tokens are counted.",
        show_default="no limit; 300 for the systems listwise, first and rankgpt",
    ),
]
RepairTextOption = Annotated[
    bool | None,
    typer.Option(
        "--repair-text/--no-repair-text",
        help="Repair the characters of queries and passages (mojibake, HTML entities) with ftfy before they are shown.",
        show_default=f"repaired for the systems {repairing_systems()}",
    ),
]
MaxQueryTokensOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cut each query to N of the model's tokens; of a user's choices, the latest are kept.",
        show_default="the checkpoint's, usually no limit",
    ),
]
MaxThoughtTokensOption = Annotated[
    int | None,
    typer.Option(min=0, help="Close a thought after N tokens.", show_default="the checkpoint's, usually 1024"),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        help="How many candidates an elimination excludes at a step: one (as published), fixed:K, halving, halving:M "
        "(halve until M remain, then one by one), confident:P (all that are jointly the worst with probability P), or "
        "all.",
        show_default="one; all with --think never",
    ),
]
LayoutOption = Annotated[
    Literal["shrink", "mark"],
    typer.Option(
        help="What an elimination's prompts show: the list without the excluded (as published), or always the full "
        "list and a last line that names the excluded (the template needs a section [mark])."
    ),
]
ThinkOption = Annotated[
    Literal["always", "first", "never"] | None,
    typer.Option(
        help="Think before each answer (as published); once over the full list; or never, which orders a window by the "
        "scores at one answer.",
        show_default="always; never for the system first",
    ),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        help="Prompt template: a TOML file of this project, also in IRanker's form, or the own file of Rank-R1, "
        "ReasonRank or rank_llm.",
        show_default="the checkpoint's or the system's",
    ),
]
AnswersOption = Annotated[
    Literal["constrained", "published"] | None,
    typer.Option(
        help="Have answers chosen among the candidates, where the backend can; or written freely, and read as the "
        "template's own system reads them.",
        show_default="constrained",
    ),
]
SortOption = Annotated[
    Literal["windows", "tournament", "heap", "bubble"] | None,
    typer.Option(
        help="How answers become an order: sliding windows or a tournament for direct, a heap or bubble sort for "
        "setwise.",
        show_default="windows; heap for setwise",
    ),
]
ShuffleSeedOption = Annotated[
    str | None,
    typer.Option(
        metavar="INTEGER|none",
        help="Seed of the order in which a call of setwise shows its candidates; none leaves them as they are.",
        show_default="0",
    ),
]
VotesOption = Annotated[
    int | None, typer.Option(min=1, help="How many calls decide each answer together.", show_default="1")
]
VoteAmongOption = Annotated[
    Literal["permutations", "thoughts"] | None,
    typer.Option(
        help="What differs between votes: the candidates' order, or thoughts that are sampled (--temperature).",
        show_default="permutations",
    ),
]
VoteByOption = Annotated[
    Literal["majority", "borda"] | None, typer.Option(help="How votes are counted.", show_default="majority")
]
MaxCallsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Most calls per query; when they are spent, the best order so far counts."),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Most tokens read and written per query; when they are spent, the best order so far counts."
    ),
]
TopKOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Order only the best N; those below keep the first stage's order.",
        show_default="all are ordered",
    ),
]
ShowBestFirstOption = Annotated[
    bool,
    typer.Option(
        "--show-best-first",
        help="After the first answer over a window, show it best first by that answer's probabilities.",
    ),
]
MaxRepairRateOption = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Stop when more than this share of the answers (of at least 50) can't be used."
    ),
]
CacheMemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory for what a prompt shares with the one before in its ranking, so that it is not computed again: "
        "bytes, or a size such as 4GiB or 512MB; 0 for none. For --backend transformers, and with --engine ray for "
        "each worker.",
        show_default="4GiB",
    ),
]


def _temperature(text: str | float | None) -> float | None:
    """A temperature, or `None` for the word none."""
    if text is None or str(text).strip().lower() == NO_FIELD:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"{text!r} is not a number of at least 0, nor {NO_FIELD}")
    return value


def _seed(text: str | int | None) -> int | None:
    """A seed, or `None` for the word none."""
    if text is None or str(text).strip().lower() == NO_FIELD:
        return None
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number, nor {NO_FIELD}") from None


TemperatureOption = Annotated[
    float | None,
    typer.Option(
        parser=_temperature,
        metavar="FLOAT|none",
        help="Sampling temperature; 0 is greedy. none leaves the field out, for a server that refuses it.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        parser=_seed,
        metavar="INTEGER|none",
        help="Seed of the sampling. none leaves the field out, for a server that refuses it.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        help="Device of the transformers backend, such as cpu, cuda, cuda:1 or mps.",
        show_default="the best there is",
    ),
]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        help="Numbers that the transformers backend computes in. auto is the checkpoint's own; on a CPU, bfloat16 for "
        "models of 50 million parameters and more where the CPU has instructions for it, else float32.",
    ),
]
MissingOption = Annotated[
    Literal["error", "skip"],
    typer.Option(help="What to do about documents of the run that the corpus lacks; either way they are named."),
]
ShuffleOption = Annotated[
    int | None,
    typer.Option(
        metavar="SEED",
        help="Shuffle each query's documents (after the cut at --depth) before reranking, to see how much the "
        "first stage's order matters.",
        show_default="keep the run's order",
    ),
]
SettingsFromOption = Annotated[
    str | None,
    typer.Option(
        help="Folder or Hugging Face name whose r1ranker.json (prompt template, window, limits) counts, for a "
        "server that knows its model by another name.",
        show_default="the model's own",
    ),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(
        "--save-traces",
        "--trace",
        help="JSON Lines file for the trace, gzip if it ends in .gz: a line for each query, with each model call's "
        "prompt hash, thought, answer, probabilities and tokens. r1ranker trace show prints one; training data can be "
        "made of it. Grows as <file>.partial until it is whole.",
        show_default="none",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        help="File in which answers are kept and looked for, so that an interrupted run goes on where it stopped when "
        "the command is given again.",
        show_default="the environment variable R1RANKER_CACHE, else r1ranker-ir/completions.sqlite in the user's "
        "folder for caches",
    ),
]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Keep no answers and look for none.")]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Do the work in this process, or spread it over the workers of a Ray cluster (--workers)."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Processes of --engine ray, each with a model of its own.", show_default="none"),
]
CpusPerWorkerOption = Annotated[
    float | None,
    typer.Option(
        help="CPUs that Ray sets aside for a worker, and its threads.",
        show_default="an equal share of this machine's; 1 on a Ray that runs already",
    ),
]
GpusPerWorkerOption = Annotated[
    float | None,
    typer.Option(
        help="GPUs that Ray sets aside for a worker, which sees no others; 0.5 lets two share one.", show_default="0"
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        help="A running Ray to use: auto for this machine's, or the host:port of its head.",
        show_default="the environment variable RAY_ADDRESS, else Ray is started on this machine for this run",
    ),
]
