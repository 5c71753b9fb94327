"""Completions endpoints in the forms of vLLM, SGLang and llama.cpp, on top of a real model."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from servers import Reply, Request, refusal

from r1ranker_ir.models.key_value_cache import cache_argument, cache_of

_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')


class RefusedError(Exception):
    """What a reader of constraints raises of one that the server does not take."""


def of_choice(name: str) -> Callable[[dict[str, Any]], list[str] | None]:
    """vLLM's two forms."""

    def texts(body: dict[str, Any]) -> list[str] | None:
        found = body.get(name)
        return found.get("choice") if isinstance(found, dict) else found

    return texts


def of_regex(body: dict[str, Any]) -> list[str] | None:
    """SGLang's: an alternative of literal texts."""
    if "regex" not in body:
        return None
    assert re.compile(body["regex"])
    plain = re.sub(r"\\n", "\n", body["regex"][1:-1])
    return [re.sub(r"\\(.)", r"\1", each) for each in re.split(r"(?<!\\)\|", plain)]


def of_grammar(body: dict[str, Any]) -> list[str] | None:
    """llama.cpp's: one rule of literal texts."""
    if "grammar" not in body:
        return None
    assert body["grammar"].startswith("root ::= ")
    return [json.loads(f'"{each}"') for each in _LITERAL.findall(body["grammar"])]


@dataclass
class ModelServer:
    """A behaviour of `serving`: goes on from prompts with a model, greedily, in one server's form.

    Args:
        model: a causal language model and its tokenizer.
        texts: reads the texts that a request is held to, where the server knows the form.
        scores: `openai`, `numbered` (tokens by number, as vLLM), `masked` (of what is allowed alone, as SGLang),
            `content` (by `n_probs`, as llama.cpp), or none.
        most_scores: more than so many are refused.
        takes_tokens: prompts may be tokens.
        stop_field: how it names the text at which it stopped; none for a server that does not tell.
        tells_tokens: by which field it is asked for the tokens that it writes: `return_token_ids`, or `verbose`, which
            makes it tell at which text it stopped as well.
    """

    model: Any
    tokenizer: Any
    texts: Callable[[dict[str, Any]], list[str] | None] | None = None
    scores: str = ""
    most_scores: int = 1000
    takes_tokens: bool = True
    stop_field: str = ""
    tells_tokens: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.pieces = [self._decode([token]).replace(" ", "") for token in range(len(self.tokenizer))]

    def __call__(self, request: Request) -> Reply:
        if not request.path.endswith("/v1/completions"):
            return refusal(404, "Not Found")
        body = request.body
        with self.lock:
            self.bodies.append(body)
        prompt = body["prompt"]
        if isinstance(prompt, list) and not self.takes_tokens:
            return refusal(400, "prompt must be a string")
        asked = body.get("logprobs", 0) if self.scores else 0
        if self.scores == "content":
            asked = body.get("n_probs", asked)
        if asked > self.most_scores:
            return refusal(400, f"Requested sample logprobs of {asked}, which is greater than max allowed")
        ids = prompt if isinstance(prompt, list) else self.tokenizer.encode(prompt, add_special_tokens=False)
        try:
            with self.lock, torch.inference_mode():
                return self._reply(body, list(ids), asked)
        except RefusedError as error:
            return refusal(400, str(error))

    def _reply(self, body: dict[str, Any], prompt: list[int], asked: int) -> Reply:
        texts = self.texts(body) if self.texts else None
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        written, first, text, cached, finish, stopped = list[int](), None, "", None, "length", None
        given = torch.tensor([prompt])
        for _ in range(body["max_tokens"]):
            given_cache = {} if cached is None else {cache_argument(self.model): cached}
            output = self.model(input_ids=given, use_cache=True, **given_cache)
            cached, logits = cache_of(output), output.logits[0, -1].float()
            if texts is not None:
                allowed = self._allowed(texts, text)
                if not allowed:
                    finish = "stop"
                    break
                mask = torch.full_like(logits, -torch.inf)
                mask[allowed] = 0
                held = logits + mask
            else:
                held = logits
            token = int(held.argmax())
            first = first or (token, torch.log_softmax(held if self.scores == "masked" else logits, -1))
            written.append(token)
            if token == self.tokenizer.eos_token_id:
                finish = "stop"
                break
            text = self._decode(written)
            if found := [stop for stop in stops if stop in text]:
                text, finish, stopped = text.partition(found[0])[0], "stop", found[0]
                break
            given = torch.tensor([[token]])
        choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
        if self.stop_field:
            choice[self.stop_field] = stopped
        besides: dict[str, Any] = {}
        if self.tells_tokens == "return_token_ids" and body.get("return_token_ids"):
            choice["token_ids"] = written
        if self.tells_tokens == "verbose" and body.get("verbose"):
            tokens = written if body.get("return_tokens") else []
            besides["__verbose"] = {"content": text, "tokens": tokens, "stopping_word": stopped or ""}
        if asked and first is not None:
            choice["logprobs"] = self._told(*first, asked, bool(body.get("return_tokens_as_token_ids")))
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(written)}
        return Reply(json.dumps({"object": "text_completion", "choices": [choice], "usage": usage, **besides}))

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def _allowed(self, texts: Sequence[str], written: str) -> list[int]:
        # The embedded model's tokens bring spaces of their own.
        wanted, said = [text.replace(" ", "") for text in texts], written.replace(" ", "")
        left = tuple(text[len(said) :] for text in wanted if text.startswith(said))
        return [
            number for number, piece in enumerate(self.pieces) if piece and any(text.startswith(piece) for text in left)
        ]

    def _told(self, token: int, scores: Any, count: int, by_number: bool) -> dict[str, Any]:
        best = torch.topk(scores, min(count, len(scores)))
        pairs = [(int(number), float(score)) for score, number in zip(*best, strict=True)]
        if self.scores == "content":
            top = [{"id": number, "token": self._decode([number]), "logprob": score} for number, score in pairs]
            return {"content": [{"id": token, "logprob": float(scores[token]), "top_logprobs": top}]}
        pairs = [pair for pair in [*pairs, (token, float(scores[token]))] if pair[1] > -1e30]
        numbered = by_number and self.scores == "numbered"
        name = (lambda number: f"token_id:{number}") if numbered else (lambda number: self._decode([number]))
        top_scores = {name(number): score for number, score in pairs}
        return {"tokens": [name(token)], "token_logprobs": [float(scores[token])], "top_logprobs": [top_scores]}
