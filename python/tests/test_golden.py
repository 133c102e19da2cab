"""The package against PyTorch's numbers. core/tests/golden.rs describes them and the tolerances."""

import dataclasses

import numpy as np
import pytest
from common import GOLDEN, relative_error
from safetensors import safe_open

import jostle

CASES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))

LOGITS = 2e-6
GRADIENTS = 5e-6
LOSSES = 1e-6
NORMS = 2e-5


class Golden:
    """One golden file."""

    def __init__(self, name):
        self.name = name
        with safe_open(GOLDEN / f"{name}.safetensors", "numpy") as file:
            self.settings = file.metadata()
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def number(self, key):
        return float(self.settings[key])

    def model(self):
        def value(field):
            kind, text = str(field.type), self.settings[field.name]
            if "bool" in kind:
                return text == "true"
            return int(text) if "int" in kind else float(text) if "float" in kind else text

        fields = [field for field in dataclasses.fields(jostle.Config) if field.name in self.settings]
        config = jostle.Config(**{field.name: value(field) for field in fields})
        # A file with adapters has their gradients alone.
        names = [name for name, _ in jostle._native.tensors(config)]
        frozen = [name for name in names if f"grad.{name}" not in self.tensors]
        model = jostle.Model(config, threads=1, frozen=frozen)
        for parameter, array in model.parameters.items():
            array[:] = self.tensors[parameter]
        return model

    def optimizer(self, model):
        return jostle.AdamW(
            model,
            learning_rate=self.number("learning_rate"),
            betas=(self.number("beta1"), self.number("beta2")),
            epsilon=self.number("epsilon"),
            weight_decay=self.number("weight_decay"),
        )


@pytest.fixture(params=CASES)
def golden(request):
    return Golden(request.param)


def test_the_files_are_there():
    assert len(CASES) == 27


def test_names_and_shapes(golden):
    others = {"tokens", "targets", "logits", "loss", "train_tokens", "train_targets", "losses", "norms"}
    wanted = {key for key in golden.tensors if not key.startswith("grad.")} - others
    model = golden.model()
    gradients = {key.removeprefix("grad.") for key in golden.tensors if key.startswith("grad.")}
    assert set(model.parameters) == wanted
    assert set(model.gradients) == gradients
    assert gradients == wanted or "lora" in golden.name
    for name in wanted:
        assert model.parameters[name].shape == golden.tensors[name].shape
    for name in gradients:
        assert model.gradients[name].shape == golden.tensors[name].shape


def test_logits_loss_and_every_gradient(golden):
    model, tensors = golden.model(), golden.tensors
    tokens, targets = tensors["tokens"], tensors["targets"]
    assert relative_error(model.logits(tokens), tensors["logits"]) <= LOGITS
    assert relative_error([model.loss(tokens, targets)], tensors["loss"]) <= LOSSES
    assert relative_error([model.backward(tokens, targets)], tensors["loss"]) <= LOSSES
    for name, gradient in model.gradients.items():
        assert relative_error(gradient, tensors[f"grad.{name}"]) <= GRADIENTS, name


def test_twenty_steps_of_training(golden):
    model, tensors = golden.model(), golden.tensors
    optimizer = golden.optimizer(model)
    losses, norms = [], []
    for tokens, targets in zip(tensors["train_tokens"], tensors["train_targets"], strict=True):
        model.zero_gradients()
        losses.append(model.backward(tokens, targets))
        norms.append(optimizer.step(clip=golden.number("clip")))
    assert len(losses) == 20
    for loss, wanted in zip(losses, tensors["losses"], strict=True):
        assert relative_error(loss, wanted) <= LOSSES
    for norm, wanted in zip(norms, tensors["norms"], strict=True):
        assert relative_error(norm, wanted) <= NORMS


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("setting", "factor"), [("learning_rate", 1.001), ("clip", 1.01), ("beta1", 0.99)])
def test_a_wrong_setting_is_seen(case, setting, factor):
    """A wrong setting exceeds the tolerances above."""
    golden = Golden(case)
    golden.settings[setting] = str(golden.number(setting) * factor)
    with pytest.raises(AssertionError):
        test_twenty_steps_of_training(golden)


def test_relative_error_sees_what_is_not_a_number():
    assert relative_error([3.0, 4.0], [3.0, 4.0]) == 0
    assert relative_error([0.0, 4.0], [3.0, 4.0]) == 0.6
    assert not relative_error([np.nan, 4.0], [3.0, 4.0]) <= 1
