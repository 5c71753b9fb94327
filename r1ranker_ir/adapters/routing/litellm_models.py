"""Profiles of the language models of a LiteLLM configuration, with LiteLLM's own price list."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from r1ranker_ir.adapters.routing.llms import LLMProfile, check_profiles
from r1ranker_ir.errors import DataFileError, InputError, missing_extra
from r1ranker_ir.files.described import described
from r1ranker_ir.quoting import quoted

logger = logging.getLogger(__name__)

_LOCAL_PRICES = "LITELLM_LOCAL_MODEL_COST_MAP"
_PRICES = {"price_in": "input_cost_per_token", "price_out": "output_cost_per_token"}
_TOKENS = 1_000_000


def import_litellm(feature: str) -> ModuleType:
    """Imports LiteLLM, which takes seconds, with the price list that it carries; `feature` says what needs it.

    Without being told otherwise LiteLLM downloads the newest list as it is imported. Here it does so only if
    `LITELLM_LOCAL_MODEL_COST_MAP` is set to `False`, or the program imported it earlier.
    """
    if (loaded := sys.modules.get("litellm")) is not None:
        return loaded
    told = os.environ.get(_LOCAL_PRICES)
    os.environ[_LOCAL_PRICES] = "True" if told is None else told
    try:
        return importlib.import_module("litellm")
    except ImportError as error:
        raise missing_extra(feature, "litellm", error) from error
    finally:
        if told is None:
            del os.environ[_LOCAL_PRICES]


def profiles_of_model_list(models: Any, *, where: str = "model_list") -> tuple[LLMProfile, ...]:
    """Makes a profile of each `model_name` of a LiteLLM model list; the first of several deployments counts.

    Prices are `input_cost_per_token` and `output_cost_per_token` of `model_info`, else of `litellm_params`, else
    LiteLLM's own for the model (`base_model` of `model_info` where given). `model_info` may hold `description` and
    `size`.
    """
    if not isinstance(models, list):
        raise DataFileError(f"{where}: a list of models is needed")
    profiles: dict[str, LLMProfile] = {}
    for place, entry in enumerate(models):
        profile = _profile(entry, f"{where}[{place}]")
        first = profiles.setdefault(profile.name, profile)
        if (first.price_in, first.price_out) != (profile.price_in, profile.price_out):
            logger.warning(
                "%s[%d]: the prices of %r differ from those of its first deployment, $%g/$%g per million tokens, which "
                "count",
                *(where, place, profile.name, first.price_in, first.price_out),
            )
    return check_profiles(profiles.values(), where)


def _profile(entry: Any, where: str) -> LLMProfile:
    if not isinstance(entry, dict) or not isinstance(entry.get("model_name"), str):
        raise DataFileError(f"{where}: 'model_name' is missing: an entry of LiteLLM's model_list is needed")
    params, info = (_mapping(entry, name, where) for name in ("litellm_params", "model_info"))
    prices: dict[str, Any] = {}
    for name, cost in _PRICES.items():
        given = info.get(cost, params.get(cost))
        prices[name] = None if given is None else _per_million(given, f"{where}: {cost}")
    if None in prices.values():
        known = _known_prices(info.get("base_model") or params.get("model"), entry["model_name"], where)
        prices = {name: known[name] if price is None else price for name, price in prices.items()}
    description, size = (str(info.get(name) or "") for name in ("description", "size"))
    try:
        return LLMProfile(entry["model_name"], **prices, description=description, size=size)
    except InputError as error:
        raise DataFileError(f"{where}: {error}") from None


def _mapping(entry: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = entry.get(name) or {}
    if not isinstance(value, dict):
        raise DataFileError(f"{where}: {name!r} is {described(value)}: an object is needed")
    return value


def _known_prices(model: Any, name: str, where: str) -> dict[str, float]:
    litellm = import_litellm(f"finding the prices of {name!r}, which its model_info does not hold,")
    if not isinstance(model, str | None):
        raise DataFileError(f"{where}: the model is {described(model)}: give its name under litellm_params")
    try:
        info = litellm.get_model_info(model)
        return {field: _per_million(info[cost], f"{where}: {cost}") for field, cost in _PRICES.items()}
    # LiteLLM raises a bare Exception for a model that it does not know.
    except Exception as error:
        logger.debug("LiteLLM knows no prices of %r", model, exc_info=error)
        raise DataFileError(
            f"{where}: LiteLLM knows no prices of the model {quoted(model)}: give input_cost_per_token and "
            f"output_cost_per_token under model_info"
        ) from None


def _per_million(cost: Any, where: str) -> float:
    try:
        # Rounded, so that 1e-7 dollars are 0.1 per million and not 0.09999999999999999.
        return round(float(cost) * _TOKENS, 9)
    except (TypeError, ValueError, OverflowError):
        pass
    # Outside of the clause, since Python's own error repeats the value.
    raise DataFileError(f"{where} is {described(cost, shows_words=True)}: a number is needed")
