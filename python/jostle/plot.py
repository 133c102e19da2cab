"""Pictures of a training run and of its model, as matplotlib figures: `figure.savefig(path)` writes one.

Needs matplotlib, but nothing of pyplot: no window opens, no display is needed. A notebook shows a figure that a cell ends in.

The colour-blind can distinguish all colours, which also keep their order in grey. They come from viridis, cividis and
the palette of Okabe and Ito.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from jostle import _arrays, ops
from jostle._arrays import Float, Int
from jostle.model import Model
from jostle.tokenizers import ByteTokenizer, Tokenizer

try:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize, PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.patches import Polygon
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator, ScalarFormatter
except ImportError as error:
    raise ImportError("pictures need matplotlib: pip install matplotlib") from error

__all__ = ["Run", "attention_stages", "loss_curves", "loss_surface"]

Numbers = npt.NDArray[np.floating[Any]]

ACCENT = "#e69f00"
MASKED = "#d9d9d9"
RUNS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")

STYLES = ("-", "--", "-.", ":")
"""The lines of the runs that share a colour."""

MOST_TOKENS = 48
MOST_HEADS = 8
SAMPLE = 256
"""The number of tokens that each point of the loss surface is computed from."""


class _Picture(Figure):
    """A figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=100)
        return data.getvalue()


class Run(Protocol):
    """The properties of a training run that pictures need."""

    @property
    def name(self) -> str:
        """The run's name in legends and titles."""

    @property
    def metrics(self) -> Mapping[str, npt.NDArray[Any]]:
        """Columns (steps,): `step`, `loss`, and `validation_loss`, which is NaN where it was not evaluated."""

    @property
    def snapshots(self) -> Sequence[tuple[int, Path]]:
        """The steps with their checkpoints, in order."""

    def model(self) -> Model:
        """The trained model."""


def loss_curves(runs: Sequence[Run]) -> Figure:
    """Loss in nats over steps. For each run: the training loss in a light colour, its running mean, and validation.

    The legend shows each run's last values. The scale of steps is logarithmic if most of the loss fell early. Raises
    ValueError without any run, or for a run without steps.
    """
    if not runs:
        raise ValueError("there is no run to draw; expected at least one")
    figure = _Picture(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    lines, points = [], []
    early = False
    for number, run in enumerate(runs):
        steps, loss, validation = (run.metrics[name] for name in ("step", "loss", "validation_loss"))
        if not len(steps):
            raise ValueError(f"the run {run.name!r} has no steps; expected at least one")
        colour, style = RUNS[number % len(RUNS)], STYLES[number // len(RUNS) % len(STYLES)]
        smooth = _running_mean(loss)
        early = early or _learns_early(smooth)
        axes.plot(steps, loss, color=colour, alpha=0.2, linewidth=0.8)
        label = f"{_literal(run.name)}: training {_short(smooth[-1])}"
        lines += axes.plot(steps, smooth, style, color=colour, linewidth=1.8, label=label)
        evaluated = np.isfinite(validation)
        if evaluated.any():
            label = f"{_literal(run.name)}: validation {_short(validation[evaluated][-1])}"
            points += axes.plot(
                steps[evaluated],
                validation[evaluated],
                color=colour,
                linestyle=":",
                linewidth=1,
                marker="o",
                markersize=5,
                markeredgecolor="white",
                zorder=3,
                label=label,
            )
    axes.set_xscale("log" if early else "linear")
    if not early:
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    # Outside the axes, where it hides no curve: training on the left, validation on the right.
    columns = 2 if len(points) == len(lines) else 1
    figure.legend(handles=lines + points, loc="outside upper center", ncols=columns, frameon=False)
    return figure


def _short(loss: float) -> str:
    """A loss for a label. A training that diverged has losses of many digits."""
    return f"{loss:.3f}" if loss < 1000 else f"{loss:.3g}"


def _literal(name: str) -> str:
    """A name as a label, with dollar signs escaped, which would begin a formula."""
    return name.replace("$", r"\$")


def _running_mean(loss: Numbers) -> Numbers:
    """The mean around each step, over at most a fiftieth of all steps to either side. A window reaches back at most
    half the way to the start, so that the first steep part stays steep."""
    index = np.arange(len(loss))
    reach = np.minimum(index // 2, len(loss) // 50)
    sums = np.concatenate([[0.0], np.cumsum(loss, dtype=np.float64)])
    first, end = index - reach, np.minimum(index + reach + 1, len(loss))
    return np.asarray((sums[end] - sums[first]) / (end - first))


def _learns_early(loss: Numbers) -> bool:
    """Whether more than half of the whole decrease lies in the first twentieth of the steps."""
    fall = loss[0] - loss[-1]
    return bool(fall > 0 and loss[0] - loss[len(loss) // 20] > fall / 2)


class _Stages(NamedTuple):
    """The stages of attention, each (H, T, T)."""

    scores: Float
    masked: Float
    weights: Float
    dropped: Float
    kept: npt.NDArray[np.bool_]


def attention_stages(
    model: Model, text: Any, *, layer: int = 0, head: int | None = None, dropout: float = 0.1, seed: int = 0
) -> Figure:
    """Attention to a text, or to its tokens (T,), in one layer, in four panels for a head. `head` None: for each head.

    The panels are: scores q k^T / sqrt(C / H); scores with the causal mask; weights, the softmax of the scores; weights
    after dropout. Crosses mark dropped weights; the others are scaled up.

    Queries run down, keys across. The dropout mask belongs to the first sequence of step 0 of a training with this
    `seed`. Raises ValueError if the model has no tokenizer. Raises ValueError too if the picture would not be legible
    (more than 48 tokens or 8 heads). Raises IndexError for a layer or a head that the model does not have.
    """
    config = model.config
    if model.tokenizer is None:
        raise ValueError("the model has no tokenizer to make tokens of the text; set model.tokenizer")
    if not 0 <= layer < config.layers:
        raise IndexError(f"layer is {layer}; expected 0 to {config.layers - 1}")
    if head is not None and not 0 <= head < config.heads:
        raise IndexError(f"head is {head}; expected None or 0 to {config.heads - 1}")
    if head is None and config.heads > MOST_HEADS:
        raise ValueError(f"the model has {config.heads} heads, more than {MOST_HEADS}; name one with `head`")
    tokens = _arrays.tokens("the text", model.tokenizer.encode(text) if isinstance(text, str) else text, 1)
    if len(tokens) > MOST_TOKENS:
        raise ValueError(f"the text has {len(tokens)} tokens; at most {MOST_TOKENS} are legible")
    heads = range(config.heads) if head is None else [head]
    stages = _stages(model, tokens, layer, dropout, seed)
    labels = [_label(model.tokenizer, int(token)) for token in tokens]
    return _draw_stages(stages, heads, labels, layer, dropout)


def _stages(model: Model, tokens: Int, layer: int, dropout: float, seed: int) -> _Stages:
    heads, length = model.config.heads, len(tokens)
    shared = heads // (model.config.kv_heads or heads)
    qkv = model.qkv(tokens[None])[layer, 0]
    parts = qkv.reshape(length, heads + 2 * (heads // shared), -1).transpose(1, 0, 2)
    queries, keys = parts[:heads], parts[heads : heads + heads // shared].repeat(shared, axis=0)
    products = [ops.matmul(q.copy(), k.T.copy()) for q, k in zip(queries, keys, strict=True)]
    scores = np.stack(products) * (np.float32(1) / np.sqrt(np.float32(queries.shape[-1])))
    masked = np.where(np.tri(length, dtype=bool), scores, np.float32(-np.inf))
    weights = ops.softmax(masked)
    dropped = ops.attention_dropout(weights, dropout, seed=seed, layer=layer)
    # Dropout of ones shows the mask. A weight may be zero by itself.
    kept = ops.attention_dropout(np.ones_like(weights), dropout, seed=seed, layer=layer) != 0
    return _Stages(scores, masked, weights, dropped, kept)


def _label(tokenizer: Tokenizer, token: int) -> str:
    """A token as the text of a tick, with invisible characters escaped."""
    piece = tokenizer.decode([token])
    if isinstance(tokenizer, ByteTokenizer) and token >= 0x80:
        return f"\\x{token:02x}"  # A part of a character.
    signs = {" ": "␣", "\n": "⏎", "\t": "⇥"}
    return "".join(signs.get(c, c if c.isprintable() else repr(c)[1:-1]) for c in piece)


def _draw_stages(
    stages: _Stages, heads: Sequence[int], labels: list[str], layer: int, dropout: float
) -> Figure:
    length = len(labels)
    # One head's panels stand two by two if a row of four would be too wide to be legible.
    square = len(heads) == 1 and length > 24
    side = min(max(0.16 * length, 2.6), 7.5 if square else 4.4)
    rows, columns = (2, 2) if square else (len(heads), 4)
    figure = _Picture(
        figsize=(columns * side + 1, rows * side + (0.6 if square else 1.3)), layout="compressed"
    )
    panels = figure.subplots(rows, columns, squeeze=False)
    of_head = panels.reshape(len(heads), 4)
    shown = list(heads)
    scores = Normalize(stages.scores[shown].min(), stages.scores[shown].max())
    # Shades show square roots, because most weights are small.
    weights = PowerNorm(0.5, 0, max(stages.weights[shown].max(), stages.dropped[shown].max()))
    later = ~np.tri(length, dtype=bool)
    for row, head in zip(of_head, heads, strict=True):
        of_scores = row[0].imshow(stages.scores[head], cmap="cividis", norm=scores)
        row[1].imshow(np.ma.masked_where(later, stages.masked[head]), cmap="cividis", norm=scores)
        for axes, of_stage in zip(row[2:], (stages.weights, stages.dropped), strict=True):
            earlier = np.ma.masked_where(later, of_stage[head])
            of_weights = axes.imshow(earlier, cmap="viridis", norm=weights)
        for axes in row[1:]:
            _draw_mask(axes, length)
        queries, keys = np.nonzero(~stages.kept[head] & ~later)
        size = min(0.5 * 72 * side / length, 9)
        row[3].plot(keys, queries, "x", color=ACCENT, markersize=size, markeredgewidth=size / 5)
    titles = (
        "scores q·kᵀ / √(C/H)",
        "masked scores",
        "weights: softmax of the rows",
        f"weights after dropout of {dropout:g}",
    )
    for axes, title in zip(of_head[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    for axes, head in zip(panels[:, 0], shown * (rows // len(heads)), strict=True):
        axes.set_ylabel(f"layer {layer}, head {head}\nquery")
    _label_tokens(panels, labels, side)
    location = "right" if square else "bottom"
    share = 0.1 / rows
    for image, pair, label in (
        (of_scores, of_head[:, :2], "score"),
        (of_weights, of_head[:, 2:], "weight (×: dropped)"),
    ):
        figure.colorbar(
            image,
            ax=pair,
            location=location,
            fraction=share,
            pad=share / 2,
            shrink=0.6,
            aspect=40,
            label=label,
            ticks=MaxNLocator(5),
        )
    return figure


def _draw_mask(axes: Axes, length: int) -> None:
    """A hatched staircase over the cells above the diagonal: the keys that the causal mask hides from a query."""
    steps = np.arange(length)
    below = np.stack([np.repeat(steps + 0.5, 2)[:-1], np.repeat(steps - 0.5, 2)[1:]], axis=1)
    corners = np.concatenate([below, [[length - 0.5, -0.5]]])
    axes.add_patch(Polygon(corners, facecolor=MASKED, edgecolor="#a6a6a6", hatch="////", linewidth=0))


def _label_tokens(panels: npt.NDArray[Any], labels: list[str], side: float) -> None:
    """The tokens along both axes, as large as the cells allow."""
    places = range(len(labels))
    size = min(72 * side / len(labels) * 0.95, 10)
    upright = max(map(len, labels)) > 1
    for axes in panels.flat:
        axes.set_xticks(places, labels, fontsize=size, rotation=90 if upright else 0)
        axes.set_yticks(places, labels, fontsize=size)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("key")
        axes.label_outer()


class _Plane(NamedTuple):
    """Two directions in the space of parameters, (2, P), and the loss in their plane."""

    directions: Float
    path: Numbers
    """Points of training (n, 2), the trained parameters last. With random directions they are the only point."""
    labels: tuple[str, str]
    low: Numbers
    high: Numbers


def loss_surface(run: Run, tokens: Any, *, size: int = 21) -> Figure:
    """The validation loss in nats on a plane through the trained parameters, at `size` x `size` points, with the path
    of training on it.

    The two principal directions of the snapshots minus the trained parameters span the plane (Li et al. 2018,
    "Visualizing the Loss Landscape of Neural Nets"). With fewer than three snapshots, or with snapshots on a line,
    two random directions span it, and each filter is as long as the model's. The loss is computed on a few windows of
    `tokens` (length,), at least two.
    """
    if size < 2:
        raise ValueError(f"size is {size}; expected at least 2")
    model = copy.deepcopy(run.model())
    inputs, targets = _sample(_arrays.text("tokens", tokens, model.config.vocab), model.config.context)
    plane = _principal_plane(run, model) or _random_plane(model)
    trained = _flat(model)
    x = np.linspace(plane.low[0], plane.high[0], size)
    y = np.linspace(plane.low[1], plane.high[1], size)
    loss = np.empty((size, size))
    for i, j in np.ndindex(size, size):
        point = np.array([x[j], y[i]], np.float32)
        _set(model, trained + point @ plane.directions)
        loss[i, j] = model.loss(inputs, targets)
    return _draw_surface(run, plane, x, y, loss)


def _sample(tokens: npt.NDArray[Any], context: int) -> tuple[Int, Int]:
    """Windows (B, T) spread evenly over a text, and their targets."""
    if len(tokens) < 2:
        raise ValueError(f"tokens has {len(tokens)} tokens; expected at least 2")
    length = min(context, SAMPLE, len(tokens) - 1)
    starts = np.linspace(0, len(tokens) - length - 1, SAMPLE // length, dtype=int)
    windows = np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int32)
    return windows[:, :-1].copy(), windows[:, 1:].copy()


def _flat(model: Model) -> Float:
    """All parameters (P,), copied."""
    return np.concatenate([view.ravel() for view in model.parameters.values()])


def _set(model: Model, flat: Float) -> None:
    offset = 0
    for view in model.parameters.values():
        view[...] = flat[offset : offset + view.size].reshape(view.shape)
        offset += view.size


def _principal_plane(run: Run, model: Model) -> _Plane | None:
    """The plane of the path's two principal directions; None if the snapshots do not span a plane."""
    if len(run.snapshots) < 3:
        return None
    path = np.stack([_flat(Model.load(snapshot)) for _, snapshot in run.snapshots]) - _flat(model)
    _, lengths, directions = np.linalg.svd(path, full_matrices=False)
    if lengths[1] <= 1e-6 * lengths[0]:
        return None
    directions = directions[:2]
    # With these signs, training runs from left to right and upwards.
    directions[path[0] @ directions.T > 0] *= -1
    points = path @ directions.T
    if path[-1].any():
        points = np.concatenate([points, np.zeros((1, 2), np.float32)])
    shares = lengths[:2] ** 2 / np.sum(lengths**2)
    first, second = (f"principal direction ({share:.1%} of the path's variance)" for share in shares)
    margin = 0.2 * np.ptp(points, axis=0)
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    return _Plane(directions, points, (f"first {first}", f"second {second}"), low, high)


def _random_plane(model: Model) -> _Plane:
    """A plane of two random directions with the model's own scale. The weights of each output, and the vector of each
    token or position, are as long as in the model. Biases and norms do not change (Li et al. 2018, section 4)."""
    random = np.random.default_rng(0)
    directions = []
    for _ in range(2):
        pieces = []
        for name, view in model.parameters.items():
            if view.ndim == 1:
                pieces.append(np.zeros(view.size, np.float32))
                continue
            # Weights of products are [in, out]. Embeddings and the head have one vector a row.
            axis = 0 if name.startswith("h.") else 1
            piece = random.standard_normal(view.shape, dtype=np.float32)
            wanted, given = (np.linalg.norm(x, axis=axis, keepdims=True) for x in (view, piece))
            piece *= wanted / given
            pieces.append(piece.ravel())
        directions.append(np.concatenate(pieces))
    labels = ("first random direction (filter-normalised)", "second random direction (filter-normalised)")
    one = np.ones(2)
    return _Plane(np.stack(directions), np.zeros((1, 2)), labels, -one, one)


def _draw_surface(run: Run, plane: _Plane, x: Numbers, y: Numbers, loss: Numbers) -> Figure:
    figure = _Picture(figsize=(8, 6.2), layout="constrained")
    axes = figure.add_subplot()
    # Equal ratios between levels, so that the valley has as many levels as the slopes.
    levels = np.geomspace(loss.min(), loss.max(), 25)
    filled = axes.contourf(x, y, loss, levels, cmap="viridis", norm="log")
    axes.contour(x, y, loss, levels, colors="white", linewidths=0.4, alpha=0.5)
    if len(plane.path) > 1:
        outline = [withStroke(linewidth=3.5, foreground="black")]
        axes.plot(*plane.path.T, "o-", color=ACCENT, markersize=4, path_effects=outline, label="training")
        start = f"start: step {run.snapshots[0][0]}"
        axes.plot(*plane.path[0], "s", color="white", markeredgecolor="black", markersize=8, label=start)
    axes.plot(*plane.path[-1], "*", color="white", markeredgecolor="black", markersize=15, label="trained")
    axes.set_xlabel(plane.labels[0])
    axes.set_ylabel(plane.labels[1])
    axes.set_title(f"Loss around the trained parameters: {_literal(run.name)}", fontsize=12)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    bar = figure.colorbar(filled, ax=axes, label="validation loss (nats per token)", format="%.2f")
    bar.set_ticks(levels[::4].tolist())
    bar.minorticks_off()
    return figure
