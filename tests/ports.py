"""A port for a server that a test starts in another process, and whose address it must know before."""

import random
import socket


def free_port():
    """One on 127.0.0.1 that is free and stays so.

    Not port 0's: that comes from the range (32768 to 60999 on Linux) out of which every connection gets its own end, so
    another test's connection could take it before the server does.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
