"""A webhook and a mail server on free ports of this machine, for tests of alerts."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Webhook(ThreadingHTTPServer):
    """Keeps what is posted to it and answers `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.status = 200
        self.location = ""
        self.posted: list[dict] = []
        self.requests: list[tuple[str, str, dict]] = []

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Hook(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        """Take the JSON."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(("POST", self.path, dict(self.headers)))
        self.server.posted.append(json.loads(body))
        self._answer()

    def do_GET(self) -> None:
        """Note that somebody followed a redirect."""
        self.server.requests.append(("GET", self.path, dict(self.headers)))
        self._answer()

    def _answer(self) -> None:
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class MailServer(socketserver.ThreadingTCPServer):
    """Keeps the mails it is given; `tls` encrypts from the start, `refuses` answers 550 to every recipient."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *, tls: ssl.SSLContext | None = None, refuses: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Mail)
        self.refuses = refuses
        self.mails: list[EmailMessage] = []
        self.commands: list[str] = []
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def handle_error(self, *_: object) -> None:
        """A client that goes away, as one that does not trust the certificate, is no error of the test."""


class _Mail(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        """Speak as much SMTP as a mail needs."""
        self._say("220 here")
        for line in self.rfile:
            command = line.decode().strip()
            self.server.commands.append(command)
            word = command.split(" ")[0].upper()
            if word == "QUIT":
                return self._say("221 bye")
            self._say(self._answer(word))
            if word == "DATA":
                self._take()
        return None

    def _answer(self, word: str) -> str:
        if word == "EHLO":
            return "250-here\r\n250 AUTH PLAIN"
        if word == "RCPT" and self.server.refuses:
            return "550 nobody of that name"
        return {"DATA": "354 go on", "AUTH": "235 welcome"}.get(word, "250 ok")

    def _take(self) -> None:
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            lines.append(line)
        self.server.mails.append(message_from_bytes(b"".join(lines), policy=policy.default))
        self._say("250 taken")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator:
    """Serve in a thread until the end of the block, however it ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
