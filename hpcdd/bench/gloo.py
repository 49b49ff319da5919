"""PyTorch's own process group (gloo) compared with MPI, over a network on which every rank does reach root.

A cluster's nodes have several interfaces: management, a fast network, a container bridge with the same address on every
node; and a node's own name often resolves to a loopback address. So nothing is guessed: root listens, every rank tries
root's addresses, and a connection that works tells it which of its own interfaces leads there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import secrets
import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence

import psutil

from ..core.errors import UserError
from ..mpi.communicator import Comm

VARIABLE = "GLOO_SOCKET_IFNAME"
"""The environment variable that names gloo's interfaces, separated by commas; where it is set, no other is used."""
_LOOPBACK = "127.0.0.1"
_CONNECT_TIMEOUT = 3.0
"""Seconds for root to answer under one of its addresses; a network that drops packets costs it for each of them."""
_GROUP_TIMEOUT = datetime.timedelta(minutes=5)
"""For the ranks to meet, and for any message of the group."""


@dataclasses.dataclass(frozen=True)
class Network:
    """Where the group talks.

    Attributes:
        address: root's, IPv4; loopback if all ranks are on one host and none is asked for.
        interfaces: of every rank, in rank order.
    """

    address: str
    interfaces: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(sorted(set(self.interfaces)))} (root: {self.address})"


@contextlib.contextmanager
def torch_group(comm: Comm) -> Iterator[Network]:
    """Collective: inside the ``with`` block PyTorch's process group of the same ranks exists.

    Raises:
        UserError: on all ranks, see :func:`find_network`.
    """
    import torch

    network = find_network(comm)
    port = comm.on_root(_free_port)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = network.interfaces[comm.rank]
    try:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"tcp://{network.address}:{port}",
            rank=comm.rank,
            world_size=comm.size,
            timeout=_GROUP_TIMEOUT,
        )
        yield network
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def find_network(comm: Comm) -> Network:
    """Collective: the first of root's addresses under which all ranks reach it, and their interfaces on the way there.

    Addresses on fast interfaces come first, and of equally fast ones that to which root's host name resolves.
    Only IPv4, as gloo takes an interface's first address.

    Raises:
        UserError: on all ranks: there is no such address, or :data:`VARIABLE` names no interface of root's.
    """
    if len(comm.node_ranks()) == comm.size and not any(comm.allgather_object(_wanted())):
        return Network(_LOOPBACK, tuple(comm.allgather_object(_interface_of(_LOOPBACK))))
    with contextlib.ExitStack() as stack:
        token = comm.on_root(lambda: secrets.token_bytes(16))
        port = comm.on_root(lambda: stack.enter_context(_answering(token, comm.size)))
        addresses = comm.on_root(_local_addresses)
        reached = comm.allgather_object(_reached(addresses, port, token))
        hosts = comm.allgather_object(socket.gethostname())
    for address in addresses:
        if all(address in ways for ways in reached):
            return Network(address, tuple(ways[address] for ways in reached))
    cut_off = sorted({host for host, ways in zip(hosts, reached, strict=True) if not ways})
    raise UserError(
        f"PyTorch's process group needs TCP connections from every host to root's host, {hosts[0]} "
        f"({', '.join(addresses)}); "
        + (
            f"{', '.join(cut_off)} can reach none of these addresses"
            if cut_off
            else "no address can be reached from all hosts"
        )
        + f"; set {VARIABLE} to the interface that connects the hosts, and open it in their firewalls"
    )


def _reached(addresses: Sequence[str], port: int, token: bytes) -> dict[str, str]:
    """Root's addresses that answer this rank -> its interface on the way there."""
    wanted, interfaces = _wanted(), {}
    for address in addresses:
        # A local interface may have the same address, and anybody may listen there: the token identifies root.
        with contextlib.suppress(OSError), socket.create_connection((address, port), _CONNECT_TIMEOUT) as connection:
            interface = _interface_of(connection.getsockname()[0])
            if connection.recv(len(token), socket.MSG_WAITALL) == token and (not wanted or interface in wanted):
                interfaces[address] = interface
    return interfaces


@contextlib.contextmanager
def _answering(token: bytes, most: int) -> Iterator[int]:
    """Inside the ``with`` block whoever connects to the port gets the token."""

    class Server(socketserver.TCPServer):
        request_queue_size = max(most, 128)

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(token)

    with Server(("", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="hpcdd-network")
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _local_addresses() -> list[str]:
    """IPv4 addresses of this host that others may reach, the likeliest first."""
    speed = {name: stats.speed for name, stats in psutil.net_if_stats().items()}
    try:
        named = socket.gethostbyname(socket.gethostname())
    except OSError:
        named = ""
    wanted, interfaces = _wanted(), psutil.net_if_addrs()
    candidates = [
        (-speed.get(name, 0), entry.address != named, entry.address)
        for name, entries in interfaces.items()
        for entry in entries
        if entry.family == socket.AF_INET and (name in wanted if wanted else not entry.address.startswith("127."))
    ]
    if not candidates:
        asked = f"none on {', '.join(wanted)}, which {VARIABLE} names" if wanted else "only loopback"
        raise UserError(
            f"PyTorch's process group needs an IPv4 address of host {socket.gethostname()}, but there is {asked}; its "
            f"interfaces are {', '.join(sorted(interfaces))}"
        )
    return [address for *_, address in sorted(candidates)]


def _wanted() -> list[str]:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def _interface_of(address: str) -> str:
    """The name of this host's interface with an address; empty if there is none."""
    entries = psutil.net_if_addrs().items()
    return next((name for name, addresses in entries if any(entry.address == address for entry in addresses)), "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
