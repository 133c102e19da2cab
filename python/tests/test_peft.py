"""Adapters compared with Hugging Face's PEFT, where it is installed."""

import numpy as np
import pytest
from test_transformers_training import theirs

import jostle

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

STEPS = 20
LORA = {
    "gpt2": {"r": 4, "lora_alpha": 6, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True,
             "rank_pattern": {"attn.c_proj": 2}, "alpha_pattern": {"mlp.c_proj": 3}},
    "llama": {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", "use_rslora": True,
              "rank_pattern": {"down_proj": 7}},
    "qwen2": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
}  # fmt: skip
NAMES = list(LORA)


def adapted(name):
    """Their model with random adapters, whose B is not zero."""
    model = theirs(name)
    torch.manual_seed(1)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **LORA[name]))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.copy_(0.1 * torch.randn(parameter.shape))
    return model


def both(name, folder):
    """Their model with adapters, and ours from their files."""
    theirs(name).save_pretrained(folder / "base")
    model = adapted(name)
    model.save_pretrained(folder / "adapter")
    return model, jostle.Model.from_pretrained(folder / "base", adapter=folder / "adapter")


def tokens(rows=2):
    return np.random.default_rng(5).integers(0, 61, (rows, 16))


def logits(model):
    with torch.no_grad():
        return model(torch.from_numpy(tokens())).logits.numpy()


def assert_close(ours, wanted):
    assert np.abs(ours - wanted).max() <= 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("name", NAMES)
def test_their_adapters_give_their_logits(name, tmp_path):
    other, model = both(name, tmp_path)
    wanted = logits(other)
    assert_close(model.logits(tokens()), wanted)
    assert np.abs(logits(other.get_base_model().eval()) - wanted).max() < 1e-5 * np.abs(wanted).max()
    with other.disable_adapter():
        assert np.abs(logits(other) - wanted).max() > 1e-2 * np.abs(wanted).max()
    merged = model.merge_adapter()
    assert_close(merged.logits(tokens()), wanted)
    assert merged.frozen == () and merged.config.lora_dropout == 0
    merged.save_pretrained(tmp_path / "merged")


@pytest.mark.parametrize("name", NAMES)
def test_they_read_our_adapters(name, tmp_path):
    _, model = both(name, tmp_path)
    random = np.random.default_rng(8)
    for parameter_name, array in model.parameters.items():
        if ".lora_" in parameter_name:
            array[...] = 0.2 * random.standard_normal(array.shape)
    model.save_adapter(tmp_path / "ours")
    other = peft.PeftModel.from_pretrained(theirs(name), tmp_path / "ours").eval()
    assert_close(model.logits(tokens()), logits(other))
    again = jostle.Model.from_pretrained(tmp_path / "base", adapter=tmp_path / "ours")
    assert again.config == model.config
    for parameter_name, array in again.parameters.items():
        assert np.array_equal(array, model.parameters[parameter_name]), parameter_name


def own_name(name):
    name = name.removeprefix("base_model.model.").removeprefix("transformer.")
    return name.replace(".default.", ".")


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_theirs(name, tmp_path):
    other, model = both(name, tmp_path)
    given, targets = tokens(), np.roll(tokens(), 1, axis=1)
    model.backward(given, targets)
    found = torch.nn.functional.cross_entropy(
        other(torch.from_numpy(given)).logits.flatten(0, 1), torch.from_numpy(targets).flatten()
    )
    found.backward()
    wanted = {own_name(name): p.grad.numpy() for name, p in other.named_parameters() if p.requires_grad}
    assert model.gradients.keys() == wanted.keys()
    for parameter_name, gradient in wanted.items():
        error = np.linalg.norm(model.gradients[parameter_name] - gradient) / np.linalg.norm(gradient)
        assert error <= 2e-6, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_twenty_steps_have_their_losses(name, tmp_path):
    other, model = both(name, tmp_path)
    random = np.random.default_rng(3)
    texts = random.integers(0, 61, (4, 17))

    def batches():
        random = np.random.default_rng(4)
        for _ in range(STEPS):
            chosen = texts[random.integers(0, 4, 2)]
            yield chosen[:, :-1], chosen[:, 1:]

    optimizer = jostle.AdamW(model, 2e-3, betas=(0.9, 0.999), weight_decay=0.1)
    reports = list(jostle.Trainer(model, optimizer, train=batches(), batch=2, steps=STEPS, clip=None))
    trained = [p for p in other.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(trained, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    other.train()
    for report, (given, targets) in zip(reports, batches(), strict=True):
        adam.zero_grad()
        scores = other(torch.from_numpy(given)).logits.flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(targets).flatten())
        loss.backward()
        adam.step()
        assert report.loss == pytest.approx(loss.item(), rel=5e-7), report.step
    assert reports[-1].loss < reports[0].loss
