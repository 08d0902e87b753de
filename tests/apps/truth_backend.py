"""The callee of the truth-carrying services, as light as can be, since it shares the cores with what is tested: answers
/work/ID with the id, a few ms later at times, so that calls overlap; ?ms=N says how much later. Anything else is 200.

run: python truth_backend.py [at-once]   prints "port N"; needs uvloop and httptools
"""
import asyncio
import random
import re
import sys

import httptools
import uvloop

DELAYS_MS = (0,) if "at-once" in sys.argv else (0, 0, 0, 0, 1, 2, 4)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Answers(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.loop = asyncio.get_running_loop()

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_url(self, url):
        self.url = url

    def on_message_complete(self):
        m = re.match(rb"/work/([^?]*)(?:\?ms=(\d+))?", self.url)
        delay = int(m[2] or random.choice(DELAYS_MS)) if m else 0
        body = b'{"id": "%s", "agent": "writer", "text": "hello"}' % (m[1] if m else b"")
        if delay:
            self.loop.call_later(delay / 1000, self.transport.write, HEAD % len(body) + body)
        else:
            self.transport.write(HEAD % len(body) + body)


async def main():
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0, backlog=512)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
