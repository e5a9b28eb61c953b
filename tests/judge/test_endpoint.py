"""The endpoint judge over real sockets: slow, busy, broken and babbling servers."""

import json
import sys

import pytest

from rao_jax.judge.calls import Calls
from rao_jax.judge.endpoint import Endpoint
from tests.judge.server import die, fail, in_turn, raw, say, slow
from tests.judge.test_prompt import ended

AT_ONCE = dict(retry_after_ms=1)


@pytest.fixture
def endpoint(server, monkeypatch):
  monkeypatch.setenv("JUDGE_KEY", "secret")

  def endpoint(**changes):
    options = dict(
      model="m", instruction="Well done?", max_chars=1000, request={}, base_url=server.url,
      api_key_variable="JUDGE_KEY", timeout=5.0, max_retries=2, asks=3,
    )  # fmt: skip
    return Endpoint(**options | changes)

  return endpoint


def test_the_request_holds_instruction_record_and_settings(server, endpoint):
  assert endpoint(request={"max_tokens": 9, "temperature": 1.0})(ended("go")) == 1.0
  assert endpoint(api_key_variable="")(ended("go")) == 1.0
  first, second = server.requests
  assert (first["model"], first["max_tokens"], first["temperature"], second["temperature"]) == ("m", 9, 1.0, 0.0)
  system, user = first["messages"]
  assert system["role"] == "system" and system["content"].startswith("Well done?\n")
  assert json.loads(user["content"]) == {"goal": "go", "turns": [{"cell": "c", "output": "o"}], "message": "m"}
  assert server.keys == ["Bearer secret", "Bearer none"]


def test_a_busy_server_is_asked_again_when_it_says(server, endpoint):
  server.answer = in_turn(fail(429, retry_after_ms=20), fail(500, **AT_ONCE), say(0.5))
  assert endpoint()(ended()) == 0.5
  assert len(server.requests) == 3


def test_a_broken_server_is_asked_so_often_and_named(server, endpoint):
  server.answer = fail(500, **AT_ONCE)
  with pytest.raises(RuntimeError, match=rf"m at {server.url}: InternalServerError: .*not now"):
    endpoint(max_retries=3)(ended())
  assert len(server.requests) == 4


def test_a_silent_server_is_given_up_at_the_timeout(server, endpoint):
  server.answer = slow(1.0, say(1))
  with pytest.raises(RuntimeError, match=rf"m at {server.url}: APITimeoutError"):
    endpoint(timeout=0.1, max_retries=0)(ended())
  assert len(server.requests) == 1


def test_a_slow_answer_within_the_timeout_counts(server, endpoint):
  server.answer = slow(0.2, say(0.25))
  assert endpoint(max_retries=0)(ended()) == 0.25


def test_a_connection_that_breaks_within_the_answer_is_tried_again(server, endpoint):
  server.answer = in_turn(die, say(0.5))
  assert endpoint(max_retries=1)(ended()) == 0.5
  server.answer = die
  with pytest.raises(RuntimeError, match=r"APIConnectionError"):
    endpoint(max_retries=0)(ended())


def test_nobody_listens(server, endpoint):
  with pytest.raises(RuntimeError, match=r"m at http://127.0.0.1:9/v1: APIConnectionError"):
    endpoint(base_url="http://127.0.0.1:9/v1", max_retries=0)(ended())


def test_a_wrong_key_is_not_tried_again(server, endpoint):
  server.answer = fail(401)
  with pytest.raises(RuntimeError, match=r"AuthenticationError.*401"):
    endpoint()(ended())
  assert len(server.requests) == 1


GARBAGE = {
  "text": say("a fine piece of work"),
  "out_of_range": say(7),
  "empty": say(""),
  "broken_json": raw(b'{"choices": ['),
  "other_json": raw(b'{"choices": []}'),
  "list": raw(b"[1, 2]"),
  "html": raw(b"<html>proxy</html>", "text/html"),
  "nothing": raw(b""),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_asked_for_again_and_never_a_score(name, server, endpoint):
  server.answer = in_turn(GARBAGE[name], GARBAGE[name], say(0.5))
  assert endpoint()(ended()) == 0.5
  assert len(server.requests) == 3
  with pytest.raises(RuntimeError, match=rf"m at {server.url}: no score in 2 replies, the last: "):
    server.answer = GARBAGE[name]
    endpoint(asks=2)(ended())
  assert len(server.requests) == 5


def test_no_more_requests_in_flight_than_allowed(server, endpoint):
  server.answer = slow(0.05, say(0.5))
  calls = Calls(endpoint(), in_flight=3)
  futures, _ = calls([ended(str(i)) for i in range(12)])
  assert [future.result() for future in futures] == [0.5] * 12
  calls.close()
  assert server.most == 3


def test_a_missing_key_or_package_is_told_before_any_request(endpoint, server, monkeypatch):
  with pytest.raises(ValueError, match=r"variable NO_SUCH_KEY is not set.*config\.judge\.endpoint\.api_key_variable"):
    endpoint(api_key_variable="NO_SUCH_KEY")
  monkeypatch.setitem(sys.modules, "openai", None)  # as if it were not installed
  with pytest.raises(ImportError, match=r"needs the package openai: pip install 'rao-jax\[judge\]'"):
    endpoint()
  assert not server.requests
