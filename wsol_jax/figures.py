"""Figures: galleries, curves, histograms and scatters of the results of runs.

Numbers in, encoded pictures out. Kinds of maps wear Okabe and Ito's colours. Matplotlib is imported
when the first figure is drawn, and used without pyplot, so that none stays open.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from wsol_jax import visualize

TITLE = 20  # characters that fit above a panel of a gallery


class Theme(NamedTuple):
    """Colours on a white or on a dark page; `maps` in the order of a run."""

    ink: str
    muted: str
    grid: str
    maps: tuple[str, ...]


LIGHT = Theme(
    "#1b1f24",
    "#626a73",
    "#e1e4e8",
    ("#c85200", "#0072b2", "#007a5a", "#8f4f87", "#8a6d00", "#3b6f8f", "#5f5f5f"),
)
DARK = Theme(
    "#e8eaed",
    "#9aa3ad",
    "#343a42",
    ("#f5924e", "#62b4ea", "#3fc79d", "#d59acb", "#e6cf4a", "#9ed3ee", "#b5b5b5"),
)


class Curve(NamedTuple):
    """A precision-recall curve, labelled by map and average precision: "PixelCAM 83.6".

    `place` is that of the kind of map in the run, which gives the colour.
    """

    place: int
    label: str
    recall: Sequence[float]
    precision: Sequence[float]


class Line(NamedTuple):
    """Values of one kind of map; `place` is that of the kind in the run, which gives the colour."""

    place: int
    label: str
    values: Sequence[float]


def gallery(examples: Sequence[visualize.Example]) -> bytes:
    """One row for each example and one column for each of its `visualize.panels`, as a PNG."""
    if not examples:
        raise ValueError("a gallery needs at least one example, got none")
    rows = [visualize.panels(example) for example in examples]
    titles = [textwrap.fill(title, TITLE) for title in rows[0]]
    wrapped = max(title.count("\n") for title in titles)
    figure = _figure(width=2.3 * len(titles), height=2.3 * len(rows) + 0.3 * (1 + wrapped))
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for example, row, line in zip(examples, rows, axes, strict=True):
        for axis, picture in zip(line, row.values(), strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(example.name.replace("$", r"\$"), color=LIGHT.muted, fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, color=LIGHT.ink)
    return _encode(figure, "png")


def precision_recall_figure(
    curves: Sequence[Curve], *, constant_map: float | None = None, theme: Theme = LIGHT
) -> bytes:
    """Precision over recall of the test pixels, one curve for each kind of map, as an SVG.

    Args:
      constant_map: the PxAP of a constant map, in percent: the share of object pixels.
    """
    figure = _figure(width=3.7, height=3.2)
    axis = figure.subplots()
    _clean(axis, theme)
    axis.set(xlim=(0, 1.005), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    if constant_map is not None:
        axis.axhline(constant_map / 100, color=theme.muted, linewidth=1, linestyle=(0, (1, 2)))
        label = f"constant map {constant_map:.1f}"
        axis.text(1, constant_map / 100 - 0.015, label, color=theme.muted, ha="right", va="top")
    for rank, curve in enumerate(curves):
        color = _color(theme, curve.place)
        axis.plot(curve.recall, curve.precision, color=color, linewidth=2)
        axis.text(0.03, 0.04 + 0.08 * rank, curve.label, color=color, weight="bold")
    return _encode(figure, "svg")


def selection_figure(
    history: Sequence[Mapping[str, Any]],
    *,
    chosen: Mapping[str, int],
    place: int = 0,
    label: str = "PxAP",
    theme: Theme = LIGHT,
) -> bytes:
    """Both selection curves of one kind of map over the epochs of its phase, as an SVG.

    Args:
      history: one row for each evaluated epoch: "epoch" and, in percent, the "accuracy" of labels
        and the score of the "maps" on validation images, which is called `label`.
      chosen: epoch by checkpoint, such as {"B-LOC": 7, "B-CL": 12, "last": 20}.
      place: that of the kind of map in the run, which gives its colour.
    """
    figure = _figure(width=3.7, height=3.2)
    axis = figure.subplots()
    _clean(axis, theme)
    lines = (
        ("accuracy", "accuracy", theme.muted, 1.5),
        ("maps", label, _color(theme, place), 2),
    )
    ends = {}
    for key, title, color, width in lines:
        points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
        if points:
            epochs, values = np.array(points, float).T
            axis.plot(epochs, values, color=color, linewidth=width)
            ends[title] = (epochs[-1], values[-1], color)
            at = np.isin(epochs, list(chosen.values()))
            axis.plot(epochs[at], values[at], "o", color=color, markersize=4.5)
    axis.set(xlabel="epoch", ylabel="percent")
    axis.set_ylim(top=100 + 0.02 * (100 - axis.get_ylim()[0]))
    axis.xaxis.get_major_locator().set_params(integer=True)
    _label_ends(axis, ends)
    _label_epochs(axis, chosen, theme)
    return _encode(figure, "svg")


def regions_figure(
    true: Sequence[float], predicted: Sequence[float], *, place: int = 0, theme: Theme = LIGHT
) -> bytes:
    """Share of every image that is foreground, predicted over true, in percent, as an SVG."""
    figure = _figure(width=3.2, height=3.2)
    axis = figure.subplots()
    _clean(axis, theme)
    axis.plot((0, 100), (0, 100), color=theme.muted, linewidth=1, linestyle=(0, (1, 2)))
    axis.plot(true, predicted, "o", color=_color(theme, place), markersize=4, alpha=0.6)
    axis.set(xlim=(0, 101), ylim=(0, 101), aspect="equal")
    axis.set(xlabel="true foreground, percent", ylabel="predicted, percent")
    return _encode(figure, "svg")


def shift_figure(distances: Sequence[float], panels: Mapping[str, Sequence[Line]]) -> bytes:
    """Lines over the distance of stains in degrees, a panel for each quantity, as an SVG."""
    figure = _figure(width=4.4 * len(panels), height=3.2)
    for axis, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        _clean(axis, LIGHT)
        ends = {}
        for line in lines:
            color = _color(LIGHT, line.place)
            axis.plot(distances, line.values, "o-", color=color, linewidth=2, markersize=4.5)
            ends[line.label] = (distances[-1], line.values[-1], color)
        axis.set(xlabel="distance of stains, degrees", ylabel=f"{title}, percent")
        _label_ends(axis, ends)
    return _encode(figure, "svg")


def separability_figure(histograms: Sequence[Line], *, theme: Theme = LIGHT) -> bytes:
    """How many images have which class separability, for each kind of map, as an SVG."""
    figure = _figure(width=3.7, height=3.2)
    axis = figure.subplots()
    _clean(axis, theme)
    edges = np.histogram_bin_edges(np.concatenate([h.values for h in histograms]), bins=16)
    for rank, histogram in enumerate(histograms):
        color = _color(theme, histogram.place)
        counts, _ = np.histogram(histogram.values, edges)
        axis.stairs(counts, edges, color=color, linewidth=2)
        place = {"transform": axis.transAxes, "ha": "right", "va": "top"}
        axis.text(0.98, 0.98 - 0.08 * rank, histogram.label, color=color, weight="bold", **place)
    axis.set(xlabel="J", ylabel="images")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.margins(y=0.1 + 0.1 * len(histograms))
    axis.set_ylim(bottom=0)
    return _encode(figure, "svg")


class Embedded(NamedTuple):
    """The pixels of an image in the plane, which of them are foreground, and their logits."""

    points: Float[np.ndarray, "n 2"]
    foreground: Bool[np.ndarray, "n"]
    logits: Float[np.ndarray, "n 2"] | None = None


def embedding_figure(embedded: Mapping[str, Embedded], *, title: str) -> bytes:
    """A column for each image: its embedded pixel features and, below, the same pixels' logits.

    Args:
      embedded: by the title of the image; logits of all of them, or of none.

    Returns:
      An SVG, the pixels coloured by truth.
    """
    below = any(image.logits is not None for image in embedded.values())
    figure = _figure(width=5 * len(embedded), height=4.6 * (1 + below))
    axes = figure.subplots(1 + below, len(embedded), squeeze=False)
    figure.suptitle(title, color=LIGHT.ink)
    colors = np.array([_color(LIGHT, 0), _color(LIGHT, 1)])
    for column, (name, image) in zip(axes.T, embedded.items(), strict=True):
        # All pixels in one order, so that no class lies on top.
        dots = {"s": 14, "c": colors[image.foreground.astype(int)], "alpha": 0.6, "linewidths": 0}
        shown = {f"{name}: features, t-SNE": image.points}
        if below:
            shown["logits of the pixel classifier"] = image.logits
        for axis, (what, places) in zip(column, shown.items(), strict=True):
            _clean(axis, LIGHT)
            axis.set_title(what, color=LIGHT.muted, fontsize="medium")
            axis.scatter(*places.T, **dots)
        column[0].set(xticks=[], yticks=[])
        if below:
            column[1].set(xlabel="background", ylabel="foreground")
    for side, name, color in zip(
        ("left", "right"), ("background", "foreground"), colors, strict=True
    ):
        axes[0, 0].set_title(name, loc=side, color=color, weight="bold", fontsize="medium")
    return _encode(figure, "svg")


def _figure(*, width: float, height: float) -> Any:
    """A matplotlib figure of so many inches that pyplot does not know of."""
    import matplotlib.figure

    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def _encode(figure: Any, kind: str) -> bytes:
    """The figure as a "png" or, on a clear ground, an "svg"; the same figure, the same bytes."""
    import matplotlib

    encoded = io.BytesIO()
    options = {
        "transparent": True,
        "metadata": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    }
    # Text stays text, so that it is drawn in a font of the reader's machine.
    style = {"svg.fonttype": "none", "svg.hashsalt": "wsol_jax", "font.sans-serif": "DejaVu Sans"}
    with matplotlib.rc_context(style):
        figure.savefig(encoded, format=kind, dpi=100, **(options if kind == "svg" else {}))
    return encoded.getvalue()


def _color(theme: Theme, place: int) -> str:
    return theme.maps[place % len(theme.maps)]


def _clean(axis: Any, theme: Theme) -> None:
    """Leaves light horizontal lines and the tick labels."""
    axis.spines[:].set_visible(False)
    axis.grid(axis="y", color=theme.grid, linewidth=1)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, pad=6, colors=theme.muted)
    axis.xaxis.label.set_color(theme.muted)
    axis.yaxis.label.set_color(theme.muted)


def _label_ends(axis: Any, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Writes each line's name behind its last point, moved apart where they would touch."""
    low, high = axis.get_ylim()
    space, below = (high - low) * 0.07, -np.inf
    for label, (epoch, value, color) in sorted(ends.items(), key=lambda end: end[1][1]):
        below = max(value, below + space)
        place = {"xytext": (8, 0), "textcoords": "offset points", "annotation_clip": False}
        axis.annotate(label, (epoch, below), va="center", color=color, weight="bold", **place)


def _label_epochs(axis: Any, chosen: Mapping[str, int], theme: Theme) -> None:
    """Marks each chosen epoch by a thin line named above the plot; equal epochs share one."""
    names: dict[int, list[str]] = {}
    for name, epoch in chosen.items():
        names.setdefault(epoch, []).append(name)
    low, high = axis.get_xlim()
    previous, rank = -np.inf, 0
    for epoch, found in sorted(names.items()):
        rank = 1 - rank if epoch - previous < 0.2 * (high - low) else 0
        previous = epoch
        axis.axvline(epoch, color=theme.muted, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        place = {"xytext": (0, 4 + 13 * rank), "textcoords": "offset points"}
        axis.annotate(
            ", ".join(found),
            (epoch, 1),
            xycoords=axis.get_xaxis_transform(),
            ha="center",
            color=theme.ink,
            **place,
        )
