"""Regular expressions of template files, matched under a limit on their time.

A pattern such as `(a+)+b` takes Python's `re` longer than the age of the universe on an unlucky answer, and nothing in
the same process can stop it. So patterns that are not ours are matched by `re` in a process beside this one, which is
ended when it takes too long: what matches, and how, is what `re` says.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import IO, Any

from r1ranker_ir.errors import InputError
from r1ranker_ir.quoting import quoted

SECONDS = 5.0
"""How long one answer may take; what takes longer than milliseconds is a fault of the pattern."""
_SECONDS_TO_START = 60.0
_LONGEST_PATTERN = 10_000
_MEMORY_BYTES = 2**31

_WORKER = f"""
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY_BYTES}, {_MEMORY_BYTES}))
except (ImportError, ValueError, OSError):
    pass
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    try:
        found = getattr(re.compile(asked["pattern"], asked["flags"]), asked["how"])(asked["text"])
        told = {{"groups": None if found is None else [found[0], *found.groups()]}}
    except BaseException as error:
        told = {{"error": type(error).__name__}}
    print(json.dumps(told), flush=True)
"""


@dataclass(frozen=True)
class TimedPattern:
    """A compiled pattern of a template file, and file and key for errors."""

    compiled: re.Pattern[str]
    where: str

    def search(self, text: str) -> tuple[str | None, ...] | None:
        """The first match and its groups, as `re.Match` numbers them; an InputError if that takes too long."""
        return self._ask("search", text)

    def fullmatch(self, text: str) -> tuple[str | None, ...] | None:
        """The match of a whole text, as `search`."""
        return self._ask("fullmatch", text)

    def _ask(self, how: str, text: str) -> tuple[str | None, ...] | None:
        asked = {"pattern": self.compiled.pattern, "flags": self.compiled.flags, "how": how, "text": text}
        told = _ask(asked)
        if told is None or "error" in told:
            what = f"takes more than {SECONDS:g} seconds" if told is None else f"fails with a {told['error']}"
            raise InputError(
                f"{self.where} is {quoted(self.compiled.pattern)}, which {what} on an answer of {len(text):,} "
                "characters: write it without repetitions inside repetitions, such as <answer>(.*?)</answer>"
            )
        groups = told["groups"]
        return None if groups is None else tuple(groups)


def timed_pattern(pattern: str, where: str, flags: int = 0) -> TimedPattern:
    """Compiles a template file's pattern; an InputError if `re` refuses it, or it is too long to be a person's."""
    if len(pattern) > _LONGEST_PATTERN:
        raise InputError(f"{where} has {len(pattern):,} characters: a pattern may have {_LONGEST_PATTERN:,}")
    try:
        return TimedPattern(re.compile(pattern, flags), where)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(f"{where} is {quoted(pattern)}, which is not a regular expression: {error}") from error


class _Worker:
    """The process that matches, and a thread that hands over what it says."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
        )
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin: IO[str] = self._process.stdin
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        # Its start does not count as matching, however busy the machine is.
        self._told.get(timeout=_SECONDS_TO_START)

    def _listen(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._told.put(line)
        self._told.put("")
        stdout.close()

    def ask(self, line: str, seconds: float) -> str:
        """Sends a line and waits: queue.Empty if no answer comes in time, OSError if the process is gone."""
        # A text that fills the pipe while the process is still matching can't happen: one question at a time.
        self._stdin.write(line)
        self._stdin.flush()
        told = self._told.get(timeout=seconds)
        if not told:
            raise BrokenPipeError("the process that matches patterns has ended")
        return told

    def end(self) -> None:
        self._process.kill()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._process.wait()


_lock = threading.Lock()
_worker: _Worker | None = None


def _ask(asked: dict[str, Any]) -> dict[str, Any] | None:
    """Asks the process, which is started if needed; `None` if it takes too long."""
    global _worker
    line = json.dumps(asked) + "\n"
    with _lock:
        for last in (False, True):
            if _worker is None or _worker.owner != os.getpid():  # a fork must not talk to its parent's process
                _worker = _Worker()
            try:
                told: dict[str, Any] = json.loads(_worker.ask(line, SECONDS))
                return told
            except queue.Empty:
                _worker.end()
                _worker = None
                return None
            except OSError:
                # Ended from outside, as by Ctrl-C: once more with a new one.
                _worker.end()
                _worker = None
                if last:
                    raise
    raise AssertionError("unreachable")
