"""The one door to external programs: every call is logged, its failure classified, and tests can fake it.

``run(["lsblk", "-J"])`` uses the Runner in force: the real one, or the one put there by ``use_runner`` in a test.
Secrets go in by ``input``, never by argument; ``input`` is not logged.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from recovery.errors import CommandError

log = logging.getLogger("rekindle.commands")

#: Tools are read by programs: no translations, no colour, no pager.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0", "PAGER": "cat"}
#: util-linux says so where the kernel refused a mount, and the reason is in the kernel's log only.
_SEE_KERNEL, _KERNEL_LINES = "dmesg(1) may have more information", 3


@dataclass(frozen=True)
class Completed:
    """What a program said. ``stdout`` and ``stderr`` are text, undecodable bytes replaced."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str = ""
    stderr: str = ""

    def __bool__(self) -> bool:
        return self.returncode == 0


class Runner(Protocol):
    """Runs a program to its end. Never raises for an exit code; raises CommandError if it can't be started."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_output: Callable[[str], None] | None = None,
    ) -> Completed: ...


def run_real(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_output: Callable[[str], None] | None = None,
) -> Completed:
    """The real Runner. With ``on_output`` stdout and stderr are merged and given line by line as they come."""
    environment = {**os.environ, **_ENVIRONMENT, **(env or {})}
    try:
        if on_output is None:
            done = subprocess.run(
                argv, input=input, timeout=timeout, env=environment, cwd=cwd, capture_output=True, check=False,
                stdin=subprocess.DEVNULL if input is None else None,
            )  # fmt: skip
            return Completed(
                tuple(argv),
                done.returncode,
                done.stdout.decode(errors="replace"),
                done.stderr.decode(errors="replace"),
            )
        return _run_streaming(argv, environment, cwd, timeout, on_output)
    except FileNotFoundError as error:
        raise CommandError(
            f"The program '{argv[0]}' is not installed.",
            hint=f"Install the Debian package that has '{argv[0]}'.",
        ) from error
    except PermissionError as error:
        raise CommandError(
            f"The program '{argv[0]}' may not be run: {error.strerror}.", hint="Run as root."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(
            f"'{shlex.join(argv)}' did not end within {timeout:.0f} seconds and was stopped.",
            hint="A disk or a network that hangs is the usual reason; see the log.",
        ) from error
    except OSError as error:
        raise CommandError(
            f"The program '{argv[0]}' could not be started: {error.strerror}.", hint="Is there memory left?"
        ) from error


def _run_streaming(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    timeout: float | None,
    on_output: Callable[[str], None],
) -> Completed:
    lines: list[str] = []
    hung = threading.Event()
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=cwd,
        text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip

        def kill(number: int) -> None:
            # With its children: they hold the pipe that is read here, and the filesystems that are to be unmounted.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

        def stop() -> None:
            hung.set()
            kill(signal.SIGKILL)

        # A timer, not a look at the clock per line: a program that hangs prints no line.
        watchdog = threading.Timer(timeout, stop) if timeout else None
        if watchdog:
            watchdog.start()
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        try:
            for line in process.stdout:
                lines.append(line)
                on_output(line.rstrip("\n"))
        except BaseException:  # Ctrl-C, or a listener that fails
            kill(signal.SIGTERM)
            raise
        finally:
            if watchdog:
                watchdog.cancel()
    if hung.is_set():
        raise subprocess.TimeoutExpired(argv, timeout or 0)
    text = "".join(lines)
    return Completed(tuple(argv), process.returncode, text, text)


_runner: contextvars.ContextVar[Runner] = contextvars.ContextVar("runner", default=run_real)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    input: bytes | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_output: Callable[[str], None] | None = None,
) -> Completed:
    """Run a program to its end.

    With ``check`` a failure raises CommandError naming the program, how it failed and its last words.
    ``timeout`` is in seconds. ``input`` is given on stdin and never logged.
    """
    words = [os.fspath(word) for word in argv]
    log.debug("run: %s", shlex.join(words))
    start = time.monotonic()
    done = _runner.get()(words, input=input, timeout=timeout, env=env, cwd=cwd, on_output=on_output)
    log.debug("exit %d after %.2f s: %s", done.returncode, time.monotonic() - start, words[0])
    if done.stderr.strip() and on_output is None:
        log.debug("stderr of %s: %s", words[0], done.stderr.strip()[-2000:])
    if check and done.returncode != 0:
        raise failure(done, _kernel_said() if _SEE_KERNEL in done.stderr else ())
    return done


def _kernel_said() -> list[str]:
    """The kernel's last lines, which mount's message sends a person to: at the console of a BMC that is far."""
    with contextlib.suppress(CommandError):
        said = _runner.get()(["dmesg", "--notime"], timeout=10).stdout
        return [line.strip() for line in said.splitlines() if line.strip()][-_KERNEL_LINES:]
    return []


def failure(done: Completed, kernel: Sequence[str] = ()) -> CommandError:
    """The CommandError that describes a program that ended badly; ``kernel``: what the kernel had to say."""
    lines = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
    last_words = [line.strip() for line in lines if not kernel or _SEE_KERNEL not in line][-3:]
    last_words += [f"kernel: {line}" for line in kernel]
    if done.returncode < 0:
        how = f"was killed by {signal.Signals(-done.returncode).name}"
    elif done.returncode == 127:
        how = "was not found"
    else:
        how = f"failed with exit code {done.returncode}"
    return CommandError(
        f"'{done.argv[0]}' {how}: {' / '.join(last_words)}",
        hint=f"The whole command was: {shlex.join(done.argv)}",
    )


@contextlib.contextmanager
def use_runner(runner: Runner) -> Iterator[None]:
    """Within the block ``run`` goes to ``runner`` (this thread or task only)."""
    token = _runner.set(runner)
    try:
        yield
    finally:
        _runner.reset(token)


@dataclass
class FakeRunner:
    """A Runner for tests: answers by the first rule whose words start the command, and records every call.

    >>> fake = FakeRunner({("lsblk",): Completed((), 0, "{}")})
    """

    answers: dict[tuple[str, ...], Completed] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_output: Callable[[str], None] | None = None,
    ) -> Completed:
        words = tuple(argv)
        self.calls.append(words)
        for start, answer in self.answers.items():
            if words[: len(start)] == start:
                return Completed(words, answer.returncode, answer.stdout, answer.stderr)
        return Completed(words, 0)
