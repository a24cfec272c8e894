#!/usr/bin/env python3
"""Registers a TCP server over MessagePack, as any program may that knows the control channel only from its description.

usage: register.py BALANCER_HOST BALANCER_PORT RELAY_PORT QUESTIONS

Starts a server that greets with "python" and echoes, registers it from the address given by SERVER_HOST (default: any),
prints "registered", answers so many of the balancer's questions whether it lives, prints "asked N times", waits for a line
on its standard input, unregisters, and prints "unregistered".
"""

import os
import socket
import struct
import sys
import threading

try:
    import msgpack
except ImportError:
    try:
        from pip._vendor import msgpack
    except ImportError:
        sys.exit("MISSING: the Python package msgpack; install it: apt-get install python3-msgpack, or pip install msgpack")


def pack(message):
    """A message is its length, 4 bytes, the lowest first, and then the map."""
    data = msgpack.packb(message)
    return struct.pack("<I", len(data)) + data


def read_exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            sys.exit("the balancer has closed the control connection")
        data += piece
    return data


def read_message(connection):
    (length,) = struct.unpack("<I", read_exactly(connection, 4))
    return msgpack.unpackb(read_exactly(connection, length), raw=False)


def read_reply(connection):
    """The next reply; questions on the way are answered."""
    while True:
        message = read_message(connection)
        if "ack" in message:
            return message
        answer(connection, message)


def answer(connection, question):
    if question != {"cmd": "healthcheck"}:
        sys.exit(f"not the question that was to be expected: {question}")
    connection.sendall(pack({"cmd": "healthcheck", "state": "good"}))


def echo(connection):
    with connection:
        connection.sendall(b"python\n")
        while data := connection.recv(4096):
            connection.sendall(data)


def serve(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def main():
    host, port, relay_port, questions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    own = os.environ.get("SERVER_HOST", "0.0.0.0")
    listener = socket.create_server((own, 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    channel = socket.create_connection((host, port), timeout=30, source_address=(own, 0))
    what = {"protocol": "tcp", "port": listener.getsockname()[1], "relay_port": relay_port}

    channel.sendall(pack({"cmd": "register", **what}))
    reply = read_reply(channel)
    if reply != {"ack": "successful", "error": 0}:
        sys.exit(f"not registered: {reply}")
    print("registered", flush=True)

    for _ in range(questions):
        answer(channel, read_message(channel))
    print(f"asked {questions} times", flush=True)

    # Questions go on while it waits.
    threading.Thread(target=wait_for_line, args=(channel, what), daemon=True).start()
    while True:
        message = read_message(channel)
        if "ack" in message:
            break
        answer(channel, message)
    if message != {"ack": "successful", "error": 0}:
        sys.exit(f"not unregistered: {message}")
    print("unregistered", flush=True)


def wait_for_line(channel, what):
    sys.stdin.readline()
    channel.sendall(pack({"cmd": "unregister", **what}))


if __name__ == "__main__":
    main()
