"""Token files: written, mapped into memory, trained on, refused."""

import re
import sys

import numpy as np
import pytest
from common import bits, run_python, text
from hypothesis import given
from hypothesis import strategies as st
from test_cli import QUICK, jostle_says, refused

import jostle
from jostle import _arrays, _documents, data

TOKENS = text(200).astype(np.int64)
CONFIG = jostle.Config(vocab=200, context=8, layers=1, heads=1, width=8)


def header(magic, version, count, tokens):
    numbers = np.zeros(256, "<i4")
    numbers[:3] = magic, version, count
    return numbers.tobytes() + tokens.tobytes()


FORMATS = {
    "nanoGPT": (TOKENS.astype("<u2").tobytes(), "u16", np.uint16),
    "u32": (TOKENS.astype("<u4").tobytes(), "u32", np.uint32),
    "llm.c, GPT-2": (header(20240520, 1, TOKENS.size, TOKENS.astype("<u2")), "u32", np.uint16),
    "llm.c, Llama 3": (header(20240801, 7, TOKENS.size, TOKENS.astype("<u4")), "u16", np.uint32),
}
"""What a file has, the type that the caller takes it for without a header, and the type that is read."""


def train(tokens, validation=None):
    model = jostle.Model(CONFIG, threads=1)
    trainer = jostle.Trainer(
        model, jostle.AdamW(model), train=tokens, validation=validation, steps=60, batch=6, evaluate_every=30
    )
    return trainer, list(trainer)


@pytest.mark.parametrize("name", FORMATS)
def test_token_files_are_trained_on_where_they_are(name, tmp_path):
    path = tmp_path / "tokens.bin"
    contents, dtype, kind = FORMATS[name]
    path.write_bytes(contents)
    tokens = data.read_tokens(path, dtype)
    assert isinstance(tokens, np.memmap) and tokens.dtype == kind and np.array_equal(tokens, TOKENS)
    assert np.shares_memory(_arrays.text("tokens", tokens, 200), tokens)
    trainer, reports = train(tokens, tokens)
    alike, wanted = train(TOKENS, TOKENS)
    assert [(r.loss, r.validation_loss) for r in reports] == [(r.loss, r.validation_loss) for r in wanted]
    assert bits(trainer.model.parameters) == bits(alike.model.parameters)


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (b"", "tokens.bin: the file is empty"),
        (b"abc", "tokens.bin: 3 bytes; expected a multiple of 2 for u16"),
        (header(20240522, 1, 5, np.zeros(5, "<u2")), "the header's magic is 20240522; expected one of [20240520, 20240801]"),
        (header(20240520, 7, 5, np.zeros(5, "<u2")), "the header has version 7; expected 1 with the magic 20240520"),
        (header(20240801, 1, 5, np.zeros(5, "<u4")), "the header has version 1; expected 7 with the magic 20240801"),
        (header(20240520, 1, 6, np.zeros(5, "<u2")), "the header promises 6 tokens of u16; the file has 5"),
        (header(20240520, 1, 5, np.zeros(11, "<u1")), "the header promises 5 tokens of u16; the file has 5.5"),
        (header(20240801, 7, -1, np.zeros(5, "<u4")), "the header promises -1 tokens of u32; the file has 5"),
        (header(20240801, 7, 0, np.zeros(0, "<u4")), "the header promises 0 tokens of u32; the file has 0"),
    ],
)  # fmt: skip
def test_token_files_that_are_refused(contents, sentence, tmp_path):
    path = tmp_path / "tokens.bin"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        data.read_tokens(path)


@pytest.mark.parametrize("wrong", [200, 2**31, 2**32 - 1])
def test_a_token_outside_the_vocabulary_is_named(wrong, tmp_path):
    path = tmp_path / "tokens.bin"
    tokens = TOKENS.astype("<u4")
    tokens[1234] = wrong
    path.write_bytes(tokens.tobytes())
    sentence = f"train holds {wrong} at index 1234: outside the vocabulary of 200"
    with pytest.raises(IndexError, match=sentence):
        train(data.read_tokens(path, "u32"))
    if wrong < 2**16:
        path.write_bytes(tokens.astype("<u2").tobytes())
        done = refused("train", path, "--vocab", "200", *QUICK)
        assert (done.returncode, done.stderr) == (1, f"error: {sentence}\n")


@pytest.mark.parametrize(("vocab", "kind"), [(200, np.uint16), (1 << 16, np.uint16), (1 << 17, np.uint32)])
def test_written_files_are_read(vocab, kind, tmp_path):
    path = tmp_path / "tokens.bin"
    tokens = np.append(TOKENS, vocab - 1)
    assert data.write_tokens(path, np.array_split(tokens, 3), vocab) == tokens.size
    found = data.read_tokens(path)
    assert found.dtype == kind and np.array_equal(found, tokens)
    with pytest.raises(IndexError, match=f"token {vocab} at index 11 is outside the vocabulary of {vocab}"):
        data.write_tokens(path, [np.arange(10), [0, vocab]], vocab)
    assert np.array_equal(data.read_tokens(path), tokens), "the file stays as it was"


def test_changes_of_a_private_mapping_stay(tmp_path):
    path = tmp_path / "tokens.bin"
    path.write_bytes(TOKENS.astype("<u2").tobytes())
    tokens = np.memmap(path, "<u2", "c")
    tokens[:] = 5
    _arrays.release(tokens)
    assert (tokens == 5).all()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_training_on_a_file_of_2_gb_leaves_resident_memory_flat(tmp_path):
    path = tmp_path / "tokens.bin"
    with path.open("wb") as file:
        file.truncate(2 << 30)
    done = run_python(f"""
import jostle

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

config = jostle.Config(vocab=200, context=64, layers=1, heads=1, width=8)
model = jostle.Model(config, threads=1)
other = jostle.data.read_tokens({str(path)!r})[: 1 << 20]
list(jostle.Trainer(model, jostle.SGD(model, 0.1), train=other, batch=4, steps=300))
before = resident()
tokens = jostle.data.read_tokens({str(path)!r})
trainer = jostle.Trainer(model, jostle.SGD(model, 0.1), train=tokens, batch=4, steps=5000)
trainer.save({str(tmp_path / "checkpoint")!r})
list(trainer)
print(resident() - before)
""")
    assert float(done.stdout) < 64, "MiB of peak resident memory, for 2 GiB of tokens"


SENTENCES = 'Snow fell. I said: "Let\'s ski,"   and we went.\n\n  It was 1234 m high – 冷たい水!\n\tYes\n'


@pytest.fixture(scope="module")
def bpe():
    return jostle.PretrainedTokenizer.from_text(SENTENCES * 20, 400)


@pytest.mark.parametrize("kind", ["char", "word", "byte", "bpe"])
def test_the_pieces_of_a_text_have_its_tokens(kind, bpe, monkeypatch):
    text = "".join(SENTENCES[i % 7 :] for i in range(100))
    tokenizer = {
        "char": jostle.CharTokenizer.from_text(text),
        "word": jostle.WordTokenizer.from_text(text),
        "byte": jostle.ByteTokenizer(),
        "bpe": bpe,
    }[kind]
    monkeypatch.setattr(_documents, "_PIECE", 1000)
    pieces = list(_documents.pieces(iter([text[:1500], text[1500:1501], text[1501:]]), tokenizer))
    assert len(pieces) > 2 and "".join(pieces) == text
    parts = [tokenizer.encode(piece) for piece in pieces]
    assert np.array_equal(np.concatenate(parts), tokenizer.encode(text))


@pytest.mark.parametrize(("begin", "count"), [("", 3), (" ", 1)])
def test_a_text_is_not_cut_where_that_changes_its_tokens(begin, count, monkeypatch):
    class Joining(jostle.ByteTokenizer):
        """A point with a new line is one token, and every text begins with a space, or not."""

        def encode(self, text):
            return super().encode(begin + text.replace(".\n", "!"))

    monkeypatch.setattr(_documents, "_PIECE", 2000)
    text = ("snow.\n" * 50 + "snow\n" + "snow.\n" * 50) * 8
    pieces = list(_documents.pieces(iter([text[:2000], text[2000:4000], text[4000:]]), Joining()))
    assert len(pieces) == count
    encoded = np.concatenate([Joining().encode(piece) for piece in pieces])
    assert np.array_equal(encoded, Joining().encode(text))


def test_tokenize_gives_the_same_file_with_any_number_of_processes(tmp_path, bpe):
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    texts = [SENTENCES * 15_000, SENTENCES[5:] * 3]
    (folder / "a.txt").write_text("\ufeff" + texts[0], encoding="utf-8")
    (folder / "more" / "b.txt").write_text(texts[1], encoding="utf-8")
    (folder / "notes.md").write_text("not a text of the folder")
    lines = ['{"text": "I like"}', "", '{"text": "to ski", "id": 7}']
    (folder / "c.jsonl").write_text("\n".join(lines))
    made = jostle.PretrainedTokenizer(bpe.files()["tokenizer.json"], {"eos_token": "!"})
    (end,) = made.encode("!")
    for name, contents in made.files().items():
        (tmp_path / name).write_text(contents, encoding="utf-8")
    wanted = [made.encode(text) for text in (texts[0], "I like", "to ski", texts[1])]
    wanted = np.concatenate([np.append(tokens, end) for tokens in wanted])
    for processes in (1, 2, 3):
        out = tmp_path / f"{processes}.bin"
        printed = jostle_says(
            "tokenize", folder, "--tokenizer", tmp_path, "--out", out, "--processes", processes
        )
        assert f"{wanted.size:,} tokens ({made.vocab} different)" in printed
        assert np.array_equal(data.read_tokens(out), wanted)
        assert jostle.Tokenizer.load(data.tokenizer_path(out)) == jostle.Tokenizer.load(tmp_path)


def test_tokens_become_a_run_that_goes_on(tmp_path):
    (tmp_path / "snow.txt").write_text(SENTENCES * 20, encoding="utf-8")
    jostle_says("tokenize", "snow.txt", "--out", "snow.bin", "--processes", "1", cwd=tmp_path)
    for file in ("snow.txt", "snow.bin"):
        jostle_says("train", file, *QUICK, "--steps", "5", "--out", f"run of {file}", cwd=tmp_path)
    runs = [jostle.runs.Run(tmp_path / f"run of snow.{end}") for end in ("txt", "bin")]
    assert bits(runs[0].model().parameters) == bits(runs[1].model().parameters)
    assert runs[1].model().tokenizer == runs[0].model().tokenizer
    sample = (runs[0].path / "sample.txt").read_text(encoding="utf-8")
    assert (runs[1].path / "sample.txt").read_text(encoding="utf-8") == sample
    jostle_says("train", "--resume", runs[1].path, cwd=tmp_path)
    # Without its tokenizer, a token file needs the size of the vocabulary, and the model writes no sample.
    (tmp_path / "snow.tokenizer.json").unlink()
    done = refused("train", "snow.bin", cwd=tmp_path)
    assert done.returncode == 2 and "--vocab" in done.stderr
    jostle_says("train", "snow.bin", "--vocab", "60", *QUICK, "--steps", "5", "--out", "bare", cwd=tmp_path)
    assert jostle.runs.Run(tmp_path / "bare").trainer().model.tokenizer is None
    assert not (tmp_path / "bare" / "sample.txt").exists()
    (tmp_path / "snow.bin").write_bytes(bytes(2000))
    done = refused("train", "--resume", "bare", cwd=tmp_path)
    assert done.returncode == 1 and "snow.bin was changed since" in done.stderr


def test_standard_input_is_tokenized(tmp_path):
    import subprocess

    from test_cli import JOSTLE

    command = [*JOSTLE, "tokenize", "-", "--tokenizer", "byte", "--out", str(tmp_path / "out.bin")]
    subprocess.run(command, input="Grüße".encode(), check=True, capture_output=True)
    assert bytes(data.read_tokens(tmp_path / "out.bin").astype(np.uint8)) == "Grüße".encode()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ("missing.txt --out x.bin", 1, "missing.txt: No such file"),
        ("latin.txt --tokenizer byte --out x.bin", 1, "latin.txt is not UTF-8 text (byte 4)"),
        (
            "bad.jsonl --tokenizer byte --out x.bin",
            1,
            'bad.jsonl, line 2: there is no text; expected {"text"',
        ),
        ("torn.jsonl --tokenizer byte --out x.bin", 1, "torn.jsonl, line 1: "),
        (
            "latin.txt --tokenizer none --out x.bin",
            1,
            "tokenizer is 'none'; expected char, word, byte, bpe, or",
        ),
        ("empty --out x.bin", 1, "empty has no files whose names end in .txt or .jsonl"),
        ("latin.txt --out x.txt", 2, "--out"),
        ("- --out x.bin", 2, "--tokenizer"),
    ],
)
def test_texts_that_are_refused(arguments, status, sentence, tmp_path):
    (tmp_path / "latin.txt").write_bytes("ü ".encode() + b"h\xe9")
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"words": 5}\n')
    (tmp_path / "torn.jsonl").write_text('{"text": "go')
    (tmp_path / "empty").mkdir()
    done = refused("tokenize", *arguments.split(), cwd=tmp_path)
    assert done.returncode == status and sentence in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "x.bin").exists() and not list(tmp_path.glob("*.partial"))


@given(
    st.binary(max_size=40),
    st.sampled_from([20240520, 20240801, 20240522, 5]),
    st.integers(-2, 9),
    st.booleans(),
)
def test_any_file_is_a_token_file_or_refused(tmp_path_factory, contents, magic, count, has_header):
    path = tmp_path_factory.mktemp("any") / "tokens.bin"
    path.write_bytes(
        header(magic, 1 if magic == 20240520 else 7, count, np.zeros(0)) + contents
        if has_header
        else contents
    )
    for dtype in ("u16", "u32"):
        try:
            tokens = data.read_tokens(path, dtype)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert tokens.ndim == 1 and 0 < tokens.nbytes <= len(contents)
