"""A LiteLLM router that asks a ranker which language model gets a chat."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from r1ranker_ir.adapters.routing.llms import LLMProfile
from r1ranker_ir.adapters.routing.messages import question_of
from r1ranker_ir.errors import InputError, missing_extra
from r1ranker_ir.files.described import described, without_secrets

_LOCAL_PRICES = "LITELLM_LOCAL_MODEL_COST_MAP"

# LiteLLM would download its newest list of prices as it is imported, unless it is told otherwise.
_untold = _LOCAL_PRICES not in os.environ
os.environ.setdefault(_LOCAL_PRICES, "True")
try:
    from litellm.router import Router
except ImportError as error:
    raise missing_extra("a LiteLLM router", "litellm", error) from error
finally:
    if _untold:
        del os.environ[_LOCAL_PRICES]


class OrdersModels(Protocol):
    """What ranks language models, such as `RoutingAdapter`."""

    llms: tuple[LLMProfile, ...]

    def order(self, query: str) -> tuple[LLMProfile, ...]:
        """All language models, the best for the question first."""
        ...

    async def order_async(self, query: str) -> tuple[LLMProfile, ...]:
        """As `order`, while the event loop goes on."""
        ...


class RankedRouter(Router):  # type: ignore[misc]  # checking LiteLLM would take minutes
    """A `litellm.Router` with one more model, behind which the ranker chooses; see `RoutingAdapter.as_litellm_router`.

    LiteLLM has a hook for a routing strategy of one's own, but that picks among the deployments of one model, also
    after a failure. So the choice is made before: a chat for `name` becomes one for the best language model, with the
    others as its fallbacks. Deployments, retries, cooldowns and limits of each stay LiteLLM's.
    """

    def __init__(
        self, adapter: OrdersModels, model_list: Sequence[Mapping[str, Any]], *, name: str, **options: Any
    ) -> None:
        for place, entry in enumerate(model_list):
            if not isinstance(entry, Mapping):
                raise InputError(f"model_list[{place}] is {described(entry)}: an object with model_name is needed")
        named = [entry.get("model_name") for entry in model_list]
        deployed = {each for each in named if isinstance(each, str)}
        if lacking := [llm.name for llm in adapter.llms if llm.name not in deployed]:
            raise InputError(
                f"model_list has no deployment of {', '.join(map(repr, lacking))}: give each language model one, with "
                f"its name as model_name"
            )
        if name in deployed:
            raise InputError(f"name is {name!r}, which is also a deployment's model_name: choose another name")
        self.adapter, self.ranked_name = adapter, name
        try:
            super().__init__(model_list=[dict(entry) for entry in model_list], **options)
            return
        # Its errors share no class of their own.
        except Exception as error:
            refused = _reason(error, model_list, options)
        # Not chained to LiteLLM's error, which may hold the keys of model_list.
        raise InputError(f"LiteLLM refuses model_list or the options: {refused}")

    def completion(self, model: str, messages: list[Any], **kwargs: Any) -> Any:
        """Completes a chat, as `litellm.Router.completion` does, with the best language model for it."""
        if model == self.ranked_name:
            model, kwargs = _in_order(self.adapter.order(question_of(messages)), kwargs)
        return super().completion(model, messages, **kwargs)

    async def acompletion(self, model: str, messages: list[Any], stream: bool = False, **kwargs: Any) -> Any:
        """Completes a chat, as `litellm.Router.acompletion` does, with the best language model for it.

        The event loop goes on while the ranker works; a task that is cancelled makes no further calls.
        """
        if model == self.ranked_name:
            model, kwargs = _in_order(await self.adapter.order_async(question_of(messages)), kwargs)
        return await super().acompletion(model, messages, stream=stream, **kwargs)


def _in_order(llms: Sequence[LLMProfile], kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The best language model's name, and the others as its fallbacks."""
    best, *others = llms
    # A fallback of a fallback would begin again with the first one; each is tried once, in the ranking's order.
    fallbacks = [{"model": llm.name, "fallbacks": []} for llm in others]
    return best.name, {"fallbacks": fallbacks} | kwargs


def _reason(error: Exception, *given: Any) -> str:
    """What LiteLLM, or pydantic for it, says about what it was given, without the values."""
    told = str(error)
    if isinstance(error, ValidationError):
        each = error.errors(include_input=False, include_context=False, include_url=False)
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in each)
    return without_secrets(told, *given) or type(error).__name__
