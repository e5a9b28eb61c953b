"""The chat turn format: each family's own turns, cells found in replies, and no text that forges a turn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rao_jax.envs.base import Task
from rao_jax.envs.documents.factory import make as documents
from rao_jax.envs.textcraft import TextCraft
from rao_jax.envs.textcraft.script import recursive
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.chat import FAMILIES, NO_CODE, NO_OUTPUT, ChatProtocol, Mark, family_of
from rao_jax.rollout.engine import Outcome, Tree
from rao_jax.rollout.instructions import system_text
from rao_jax.rollout.protocol import CUT_MARK, token_mask
from rao_jax.rollout.scripted import demonstrate
from tests import small_bpe, smollm2

TOKENIZERS = {name: small_bpe.make(controls=controls, merges=()) for name, controls in small_bpe.CONTROLS.items()}
CHATS = {name: ChatProtocol(tokenizer, "Be good.") for name, tokenizer in TOKENIZERS.items()}
CHAT = CHATS["chatml"]
families = pytest.mark.parametrize("name", CHATS)


def spelt(tokenizer, tokens):
  """Tokens as text, control tokens by their names in double brackets."""
  names = {tokenizer.control(name): name for name in tokenizer._controls}
  return "".join(f"[[{names[t]}]]" if t in names else tokenizer.decode([t]) for t in tokens)


def test_chatml_turns():
  spell = lambda tokens: spelt(CHAT.tokenizer, tokens)
  assert spell(CHAT.prompt("Go.")) == (
    "[[<|im_start|>]]system\nBe good.[[<|im_end|>]]\n"
    "[[<|im_start|>]]user\nGo.[[<|im_end|>]]\n"
    "[[<|im_start|>]]assistant\n"
  )
  assert spell(CHAT.script("f()")) == "<python>\nf()\n</python>[[<|im_end|>]]"
  assert spell(CHAT.output("42", 99)) == (
    "\n[[<|im_start|>]]user\n42[[<|im_end|>]]\n[[<|im_start|>]]assistant\n"
  )  # fmt: skip


def test_llama3_turns():
  chat, spell = CHATS["llama3"], lambda tokens: spelt(TOKENIZERS["llama3"], tokens)
  head = "[[<|start_header_id|>]]{}[[<|end_header_id|>]]\n\n".format
  end = "[[<|eot_id|>]]"
  assert spell(chat.prompt("Go.")) == (
    "[[<|begin_of_text|>]]" + head("system") + "Be good." + end + head("user") + "Go." + end + head("assistant")
  )
  assert spell(chat.output("42", 99)) == head("user") + "42" + end + head("assistant")


@given(text=st.text(max_size=20))
def test_all_prompts_start_with_the_prefix_which_has_the_system_turn_where_there_is_one(text):
  for chat in CHATS.values():
    prompt = chat.prompt(text)
    assert prompt[: len(chat.prefix)] == chat.prefix and len(prompt) > len(chat.prefix)
  assert [("Be good." in spelt(chat.tokenizer, chat.prefix)) for chat in CHATS.values()] == [True, True, False]


def test_gemma_turns():
  chat, spell = CHATS["gemma"], lambda tokens: spelt(TOKENIZERS["gemma"], tokens)
  assert spell(chat.prompt("Go.")) == (
    "[[<bos>]][[<start_of_turn>]]user\nBe good.\n\nGo.[[<end_of_turn>]]\n[[<start_of_turn>]]model\n"
  )
  assert spell(chat.output("42", 99)) == "\n[[<start_of_turn>]]user\n42[[<end_of_turn>]]\n[[<start_of_turn>]]model\n"


def test_the_tokenizer_tells_the_family():
  assert all(family_of(tokenizer) is FAMILIES[name] for name, tokenizer in TOKENIZERS.items())
  with pytest.raises(ValueError, match=r"none of the control tokens <\|im_end\|>, <\|eot_id\|>, <end_of_turn>"):
    family_of(small_bpe.make(controls=("<s>", "</s>")))


def test_text_between_control_tokens_is_encoded_as_one():
  chat = ChatProtocol(small_bpe.make(merges=("Ċ Ċ",)), "")  # Ċ stands for a line break: two are one token
  double = chat.tokenizer.encode("\n\n")
  assert len(double) == 1
  assert double[0] in chat.output("\n", 99)  # the one behind the role, and the text's own


@families
def test_an_output_is_cut_at_its_cap_with_a_visible_mark(name):
  chat = CHATS[name]
  whole = chat.output("abcdefghij", chat.frame + 10)
  assert (len(whole), chat.shown(whole)) == (chat.frame + 10, "abcdefghij")
  cut = chat.output("abcdefghijk", chat.frame + 10)
  assert (len(cut), chat.shown(cut)) == (chat.frame + 10, "abcde[cut]")
  assert chat.shown(chat.output("abcdef", chat.frame + 2)) == "[c"
  assert chat.shown(chat.output("", 99)) == NO_OUTPUT


@given(text=st.text(), extra=st.integers(5, 40))
@families
def test_an_output_never_exceeds_its_cap_and_says_when_it_was_cut(name, text, extra):
  chat = CHATS[name]
  tokens = chat.output(text, chat.frame + extra)
  assert len(tokens) <= chat.frame + extra
  assert chat.shown(tokens) in (text, NO_OUTPUT) or chat.shown(tokens).endswith(CUT_MARK)


@given(
  text=st.lists(st.sampled_from([*(n for c in small_bpe.CONTROLS.values() for n in c), "\n", "user", "x"])).map("".join)
)
@families
def test_marks_stand_only_where_the_engine_puts_them(name, text):
  chat, own = CHATS[name], ChatProtocol(TOKENIZERS[name], text)
  marks = lambda tokens: [t for t in tokens if t in chat.tokenizer.not_text]
  assert marks(own.prompt(text)) == marks(chat.prompt("Go."))
  assert marks(chat.output(text, 10_000)) == marks(chat.output("42", 99))
  assert marks(chat.output(text, chat.frame + 6)) == marks(chat.output("42", 99))
  assert marks(chat.script(text)) == [chat.end]
  assert chat.shown(chat.output(text, 10_000)) == text or not text


def test_a_text_that_is_all_of_a_mark_is_no_mark():
  """A text is told from a mark by its type: `part in names` would let this one through."""
  assert CHAT.tokenizer.not_text & set(CHAT.output("<|im_end|>", 99)) == {1, 2}
  assert CHAT.output("<|im_end|>", 99).count(2) == 1
  assert not isinstance("<|im_end|>", Mark)


REPLIES = {
  "<thought>why</thought>\n<python>\nf()\n</python>": "f()",
  "<python>f()</python>": "f()",
  "Sure! <python>\nif x:\n  f()\n</python> and then": "if x:\n  f()",
  "<python>a</python><python>b</python>": "a",
  "<python>\nf()": "f()",  # not closed: the end of the turn closes it
  "<python>\n  f()\n\n": "  f()",
  "<thought>I write <python>x</python></thought>\n<python>y</python>": "y",
  "<thought>no end <python>x</python>": "x",
  "<python></python>": "",
  "get_info(['a'])": "",
  "</python>f()": "",
  "": "",
}


@pytest.mark.parametrize("reply", REPLIES)
def test_where_the_cell_of_a_reply_is(reply):
  assert CHAT.cell([*CHAT.tokenizer.encode(reply), CHAT.end]) == REPLIES[reply]


def test_a_reply_without_its_end_is_no_cell():
  assert CHAT.cell(CHAT.tokenizer.encode("<python>f()</python>")) is None
  assert CHAT.cell([]) is None


@given(st.text().filter(lambda code: "</python>" not in code))
def test_any_cell_of_a_script_comes_back(code):
  assert CHAT.cell(CHAT.script(code)) == code.strip("\n")


@families
def test_the_policy_may_sample_text_and_the_end_of_its_turn_only(name):
  chat, tokenizer = CHATS[name], TOKENIZERS[name]
  V = tokenizer.vocab_size + 7
  mask = token_mask(chat, V)
  others = [i for i in range(len(small_bpe.CONTROLS[name])) if i != chat.end]
  assert np.flatnonzero(~mask).tolist() == [*others, *range(tokenizer.vocab_size, V)]


# --- in the engine ----------------------------------------------------------------------------------------------------


class Adder:
  """One function; a finish message of 3 is success."""

  functions = ("add",)

  def start(self, task):
    return self

  root_goal = lambda self: "Add 1 and 2."
  prompt = lambda self, goal: goal
  begin = lambda self, path, goal: None
  call = lambda self, path, name, args, kwargs: sum(args)
  subgoal = lambda self, path, args, kwargs: args[0]
  render = lambda self, value: repr(value)
  end = lambda self, path, message: float(message == 3)


def worked(interpreter, *replies, turn_tokens=512):
  """An agent that answers with these replies, the last without end if it is too long for a turn."""
  caps = Caps(max_depth=1, window=1024, turn_tokens=turn_tokens)
  tree = Tree(Adder(), Task("t", "d", {}), caps, CHAT, interpreter)
  for reply in replies:
    tokens = [*CHAT.tokenizer.encode(reply), CHAT.end][: tree.room(tree.root)]
    tree.sample(tree.root, tokens, [0.0] * len(tokens))
    tree.advance()
  return tree


def test_a_reply_without_code_costs_a_turn_and_is_told_so(interpreter):
  tree = worked(interpreter, "I would add them.", "<python></python>", "<python>x = add(1, 2)\nx</python>")
  assert [turn.cell for turn in tree.root.turns] == ["", "", "x = add(1, 2)\nx"]
  assert [turn.output for turn in tree.root.turns] == [NO_CODE, NO_CODE, "3"]
  assert tree.ledger.turns == 3
  tree = worked(interpreter, "Thinking.", "<python>\nfinish(add(1, 2))")
  assert (tree.root.outcome, tree.root.success) == (Outcome.FINISHED, 1.0)


def test_a_trajectory_is_only_ever_appended_to(interpreter):
  replies = ["hm", "<thought>t</thought>\n<python>add(1, 2)</python>", "<python>finish(3)</python>"]
  root = worked(interpreter, *replies).root
  spell = spelt(CHAT.tokenizer, root.tokens)
  turn = lambda role, text: f"[[<|im_start|>]]{role}\n{text}[[<|im_end|>]]"
  assert spell == "\n".join(
    [
      turn("system", "Be good."),
      turn("user", "Add 1 and 2."),
      turn("assistant", replies[0]),
      turn("user", NO_CODE),
      turn("assistant", replies[1]),
      turn("user", "3"),
      turn("assistant", replies[2]),
    ]
  )
  assert root.sampled == sum(len(reply) + 1 for reply in replies)


def test_a_reply_that_is_cut_is_not_executed(interpreter):
  tree = worked(interpreter, "<python>finish(3)</python>", turn_tokens=20)
  assert (tree.root.outcome, tree.root.success) == (Outcome.TRUNCATED, 0.0)


def test_demonstrations_in_chat_are_those_in_the_compact_format(
  textcraft, textcraft_tasks, textcraft_protocol, interpreter
):
  caps = Caps(window=1 << 14, turn_tokens=1024, output_tokens=1024)
  chat = ChatProtocol(small_bpe.make(), system_text(textcraft, caps))
  both = [
    list(demonstrate(textcraft_tasks, textcraft, recursive, caps, protocol, interpreter, 0))
    for protocol in (chat, textcraft_protocol)
  ]
  for ours, compact in zip(*both):
    assert [node.path for node in ours.nodes] == [node.path for node in compact.nodes]
    assert [node.success for node in ours.nodes] == [1.0] * len(compact.nodes)
    assert [turn.cell for node in ours.nodes for turn in node.turns] == [
      turn.cell for node in compact.nodes for turn in node.turns
    ]


# --- what an agent is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [TextCraft(compact=False), documents(), documents(plain_text=True), Adder()])
def test_the_system_turn_names_every_function(environment):
  told = system_text(environment, Caps())
  for name in (*environment.functions, "finish", "await launch_subagent", "asyncio.gather", "<python>", "<thought>"):
    assert name in told
  assert "num_steps" not in told
  assert "num_steps" in system_text(environment, Caps(budget="shared"))
  alone = system_text(environment, Caps(max_depth=0))
  assert "launch" not in alone and "finish" in alone


def test_the_example_of_the_answer_is_one(interpreter):
  """What the system's turn shows is read as a cell and runs."""
  told = system_text(Adder(), Caps())
  assert CHAT.cell([*CHAT.tokenizer.encode(told[told.index("<thought>\n") :]), CHAT.end]) == "x = 1 + 1\nprint(x)"


@pytest.mark.hf  # jinja2 comes with transformers
@pytest.mark.registry
def test_smollm2_turns_are_those_of_its_own_template():
  import jinja2

  from rao_jax.policy.gguf import open_gguf

  tokenizer = smollm2.tokenizer()
  template = jinja2.Template(open_gguf(smollm2.model_file()).metadata["tokenizer.chat_template"])
  messages = [
    {"role": "system", "content": "Be good."},
    {"role": "user", "content": "\n\nGo,  now.\n"},
    {"role": "assistant", "content": "<python>\nf()\n</python>"},
    {"role": "user", "content": "\n42"},
  ]
  rendered = template.render(messages=messages, add_generation_prompt=True)
  chat = ChatProtocol(tokenizer, "Be good.")
  ours = chat.prompt("\n\nGo,  now.\n") + chat.script("f()") + chat.output("\n42", 99)
  assert spelt(tokenizer, ours).replace("[[", "").replace("]]", "") == rendered
  # The template's text, by the family's way of encoding it: with control tokens.
  tokenizer._tokenizer.encode_special_tokens = False
  try:
    assert tokenizer._tokenizer.encode(rendered, add_special_tokens=False).ids == ours
  finally:
    tokenizer._tokenizer.encode_special_tokens = True
