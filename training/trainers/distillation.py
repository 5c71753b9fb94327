"""How a router is distilled."""

from __future__ import annotations

from dataclasses import dataclass

from r1ranker_ir.errors import InputError
from r1ranker_ir.option_fields import check_offered, option


@dataclass(frozen=True)
class Distillation:
    """How a router is trained; of each tuple, cross-validation chooses one."""

    temperatures: tuple[float, ...] = (0.3, 1.0, 3.0)  # utilities are divided by it before the softmax
    strengths: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)  # inverse regularization, C as scikit-learn has it
    encoder: str = option("", "A sentence encoder's folder or Hugging Face name, beside the words.", unset="none")
    most_terms: int = option(3000, "Size of the vocabulary; 0 for the encoder alone.", least=0)
    tag_share: float = option(0.3, "How much of a label is the mean of the question's tag.", least=0, most=1)
    folds: int = option(5, "Folds of the cross-validation that chooses temperature and regularization.", least=2)
    seed: int = option(0, "Seed of the folds.")

    def __post_init__(self) -> None:
        for name in ("temperatures", "strengths"):
            if not (values := getattr(self, name)) or min(values) <= 0:
                raise InputError(f"{name} is {values}: give at least one number, all above 0")
        check_offered(self)
        if self.most_terms == 0 and not self.encoder:
            raise InputError(f"most_terms is {self.most_terms}: give at least 1, or name an encoder")
