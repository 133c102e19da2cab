"""Callbacks of a trainer, and the logs that they write."""

import copy
import dataclasses
import json

import pytest
from common import SMALL, text

import jostle
from jostle import callbacks


def make():
    model = jostle.Model(SMALL, 3, 1)
    return jostle.Trainer(
        model, jostle.AdamW(model), train=text(13), validation=text(13)[:50], steps=6, evaluate_every=3
    )


def test_callbacks_get_every_report():
    trainer, found, steps = make(), [], []
    assert trainer.on_report(found.append) is not None

    @trainer.on_report
    def note(report):
        steps.append(report.step)

    reports = [*trainer]
    assert found == reports and steps == [1, 2, 3, 4, 5, 6]
    copy.deepcopy(trainer).advance()
    assert len(found) == 6, "a copy has no callbacks"
    trainer.advance()
    assert len(found) == 7
    with pytest.raises(TypeError, match="callback is of int; expected a function of a report"):
        trainer.on_report(5)


def test_json_lines_are_appended_at_once(tmp_path):
    path = tmp_path / "log.jsonl"
    reports = []
    for _ in range(2):
        trainer = make()
        with callbacks.JsonLines(path) as log:
            trainer.on_report(log)
            for report in trainer:
                reports.append(report)
                lines = path.read_text().splitlines()
                assert [json.loads(line) for line in lines] == [dataclasses.asdict(one) for one in reports]
    assert reports[2].validation_loss is not None and reports[1].validation_loss is None


def test_tensorboard_reads_its_log(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    trainer = make()
    with callbacks.TensorBoard(tmp_path / "logs") as log:
        trainer.on_report(log)
        reports = list(trainer)
    (path,) = (tmp_path / "logs").iterdir()
    contents, place, found = path.read_bytes(), 0, {}
    while place < len(contents):
        size = int.from_bytes(contents[place : place + 8], "little")
        event = Event.FromString(contents[place + 12 : place + 12 + size])
        place += size + 16
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    assert found["loss"] == {report.step: report.loss for report in reports}
    assert set(found["validation_loss"]) == {3, 6}
    assert set(found) == {field.name for field in dataclasses.fields(jostle.Report)} - {"step"}


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'jostle\[tensorboard\]'"):
        callbacks.TensorBoard(tmp_path)
