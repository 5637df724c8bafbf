"""The process around the application: its threads, and an orderly end."""

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable

import uvicorn
from absl import logging

from charlstm.errors import ServingFailed
from charlstm.serving.app import application
from charlstm.serving.connections import Connection
from charlstm.serving.served import Served, watch
from charlstm.serving.service import Service
from charlstm.serving.signals import Signals

_POLL_SECONDS = 0.1


def serve(
    service: Service,
    listening: socket.socket,
    signals: Signals,
    grace_seconds: float,
    watch_seconds: float | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves until a signal asks for the end; then takes no request, and finishes what runs.

    Args:
      service: what is served.
      listening: of `sockets.listen`.
      signals: made before.
      grace_seconds: that requests have to be finished.
      watch_seconds: how often to look for better checkpoints; None: never.
      on_ready: is called when all models are compiled.

    Raises:
      ServingFailed: a model has failed; what others make was finished.
    """
    _allow_many_connections()
    config = uvicorn.Config(
        application(service),
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=math.ceil(grace_seconds),
    )
    server = uvicorn.Server(config)
    # Out of the main thread it leaves signals to us: after one it would end as if killed by it.
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), name="http")
    thread.start()
    ends, watching = threading.Event(), []
    try:
        for model in service.models.values():
            model.start()
        is_told = False
        while thread.is_alive() and not signals.is_asked and not service.failed:
            time.sleep(_POLL_SECONDS)
            if service.is_ready and not is_told:
                is_told = True
                signals.serving()
                on_ready()
                if watch_seconds is not None:
                    watching = _watch(list(service.models.values()), watch_seconds, ends)
        if not thread.is_alive():
            raise RuntimeError("the HTTP server has ended by itself")
        if service.failed:
            what = "has failed" if is_told else "could not be made ready"
            raise ServingFailed(f"{service.failed[0]} {what}: the error is above")
        logging.info("ending: no request is taken any more, and what runs is finished")
    finally:
        service.is_ending = True
        server.should_exit = True
        ends.set()
        for one in (thread, *watching):
            one.join()
        for model in service.models.values():
            model.engine.stop()
        for model in service.models.values():
            model.engine.join()


def _watch(models: list[Served], seconds: float, until: threading.Event) -> list[threading.Thread]:
    """Returns threads, started, that look for better checkpoints until an event is set."""
    watching = [threading.Thread(target=watch, args=(model, seconds, until)) for model in models]
    for thread in watching:
        thread.start()
    return watching


def _allow_many_connections() -> None:
    """Lets the process have as many open files as it may: every connection is one."""
    try:
        import resource
    except ImportError:  # not on this system
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # of macOS, whose limit is not to be asked for
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
