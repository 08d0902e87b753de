"""Thousands of kept connections, for the tests of injection.

`server` prints its port; it answers each request with ok, or BAD when one byte of it, beside the header, isn't as it was sent.
`client PORT COUNT` opens so many connections at the first line on stdin and sends requests on all of them, some at a time,
until another line comes, and once more then; one JSON line back: answered, headers, failures, worst (seconds).
"""
import asyncio
import json
import re
import sys
import time

AT_ONCE, TIMEOUT_SECONDS = 32, 20
REQUEST = "GET /many/{}/{} HTTP/1.1\r\nHost: here\r\n\r\n"
ARRIVES = re.compile(rb"GET /many/\d+/\d+ HTTP/1\.1\r\n(traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n)?Host: here\r\n\r\n")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"


class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.got = transport, b""

    def data_received(self, data):
        self.got += data
        while b"\r\n\r\n" in self.got:
            m = ARRIVES.match(self.got)
            self.got = self.got[m.end():] if m else b""
            self.transport.write(ANSWER + (b"BAD" if not m else b"yes" if m[1] else b"no "))


async def serve():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=4096)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Client:
    def __init__(self):
        self.answered, self.headers, self.failures, self.worst, self.turn = 0, 0, [], 0, 0

    async def ask(self, number, reader, writer):
        begin = time.monotonic()
        try:
            writer.write(REQUEST.format(number, self.turn).encode())
            answer = await asyncio.wait_for(reader.readexactly(len(ANSWER) + 3), TIMEOUT_SECONDS)
            if not answer.startswith(ANSWER) or answer.endswith(b"BAD"):
                raise ValueError(answer)
            self.answered += 1
            self.headers += answer.endswith(b"yes")
        except Exception as e:
            self.failures.append(f"{number}: {e!r}")
        self.worst = max(self.worst, time.monotonic() - begin)

    async def some(self, mine, stop):
        for number, (reader, writer) in mine:
            if not stop.done():
                await self.ask(number, reader, writer)

    async def run(self, port, count):
        loop = asyncio.get_running_loop()
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        connections = list(enumerate([await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]))
        print("open", flush=True)
        stop = loop.run_in_executor(None, sys.stdin.readline)
        while not stop.done():
            await asyncio.gather(*(self.some(connections[n::AT_ONCE], stop) for n in range(AT_ONCE)))
            self.turn += 1
        await asyncio.gather(*(self.some(connections[n::AT_ONCE], loop.create_future()) for n in range(AT_ONCE)))
        print(json.dumps({"answered": self.answered, "headers": self.headers, "failures": self.failures[:20],
                          "worst": self.worst}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "server" else Client().run(int(sys.argv[2]), int(sys.argv[3])))
