"""Examples for fine-tuning: which tokens they have, which of them count, and their batches."""

import json
import re
import warnings

import numpy as np
import pytest
from common import bits
from hypothesis import given
from hypothesis import strategies as st

import jostle
from jostle import data

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, as SmolLM2 and Qwen2 have it."""

FORGETFUL = CHAT.replace(
    "{{ m.content }}", "{% if loop.last and m.role == 'assistant' %}<think>{% endif %}{{ m.content }}"
)
"""As Qwen3's: earlier turns lose a part once later ones follow."""


def tokenizer(chat=CHAT, beginning=()):
    from tokenizers import Tokenizer, processors

    plain = jostle.PretrainedTokenizer.from_text(
        "Snow fell, and I like to ski when it snows. user assistant", 280
    )
    made = Tokenizer.from_str(plain.files()["tokenizer.json"])
    made.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    if beginning:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            special_tokens=[(name, made.token_to_id(name)) for name in ("<s>", "</s>")],
        )
    return jostle.PretrainedTokenizer(made.to_str(), {"eos_token": "</s>", "chat_template": chat})


CHATTING = tokenizer()


def read(tmp_path, made, *lines, context=1000):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return data.read_examples(path, made, context)


def said(made, example):
    """The whole text, and what counts in it."""
    assert np.array_equal(example.inputs, example.tokens[:-1])
    wanted = np.where(example.counted, example.tokens, -1)[1:]
    assert np.array_equal(example.targets, wanted) and example.targets.dtype == np.int32
    return made.decode(example.tokens), made.decode(example.targets[example.targets >= 0])


@pytest.mark.parametrize("beginning", ["", "<s>"])
def test_texts_and_completions(beginning, tmp_path):
    made = tokenizer(beginning=beginning)
    examples = read(
        tmp_path, made,
        {"text": "I like snow."}, {"text": "It snows.</s>"},
        {"prompt": "I like to", "completion": " ski."}, {"prompt": "", "completion": "Snow."},
    )  # fmt: skip
    first = "I" if not beginning else ""
    assert [said(made, example) for example in examples] == [
        (f"{beginning}I like snow.</s>", "I like snow.</s>".removeprefix(first)),
        (f"{beginning}It snows.</s>", "It snows.</s>".removeprefix(first)),
        (f"{beginning}I like to ski.</s>", " ski.</s>"),
        (f"{beginning}Snow.</s>", "Snow.</s>" if beginning else made.decode(made.encode("Snow.</s>")[1:])),
    ]


def test_a_prompt_whose_last_token_grows_is_counted_from_there(tmp_path):
    made = tokenizer()
    assert len(made.encode("snows")) < len(made.encode("sno")) + len(made.encode("ws"))
    (example,) = read(tmp_path, made, {"prompt": "I like sno", "completion": "ws"})
    whole, counted = said(made, example)
    assert whole == "I like snows</s>" and counted.endswith("ws</s>") and "like" not in counted


TURNS = [
    {"role": "system", "content": "ski"}, {"role": "user", "content": "Snow?"}, {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "When?"}, {"role": "assistant", "content": "I like it."},
]  # fmt: skip


def test_the_turns_of_the_assistant_count(tmp_path):
    made = tokenizer()
    whole, last, both = read(
        tmp_path, made,
        {"messages": TURNS}, {"prompt": TURNS[:4], "completion": TURNS[4:]}, {"prompt": TURNS[:2], "completion": TURNS[2:]},
    )  # fmt: skip
    text = made.chat(TURNS, answer=False)
    assert said(made, whole) == (text, "Yes.<|im_end|>\nI like it.<|im_end|>\n")
    assert said(made, last) == (text, "I like it.<|im_end|>\n")
    assert said(made, both) == said(made, whole)
    # What counts begins where generation begins.
    assert np.array_equal(last.tokens[: np.argmax(last.counted)], made.encode(made.chat(TURNS[:4])))


def test_each_turn_is_an_example_where_the_template_rewrites_earlier_ones(tmp_path):
    made = tokenizer(FORGETFUL)
    first, second = read(tmp_path, made, {"messages": TURNS})
    assert said(made, first) == (made.chat(TURNS[:3], answer=False), "<think>Yes.<|im_end|>\n")
    assert said(made, second) == (made.chat(TURNS, answer=False), "<think>I like it.<|im_end|>\n")


def test_long_texts_become_several_examples_and_others_are_cut(tmp_path):
    made = jostle.ByteTokenizer()
    text = "I like to ski when it snows."
    parts = read(tmp_path, made, {"text": text}, context=8)
    assert [len(part.inputs) for part in parts] == [8, 8, 8, 3]
    assert "".join(chr(token) for part in parts for token in part.targets) == text[1:]
    long, lost = {"prompt": "I like", "completion": " to ski"}, {"prompt": text, "completion": "!"}
    warning = "2 examples are longer than the context, 8, and are cut; 1 are left out"
    with pytest.warns(RuntimeWarning, match=warning):
        (example,) = read(tmp_path, made, long, lost, context=8)
    assert said(made, example) == ("I like to", " to")
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="no examples in .*data.jsonl"):
        read(tmp_path, made, lost, context=8)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"words": "x"}, "the keys are ['words']; expected \"text\", or \"prompt\" and \"completion\", or \"messages\""),
        ({"prompt": "x"}, "the keys are ['prompt']"),
        ({"text": 5}, "text is of int; expected str"),
        ({"text": ""}, "1 tokens; expected at least 2"),
        ({"prompt": "x", "completion": ["y"]}, "completion is of list; expected str"),
        ({"messages": "x"}, "messages is of str; expected list"),
        ({"messages": ["x"]}, "a message is of str; expected dict"),
        ({"messages": [{"content": "x"}]}, "'role' is missing"),
        ({"messages": TURNS[:2]}, "there is no turn of the assistant"),
        ({"messages": TURNS, "tools": []}, "tools are not supported"),
        ([5], "[5] is not an object"),
    ],
)  # fmt: skip
def test_lines_that_are_refused(line, sentence, tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"data.jsonl, line 2: {sentence}")):
        read(tmp_path, tokenizer(), {"text": "good"}, line)


def test_conversations_need_a_template(tmp_path):
    with pytest.raises(ValueError, match="line 1: the tokenizer has no chat template"):
        read(tmp_path, jostle.ByteTokenizer(), {"messages": TURNS})


def some_examples(count=23):
    generator = np.random.default_rng(5)
    return [
        data.Example(generator.integers(0, 13, length).astype(np.int32), generator.random(length) < 0.7)
        for length in generator.integers(3, 10, count)
    ]


def rows(batches):
    """Each row of the batches: tokens and targets."""
    found = []
    for tokens, targets in batches:
        assert tokens.dtype == targets.dtype == np.int32
        for row, goal in zip(tokens.tolist(), targets.tolist(), strict=True):
            found.append((tuple(row), tuple(goal)))
    return found


def test_an_epoch_has_every_example_once_and_little_padding():
    examples = some_examples()
    batches = data.Batches(examples, 4, seed=3)
    assert len(batches) == 6
    epochs = [list(batches) for _ in range(2)]
    wanted = sorted((tuple(example.inputs.tolist()), tuple(example.targets.tolist())) for example in examples)
    for epoch in epochs:
        assert len(epoch) == 6 and max(len(tokens) for tokens, _ in epoch) == 4
        kept = []
        for row, goal in rows(epoch):
            length = next(length for length in range(1, 10) if (row[:length], goal[:length]) in wanted)
            assert set(row[length:]) <= {0} and set(goal[length:]) <= {-1}
            kept.append((row[:length], goal[:length]))
        assert sorted(kept) == wanted
    assert rows(epochs[0]) != rows(epochs[1]), "another order in each epoch"
    assert rows(data.Batches(examples, 4, seed=3)) == rows(epochs[0])
    assert rows(data.Batches(examples, 4, seed=4)) != rows(epochs[0])
    ordered = rows(batches.in_order())
    assert ordered == rows(batches.in_order())
    assert len(ordered) == len(examples) and [len(row) for row, _ in ordered] == sorted(
        len(row) for row, _ in ordered
    )
    assert batches.state_dict() == {"epoch": 2, "batches": 0}
    padded = sum(tokens.size for tokens, _ in epochs[0]), sum(len(example.inputs) for example in examples)
    assert batches.padding == pytest.approx(1 - padded[1] / padded[0], abs=0.02) and batches.padding < 0.1


@pytest.mark.parametrize("done", [0, 3, 6, 8])
def test_training_resumes_within_an_epoch(done, tmp_path):
    config = jostle.Config(vocab=13, context=8, layers=1, heads=2, width=8)

    def make():
        model = jostle.Model(config, 3, 1)
        batches = data.Batches(some_examples(), 4)
        return jostle.Trainer(model, jostle.AdamW(model, 0.01), train=batches, batch=4, steps=15)

    whole, first = make(), make()
    for _ in range(done):
        first.advance()
    first.save(tmp_path / "checkpoint")
    again = jostle.Trainer.resume(tmp_path / "checkpoint", train=data.Batches(some_examples(), 4))
    whole.advance()
    # An evaluation on the same batches moves nothing.
    assert np.isfinite(whole.evaluate(whole.train))
    for trainer in (whole, again):
        assert all(np.isfinite(report.loss) for report in trainer)
    assert bits(again.model.parameters) == bits(whole.model.parameters)


def test_examples_are_split():
    examples = some_examples(11)
    training, validation = data.split(examples)
    assert (len(training), len(validation)) == (9, 2) and training + validation == examples
    with pytest.raises(ValueError, match="there are 1 examples; at least 2 are needed"):
        data.split(examples[:1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["text", "prompt", "completion", "messages", "x"]), JSON, max_size=3)
    | JSON
)
def test_any_line_is_an_example_or_refused(tmp_path_factory, line):
    path = tmp_path_factory.mktemp("any") / "data.jsonl"
    path.write_text(json.dumps(line), encoding="utf-8")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            examples = data.read_examples(path, CHATTING, 6)
    except ValueError as error:
        assert str(error).startswith((f"{path}, line 1: ", "there are no examples in "))
    else:
        for example in examples:
            assert 2 <= len(example.tokens) <= 7 and example.counted[1:].any()
