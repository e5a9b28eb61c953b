"""A headless Chromium for tests, driven by its DevTools protocol over a pair of pipes: real clicks, real errors."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

import pytest

QUIET = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextlib.contextmanager
def chromium(folder):
  """A `Page`; `folder` gets the browser's profile."""
  path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
  if path is None:
    assert not os.environ.get("RAO_FULL"), "the full tests need chromium: apt-get install chromium"
    pytest.skip("no chromium")
  (their_in, to_them), (from_them, their_out) = os.pipe(), os.pipe()
  theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (their_in, their_out)]  # out of the way of 3 and 4
  command = [path, "--headless", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={folder}", *QUIET]
  process = subprocess.Popen(
    command,
    close_fds=False,
    preexec_fn=lambda: [os.dup2(end, there) for end, there in zip(theirs, (3, 4))],  # it reads from 3, writes to 4
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  for end in (their_in, their_out, *theirs):
    os.close(end)
  try:
    yield Page(to_them, from_them)
  finally:
    process.terminate()
    process.wait(20)
    os.close(to_them)
    os.close(from_them)


class Page:
  """One tab. `told` collects uncaught errors and errors on the console."""

  def __init__(self, to_them: int, from_them: int):
    self._to, self._from, self._read, self._id, self._session = to_them, from_them, b"", 0, None
    self.told: list[str] = []
    target = self.call("Target.createTarget", url="about:blank")["targetId"]
    self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log"):
      self.call(f"{domain}.enable")

  def call(self, method: str, **params):
    self._id += 1
    message = {"id": self._id, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._to, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._next()
      if answer.get("id") == self._id:
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

  def open(self, path, width: int, height: int = 900, phone: bool = False, part: str = "") -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
    self.call("Emulation.setDeviceMetricsOverride", **size)
    self.call("Page.navigate", url=path.as_uri() + part)
    self.wait("document.readyState === 'complete'")

  def ask(self, expression: str):
    """The value of a JavaScript expression, a promise's too."""
    answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
    assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
    return answer["result"].get("value")

  def wait(self, expression: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not self.ask(f"!!({expression})"):
      assert time.monotonic() < end, f"not within {seconds} s: {expression}; the page told {self.told}"
      time.sleep(0.05)

  def click(self, selector: str) -> None:
    """With the mouse, in the middle of the first element that is found."""
    self.ask(f"{_first(selector)}.scrollIntoView({{block: 'center'}})")
    self.frames()  # what is drawn anew by scrolling would be away when the button is released
    box = f"JSON.stringify({_first(selector)}.getBoundingClientRect())"
    box = json.loads(self.ask(box))
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
      self.call("Input.dispatchMouseEvent", type=kind, **at)

  def frames(self) -> None:
    """Waits until the page has been drawn twice."""
    self.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

  def key(self, name: str) -> None:
    for kind in ("keyDown", "keyUp"):
      self.call("Input.dispatchKeyEvent", type=kind, key=name)

  def choose(self, selector: str, value: str) -> None:
    """An option of a select element."""
    self.ask(f"{_first(selector)}.value = {json.dumps(value)}")
    self.ask(f"{_first(selector)}.dispatchEvent(new Event('change'))")

  def picture(self, path, selector: str | None = None) -> None:
    """A PNG of the window, or of one element."""
    options = {}
    if selector:
      self.ask(f"{_first(selector)}.scrollIntoView({{block: 'start'}})")
      time.sleep(1)
      box = f"(() => {{ const b = {_first(selector)}.getBoundingClientRect(); "
      box += "return JSON.stringify({x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}) })()"
      options = {"clip": json.loads(self.ask(box)) | {"scale": 1}, "captureBeyondViewport": True}
    data = self.call("Page.captureScreenshot", format="png", **options)["data"]
    path.write_bytes(base64.b64decode(data))

  def _next(self) -> dict:
    while b"\0" not in self._read:
      ready, _, _ = select.select([self._from], [], [], 60)
      assert ready, "the browser is silent"
      part = os.read(self._from, 1 << 20)
      assert part, "the browser is gone"
      self._read += part
    line, _, self._read = self._read.partition(b"\0")
    message = json.loads(line)
    params = message.get("params", {})
    if message.get("method") == "Runtime.exceptionThrown":
      details = params["exceptionDetails"]
      self.told.append(details.get("exception", {}).get("description") or details["text"])
    elif message.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
      self.told.append(str(params["args"]))
    elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
      self.told.append(params["entry"]["text"])
    return message


def _first(selector: str) -> str:
  return f"document.querySelector({json.dumps(selector)})"
