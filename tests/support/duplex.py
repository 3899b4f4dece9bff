"""A TCP connection with a file each way at the same time, at a rate; prints the SHA-256 of what came.

duplex.py serve|connect ADDRESS PORT FILE BYTES_PER_SECOND
"""

import hashlib
import socket
import sys
import threading

SO_MAX_PACING_RATE = 47

role, address, port, path, rate = sys.argv[1:]
if role == "serve":
    server = socket.create_server((address, int(port)))
    print("listening", flush=True)
    connection, _ = server.accept()
else:
    connection = socket.create_connection((address, int(port)))
connection.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, int(rate))


def send():
    with open(path, "rb") as file:
        connection.sendfile(file)
    connection.shutdown(socket.SHUT_WR)


sender = threading.Thread(target=send)
sender.start()
digest = hashlib.sha256()
while data := connection.recv(1 << 20):
    digest.update(data)
sender.join()
print("sha256", digest.hexdigest(), flush=True)
