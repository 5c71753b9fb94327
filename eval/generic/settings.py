"""What `r1ranker generic` asks two models, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import check_offered, option

PAPER_TASKS = "gsm8k,ifeval,mathqa"
"""What R1-Ranker's models were measured on beside rankings (arXiv 2506.21638)."""
PACKAGED_TASKS = Path(__file__).parent / "tasks"
"""Small tasks of the same three forms, which need no hub."""


@dataclass(frozen=True)
class GenericSettings:
    """Which tasks are asked, and how; each field says what it is for."""

    tasks: str = option(
        PAPER_TASKS,
        "Tasks of lm-evaluation-harness, split by commas; or the packaged small-sums, small-instructions and "
        "small-choice, which need no hub.",
        group="What",
    )
    task_folder: Path | None = option(
        None,
        "Folder with tasks of your own, YAML files of lm-evaluation-harness; Python code that they name is run.",
        group="What",
        unset="",
    )
    few_shot: int | None = option(
        None, "Examples in each prompt, unless a task wants none.", group="What", unset="what the task says", least=0
    )
    limit: int | None = option(None, "Ask only the first samples of each task.", group="Limits", unset="all", least=1)
    max_tokens: int | None = option(
        None, "Most tokens of an answer with its thought.", group="Limits", unset="what the task says, or 256", least=1
    )
    think_end: str = option("</think>", "What ends a thought; only what follows it is scored.", group="Model")
    batch_size: int = option(8, "Prompts that the model reads at a time.", group="Engine", least=1)

    def __post_init__(self) -> None:
        check_offered(self)
        if not self.names:
            raise InputError(f"tasks is {self.tasks!r}: name at least one, such as gsm8k")
        if self.task_folder is not None and not self.task_folder.is_dir():
            raise InputError(f"task_folder is {str(self.task_folder)!r}, which is no folder: give one with YAML files")

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.tasks.split(",") if name.strip()))
