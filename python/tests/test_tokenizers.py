"""Text to tokens and back."""

import numpy as np
import pytest
from common import shared
from hypothesis import given
from hypothesis import strategies as st

import jostle

BYTES = [
    (text, 0.0) for text in [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % byte for byte in range(256))]
]


def llama2c(*pieces):
    """A tokenizer of llama2.c with these texts. Earlier ones have higher scores."""
    return jostle.Llama2cTokenizer.from_pieces(
        [*BYTES, *((text.encode(), -float(i)) for i, text in enumerate(pieces))]
    )


@given(st.text(min_size=1))
def test_tokenizers_lose_nothing(some):
    tokenizers = [jostle.CharTokenizer.from_text(some), jostle.WordTokenizer.from_text(some)]
    if not any("\ud800" <= character <= "\udfff" for character in some):
        tokenizers += [
            jostle.ByteTokenizer(),
            llama2c(" ", *dict.fromkeys(some[:3].replace(" ", "")), some[:2]),
        ]
    for tokenizer in tokenizers:
        tokens = tokenizer.encode(some)
        assert tokens.ndim == 1 and tokens.max() < tokenizer.vocab
        for kind in (tokens.dtype, np.int32, np.int64):
            assert tokenizer.decode(tokens.astype(kind)) == some
        assert tokenizer.decode(iter(tokens.tolist())) == some
        assert jostle.Tokenizer.from_state(tokenizer.state()) == tokenizer


def test_tokens_are_as_narrow_as_training_takes_them():
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    assert jostle.CharTokenizer.from_text(characters[:256]).encode(characters[:9]).dtype == np.uint8
    assert jostle.CharTokenizer.from_text(characters).encode(characters).dtype == np.uint16


def test_tokenizers_refuse_what_they_do_not_know():
    tokenizer = jostle.CharTokenizer.from_text("abc")
    with pytest.raises(ValueError, match="'d'"):
        tokenizer.encode("bad")
    for refused in ([3], [-1], [0, 1, 99]):
        with pytest.raises(IndexError, match="vocabulary of 3"):
            tokenizer.decode(refused)
    for refused in ([256], [-1]):
        with pytest.raises(IndexError, match="vocabulary of 256"):
            jostle.ByteTokenizer().decode(refused)
    assert jostle.ByteTokenizer().decode([0xFF]) == "\ufffd"
    for refused in (["ab", "c"], ["", "c"]):
        with pytest.raises(ValueError, match="expected single characters"):
            jostle.CharTokenizer(refused)


@pytest.mark.parametrize(
    "tokenizer",
    [jostle.CharTokenizer.from_text("né\n\"\\日\0\ud800"), jostle.WordTokenizer.from_text("né à, 日\n 12"),
     jostle.ByteTokenizer(), llama2c("é", "x", "éx")],
    ids=repr,
)  # fmt: skip
def test_checkpoints_keep_the_tokenizer(tokenizer, tmp_path):
    config = jostle.Config(vocab=tokenizer.vocab, context=4, layers=1, heads=1, width=4)
    model = jostle.Model(config, tokenizer=tokenizer)
    model.save(tmp_path / "model")
    loaded = jostle.Model.load(tmp_path / "model")
    assert loaded.tokenizer == tokenizer and type(loaded.tokenizer) is type(tokenizer)
    jostle.Trainer(model, jostle.SGD(model, 0.1), train=np.zeros(9, int), steps=0).save(tmp_path / "trainer")
    assert jostle.Trainer.resume(tmp_path / "trainer", train=np.zeros(9, int)).model.tokenizer == tokenizer


class Digits(jostle.Tokenizer):
    """A user's own tokenizer."""

    vocab = 10

    def encode(self, text):
        return np.array([int(character) for character in text])

    def decode(self, tokens):
        return "".join(map(str, tokens))


def test_a_tokenizer_of_ones_own(tmp_path):
    path, tokenizer = tmp_path / "checkpoint", Digits()
    config = jostle.Config(vocab=10, context=4, layers=1, heads=1, width=4)
    model = jostle.Model(config, tokenizer=tokenizer)
    train = tokenizer.encode("0123456789")
    jostle.Trainer(model, jostle.SGD(model, 0.1), train=train, steps=1).save(path)
    for load in (jostle.Model.load, lambda path: jostle.Trainer.resume(path, train=train)):
        with pytest.raises(ValueError, match="custom tokenizer 'Digits'; in Python, pass it as tokenizer="):
            load(path)
    assert jostle.Model.load(path, tokenizer=tokenizer).tokenizer is tokenizer
    resumed = jostle.Trainer.resume(path, train=train, tokenizer=tokenizer)
    assert len(list(resumed)) == 1 and resumed.model.tokenizer is tokenizer
    with pytest.raises(ValueError, match="the tokenizer has 256 tokens, the configuration 10"):
        jostle.Model.load(path, tokenizer=jostle.ByteTokenizer())


def test_llama2c_merges_and_falls_back_to_bytes():
    tokenizer = llama2c("ab", " ", "a", "b", "é")
    assert tokenizer.vocab == 264
    assert tokenizer.encode("abé!").tolist() == [1, 260, 259, 263, 3 + ord("!")]
    assert tokenizer.encode("a", bos=False, eos=True).tolist() == [260, 261, 2]
    assert tokenizer.decode([1, 260, 259]) == "ab" and tokenizer.decode([260, 259]) == " ab"
    assert tokenizer.decode([3 + 0xFF]) == "\ufffd"
    assert list(tokenizer.pieces([1, 260, 259, 3 + 0xC3, 3 + 0xA9])) == ["", "", "ab", "", "é", ""]
    with pytest.raises(IndexError, match="token 264 at index 1 is outside the vocabulary of 264"):
        tokenizer.decode([0, 264])


def test_llama2c_files_are_checked():
    file = llama2c("a").file
    refused = {
        "3 bytes; at least 4 are needed": file[:3],
        "at least": file[:-1],
        r"token 0 has length -1; expected 1 to 6": file[:8] + b"\xff" * 4 + file[12:],
        "258 tokens; expected at least 259": file[: file.index(b"<0xFF>") - 8],
        "token 13 is not <0x0A>": file.replace(b"<0x0A>", b"<0x0a>"),
    }
    for message, data in refused.items():
        with pytest.raises(ValueError, match=message):
            jostle.Llama2cTokenizer(data)
    with pytest.raises(TypeError, match="file is of str"):
        jostle.Llama2cTokenizer("tok512.bin")


def test_tok512_has_the_tokens_of_llama2c():
    tokenizer = jostle.Tokenizer.load(shared("tok512.bin"))
    assert tokenizer.vocab == 512
    assert tokenizer.encode("Once upon a time").tolist() == [1, 403, 407, 261, 378]
    assert jostle.Tokenizer.from_state(tokenizer.state()) == tokenizer


def exported(tokenizer):
    """The tokenizer as the package `tokenizers` reads it."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer.files()["tokenizer.json"])


EVERY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
"""Texts of every character that has UTF-8."""


@given(EVERY, st.randoms())
def test_a_tokenizer_json_gives_the_same_tokens(some, random):
    mixed = "".join(random.sample(some, len(some)))
    tokenizers = {
        "char": (jostle.CharTokenizer.from_text(some), mixed),
        "word": (jostle.WordTokenizer.from_text([some, mixed]), mixed),
        "byte": (jostle.ByteTokenizer(), mixed),
    }
    for name, (tokenizer, text) in tokenizers.items():
        other = exported(tokenizer)
        assert other.get_vocab_size() == tokenizer.vocab, name
        tokens = tokenizer.encode(text).tolist()
        assert other.encode(text).ids == tokens, name
        assert other.decode(tokens, skip_special_tokens=False) == text, name
        again = jostle.PretrainedTokenizer(tokenizer.files()["tokenizer.json"])
        assert again.encode(text).tolist() == tokens and again.decode(tokens) == text, name


def test_a_tokenizer_json_splits_words_as_we_do():
    """Kinds of characters on which regular expressions disagree: marks, numbers that are not decimal, joiners, spaces."""
    text = "a_b 12ⅳ½² x\u0301y ०१২ \x1c\x85\u2028 \u200d日本語。 ǅ\n\t\n_9z ᾳ" + "".join(
        map(chr, range(0x300, 0x600))
    )
    tokenizer = jostle.WordTokenizer.from_text(text)
    assert exported(tokenizer).encode(text).ids == tokenizer.encode(text).tolist()


@pytest.mark.parametrize("kind", [jostle.CharTokenizer, jostle.WordTokenizer])
def test_pieces_without_utf8_are_not_exported(kind):
    with pytest.raises(ValueError, match="has no UTF-8, which tokenizer.json needs"):
        kind.from_text("a \ud800 b").files()


@pytest.mark.parametrize("kind", ["char", "word", "byte"])
def test_folders_of_models_have_the_tokenizer(kind, tmp_path):
    text = "I like to ski, when it snows: né 日"
    tokenizer = jostle.runs.make_tokenizer(kind, text)
    config = jostle.Config(
        vocab=tokenizer.vocab, context=8, layers=1, heads=1, width=8, activation="gelu_tanh"
    )
    jostle.Model(config, tokenizer=tokenizer).save_pretrained(tmp_path)
    again = jostle.Model.from_pretrained(tmp_path).tokenizer
    assert np.array_equal(again.encode(text), tokenizer.encode(text))
    assert jostle.Tokenizer.load(tmp_path).decode(tokenizer.encode(text)) == text
