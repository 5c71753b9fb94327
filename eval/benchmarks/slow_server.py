"""A server on loopback whose replies take as long as those of a language model: a lognormal number of tokens.

    python -m r1ranker_ir.eval.benchmarks.slow_server --tokens 300 --spread 0.6 --milliseconds 5 --slots 32

prints its port. How long a reply takes depends on its prompt alone, so whoever asks the same waits the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re

_SHOWN = re.compile(r"^\[(\d+)\] number (\d+):", re.MULTILINE)


def seconds_of(prompt: str, tokens: float, spread: float, milliseconds: float) -> float:
    """Draws how long a reply takes: `spread` is the standard deviation of its tokens in means."""
    variance = math.log(1 + spread**2)
    drawn = random.Random(prompt).lognormvariate(math.log(tokens) - variance / 2, math.sqrt(variance))
    return drawn * milliseconds / 1000


def reply_to(prompt: str) -> str:
    """Excludes the passage of the largest number, as a model that ranks perfectly would."""
    worst = max(_SHOWN.findall(prompt), key=lambda shown: int(shown[1]))
    return f"<think>It says least.</think><answer>[{worst[0]}]</answer>"


async def serve(tokens: float, spread: float, milliseconds: float, slots: int) -> None:
    """Serves until the process ends."""
    free = asyncio.Semaphore(slots)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                prompt = json.loads(body)["messages"][-1]["content"]
                async with free:
                    await asyncio.sleep(seconds_of(prompt, tokens, spread, milliseconds))
                told = {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": reply_to(prompt)},
                }
                sent = json.dumps(
                    {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [told]}
                )
                headers = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
                writer.write((headers + sent).encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**24)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in (("tokens", 300.0), ("spread", 0.6), ("milliseconds", 5.0), ("slots", 32)):
        parser.add_argument(f"--{name}", type=type(value), default=value)
    asyncio.run(serve(**vars(parser.parse_args())))
