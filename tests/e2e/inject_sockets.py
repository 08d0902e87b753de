"""A client that does with sockets what it is told, step by step: the process that is traced while tests look at what its
calls return.

stdin: play {"on": name, "port": n, "steps": [[step, arguments...], ...]} goes on with the connection of that name, or opens
it (non-blocking, or as "how" says). One JSON line comes back: what was received (latin-1), what steps gave, the error.
"""
import array
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import ssl
import struct
import sys
import tempfile
import termios
import time

STUCK_SECONDS = 20
SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000
SO_EE_ORIGIN_ZEROCOPY = 5


class Connection:
    def __init__(self, port, how):
        self.sock = socket.socket(socket.AF_UNIX) if how == "unix" else socket.socket()
        self.got, self.values, self.alarms = b"", [], 0
        address = port if how == "unix" else ("127.0.0.1", port)
        if how == "blocking":
            self.sock.connect(address)
            return
        if how == "accepted":  # and nobody listens any more
            with self.sock as listener:
                listener.bind(address)
                listener.listen()
                self.sock = listener.accept()[0]
            self.sock.setblocking(False)
            return
        self.sock.setblocking(False)
        if how == "zerocopy":
            self.sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        if how == "small":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        self.sock.connect_ex(address)
        self.wait(writable=True)
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def wait(self, writable=False):
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT if writable else select.POLLIN)
        if not poll.poll(STUCK_SECONDS * 1000):
            raise RuntimeError("stuck")

    def _through(self, give, size):
        """Calls give(offset) until all is gone; waits where it would block."""
        at = 0
        while at < size:
            try:
                at += give(at)
            except BlockingIOError:
                self.wait(writable=True)

    def send(self, text, times=1):
        data = text.encode("latin-1") * times
        view = memoryview(data)
        self._through(lambda at: self.sock.send(view[at:]), len(data))

    def flood(self, size):
        """So many bytes as fast as it goes."""
        view = memoryview(b"x" * 262144)
        self._through(lambda at: self.sock.send(view[:min(len(view), size - at)]), size)

    def send_more(self, text):
        """With MSG_MORE: the kernel waits for what follows."""
        self.sock.send(text.encode("latin-1"), socket.MSG_MORE)

    def each(self, text, times):
        """So many sends of the same."""
        for _ in range(times):
            self.send(text)

    def chunks(self, text, times):
        """A chunked body, each chunk a send, with its end."""
        data = text.encode("latin-1")
        chunk = b"%x\r\n%s\r\n" % (len(data), data)
        for _ in range(times):
            self._through(lambda at: self.sock.send(chunk[at:]), len(chunk))
        self.send("0\r\n\r\n")

    def urgent(self, text):
        self.sock.send(text.encode("latin-1"), socket.MSG_OOB)

    def sendfile(self, text, times):
        with tempfile.TemporaryFile() as f:
            f.write(text.encode("latin-1") * times)
            f.flush()
            self._through(lambda at: os.sendfile(self.sock.fileno(), f.fileno(), at, 1 << 20), f.tell())

    def splice(self, text, times):
        data = text.encode("latin-1") * times
        out, into = os.pipe()
        for at in range(0, len(data), 32768):
            piece = data[at:at + 32768]
            os.write(into, piece)
            self._through(lambda at, size=len(piece): os.splice(out, self.sock.fileno(), size - at), len(piece))
        os.close(out)
        os.close(into)

    def zerocopy(self, text, times):
        """Sends without a copy and waits until the kernel says that it needs the buffer no more."""
        data = (ctypes.c_char * (len(text) * times)).from_buffer_copy(text.encode("latin-1") * times)
        calls = 0

        def give(at):
            nonlocal calls
            n = self.sock.send(memoryview(data)[at:at + 60000], MSG_ZEROCOPY)
            calls += 1
            return n

        self._through(give, len(data))
        done, end = 0, time.monotonic() + 5
        while done < calls and time.monotonic() < end:
            try:
                _, ancillary, _, _ = self.sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)
            except BlockingIOError:
                time.sleep(0.01)
                continue
            for _, _, raw in ancillary:
                _, origin, _, _, _, low, high = struct.unpack("=IBBBBII", raw[:16])
                done += (high - low + 1) if origin == SO_EE_ORIGIN_ZEROCOPY else 0
        self.values.append([calls, done])

    def fork_send(self, text):
        """A child sends on the connection that it inherited."""
        child = os.fork()
        if not child:
            try:
                self.send(text)
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    def recv(self, count):
        """So many bytes more."""
        until = len(self.got) + count
        while len(self.got) < until:
            if not self.sock.getblocking():
                self.wait()
            data = self.sock.recv(min(65536, until - len(self.got)))
            if not data:
                raise EOFError(f"{until - len(self.got)} bytes are missing")
            self.got += data

    def until(self, text):
        mark, begin = text.encode("latin-1"), len(self.got)
        while self.got.find(mark, begin) < 0:
            self.recv(1)

    def eof(self):
        while True:
            if not self.sock.getblocking():
                self.wait()
            data = self.sock.recv(65536)
            if not data:
                return
            self.got += data

    def peek(self, count):
        self.wait()
        self.values.append(self.sock.recv(count, socket.MSG_PEEK).decode("latin-1"))

    def readable(self):
        """How many bytes the kernel says are there to be read."""
        value = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.FIONREAD, value)
        self.values.append(value[0])

    def edges(self, text, answer):
        """Sends, then waits for an edge of epoll."""
        with select.epoll() as epoll:
            epoll.register(self.sock, select.EPOLLIN | select.EPOLLET)
            self.send(text)
            self.values.append(len(epoll.poll(STUCK_SECONDS)))
        self.recv(answer)

    def alarms_every(self, seconds):
        """SIGALRM with a handler that does nothing; system calls are not restarted by the kernel."""
        def note(*_):
            self.alarms += 1

        signal.signal(signal.SIGALRM, note)
        signal.siginterrupt(signal.SIGALRM, True)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)

    def alarms_off(self):
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.values.append(self.alarms)

    def sleep(self, seconds):
        time.sleep(seconds)

    def shut(self):
        self.sock.shutdown(socket.SHUT_WR)

    def blocking(self, on):
        self.sock.setblocking(on)

    def option(self, level, name, value):
        self.sock.setsockopt(level, name, value)

    def tls(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock.setblocking(True)
        self.sock.settimeout(STUCK_SECONDS)
        self.sock = context.wrap_socket(self.sock)

    def close(self):
        self.sock.close()


open_connections = {}


def play(on, steps, port=None, how="plain"):
    error, connection = None, open_connections.get(on)
    try:
        if not connection:
            connection = open_connections[on] = Connection(port, how)
        connection.got, connection.values = b"", []
        for name, *arguments in steps:
            getattr(connection, name)(*arguments)
            if name == "close":
                del open_connections[on]
    except Exception as e:  # told to the test
        signal.setitimer(signal.ITIMER_REAL, 0)
        open_connections.pop(on, None)
        error = errno.errorcode.get(e.errno, str(e)) if isinstance(e, OSError) and e.errno else repr(e)
    got = connection.got if connection else b""
    return {"got": got.decode("latin-1") if len(got) < 1 << 20 else hashlib.sha256(got).hexdigest(),
            "values": connection.values if connection else [], "error": error}


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        name, arguments = line.split(" ", 1)
        print(json.dumps({"play": play}[name](**json.loads(arguments))), flush=True)


if __name__ == "__main__":
    main()
