"""The socket that a server listens at. It needs no JAX, so a port that is taken is known early."""

import socket

from charlstm.errors import UserError

STALL_SECONDS = 60.0  # that a client may take nothing of its answer


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; port 0 takes one that is free.

    Raises:
      UserError: the address cannot be taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Its connections inherit this: a piece of an answer must not wait for the one before.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # on Linux; connections inherit it
            stall = round(1000 * STALL_SECONDS)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall)
        found.bind(address)
        found.listen(2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no address"
        raise UserError(
            f"cannot listen at {host}, port {port} ({reason}): choose another --port or --host, "
            "or end what listens there"
        ) from error
    return found


def address_of(listening: socket.socket) -> str:
    """Returns the address of a socket as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
