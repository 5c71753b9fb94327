"""Replies that take no more memory than an answer may need, however much a server sends."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from openai import DefaultAsyncHttpxClient

MOST_BYTES = 16 * 2**20
# Packed bytes may unfold to a thousand times as many.
_MOST_PACKED_BYTES = 2**20


def _stream_class() -> Any:
    # The SDK's releases use one of two HTTP libraries, which take only streams of their own.
    library = next(each.__module__ for each in DefaultAsyncHttpxClient.__mro__ if each.__name__ == "AsyncClient")
    return sys.modules[library.partition(".")[0]].AsyncByteStream


if TYPE_CHECKING:
    _ByteStream = Any
else:
    _ByteStream = _stream_class()


class _Bounded(_ByteStream):  # type: ignore[misc]
    """A stream that ends after `most` bytes."""

    def __init__(self, whole: Any, most: int) -> None:
        self._whole = whole
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for chunk in self._whole:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._whole.aclose()


async def bound_reply(response: Any) -> None:
    """A hook of the HTTP client: ends what a server sends after 16 MiB, or 1 MiB where it is packed."""
    packed = response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")
    response.stream = _Bounded(response.stream, _MOST_PACKED_BYTES if packed else MOST_BYTES)
