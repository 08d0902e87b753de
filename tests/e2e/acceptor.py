"""A server of the tests: a port of loopback, and a thread for each connection that comes to it.

Owns: its sockets and its threads. Refuses: to be closed while one of its threads goes on: that is an error of the server's,
and would eat the processor and the memory of all the tests behind it. Invariant: behind close() no thread of its runs.
"""
import contextlib
import socket
import threading
import time

END_SECONDS = 10


class Acceptor:
    """Starts on construction, so what _serve() needs is there before; a context manager."""

    def __init__(self, receive_buffer=None):
        self._lock, self._live = threading.Lock(), {}
        self._listener = socket.socket()
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accepted(self, sock):
        """What _serve() is given of a new connection; called in the order in which they come."""
        return sock

    def _serve(self, connection):
        """Until the connection is over; a shutdown of its socket makes it end soon."""
        raise NotImplementedError

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._run, args=(self._accepted(sock), sock), daemon=True)
            with self._lock:
                self._live[thread] = sock
            thread.start()

    def _run(self, connection, sock):
        try:
            self._serve(connection)
        finally:
            sock.close()
            with self._lock:
                del self._live[threading.current_thread()]

    def close(self):
        """Ends all connections, and waits until nobody works for them any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # who waits in accept() goes on waiting else
        self._acceptor.join(END_SECONDS)
        self._listener.close()
        with self._lock:
            live = dict(self._live)
        for sock in live.values():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + END_SECONDS
        for thread in live:
            thread.join(max(0, until - time.monotonic()))
        going_on = [t for t in (self._acceptor, *live) if t.is_alive()]
        if going_on:
            raise RuntimeError(f"{len(going_on)} threads of a {type(self).__name__} go on after its end")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
