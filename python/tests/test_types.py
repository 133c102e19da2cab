"""The types that users see: mypy --strict accepts a correct program, and refuses a wrong one."""

import os
import sys
from pathlib import Path

import mypy.api
import pytest
from common import run_python

import jostle

EXAMPLE = Path(__file__).with_name("typed_example.py")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def check(tmp_path, cache, monkeypatch):
    """Checks a program against the package that is tested."""
    package = Path(jostle.__file__).parents[1]
    if package.name != "site-packages":
        monkeypatch.setenv("MYPYPATH", os.fspath(package))

    def check(program):
        path = tmp_path / "program.py"
        path.write_text(program)
        options = ["--strict", "--config-file=", f"--cache-dir={cache}"]
        output, errors, status = mypy.api.run(
            [*options, f"--python-executable={sys.executable}", os.fspath(path)]
        )
        assert not errors
        return status, output

    return check


def test_the_example_is_typed(check):
    status, output = check(EXAMPLE.read_text())
    assert status == 0, output


def test_a_wrong_line_is_refused(check):
    program = EXAMPLE.read_text()
    wrong = program.replace("# MUST FAIL: ", "")
    assert wrong != program
    status, output = check(wrong)
    assert status == 1
    assert "Found 1 error" in output and "[assignment]" in output, output


def test_the_example_runs(tmp_path):
    code = EXAMPLE.read_text()
    run_python(
        f'{code}\nuse(train("I like to ski when it snows. " * 9, Path({os.fspath(tmp_path / "model")!r})))'
    )
