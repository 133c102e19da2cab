"""Model files of llama2.c."""

import numpy as np
import pytest
from common import shared

import jostle

CONFIG = jostle.Config.llama(
    vocab=11, context=5, layers=2, heads=4, kv_heads=2, width=24, hidden=7, tied=False
)


def test_stories260k_writes_its_story(tmp_path):
    tokenizer = jostle.Tokenizer.load(shared("tok512.bin"))
    model = jostle.Model.from_llama2c(shared("stories260K.bin"), tokenizer=tokenizer, threads=1)
    assert model.config == jostle.Config.llama(
        vocab=512, context=512, layers=5, heads=8, kv_heads=4, width=64, hidden=172
    )
    tokens = model.generate([1], 200, temperature=0)
    story = shared("stories260K.txt").read_text(encoding="utf-8")
    assert tokenizer.decode([1, *tokens]).rstrip() == story.rstrip()
    model.save(tmp_path / "model")
    assert jostle.Model.load(tmp_path / "model").tokenizer == tokenizer


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("frozen", [(), ("*.k_proj.weight", "model.norm.weight")])
def test_models_come_back(version, frozen, tmp_path):
    model = jostle.Model(CONFIG, seed=3, threads=1, frozen=frozen)
    model.save_llama2c(tmp_path / "model.bin", version)
    again = jostle.Model.from_llama2c(tmp_path / "model.bin", frozen=frozen, threads=1)
    assert again.config == CONFIG and again.frozen == model.frozen
    for name, array in model.parameters.items():
        assert np.array_equal(again.parameters[name], array), name


def test_wrong_files_and_models_are_refused(tmp_path):
    path = tmp_path / "model.bin"
    jostle.Model(CONFIG, threads=1).save_llama2c(path)
    file = path.read_bytes()
    refused = {
        "27 bytes; at least 28 are needed": file[:27],
        f"{len(file) - 1} bytes; its header states {len(file)}": file[:-1],
        "layers is 0 in the header": file[:8] + bytes(4) + file[12:],
        "heads 4 is not divisible by kv_heads 3": file[:16] + b"\3" + file[17:],
    }
    for message, data in refused.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"model.bin: .*{message}"):
            jostle.Model.from_llama2c(path)
    gpt2 = jostle.Config(vocab=11, context=5, layers=1, heads=2, width=8)
    with pytest.raises(ValueError, match="no model with this activation"):
        jostle.Model(gpt2, threads=1).save_llama2c(path)
    with pytest.raises(ValueError, match="version is 2; expected at least 0 and at most 1"):
        jostle.Model(CONFIG, threads=1).save_llama2c(path, 2)
    assert path.read_bytes() == data
