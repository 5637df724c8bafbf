"""The process around the application: a socket, signals, and an orderly end."""

import signal
import socket
import threading
from collections.abc import Callable

import uvicorn
from absl import logging

from charlstm.errors import UserError
from charlstm.serving.app import Service, application


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; port 0 takes one that is free.

    Raises:
      UserError: the address cannot be taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(2048)
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}, port {port} ({error.strerror}): choose another --port or "
            "--host, or end what listens there"
        ) from error
    return found


def address_of(listening: socket.socket) -> str:
    """Returns the address of a socket as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(
    service: Service,
    listening: socket.socket,
    grace_seconds: float,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or Ctrl-C; then no request is taken, and what runs is finished.

    Args:
      service: what is served.
      listening: of `listen`.
      grace_seconds: that requests have to be finished.
      on_ready: is called when all models are compiled.

    Raises:
      UserError: a model could not be made ready.
    """
    config = uvicorn.Config(
        application(service),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(grace_seconds) or None,
    )
    server = uvicorn.Server(config)
    # Out of the main thread it leaves signals to us: after one it would end as if killed by it.
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), name="http")
    ends = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ends.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        thread.start()
        for model in service.models.values():
            model.start()
        is_told = False
        while thread.is_alive() and not ends.wait(0.05 if not is_told else 1.0):
            if not is_told and service.is_ready:
                is_told = True
                on_ready()
            failed = [name for name, one in service.models.items() if one.engine.has_failed]
            if failed and not is_told:
                raise UserError(f"{failed[0]} could not be made ready; the error is above")
    finally:
        if ends.is_set():
            logging.info("ending: no request is taken any more, and what runs is finished")
        service.is_ending = True
        server.should_exit = True
        thread.join()
        for model in service.models.values():
            model.engine.stop()
        for model in service.models.values():
            model.engine.join()
        for number, handler in before.items():
            signal.signal(number, handler)
