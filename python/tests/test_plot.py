"""Pictures show the computed numbers: the tests compare data, marks and pixels with the model's numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import jostle
from jostle import ops, plot

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

TEXT = "I like to ski when it snows"
LENGTH = 13
HEADS = 2


@dataclass
class FakeRun:
    name: str = "plain"
    metrics: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    snapshots: Sequence[tuple[int, Path]] = ()
    trained: jostle.Model | None = None

    def model(self) -> jostle.Model:
        assert self.trained is not None
        return self.trained


def make_model(tokenizer: jostle.Tokenizer | None = None, heads: int = HEADS, vocab: int = 9) -> jostle.Model:
    """A model that attends sharply: its queries, keys and values are far from zero."""
    vocab = tokenizer.vocab if tokenizer else vocab
    config = jostle.Config(vocab=vocab, context=64, layers=2, heads=heads, width=8 * heads)
    model = jostle.Model(config, seed=3, threads=1, tokenizer=tokenizer)
    for name, values in model.parameters.items():
        if "c_attn.weight" in name:
            values *= 25
    return model


@pytest.fixture(scope="module")
def model() -> jostle.Model:
    return make_model(jostle.WordTokenizer.from_text(TEXT))


def pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """The picture (rows from above, columns, RGB)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[:, :, :3]  # type: ignore[no-untyped-call]


def cell(picture: npt.NDArray[np.uint8], axes: Axes, row: int, column: int) -> npt.NDArray[np.uint8]:
    """The pixels (n, RGB) of the middle of an image's cell."""
    corners = axes.transData.transform([(column - 0.4, row + 0.4), (column + 0.4, row - 0.4)])
    (left, bottom), (right, top) = np.round(corners).astype(int)
    height = len(picture)
    return picture[height - top : height - bottom, left:right].reshape(-1, 3)


def share(of: npt.NDArray[np.uint8], colour: Any, within: int = 2) -> float:
    """The share of pixels that have this colour."""
    wanted = np.round(np.array(to_rgb(colour)) * 255)
    return float(np.mean((np.abs(of - wanted) <= within).all(axis=1)))


def shown(axes: Axes) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.asarray(axes.images[0].get_array())


def panels(figure: Figure) -> list[Axes]:
    """The panels, without colour bars."""
    return [axes for axes in figure.axes if axes.images]


def rows(figure: Figure) -> list[list[Axes]]:
    """The four panels of each head."""
    found = panels(figure)
    return [found[first : first + 4] for first in range(0, len(found), 4)]


def crosses(axes: Axes) -> set[tuple[int, int]]:
    (line,) = axes.lines
    return {(int(y), int(x)) for x, y in np.asarray(line.get_xydata())}


def in_words(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


# Attention


def test_attention_dropout_is_that_of_attention() -> None:
    random = np.random.default_rng(1)
    qkv = random.standard_normal((40, 3 * 3 * 4), dtype=np.float32)
    value = qkv[:, 24:].reshape(40, 3, 4)
    _, stats = ops.attention(qkv, 3)
    query, key = (qkv[:, part : part + 12].reshape(40, 3, 4) for part in (0, 12))
    scores = np.einsum("qhc,khc->hqk", query, key) / 2
    scores[:, ~np.tri(40, dtype=bool)] = -np.inf
    weights = ops.softmax(np.ascontiguousarray(scores))
    for numbers in ({}, {"seed": 9}, {"step": 5}, {"layer": 2}, {"sequence": 7}):
        dropped = ops.attention_dropout(weights, 0.3, **numbers)
        out, _ = ops.attention(qkv, 3, dropout=0.3, **numbers)
        np.testing.assert_allclose(np.einsum("hqk,khc->qhc", dropped, value).reshape(40, 12), out, atol=1e-5)
    np.testing.assert_array_equal(ops.attention_dropout(weights, 0.0), weights)


def test_attention_dropout_refuses_what_is_no_weights() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\); expected \(2, 3, 3\)"):
        ops.attention_dropout(np.zeros((2, 3, 4), np.float32), 0.1)
    with pytest.raises(ValueError, match="2 dimensions; expected 3"):
        ops.attention_dropout(np.zeros((3, 3), np.float32), 0.1)
    with pytest.raises(ValueError, match="dropout rate"):
        ops.attention_dropout(np.zeros((2, 3, 3), np.float32), 1.0)


@pytest.mark.parametrize("layer", [0, 1])
def test_panels_hold_what_attention_computes(model: jostle.Model, layer: int) -> None:
    figure = plot.attention_stages(model, TEXT, layer=layer, dropout=0.3, seed=5)
    assert model.tokenizer is not None
    tokens = model.tokenizer.encode(TEXT)[None]
    qkv = model.qkv(tokens)[layer, 0]
    queries, keys, values = qkv.reshape(LENGTH, 3, HEADS, 8).transpose(1, 2, 0, 3)
    out, _ = ops.attention(qkv, HEADS, dropout=0.3, seed=5, layer=layer)
    later = ~np.tri(LENGTH, dtype=bool)
    for head, row in enumerate(rows(figure)):
        scores, masked, weights, dropped = map(shown, row)
        exact = queries[head].astype(float) @ keys[head].astype(float).T / np.sqrt(8)
        np.testing.assert_allclose(scores, exact, rtol=1e-5, atol=1e-5)
        assert not np.ma.getmaskarray(scores).any()
        for panel in (masked, weights, dropped):
            np.testing.assert_array_equal(np.ma.getmaskarray(panel), later)
        np.testing.assert_array_equal(masked.compressed(), scores.data[~later])
        np.testing.assert_array_equal(weights.filled(0), model.attention(tokens)[layer, 0, head])
        np.testing.assert_allclose(
            dropped.filled(0) @ values[head], out[:, 8 * head : 8 * head + 8], rtol=1e-5, atol=1e-6
        )
        survivors = dropped.filled(0) != 0
        np.testing.assert_allclose(dropped[survivors], weights[survivors] / 0.7, rtol=1e-6)


@pytest.mark.parametrize(("seed", "layer"), [(0, 0), (1, 0), (0, 1)])
def test_crosses_stand_where_the_mask_drops(model: jostle.Model, seed: int, layer: int) -> None:
    figure = plot.attention_stages(model, TEXT, layer=layer, dropout=0.3, seed=seed)
    # Where queries and keys are zero and the values are the identity, attention returns its weights.
    qkv = np.zeros((LENGTH, 3, HEADS, LENGTH), np.float32)
    qkv[:, 2] = np.eye(LENGTH)[:, None]
    weights, _ = ops.attention(qkv.reshape(LENGTH, -1), HEADS, dropout=0.3, seed=seed, layer=layer)
    kept = weights.reshape(LENGTH, HEADS, LENGTH) != 0
    for head, row in enumerate(rows(figure)):
        wanted = {(i, j) for i in range(LENGTH) for j in range(i + 1) if not kept[i, head, j]}
        assert wanted
        assert crosses(row[3]) == wanted
        assert not any(axes.lines for axes in row[:3])


def test_a_weight_of_zero_is_not_taken_for_dropped() -> None:
    model = make_model(jostle.WordTokenizer.from_text(TEXT))
    for name, values in model.parameters.items():
        if "c_attn.weight" in name:
            values *= 100
    figure = plot.attention_stages(model, TEXT, head=0, dropout=0.0)
    assert (shown(panels(figure)[2]) == 0).any()
    assert not crosses(panels(figure)[3])


def test_the_triangle_and_the_crosses_are_in_the_pixels(model: jostle.Model) -> None:
    figure = plot.attention_stages(model, TEXT, layer=1, head=1, dropout=0.3)
    picture = pixels(figure)
    assert picture.std() > 30
    for number, axes in enumerate(panels(figure)):
        image, values = axes.images[0], shown(axes)
        for i, j in np.ndindex(LENGTH, LENGTH):
            here = cell(picture, axes, i, j)
            grey = share(here, plot.MASKED)
            if j > i and number > 0:
                assert grey > 0.4, f"panel {number} does not hide ({i}, {j})"
                assert grey < 0.98, f"panel {number} has no hatch at ({i}, {j})"
                continue
            marked = number == 3 and (i, j) in crosses(axes)
            colour = image.cmap(image.norm(values[i, j]))[:3]
            assert share(here, colour) > (0.4 if marked else 0.99), f"panel {number}, cell ({i}, {j})"
            assert (share(here, plot.ACCENT) > 0.02) == marked, f"panel {number}, cell ({i}, {j})"


def test_labels_are_the_tokens(model: jostle.Model) -> None:
    figure = plot.attention_stages(model, TEXT, layer=1, head=0, dropout=0.25)
    words = ["I", "␣", "like", "␣", "to", "␣", "ski", "␣", "when", "␣", "it", "␣", "snows"]
    first, *_, last = panels(figure)
    for axes in panels(figure):
        assert in_words(axes) == words
        assert axes.get_xlabel() == "key"
        # The first query is the uppermost.
        assert axes.yaxis_inverted()
    assert [label.get_text() for label in first.get_yticklabels()] == words
    assert first.get_ylabel() == "layer 1, head 0\nquery"
    assert "softmax" in panels(figure)[2].get_title()
    assert last.get_title() == "weights after dropout of 0.25"


def test_nothing_in_labels_is_invisible() -> None:
    tokenizer = jostle.CharTokenizer.from_text("$ \n\t\x07a")
    figure = plot.attention_stages(make_model(tokenizer), "$a$ \n\t\x07", head=0)
    assert in_words(panels(figure)[0]) == ["$", "a", "$", "␣", "⏎", "⇥", "\\x07"]
    pixels(figure)
    figure = plot.attention_stages(make_model(jostle.ByteTokenizer()), "né", head=0)
    assert in_words(panels(figure)[0]) == ["n", "\\xc3", "\\xa9"]


def test_long_texts_and_all_heads_stay_legible() -> None:
    model = make_model(jostle.ByteTokenizer())
    for length, head, shape in ((48, 0, (2, 2)), (48, None, (2, 4)), (1, 0, (1, 4))):
        figure = plot.attention_stages(model, "a" * length, head=head)
        grid = panels(figure)[0].get_gridspec()
        assert grid is not None and (grid.nrows, grid.ncols) == shape
        pixels(figure)
        for axes in panels(figure):
            size = axes.get_window_extent().width / length
            assert size > (12 if head == 0 else 7), f"cells of {size} pixels"
        for label in panels(figure)[-1].get_xticklabels():
            assert label.get_window_extent().width <= size
        assert figure.get_figwidth() * figure.dpi < 1920


def test_attention_refuses_what_it_cannot_draw(model: jostle.Model) -> None:
    with pytest.raises(ValueError, match="no tokenizer"):
        plot.attention_stages(make_model(), "a")
    with pytest.raises(ValueError, match="49 tokens; at most 48"):
        plot.attention_stages(make_model(jostle.ByteTokenizer()), "a" * 49)
    with pytest.raises(ValueError, match="at least one token"):
        plot.attention_stages(model, "")
    with pytest.raises(ValueError, match="the word 'Rust' is not in the vocabulary"):
        plot.attention_stages(model, "I like Rust")
    with pytest.raises(ValueError, match="9 heads, more than 8"):
        plot.attention_stages(make_model(jostle.ByteTokenizer(), heads=9), "a")
    for given in ({"layer": 2}, {"layer": -1}, {"head": 2}, {"head": -1}):
        with pytest.raises(IndexError, match=f"{next(iter(given))} is"):
            plot.attention_stages(model, "I", **given)
    with pytest.raises(ValueError, match="dropout rate"):
        plot.attention_stages(model, "I", dropout=1.0)


# Loss curves


def fake_metrics(steps: int, *, every: int, early: bool) -> dict[str, npt.NDArray[Any]]:
    step = np.arange(1, steps + 1)
    loss = 4 * step**-0.2 if early else 4 - 3 * step / steps
    validation = np.full(steps, np.nan)
    validation[every - 1 :: every] = loss[every - 1 :: every] + 0.125
    return {"step": step, "loss": loss, "validation_loss": validation}


def test_curves_are_the_metrics() -> None:
    runs = [
        FakeRun("plain", fake_metrics(400, every=100, early=False)),
        FakeRun("wide", fake_metrics(300, every=50, early=False)),
    ]
    figure = plot.loss_curves(runs)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "step"
    assert axes.get_ylabel() == "loss (nats per token)"
    assert len(axes.lines) == 6
    colours = set()
    for run, (raw, smooth, validation) in zip(runs, (axes.lines[:3], axes.lines[3:]), strict=True):
        np.testing.assert_array_equal(raw.get_xdata(), run.metrics["step"])
        np.testing.assert_array_equal(raw.get_ydata(), run.metrics["loss"])
        assert (raw.get_alpha() or 1) < 0.5
        evaluated = np.isfinite(run.metrics["validation_loss"])
        np.testing.assert_array_equal(validation.get_xdata(), run.metrics["step"][evaluated])
        np.testing.assert_array_equal(validation.get_ydata(), run.metrics["validation_loss"][evaluated])
        assert raw.get_color() == smooth.get_color() == validation.get_color()
        colours.add(raw.get_color())
        for line in (smooth, validation):
            assert f"{np.asarray(line.get_ydata())[-1]:.3f}" in str(line.get_label())
    assert len(colours) == 2
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    # A line's last mean covers its last 400 / 50 + 1 and 300 / 50 + 1 steps.
    assert texts == [
        "plain: training 1.030",
        "wide: training 1.030",
        "plain: validation 1.125",
        "wide: validation 1.125",
    ]
    picture = pixels(figure)
    assert picture.std() > 10
    for colour in colours:
        assert share(picture.reshape(-1, 3), colour) > 1e-4
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_notebooks_show_pictures(model: jostle.Model) -> None:
    figure = plot.attention_stages(model, TEXT)
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert jostle.plot is plot


def test_labels_of_few_steps_and_large_losses() -> None:
    steps = np.arange(1, 4)
    metrics = {"step": steps, "loss": np.full(3, 787589500.0), "validation_loss": np.full(3, np.nan)}
    figure = plot.loss_curves([FakeRun(metrics=metrics)])
    (axes,) = figure.axes
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    assert figure.legends[0].get_texts()[0].get_text() == "plain: training 7.88e+08"


def test_a_run_without_validation() -> None:
    without, evaluated = (fake_metrics(20, every=every, early=False) for every in (50, 5))
    figure = plot.loss_curves([FakeRun("plain", without), FakeRun("wide", evaluated)])
    (axes,) = figure.axes
    assert len(axes.lines) == 5
    assert len(figure.legends[0].get_texts()) == 3


def test_steps_are_logarithmic_where_learning_is_early() -> None:
    for early, scale in ((False, "linear"), (True, "log")):
        figure = plot.loss_curves([FakeRun(metrics=fake_metrics(2000, every=250, early=early))])
        pixels(figure)
        (axes,) = figure.axes
        assert axes.get_xscale() == scale
        assert "1000" in in_words(axes)


def test_the_running_mean_is_a_mean() -> None:
    loss = np.random.default_rng(0).normal(3, 1, 1000)
    smooth = plot._running_mean(loss)
    assert smooth[0] == loss[0]
    assert smooth[-1] == pytest.approx(loss[-21:].mean())
    assert smooth[500] == pytest.approx(loss[480:521].mean())
    assert smooth[10] == pytest.approx(loss[5:16].mean())


def test_curves_refuse_what_is_empty() -> None:
    with pytest.raises(ValueError, match="no run"):
        plot.loss_curves([])
    empty = {name: np.empty(0) for name in ("step", "loss", "validation_loss")}
    with pytest.raises(ValueError, match="'plain' has no steps"):
        plot.loss_curves([FakeRun(metrics=empty)])
    one = {"step": np.array([1]), "loss": np.array([4.0]), "validation_loss": np.array([np.nan])}
    assert len(plot.loss_curves([FakeRun(metrics=one)]).axes[0].lines) == 2


# The loss surface

POINTS = [(-16.0, -4.0), (-12.0, 4.0), (-6.0, 3.0), (-2.0, 1.0)]


def flat(model: jostle.Model) -> npt.NDArray[np.float32]:
    return np.concatenate([values.ravel() for values in model.parameters.values()])


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    """A run whose snapshots lie in a plane, at POINTS seen from the trained parameters."""
    trained = make_model(vocab=16)
    random = np.random.default_rng(2)
    directions, _ = np.linalg.qr(random.standard_normal((trained.parameter_count, 2)))
    snapshots = []
    for number, point in enumerate(POINTS):
        model = make_model(vocab=16)
        move = (directions @ point).astype(np.float32)
        offset = 0
        for values in model.parameters.values():
            values += move[offset : offset + values.size].reshape(values.shape)
            offset += values.size
        path = tmp_path / f"{number}.safetensors"
        model.save(path)
        snapshots.append((10 * number, path))
    return FakeRun("flat", snapshots=snapshots, trained=trained)


@pytest.fixture
def tokens() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 16, 1000).astype(np.uint8)


def labelled(axes: Axes) -> dict[str, npt.NDArray[Any]]:
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.lines}


def test_the_path_is_in_its_plane(run: FakeRun, tokens: npt.NDArray[np.uint8]) -> None:
    before = flat(run.model()).copy()
    figure = plot.loss_surface(run, tokens, size=5)
    np.testing.assert_array_equal(flat(run.model()), before)
    axes, bar = figure.axes
    lines = labelled(axes)
    assert set(lines) == {"training", "start: step 0", "trained"}
    path = lines["training"]
    # A plane preserves all distances: from the trained parameters, and from point to point.
    points = np.array([*POINTS, (0, 0)])
    for i in range(5):
        wanted, given = (np.linalg.norm(p - p[i], axis=1) for p in (points, path))
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(lines["start: step 0"], path[:1])
    np.testing.assert_array_equal(lines["trained"], [[0, 0]])
    assert (path[0] < 0).all()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert ((left < path[:, 0]) & (path[:, 0] < right) & (bottom < path[:, 1]) & (path[:, 1] < top)).all()
    variances = np.linalg.svd(np.array(POINTS))[1] ** 2
    first, second = variances / variances.sum()
    assert axes.get_xlabel() == f"first principal direction ({first:.1%} of the path's variance)"
    assert axes.get_ylabel() == f"second principal direction ({second:.1%} of the path's variance)"
    assert bar.get_ylabel() == "validation loss (nats per token)"


def test_the_surface_is_the_loss(
    run: FakeRun, tokens: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the snapshots, the surface has the snapshots' losses."""
    drawn: list[Any] = []
    draw = plot._draw_surface

    def note(*given: Any) -> Figure:
        drawn.append(given)
        return draw(*given)

    monkeypatch.setattr(plot, "_draw_surface", note)
    figure = plot.loss_surface(run, tokens, size=25)
    ((_, plane, x, y, loss),) = drawn
    inputs, targets = plot._sample(tokens, 64)
    assert inputs.shape == targets.shape == (4, 64)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    np.testing.assert_array_equal(targets[-1], tokens[-64:])
    assert np.ptp(loss) > 0.5
    models = [jostle.Model.load(path) for _, path in run.snapshots] + [run.model()]
    for model, point in zip(models, plane.path, strict=True):
        # Bilinear between the four points around.
        along_x = [np.interp(point[0], x, row) for row in loss]
        assert np.interp(point[1], y, along_x) == pytest.approx(model.loss(inputs, targets), abs=0.01)
    filled = figure.axes[0].collections[0]
    assert filled.get_clim() == pytest.approx((loss.min(), loss.max()))
    picture = pixels(figure)
    assert picture.std() > 30
    inside = figure.axes[0].get_window_extent()
    surface = picture[-int(inside.y1) : -int(inside.y0), int(inside.x0) : int(inside.x1)].reshape(-1, 3)
    lowest, highest = filled.cmap(0.02)[:3], filled.cmap(0.98)[:3]
    for colour in (lowest, highest, plot.ACCENT):
        assert share(surface, colour, within=12) > 1e-4
    assert share(surface, "white") < 0.05, "parts of the surface are not filled"


def test_the_last_snapshot_may_be_the_trained_model(
    run: FakeRun, tokens: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    run.model().save(tmp_path / "last.safetensors")
    run.snapshots = [*run.snapshots, (40, tmp_path / "last.safetensors")]
    path = labelled(plot.loss_surface(run, tokens, size=2).axes[0])["training"]
    assert len(path) == 5
    np.testing.assert_array_equal(path[-1], [0, 0])


@pytest.mark.parametrize("kept", [[], [0, 1], [0, 0, 0]])
def test_random_directions_where_there_is_no_plane(
    run: FakeRun, tokens: npt.NDArray[np.uint8], kept: list[int]
) -> None:
    run.snapshots = [run.snapshots[number] for number in kept]
    axes = plot.loss_surface(run, tokens, size=3).axes[0]
    assert axes.get_xlabel() == "first random direction (filter-normalised)"
    assert set(labelled(axes)) == {"trained"}
    assert axes.get_xlim() == axes.get_ylim() == (-1, 1)


def test_random_directions_are_as_long_as_the_models_filters() -> None:
    model = make_model(vocab=16)
    plane = plot._random_plane(model)
    assert not np.array_equal(*plane.directions)
    for direction in plane.directions:
        offset = 0
        for name, values in model.parameters.items():
            piece = direction[offset : offset + values.size].reshape(values.shape)
            offset += values.size
            if values.ndim == 1:
                assert not piece.any()
                continue
            axis = {"wte.weight": 1, "wpe.weight": 1}.get(name, 0)
            lengths = np.linalg.norm(values, axis=axis)
            np.testing.assert_allclose(np.linalg.norm(piece, axis=axis), lengths, rtol=1e-5)


def test_the_surface_refuses_what_it_cannot_draw(run: FakeRun) -> None:
    with pytest.raises(ValueError, match="size is 1"):
        plot.loss_surface(run, np.arange(10), size=1)
    with pytest.raises(ValueError, match="1 tokens; expected at least 2"):
        plot.loss_surface(run, np.arange(1))
    with pytest.raises(IndexError, match="16"):
        plot.loss_surface(run, np.arange(20))
    plot.loss_surface(run, np.arange(2), size=2)


# The module


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_jostle_does_not_import_matplotlib() -> None:
    done = python("import jostle, sys; sys.exit('matplotlib' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_pictures_do_without_pyplot() -> None:
    done = python("import jostle.plot, sys; sys.exit('matplotlib.pyplot' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_extra_is_named() -> None:
    done = python("import sys; sys.modules['matplotlib'] = None; import jostle; import jostle.plot")
    assert "ImportError" in done.stderr
    assert "pip install matplotlib" in done.stderr
