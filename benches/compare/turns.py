"""Processes that take turns: whoever's turn it is not is stopped, so that no waiting thread disturbs.

The protocol is lines. A contender says `{}` when it is up, and builds its model when the first line comes. Each
line is a number of steps to do, and is answered with `{"median_ms": ..., "about": {...}}`.
"""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

# Fewer have no median.
FEWEST_STEPS = 2

TIMEOUT = 900.0  # seconds for a turn, compiling included


class NotRun(Exception):
    """A contender that cannot take its turn, and why."""


class Contender(contextlib.AbstractContextManager["Contender"]):
    """A process on the first `threads` of this one's processors, so that it cannot use more of them."""

    def __init__(
        self,
        command: Sequence[str],
        threads: int,
        timeout: float = TIMEOUT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        def enter() -> None:
            # A group of its own, to be stopped as a whole. In this session, so that the system ends it if
            # this process dies while it is stopped.
            os.setpgid(0, 0)
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

        self.command, self.threads, self.timeout = command, threads, timeout
        self.steps = 1
        self.about: dict[str, Any] = {}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                env=environment,
                preexec_fn=enter,
                text=True,
            )
        except OSError as error:
            raise NotRun(str(error)) from error
        try:
            self.answer()
            # RSS of the program and its libraries alone, in bytes.
            self.memory_before = self.memory("VmRSS")
            self.signal(signal.SIGSTOP)
        except NotRun:
            self.close()
            raise

    def warm_up(self, budget: float) -> None:
        """One step, which may compile, then as many as tell how long one takes."""
        for self.steps in (1, FEWEST_STEPS):
            self.turn(budget)

    def turn(self, budget: float) -> float:
        """The median of the turn's steps, by which the next turn has as many as take about `budget` milliseconds."""
        self.signal(signal.SIGCONT)
        try:
            print(self.steps, file=self.process.stdin, flush=True)
        except OSError as error:
            raise NotRun(self.reason()) from error
        answer = self.answer()
        self.signal(signal.SIGSTOP)
        self.about = answer["about"]
        median = float(answer["median_ms"])
        self.steps = max(FEWEST_STEPS, round(budget / median))
        return median

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        # A line is written at once, so what can be read is a whole one.
        if not select.select([self.process.stdout], [], [], self.timeout)[0]:
            raise NotRun(f"no answer within {self.timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise NotRun(self.reason())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def reason(self) -> str:
        """Why the process ended."""
        status = self.process.wait()
        self.errors.seek(0)
        return last_words(self.errors.read().decode(errors="replace")) or f"ended with status {status}"

    def memory(self, field: str) -> int | None:
        """`VmRSS` or, the highest ever, `VmHWM` in bytes, where the system tells. Unlike getrusage's, these do not
        include what the process was before it became this program."""
        with contextlib.suppress(OSError), open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith(f"{field}:"):
                    return int(line.split()[1]) * 1024
        return None

    def signal(self, number: signal.Signals) -> None:
        # Only while it is ours: another process may get the number of one that has been waited for.
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        # BrokenPipeError: a last line that an ended process did not take.
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        self.errors.close()


def last_words(errors: str) -> str:
    """What a program said before it failed: Python's last exception, else the last line."""
    lines = errors.strip().splitlines()
    exceptions = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (exceptions or lines or [""])[-1]
