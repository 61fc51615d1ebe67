"""Detection of dead processes in a distributed run, so that no other process waits for them."""

import contextlib
import json
import logging
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from lib.utils.errors import InputError
from lib.utils.signals import Stopped

logger = logging.getLogger(__name__)

GRACE_SECONDS = 10  # time for a process to end by itself after another one has ended early
CONNECT_SECONDS = 30
POLL_SECONDS = 1
# A machine that disappears, for example in a power failure, is noticed after 10 + 4 * 5 seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
TOKEN_BYTES = 16


class End(NamedTuple):
    """Report of how a process ended, for the other processes."""

    code: int  # exit code; 128 + n after signal n
    text: str = ""  # message


class Watch:
    """Connections of all processes to rank 0, which tells the others when one of them ends early.

    The operating system closes the connection of a process that dies for any reason. If torchrun
    started this process and dies, this process stops as on SIGTERM.

    ``gather`` returns the values of all processes, by rank.

    Raises:
        InputError: a process cannot connect to rank 0.
    """

    def __init__(self, rank: int, gather: Callable[[Any], list[Any]]) -> None:
        self._name = f"rank {rank} (process {os.getpid()} on {socket.gethostname()})"
        self._names: list[str] = gather(self._name)
        self._peers: dict[socket.socket, str] = {}
        self._peer_end: End | None = None
        self._peer_ended, self._is_leaving = threading.Event(), threading.Event()
        self._send_lock, self._has_sent = threading.Lock(), False
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        problem = ""
        if rank == 0:
            server, token = _listening_socket(), secrets.token_bytes(TOKEN_BYTES)
            self._start(self._serve, server, token)
            gather((token, [socket.gethostname()], server.getsockname()[1]))
        else:
            token, hosts, port = gather(None)[0]
            # Rank 0 is normally on the machine MASTER_ADDR.
            problem = self._connect(rank, token, [os.environ["MASTER_ADDR"], *hosts], port)
        for text in filter(None, gather(problem)):
            raise InputError(text)
        if rank > 0:
            self._start(self._listen)

    def _start(self, target: Callable, *args: object) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

    def _serve(self, server: socket.socket, token: bytes) -> None:
        """Accept the connections of all other processes, then listen to them."""
        with server:
            while len(self._peers) < len(self._names) - 1:
                peer, _ = server.accept()
                with contextlib.suppress(OSError, ValueError):
                    peer.settimeout(CONNECT_SECONDS)
                    hello = peer.recv(TOKEN_BYTES + 4, socket.MSG_WAITALL)
                    if hello[:TOKEN_BYTES] == token:
                        peer.sendall(token)
                        self._add(peer, int.from_bytes(hello[TOKEN_BYTES:], "big"))
        self._listen()

    def _connect(self, rank: int, token: bytes, hosts: list[str], port: int) -> str:
        """Connect to rank 0 on the first of ``hosts`` that works; return the problem, if any."""
        for host in dict.fromkeys(hosts):
            with contextlib.suppress(OSError):
                peer = socket.create_connection((host, port), CONNECT_SECONDS)
                peer.sendall(token + rank.to_bytes(4, "big"))
                if peer.recv(TOKEN_BYTES, socket.MSG_WAITALL) == token:
                    self._add(peer, 0)
                    return ""
        return f"{self._name}: cannot reach rank 0 at {' or '.join(hosts)}, port {port}"

    def _add(self, peer: socket.socket, rank: int) -> None:
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            if hasattr(socket, option):  # macOS has other names
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        # A data-loading process must not keep the connection of a killed process open.
        os.register_at_fork(after_in_child=peer.close)
        self._peers[peer] = self._names[rank]

    def _listen(self) -> None:
        """Wait until all peers have ended, or one has ended early.

        The peers of rank 0 are all other processes; the only peer of another rank is rank 0.
        """
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer, selectors.EVENT_READ)
            while selector.get_map():
                if self._parent is not None and os.getppid() != self._parent:
                    self._parent = None
                    logger.warning("=> torchrun has ended: this run stops, too")
                    os.kill(os.getpid(), signal.SIGTERM)
                for key, _ in selector.select(POLL_SECONDS):
                    selector.unregister(key.fileobj)
                    end = _read_end(key.fileobj, self._peers[key.fileobj])
                    if end.code:
                        self._follow(end)
                        return

    def _follow(self, end: End) -> None:
        """Forward ``end`` to the peers, and end this process unless it ends by itself."""
        self._peer_end = end
        self._send(end)  # before the main thread knows, because it may exit at once
        self._peer_ended.set()
        if not self._is_leaving.wait(GRACE_SECONDS):
            text = str(_error_of(end))
            logging.getLogger("config").error(text)  # to the file only
            print(text if end.code > 128 else f"error: {text}", file=sys.stderr, flush=True)
            os._exit(end.code)

    def _send(self, end: End) -> None:
        """Send ``end`` to all peers, unless one was sent before."""
        with self._send_lock:
            for peer in [] if self._has_sent else self._peers:
                with contextlib.suppress(OSError):
                    peer.sendall(json.dumps(end).encode())
                    peer.shutdown(socket.SHUT_WR)
            self._has_sent = True

    def leave(self, error: BaseException | None = None) -> Exception | None:
        """Tell the peers that this process ends: normally, or because of ``error``.

        Return the error to raise instead if the end of another process caused ``error``.
        """
        if isinstance(error, RuntimeError):  # perhaps because another process has died
            self._peer_ended.wait(GRACE_SECONDS / 2)
        elif isinstance(error, Stopped) and self._parent is not None:
            self._peer_ended.wait(1)  # torchrun stops all processes when one has died
        self._is_leaving.set()
        end = self._peer_end
        is_stopped = isinstance(error, Stopped) and end is not None and end.code < 128
        if end is not None and (is_stopped or isinstance(error, RuntimeError)):
            with contextlib.suppress(ValueError):  # not the main thread
                # torchrun will also end this process; let the process report the reason first.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return _error_of(end)
        self._send(_end_of(self._name, error))
        return None


def _listening_socket() -> socket.socket:
    with contextlib.suppress(OSError, ValueError):  # no IPv6
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _read_end(peer: socket.socket, name: str) -> End:
    """Read the ``End`` that the process ``name`` sent; if it sent none, it has died."""
    text = b""
    try:
        while part := peer.recv(4096):
            text += part
        return End(*json.loads(text))
    except (ConnectionResetError, ValueError):
        return End(1, f"{name} died")
    except OSError as error:
        return End(1, f"{name} cannot be reached: {error.strerror}")


def _end_of(name: str, error: BaseException | None) -> End:
    """Return the ``End`` to report for process ``name``, which ends because of ``error``."""
    if error is None:
        return End(0)
    if isinstance(error, Stopped):
        return End(error.exit_code, f"{name} was stopped")
    if isinstance(error, KeyboardInterrupt):
        return End(128 + signal.SIGINT, f"{name} was interrupted")
    text = str(error) if isinstance(error, InputError) else " ".join(repr(error).split())
    return End(1, f"{name} ended: {text[:1000]}")


def _error_of(end: End) -> Exception:
    """Return the error that a process raises because another one ended with ``end``."""
    if end.code > 128:
        return Stopped(signal.Signals(end.code - 128), f": {end.text}")
    return InputError(end.text)
