"""The command `r1ranker` in processes that are forked from one that has imported what they need."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND_SERVER = """
import json, os, signal, socket, sys
for name in sys.argv[2:]:
    __import__(name)
from r1ranker_ir.cli.app import app

listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.write(1, b"ready\\n")
while True:
    caller, _ = listening.accept()
    if os.fork():
        caller.close()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if command := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        caller.sendall(b"%d" % status)
        os._exit(0)
    sent, streams, _, _ = socket.recv_fds(caller, 2**16, 3)
    while not sent.endswith(b"\\n"):
        sent += caller.recv(2**16)
    order = json.loads(sent)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["r1ranker", *(os.fsdecode(word.encode("latin-1")) for word in order["arguments"])]
    sys.exit(app())
"""
# What stands for the command; it starts at once.
COMMAND = """\
#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    words = [os.fsencode(word).decode("latin-1") for word in sys.argv[1:]]
    order = dict(arguments=words, folder=os.getcwd(), environment=dict(os.environ))
    socket.send_fds(server, [json.dumps(order).encode() + b"\\n"], [0, 1, 2])
    sys.exit(int(server.recv(9) or 99))
"""


@contextmanager
def command_server(*imported: str, **environment: str) -> Iterator[Path]:
    """A folder with the command `r1ranker`: a process of its own each time, which need not import these again."""
    # Not one of pytest's folders, since a socket's address has to be short.
    with tempfile.TemporaryDirectory(prefix="r1ranker-") as name:
        command, address = Path(name) / "r1ranker", f"{name}/socket"
        command.write_text(COMMAND.format(python=sys.executable, address=address), encoding="utf-8")
        command.chmod(0o755)
        arguments = [sys.executable, "-c", COMMAND_SERVER, address, *imported]
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=inherited | environment) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == b"ready\n"
                yield command.parent
            finally:
                server.kill()
