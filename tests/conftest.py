"""Small real causal language models of several families, with real tokenizers and chat templates, made on the spot."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_server import command_server
from hypothesis import settings
from servers import Behaviour, ScriptedServer, Serve, serving
from stand_ins import Conversation, WordLimits

from r1ranker_ir.backends import BACKENDS
from r1ranker_ir.models.checkpoints import TINY_CHECKPOINT
from r1ranker_ir.prompts.prompt import Prompt
from r1ranker_ir.prompts.template import load_template
from r1ranker_ir.rankers.systems import FAMILY
from r1ranker_ir.retrieval.first_stages import FIRST_STAGES
from r1ranker_ir.strategies import STRATEGIES

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("untimed", deadline=None, max_examples=50)
settings.load_profile("untimed")

# No test may depend on the network; set before transformers and the hub are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker a core: their threads would wait for each other
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # rerankers imports litellm where it is installed

TRAINING_TEXT = [
    "A flea lives for two or three months, and its larvae feed on what the adults leave behind.",
    "The kettle boils at one hundred degrees at sea level; higher up the water boils earlier.",
    "Which of these passages serves the request worst? Weigh all of them, then answer with an identifier.",
    "Sheep are shorn in spring. The wool is washed, carded and spun, and the cloth is dyed last of all.",
    "<think>\nThe first one is about fleas, the second is not.\n</think>\n<answer>[2]</answer>",
    "<think>The order is clear.</think><answer>[2] > [1] > [3] > [4] > [10] > [11] > [12]</answer>",
]

_NUMBERS = itertools.count()

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n{{ message['content'] | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# [INST] is plain text to this tokenizer, and a system turn is left out without a word.
INST = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} "
    "[/INST]{% endif %}{% endfor %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% else %}<｜User｜>{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)


@dataclass(frozen=True)
class ModelRecipe:
    """What to make a checkpoint of."""

    architecture: str  # the `model_type` of transformers
    tokenizer: str  # `bytes` for byte-level BPE, `metaspace` for SentencePiece, `nfkc` for BPE behind a normaliser
    chat_template: str | None
    special: tuple[str, ...]  # eos first
    bos: str | None = None
    added: tuple[str, ...] = ()  # tokens that are not special
    config: dict[str, Any] = field(default_factory=dict)  # what differs from a small default


RECIPES: dict[str, ModelRecipe] = {
    "chatml": ModelRecipe("llama", "bytes", CHATML, ("<|im_end|>", "<|im_start|>", "<|endoftext|>")),
    "llama3": ModelRecipe(
        "qwen2",
        "bytes",
        LLAMA_3,
        ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<|reserved_special_token_0|>"),
        bos="<|begin_of_text|>",
    ),
    "gemma": ModelRecipe(
        *("gemma", "metaspace", GEMMA, ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"), "<bos>"),
        added=("<table>", "[multimodal]"),
        config={"head_dim": 8},
    ),
    "inst": ModelRecipe("mistral", "metaspace", INST, ("</s>", "<s>"), bos="<s>", config={"sliding_window": None}),
    "thinking": ModelRecipe(
        "llama",
        "bytes",
        DEEPSEEK,
        ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        bos="<｜begin▁of▁sentence｜>",
        added=("<think>", "</think>"),
    ),
    "narrow": ModelRecipe("mistral", "bytes", CHATML, ("<|im_end|>", "<|im_start|>"), config={"sliding_window": 24}),
    "plain": ModelRecipe("gpt_neox", "bytes", None, ("<|endoftext|>", "<|padding|>")),
    "nfkc": ModelRecipe("llama", "nfkc", CHATML, ("<|im_end|>", "<|im_start|>"), added=("<think>", "</think>")),
}


def _train_tokenizer(recipe: ModelRecipe) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if recipe.tokenizer == "metaspace":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=alphabet, show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        if recipe.tokenizer == "nfkc":
            tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\u200b", "")])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
    tokenizer.train_from_iterator(TRAINING_TEXT * 3, trainer)
    if recipe.tokenizer == "metaspace":
        # Bytes are entries of the vocabulary, and no tokens that text could name.
        state = json.loads(tokenizer.to_str())
        state["added_tokens"] = state["added_tokens"][:1]
        tokenizer = Tokenizer.from_str(json.dumps(state))
    # A normaliser acts on tokens only where they say so.
    normalized = recipe.tokenizer == "nfkc"
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=AddedToken(recipe.special[0], special=True, normalized=normalized),
        bos_token=recipe.bos,
        clean_up_tokenization_spaces=False,
    )
    wrapped.add_tokens([AddedToken(token, special=True, normalized=normalized) for token in recipe.special], True)
    wrapped.add_tokens([AddedToken(token, special=False, normalized=normalized) for token in recipe.added])
    if recipe.chat_template is not None:
        wrapped.chat_template = recipe.chat_template
    return wrapped


def _small_model(architecture: str, vocabulary: int, *, seed: int = 0, **config: Any) -> Any:
    """A model with random weights, large enough ones that its scores differ."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 1024}
    settings = dict(vocab_size=vocabulary, **sizes, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3)
    settings |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    if architecture == "gpt_neox":
        del settings["num_key_value_heads"]
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **(settings | config))).eval()


# Loads the libraries once, which takes a process longer than what most tests ask of it; each `r1ranker` is then a
# process forked off, with the caller's arguments, folder, environment and streams.
def pytest_collection_finish() -> None:
    """Takes the libraries out of what is searched for garbage: every training asks for that, and it took a third."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for completions caches: neither the user's, nor what fixtures of many tests begin with."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R1RANKER_CACHE", str(folder / "fixtures.sqlite"))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def declarations_of_the_module() -> Iterator[None]:
    """What a module's tests declare, such as the judge of a reward, is no other module's."""
    doors = (STRATEGIES, BACKENDS, FIRST_STAGES, FAMILY)
    before = [set(door) for door in doors]
    yield
    for door, names in zip(doors, before, strict=True):
        for name in set(door) - names:
            door.forget(name)


@pytest.fixture(autouse=True)
def own_cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own cache, of its subprocesses too."""
    path = caches / f"{next(_NUMBERS)}.sqlite"
    monkeypatch.setenv("R1RANKER_CACHE", str(path))
    return path


@pytest.fixture(scope="session")
def commands() -> Iterator[Path]:
    """The command in processes that need not import torch and TRL again."""
    trainers = ("trl.trainer.grpo_trainer", "trl.trainer.sft_trainer")
    with command_server("torch", "transformers.models.llama.modeling_llama", *trainers) as folder:
        yield folder


@pytest.fixture(scope="session")
def light_commands() -> Iterator[Path]:
    """The command in processes that have imported the command line alone."""
    with command_server() as folder:
        yield folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts chat servers that answer by a script: `serve(completion("…"), refusal(429, "slow down"))`."""
    with ExitStack() as running:

        def start(*behaviours: Behaviour) -> ScriptedServer:
            return running.enter_context(serving(*behaviours))

        yield start


@pytest.fixture(scope="session")
def bm25_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BM25's run of the packaged collection."""
    from commands import COLLECTION, r1ranker

    path = tmp_path_factory.mktemp("first") / "bm25.trec"
    r1ranker("search", "--corpus", COLLECTION, "--output", path)
    return path


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """Makes a random model in memory: `make_model("qwen2", 300, hidden_size=64, seed=1)`."""
    return _small_model


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a checkpoint folder from a recipe's name: `make_checkpoint("chatml", max_position_embeddings=200)`.

    The same arguments give the same folder: a test that changes a checkpoint changes a copy.
    """

    @functools.cache
    def tokenizer_of(name: str) -> Any:
        return _train_tokenizer(RECIPES[name])

    @functools.cache
    def make(name: str, **config: Any) -> Path:
        recipe = RECIPES[name]
        tokenizer = tokenizer_of(name)
        eos = tokenizer.convert_tokens_to_ids(recipe.special[0])
        model = _small_model(
            recipe.architecture, len(tokenizer) + 8, **({"eos_token_id": eos, **recipe.config} | config)
        )
        folder = tmp_path_factory.mktemp(f"model-{name}-")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def open_model(make_checkpoint: Callable[..., Path]) -> Callable[..., Any]:
    """Opens a recipe's checkpoint as a local backend on the CPU: `open_model("chatml", batch_size=3)`."""

    @functools.cache
    def open_cached(name: str, **options: Any) -> Any:
        from r1ranker_ir.backends.local import TransformersBackend

        return TransformersBackend(make_checkpoint(name), device="cpu", **options)

    return open_cached


@pytest.fixture(scope="session")
def load_tokenizer(make_checkpoint: Callable[..., Path]) -> Callable[[str], Any]:
    """The tokenizer of a recipe's checkpoint, as it comes back from its folder."""

    @functools.cache
    def load(name: str) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(make_checkpoint(name))

    return load


@pytest.fixture(scope="session")
def embedded_checkpoint() -> Path:
    """The folder of the embedded model."""
    if not (TINY_CHECKPOINT / "model.safetensors").is_file():
        pytest.fail("the embedded model is missing: training/ says how to make it")
    return TINY_CHECKPOINT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Collections that belong to others; they lie beside the checkout, if at all."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared collections are not beside this checkout (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def prompt() -> Prompt:
    """The project's prompts, without any limit of length."""
    return Prompt(load_template(), WordLimits())


@pytest.fixture(scope="session")
def word_limits() -> type[WordLimits]:
    """Makes the limits of a model that counts words: `word_limits(context_length=100)`."""
    return WordLimits


@pytest.fixture(scope="session")
def conversation() -> type[Conversation]:
    return Conversation
