"""Hugging Face folders: read, written, and refused. test_transformers.py compares them with Transformers."""

import dataclasses
import itertools
import json
import os
import pickle
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from common import SMALL, bits
from hypothesis import given
from hypothesis import strategies as st

import jostle
from jostle import _safetensors

CONFIG = dataclasses.replace(SMALL, activation="gelu_tanh")
ALL = np.arange(1 << 16, dtype=np.uint16)
NARROW = {"F16": np.float16, "BF16": ml_dtypes.bfloat16}


def random_model(config=CONFIG):
    model = jostle.Model(config, seed=5, threads=1)
    random = np.random.default_rng(0)
    for array in model.parameters.values():
        array[...] = random.standard_normal(array.shape)
    return model


@pytest.fixture
def folder(tmp_path):
    random_model().save_pretrained(tmp_path)
    return tmp_path


def edit(folder, **keys):
    """Changes keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def tensors_of(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def shard(folder, change=None):
    """Splits the file of a folder into two shards. Returns the index, after it was changed."""
    tensors = tensors_of(folder)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {}}
    for number, name in enumerate(tensors):
        index["weight_map"][name] = f"model-0000{number % 2 + 1}-of-00002.safetensors"
    for file in set(index["weight_map"].values()):
        names = [name for name, place in index["weight_map"].items() if place == file]
        safetensors.numpy.save_file({name: tensors[name] for name in names}, folder / file)
    if change is not None:
        change(index)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("kind", NARROW)
def test_every_narrow_number_is_read(kind, tmp_path):
    wanted = ALL.view(NARROW[kind]).astype(np.float32)
    given = _safetensors.widen(kind, ALL.tobytes())
    is_nan = np.isnan(wanted)
    assert np.array_equal(np.isnan(given), is_nan)
    assert np.array_equal(given[~is_nan].view(np.uint32), wanted[~is_nan].view(np.uint32))
    # The core's own conversion: a table with every pattern in a file of another program.
    config = jostle.Config(vocab=256, context=1, layers=1, heads=1, width=256, activation="gelu")
    tensors = {name: array.copy() for name, array in jostle.Model(config).parameters.items()}
    tensors["wte.weight"] = ALL.view(NARROW[kind]).reshape(256, 256)
    safetensors.numpy.save_file(tensors, tmp_path / "file")
    loaded = jostle.Model.load(tmp_path / "file", config=config).parameters["wte.weight"].ravel()
    assert np.array_equal(np.isnan(loaded), is_nan)
    assert np.array_equal(loaded[~is_nan].view(np.uint32), wanted[~is_nan].view(np.uint32))


@pytest.mark.parametrize("kind", NARROW)
def test_numbers_are_rounded_to_nearest_even(kind):
    exact = _safetensors.widen(kind, ALL.tobytes())
    is_nan = np.isnan(exact)
    given = _safetensors.narrow(kind, exact)
    assert np.array_equal(given.view(np.uint16)[~is_nan], ALL[~is_nan])
    assert np.isnan(_safetensors.widen(kind, given[is_nan].tobytes())).all()
    finite = exact[np.isfinite(exact)]
    # Halfway between neighbours, and one f32 beside.
    ordered = np.unique(finite)
    middle = ((ordered[1:].astype(np.float64) + ordered[:-1]) / 2).astype(np.float32)
    for numbers in (middle, np.nextafter(middle, np.float32(9)), np.nextafter(middle, np.float32(-9))):
        given = _safetensors.narrow(kind, numbers)
        assert np.array_equal(given.view(np.uint16), numbers.astype(NARROW[kind]).view(np.uint16))
    with pytest.raises(OverflowError):
        _safetensors.narrow(kind, np.array([1, np.finfo(np.float32).max], np.float32))
    infinite = np.array([np.inf, -np.inf], np.float32)
    assert np.array_equal(_safetensors.widen(kind, _safetensors.narrow(kind, infinite).tobytes()), infinite)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_a_folder_gives_the_model_back(tied, activation, tmp_path):
    config = dataclasses.replace(
        CONFIG, tied=tied, activation=activation, hidden=9, embedding_dropout=0.25, norm_epsilon=1e-6
    )
    model = random_model(config)
    model.save_pretrained(tmp_path / "a" / "b")
    loaded = jostle.Model.from_pretrained(tmp_path / "a" / "b", frozen=["h.0.*"], threads=2)
    assert loaded.config == config == jostle.Config.from_pretrained(tmp_path / "a" / "b")
    assert loaded.threads == 2 and "h.0.ln_1.weight" in loaded.frozen
    assert {name: array.tobytes() for name, array in loaded.parameters.items()} == {
        name: array.tobytes() for name, array in model.parameters.items()
    }
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_absent_biases_become_zeros(tmp_path):
    model = random_model(dataclasses.replace(CONFIG, bias=False))
    model.save_pretrained(tmp_path)
    loaded = jostle.Model.from_pretrained(tmp_path)
    tokens = [[1, 2, 3]]
    assert np.array_equal(loaded.logits(tokens), model.logits(tokens))


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_narrow_files(dtype, tmp_path):
    model = random_model()
    model.save_pretrained(tmp_path, dtype=dtype)
    kind = {"bf16": ml_dtypes.bfloat16, "f16": np.float16}[dtype]
    loaded = jostle.Model.from_pretrained(tmp_path)
    for name, array in model.parameters.items():
        assert np.array_equal(loaded.parameters[name], array.astype(kind).astype(np.float32))
    before = (tmp_path / "model.safetensors").read_bytes()
    model.parameters["ln_f.bias"][0] = 3.4e38
    with pytest.raises(ValueError, match=r"transformer\.ln_f\.bias: 3\.4e\+38 is too large for B?F16"):
        model.save_pretrained(tmp_path, dtype=dtype)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="^dtype is 'f8'; expected"):
        model.save_pretrained(tmp_path, dtype="f8")


def test_shards_prefixes_masks_and_saved_heads(folder):
    wanted = bits(jostle.Model.from_pretrained(folder).parameters)
    tensors = {name.removeprefix("transformer."): array for name, array in tensors_of(folder).items()}
    tensors["h.0.attn.bias"] = np.tri(8, dtype=np.uint8)
    tensors["lm_head.weight"] = tensors["wte.weight"]
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    assert bits(jostle.Model.from_pretrained(folder).parameters) == wanted
    shard(folder)
    assert bits(jostle.Model.from_pretrained(folder).parameters) == wanted


@pytest.mark.parametrize(
    "keys, sentence",
    [
        (
            {"model_type": "mamba"},
            "model_type is 'mamba'; expected one of ['gpt2', 'llama', 'qwen2', 'qwen3']",
        ),
        ({"model_type": ["gpt2"]}, "model_type is ['gpt2']; expected"),
        ({"architectures": ["GPT2ForTokenClassification"]}, "architectures has 'GPT2ForTokenClassification'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is {'0': [1]}"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is of int; expected bool"),
        ({"n_head": 3}, "n_head is 3; expected a divisor of n_embd, 8"),
        ({"n_embd": 0}, "n_embd is 0; expected at least 1"),
        ({"n_embd": 8.5}, "n_embd is 8.5; expected an integer"),
        ({"n_layer": 10**30}, f"n_layer is {10**30}; expected at least 1"),
        ({"n_layer": 10**6}, "n_layer is 1000000, but the files have only 28 tensors"),
        ({"n_layer": 2**31 - 1}, "layers is too large for this machine"),
        ({"n_inner": -1}, "n_inner is -1"),
        ({"attn_pdrop": 1}, "attn_pdrop is 1"),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon is 'small'; expected a number"),
    ],
)
def test_configurations_that_are_refused(folder, keys, sentence):
    edit(folder, **keys)
    with pytest.raises(ValueError) as error:
        jostle.Model.from_pretrained(folder)
    assert str(error.value).startswith(f"{folder / 'config.json'}: {sentence}")


def test_a_configuration_of_another_model_is_refused(folder):
    edit(folder, vocab_size=14)
    with pytest.raises(
        ValueError, match=r"wte\.weight has shape \[13, 8\]; config\.json makes it \[14, 8\]$"
    ):
        jostle.Model.from_pretrained(folder)
    edit(folder, vocab_size=13, n_layer=3)
    with pytest.raises(ValueError, match=r": the files lack h\.2\.ln_1\.weight, .* and 4 more$"):
        jostle.Model.from_pretrained(folder)
    edit(folder, n_layer=1)
    with pytest.raises(ValueError, match=r"safetensors: the model of config\.json does not have h\.1\."):
        jostle.Model.from_pretrained(folder)
    edit(folder, n_layer=2, vocab_size=2**31 - 1, n_embd=2**31 - 1, n_head=1)
    with pytest.raises(ValueError, match="has shape|too large|config.json"):
        jostle.Model.from_pretrained(folder)


def outside(index):
    index["weight_map"]["transformer.wte.weight"] = "../model.safetensors"


def absolute(index):
    index["weight_map"]["transformer.wte.weight"] = os.path.abspath("model.safetensors")


def lacking(index):
    del index["weight_map"]["transformer.wte.weight"]


def wrong_place(index):
    places = index["weight_map"]
    places["transformer.wte.weight"] = next(
        file for file in places.values() if file != places["transformer.wte.weight"]
    )


def too_much(index):
    index["weight_map"]["nothing"] = next(iter(index["weight_map"].values()))


def gone(index):
    index["weight_map"]["nothing"] = "gone.safetensors"


@pytest.mark.parametrize(
    "change, sentence",
    [
        (outside, "expected the name of a file beside it"),
        (absolute, "expected the name of a file beside it"),
        (lacking, "weight_map does not say that transformer.wte.weight is in"),
        (wrong_place, "weight_map does not say that transformer.wte.weight is in"),
        (too_much, "nothing is missing"),
        (gone, "No such file"),
        (lambda index: index.update(weight_map=[1]), "index.json: 'list' object has no attribute"),
        (lambda index: index.pop("weight_map"), "index.json: 'weight_map' is missing"),
        (lambda index: index["weight_map"].update(a=1), "a is in 1; expected the name"),
    ],
)
def test_indices_that_are_refused(folder, change, sentence):
    shard(folder, change)
    with pytest.raises((ValueError, OSError)) as error:
        jostle.Model.from_pretrained(folder)
    assert sentence in str(error.value)


def test_overlapping_shards_are_refused(folder):
    shard(folder)
    first, second = (folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    tensors = safetensors.numpy.load_file(first)
    name = next(iter(safetensors.numpy.load_file(second)))
    tensors[name.removeprefix("transformer.")] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(tensors, first)
    with pytest.raises(ValueError, match="weight_map does not say that"):
        jostle.Model.from_pretrained(folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][name.removeprefix("transformer.")] = first.name
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match="occurs twice"):
        jostle.Model.from_pretrained(folder)


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def file_of(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "contents, sentence",
    [
        (b"", "not safetensors or not whole"),
        (file_of({}, length=2**63), "not safetensors or not whole"),
        (file_of(b"[1]"), "is not an object"),
        (file_of(b"\xff\xff"), "codec can't decode"),
        (file_of(b'{"a":1,"a":1}'), "'a' occurs twice"),
        (file_of(b"[" * 200_000), "too many levels|Expecting|recursion"),
        (file_of({"__metadata__": 1}), "__metadata__ is not an object"),
        (file_of({"a": {}}), "'dtype' is missing"),
        (file_of({"a": entry()}, bytes(7)), "the tensors have 8 bytes, the file's data 7"),
        (file_of({"a": entry(offsets=(8, 0))}, bytes(8)), "do not fit the shape"),
        (file_of({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "overlap or leave a gap at byte 4"),
        (file_of({"a": entry((-2, -1))}, bytes(8)), "are not sizes"),
        (file_of({"a": entry((True, 2))}, bytes(8)), "are not sizes"),
        (file_of({"a": entry((2**40,) * 9, (0, 8))}, bytes(8)), "are not sizes"),
        (file_of({"a": entry((2.0,))}, bytes(8)), "are not sizes"),
        (file_of({"a": entry((2**62, 2**62))}, bytes(8)), "do not fit the shape"),
    ],
)
def test_files_that_are_refused(folder, contents, sentence):
    path = folder / "model.safetensors"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=sentence) as error:
        jostle.Model.from_pretrained(folder)
    assert str(error.value).startswith(f"{path}: ")


def test_types_that_are_refused(folder):
    tensors = tensors_of(folder)
    tensors["transformer.ln_f.bias"] = np.zeros(8, np.int8)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"ln_f\.bias is 'I8'; expected F32, F16 or BF16$"):
        jostle.Model.from_pretrained(folder)


def test_a_cut_file_is_refused_wherever_it_was_cut(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in itertools.chain(range(0, len(whole), 97), [len(whole) - 1]):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^.*model\.safetensors: "):
            jostle.Model.from_pretrained(folder)


def test_an_altered_header_gives_an_error_or_a_model(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    length = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(300):
        altered = bytearray(whole)
        for place in random.integers(0, length, 3):
            altered[place] = random.integers(0, 256)
        path.write_bytes(altered)
        try:
            jostle.Model.from_pretrained(folder)
        except ValueError as error:
            assert str(folder) in str(error)


@pytest.mark.skipif(os.name == "nt", reason="named pipes")
def test_pipes_and_large_files_are_refused(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(ValueError, match="is not a regular file"):
        jostle.Model.from_pretrained(folder)
    (folder / "config.json").unlink()
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"config\.json: more than 1048576 bytes"):
        jostle.Model.from_pretrained(folder)


def test_an_empty_folder_has_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        jostle.Model.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError):
        jostle.Config.from_pretrained(tmp_path / "nothing")


def test_a_configuration_that_gpt2_lacks(tmp_path):
    config = dataclasses.replace(CONFIG, mlp_projection_dropout=0.5)
    with pytest.raises(ValueError, match="mlp_projection_dropout differ"):
        jostle.Model(config).save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's count of resident pages")
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_reading_takes_little_more_memory_than_the_weights(dtype, tmp_path):
    config = dataclasses.replace(CONFIG, vocab=100_000, width=512, heads=8)
    model = jostle.Model(config)
    model.save_pretrained(tmp_path, dtype)
    weights = 4 * model.parameter_count
    del model
    code = """
import resource, sys, jostle
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
small = peak()
jostle.Model.from_pretrained(sys.argv[1])
print(peak() - small)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, os.fspath(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) <= weights + (64 << 20)


TEXT = "Die Kälte ist groß, und 日本 ist weit. 🍋 I like to ski when it snows.\n\n\tNo!  " * 20


@pytest.fixture(scope="module")
def tokenizer():
    return jostle.PretrainedTokenizer.from_text(TEXT, 300)


@given(text=st.text(st.characters(codec="utf-8")))
def test_a_byte_level_bpe_loses_nothing(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert "".join(tokenizer.pieces(tokens.tolist())) == text


def test_a_byte_level_bpe_learns_from_the_text(tokenizer):
    assert tokenizer.vocab == 300
    assert len(tokenizer.encode(TEXT)) < len(TEXT.encode()) / 2
    assert jostle.PretrainedTokenizer.from_text(TEXT, 300) == tokenizer
    with pytest.raises(ValueError, match="vocab is 255; expected at least 256"):
        jostle.PretrainedTokenizer.from_text(TEXT, 255)


def test_pieces_wait_for_whole_characters(tokenizer):
    tokens = tokenizer.encode("a\u65e5\u0416 b").tolist()
    pieces = list(tokenizer.pieces(iter(tokens)))
    assert "".join(pieces) == "a\u65e5\u0416 b" and not any("\ufffd" in piece for piece in pieces)
    # Bytes that are not UTF-8 appear in the end.
    single = tokenizer.encode("🧊").tolist()
    assert len(single) > 1 and "".join(tokenizer.pieces(single[:-1])) == "\ufffd"
    assert "".join(tokenizer.pieces([single[1]] * 20)) == "\ufffd" * 20


def test_checkpoints_keep_the_tokenizer(tokenizer, tmp_path):
    model = jostle.Model(dataclasses.replace(CONFIG, vocab=330), tokenizer=tokenizer)
    model.save(tmp_path / "model")
    loaded = jostle.Model.load(tmp_path / "model").tokenizer
    assert loaded == tokenizer and loaded.decode(loaded.encode(TEXT)) == TEXT
    assert loaded.decode([329]) == ""
    with pytest.raises(IndexError, match="token -1 at index 0"):
        loaded.decode([-1])
    copied = pickle.loads(pickle.dumps(model)).tokenizer
    assert copied == tokenizer


def test_a_folder_keeps_the_tokenizer_and_its_settings(tokenizer, tmp_path):
    package = tokenizers.Tokenizer.from_str(tokenizer.state()["json"])
    package.add_special_tokens(["<end>"])
    settings = {"eos_token": {"content": "<end>"}, "bos_token": "nothing", "chat_template": "{{ messages }}"}
    special = jostle.PretrainedTokenizer(package.to_str(), settings)
    config = dataclasses.replace(CONFIG, vocab=301)
    jostle.Model(config, tokenizer=special).save_pretrained(tmp_path)
    keys = json.loads((tmp_path / "config.json").read_text())
    assert (keys["bos_token_id"], keys["eos_token_id"]) == (None, 300)
    loaded = jostle.Model.from_pretrained(tmp_path).tokenizer
    assert loaded.encode("a<end>")[-1] == 300 and loaded.decode([300]) == "<end>"
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"


def test_a_chat_template_writes_conversations(tokenizer):
    template = """{% for m in messages %}
    {%- if m.role == "tool" %}{{ raise_exception("no tools") }}{% endif %}
<{{ m.role }}>{{ m.content }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}<assistant>{% endif %}"""
    settings = {"chat_template": template, "eos_token": "<end>"}
    talking = jostle.PretrainedTokenizer(tokenizer.state()["json"], settings)
    messages = [{"role": "user", "content": "Snow?"}, {"role": "assistant", "content": "Yes."}]
    said = "<user>Snow?<end>\n<assistant>Yes.<end>\n"
    assert talking.chat(messages) == said + "<assistant>"
    assert talking.chat(messages, answer=False) == said
    with pytest.raises(ValueError, match="^the chat template: no tools$"):
        talking.chat([{"role": "tool", "content": ""}])
    with pytest.raises(ValueError, match="has no chat template"):
        tokenizer.chat(messages)
    broken = jostle.PretrainedTokenizer(tokenizer.state()["json"], {"chat_template": "{% for %}"})
    with pytest.raises(ValueError, match="^the chat template: "):
        broken.chat(messages)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "not a tokenizer.json"),
        ("[" * 200_000, "not a tokenizer.json"),
        ("{}", "not a tokenizer.json"),
        ('{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "it has no tokens"),
        (
            '{"model": {"type": "BPE", "vocab": {"a": 99999999}, "merges": []}}',
            "the tokenizer has 100000000 tokens",
        ),
    ],
)
def test_tokenizers_that_are_refused(text, sentence, folder):
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match=rf"tokenizer\.json: .*{sentence}"):
        jostle.Model.from_pretrained(folder)


def test_a_tokenizer_with_more_tokens_than_the_vocabulary_is_refused(tokenizer, folder):
    for name, contents in tokenizer.files().items():
        (folder / name).write_text(contents)
    with pytest.raises(ValueError, match=r"has 300 tokens, more than vocab_size in config\.json, 13$"):
        jostle.Model.from_pretrained(folder)


def test_without_the_package_the_error_names_the_extra(tokenizer, folder, tmp_path, monkeypatch):
    (folder / "tokenizer.json").write_text(tokenizer.files()["tokenizer.json"])
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for make in (
        lambda: jostle.Model.from_pretrained(folder),
        lambda: jostle.PretrainedTokenizer.from_text(TEXT, 300),
        lambda: jostle.Tokenizer.from_state({"kind": "pretrained", "json": "{}", "settings": {}}),
    ):
        with pytest.raises(ImportError, match=r"pip install 'jostle\[hf\]'"):
            make()


SIZES = {"vocab": 23, "context": 12, "layers": 2, "heads": 4, "width": 24, "hidden": 20}
SCALING = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 6,
}
LLAMAS = {
    "llama": jostle.Config.llama(**SIZES, kv_heads=2, tied=False),
    "llama 3": jostle.Config.llama(**SIZES, kv_heads=1, rope_theta=5e5, rope_scaling=SCALING),
    "qwen2": jostle.Config.llama(**SIZES, kv_heads=2, qkv_bias=True, norm_epsilon=1e-6),
    "qwen3": jostle.Config.llama(**SIZES, kv_heads=2, head_width=10, qk_norm=True),
}


@pytest.mark.parametrize("kind", LLAMAS)
def test_llamas_survive_with_all_bits(kind, tmp_path):
    model = random_model(LLAMAS[kind])
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind.split()[0]
    again = jostle.Model.from_pretrained(tmp_path)
    assert again.config == model.config
    assert bits(again.parameters) == bits(model.parameters)
    # Names without the prefix, as a LlamaModel is saved.
    tensors = {name.removeprefix("model."): array for name, array in tensors_of(tmp_path).items()}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    assert bits(jostle.Model.from_pretrained(tmp_path).parameters) == bits(model.parameters)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
        ({"attention_bias": True}, "attention_bias is True and mlp_bias is False"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling has rope_type 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling lacks factor"),
        ({"rope_scaling": SCALING | {"factor": 0.5}}, "rope_factor is 0.5"),
        ({"rope_scaling": SCALING | {"high_freq_factor": 1.0}}, "rope_high_freq_factor is 1"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "rope_parameters has rope_type 'linear'",
        ),
        ({"rope_theta": -1.0}, "rope_theta is -1.0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is "),
        ({"num_key_value_heads": 3}, "kv_heads"),
        ({"head_dim": 5}, "head_width is 5"),
        (
            {"head_dim": None, "num_attention_heads": 5},
            "num_attention_heads is 5; expected a divisor of hidden_size",
        ),
        ({"num_experts": 8}, "num_experts is 8"),
    ],
)
def test_llamas_that_are_refused(keys, sentence, tmp_path):
    random_model(LLAMAS["llama"]).save_pretrained(tmp_path)
    edit(tmp_path, **keys)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        jostle.Model.from_pretrained(tmp_path)


def test_mixtures_that_hugging_face_lacks_are_not_written(tmp_path):
    for change in ({"norm": "layer"}, {"positions": "learned"}, {"activation": "gelu"}):
        model = jostle.Model(dataclasses.replace(LLAMAS["llama"], **change))
        with pytest.raises(ValueError, match=next(iter(change))):
            model.save_pretrained(tmp_path / "never")
        assert not (tmp_path / "never").exists()
