"""An object in a process of its own, so that its memory is its own and what it loaded stays loaded between calls."""

import importlib
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import mlx.core as mx


class Process:
    """Makes an object in a new process, where MLX computes on the CPU, and calls its methods there.

    A context manager: leaving it kills the process. Arguments and results must pickle.
    """

    def __init__(self, module: str, factory: str, *arguments: Any) -> None:
        """The object is what `factory` of `module` makes of the arguments. RuntimeError as `call`."""
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, module, factory, arguments), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """What the method returns. RuntimeError, in one line, for what it raises and for a process that ends."""
        self._pipe.send((method, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            failure, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"its process ended with status {self._process.exitcode}") from None
        if failure:
            raise RuntimeError(failure)
        return value

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(pipe: Connection, module: str, factory: str, arguments: tuple[Any, ...]) -> None:
    """The process: answers (failure, value), first for the factory, then for each call, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it here too: the parent ends this process
    os.dup2(2, 1)  # standard output is for results
    mx.set_default_device(mx.cpu)  # before mlx-lm takes the default device for its own stream
    actor = _attempt(pipe, getattr(importlib.import_module(module), factory), arguments)
    with suppress(EOFError):
        while actor is not None:
            method, arguments = pipe.recv()
            _attempt(pipe, getattr(actor, method), arguments, answer=True)


def _attempt(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], answer: bool = False) -> Any:
    """Calls and answers; an actor stays here."""
    try:
        value = function(*arguments)
    except (RuntimeError, OSError) as error:
        pipe.send((" ".join(str(error).split()) or type(error).__name__, None))
        return None
    pipe.send(("", value if answer else None))
    return value
