"""How a model takes and hands back its key-value cache: found out by asking it, since libraries rename the argument."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from r1ranker_ir.errors import CheckpointError

# transformers 5.24 renamed the argument, for some models from `cache_params`; a checkpoint's own code may lag behind.
_NAMES = ("cache", "past_key_values", "cache_params")
_FIRST, _SECOND, _NEXT = (5, 6, 7), (8, 9, 10), 11
# Rounding moves scores by far less than another beginning does; of models that hardly look at it, by this at most.
_NEAR, _ROUNDING = 0.5, 0.001
_FOUND: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def cache_argument(model: Any) -> str:
    """Finds the argument that a model takes its cache by, with three passes over a few tokens; once for each model."""
    if model not in _FOUND:
        _FOUND[model] = _probe(model)
    return _FOUND[model]


def passed_cache(arguments: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of a model's call; `None` if there is none."""
    return next((arguments[name] for name in _NAMES if arguments.get(name) is not None), None)


def cache_of(output: Any) -> Any:
    """The cache in a model's output; `None` if there is none."""
    return passed_cache(output if isinstance(output, Mapping) else vars(output))


@torch.no_grad()
def _probe(model: Any) -> str:
    """Reads one text, then two others, and goes on with the first: the scores must be those of reading it whole.

    What is read in between shows whether the states are in the cache, or in the model, where texts would mix.
    """
    own = model.get_base_model() if hasattr(model, "get_base_model") else model
    what = f"the model ({type(own).__name__})"
    weights = model.get_input_embeddings().weight

    def read(*texts: Sequence[int], **options: Any) -> Any:
        ids = torch.tensor([[token % len(weights) for token in text] for text in texts], device=weights.device)
        return model(input_ids=ids, use_cache=True, **options)

    try:
        cache = cache_of(read(_FIRST))
        whole = read((*_FIRST, _NEXT), (*_SECOND, _NEXT)).logits[:, -1].float()
    # Whatever a model provokes that needs more than tokens.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise CheckpointError(f"{what} can't read a text of four tokens: {reason}") from error
    if cache is None:
        raise CheckpointError(
            f"{what} hands back no cache of what it has read, as recurrent models of some kinds don't: use a model "
            "whose attention keeps keys and values, or serve it and use the openai backend"
        )
    allowed = _NEAR * (whole[0] - whole[1]).abs().max() + _ROUNDING * whole.abs().max()
    named, tried = inspect.signature(own.forward).parameters, []
    for name in sorted(_NAMES, key=lambda name: name not in named):
        try:
            # A copy, since a pass may change it and still not go on from it.
            scores = read([_NEXT], **{name: copy.deepcopy(cache)}).logits[0, -1].float()
        # Whatever an argument provokes that the model does not know, or knows as something else.
        except Exception as error:
            tried.append(f"{name}: {type(error).__name__}")
            continue
        if not (scores - whole[0]).abs().max() > allowed:
            return name
        tried.append(f"{name}: other scores")
    raise CheckpointError(
        f"{what} does not go on from its own cache ({', '.join(tried)}), so its scores would be wrong: use another "
        "model, a version of transformers that runs this one rightly, or serve it and use the openai backend"
    )
