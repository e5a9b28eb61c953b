"""A real HTTP server in the place of a model: it answers what a test tells it to, and keeps count."""

import contextlib
import http.server
import json
import threading
import time


class Server(http.server.ThreadingHTTPServer):
  """Chat completions on a port of its own.

  Attributes:
    answer: (handler, number of the request) -> None, sends the response; `say`, `fail` and others below make one.
    requests: bodies received.
    most: requests that were open at the same time, at most.
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.answer = say(1)
    self.requests, self.keys = [], []
    self.open = self.most = 0
    self.lock = threading.Lock()

  @property
  def url(self):
    return f"http://127.0.0.1:{self.server_address[1]}/v1"

  def handle_error(self, request, client_address):
    pass  # a client that has gone away


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
    server = self.server
    with server.lock:
      number = len(server.requests)
      server.requests.append(body)
      server.keys.append(self.headers["Authorization"])
      server.open += 1
      server.most = max(server.most, server.open)
    try:
      server.answer(self, number)
    finally:
      with server.lock:
        server.open -= 1

  def send(self, body, status=200, kind="application/json", **headers):
    self.send_response(status)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
      self.send_header(name.replace("_", "-"), str(value))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *_):
    pass


def say(content):
  """A completion with this text, or with this score."""
  text = content if isinstance(content, str) else json.dumps({"score": content})
  completion = {
    "id": "1", "object": "chat.completion", "created": 0, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
  }  # fmt: skip
  return lambda handler, number: handler.send(json.dumps(completion).encode())


def raw(body, kind="application/json"):
  return lambda handler, number: handler.send(body, kind=kind)


def fail(status, **headers):
  return lambda handler, number: handler.send(b'{"error": {"message": "not now"}}', status, **headers)


def slow(seconds, then):
  def answer(handler, number):
    time.sleep(seconds)
    then(handler, number)

  return answer


def die(handler, number):
  """Half an answer, then the connection breaks."""
  handler.send_response(200)
  handler.send_header("Content-Type", "application/json")
  handler.send_header("Content-Length", "1000")
  handler.end_headers()
  handler.wfile.write(b'{"id": "1", "choi')
  handler.close_connection = True


def in_turn(*answers):
  """The first request gets the first answer, and so on; the last answer stays."""
  return lambda handler, number: answers[min(number, len(answers) - 1)](handler, number)


def record_sent(handler, number):
  """The record that a request shows."""
  with handler.server.lock:
    return handler.server.requests[number]["messages"][-1]["content"]


@contextlib.contextmanager
def serving():
  server = Server()
  thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True)
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
