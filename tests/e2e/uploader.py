"""A program that uploads one file for several people at once, so that a test's own memory does not count.

Standard input: {"port", "tokens", "film", "head", "tail", "content_type"}, head and tail in latin-1.
Standard output: the answers' statuses.
"""

import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from typing import Any


def upload(order: dict[str, Any], token: str) -> int:
    head, tail = order["head"].encode("latin-1"), order["tail"].encode("latin-1")
    length = len(head) + os.path.getsize(order["film"]) + len(tail)
    request = [
        "POST /api/videos/upload HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        f"Content-Type: {order['content_type']}",
        f"Content-Length: {length}",
    ]
    with (
        socket.create_connection(("127.0.0.1", order["port"]), timeout=120) as connection,
        open(order["film"], "rb") as film,
    ):
        connection.sendall("\r\n".join([*request, "", ""]).encode() + head)
        connection.sendfile(film)
        connection.sendall(tail)
        with HTTPResponse(connection) as answer:
            answer.begin()
            answer.read()
            return answer.status


def main() -> None:
    order = json.load(sys.stdin)
    with ThreadPoolExecutor(len(order["tokens"])) as pool:
        statuses = list(pool.map(lambda token: upload(order, token), order["tokens"]))
    json.dump(statuses, sys.stdout)


if __name__ == "__main__":
    main()
