"""Carries connections from one place to another: `forward.py tcp:PORT unix:PATH`, or the other way round.

A Unix socket is the same file in every network namespace, so a pair of these joins two of them. Says "ready" once it
listens.
"""

import selectors
import socket
import sys
import threading
import time


def listening(where):
    kind, place = where.split(":", 1)
    if kind == "unix":
        server = socket.socket(socket.AF_UNIX)
        server.bind(place)
    else:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", int(place)))
    server.listen(64)
    return server


def connected(where):
    kind, place = where.split(":", 1)
    if kind == "unix":
        client = socket.socket(socket.AF_UNIX)
        client.connect(place)
        return client
    return socket.create_connection(("127.0.0.1", int(place)), timeout=10)


def carry(one, other):
    """Copies both ways until both have ended."""
    for end in (one, other):
        end.settimeout(None)
    with one, other, selectors.DefaultSelector() as waiting:
        waiting.register(one, selectors.EVENT_READ, other)
        waiting.register(other, selectors.EVENT_READ, one)
        while waiting.get_map():
            for key, _ in waiting.select():
                try:
                    data = key.fileobj.recv(65536)
                    if data:
                        key.data.sendall(data)
                    else:
                        key.data.shutdown(socket.SHUT_WR)
                except OSError:
                    return
                if not data:
                    waiting.unregister(key.fileobj)


def forwarder(come, go):
    server = listening(come)
    print("ready", flush=True)
    while True:
        one, _ = server.accept()
        try:
            other = connected(go)
        except OSError:
            one.close()
            time.sleep(0.05)
            continue
        threading.Thread(target=carry, args=(one, other), daemon=True).start()


if __name__ == "__main__":
    forwarder(*sys.argv[1:])
