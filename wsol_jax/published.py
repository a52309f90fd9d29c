"""The numbers both papers print, as plain data, so that a report can stand beside them."""

from collections.abc import Collection

from wsol_jax.printed import maxmin, pixelcam
from wsol_jax.printed.table import Table

# The checkpoint that a paper's numbers are of, by its metric, or the next where a run lacks it:
# U-Nets have no B-CL, images without pixel labels no B-LOC. B-CL would not do for these: of a
# second phase it may be the start, before the pixel head has learnt anything. The rows that the
# max-min paper took from a survey's code were chosen there by a validation loss.
REPORTED = {"pxap": ("b_loc", "last"), "dice": ("b_cl", "b_loc", "last")}


def reported(metric: str, available: Collection[str]) -> str | None:
    """The checkpoint that numbers are reported of, see `REPORTED`, or None where none is there."""
    return next((name for name in REPORTED[metric] if name in available), None)


def table(name: str) -> Table:
    """A published table by paper and number, such as "pixelcam.TABLE_1"."""
    paper, _, title = name.partition(".")
    found = getattr({"pixelcam": pixelcam, "maxmin": maxmin}.get(paper), title, None)
    if not isinstance(found, Table):
        raise ValueError(
            f"unknown table {name!r}; expected PAPER.TABLE of wsol_jax.published, such as "
            "'pixelcam.TABLE_1' or 'maxmin.TABLE_4'"
        )
    return found


def lookup(
    *, data: str, backbone: str, method: str, pixelcam: bool = False, negev: bool = False
) -> dict[str, float] | None:
    """The published numbers of one method, by quantity, or None where the papers have no such row.

    Args:
      data: "glas" or "camelyon16".
      backbone: "resnet50", "vgg16", "inception_v3" or "deit_tiny_patch16_224" (PixelCAM), or
        "resnet18" (max-min).
      method: the baseline or its read-out, such as "layer_cam".
      pixelcam, negev: whether that method is trained on top of it.

    Returns:
      percentages, such as {"pxap": 83.6, "accuracy": 100.0, "tp": 77.6, ...}, and the separability
      "j_malignant": 0.12, ...; the max-min paper has "error", "f1_foreground" and "f1_background".
    """
    name = method + " + pixelcam" * pixelcam + " + negev" * negev
    row = {}
    for table in tables(backbone):
        transformer = backbone == "deit_tiny_patch16_224"  # in Table 1 like ResNet-50, for SAT
        if name in table.rows and transformer == (method == "sat"):
            row |= dict(zip(table.columns, table.rows[name], strict=True))
    start = f"{data}/"
    numbers = {column: number for column, number in row.items() if number is not None}
    return {k.removeprefix(start): v for k, v in numbers.items() if k.startswith(start)} or None


def tables(backbone: str) -> tuple[Table, ...]:
    """The tables that hold the main results of a backbone; empty where there are none."""
    return {
        "resnet50": (pixelcam.TABLE_1, pixelcam.TABLES_4_5, pixelcam.TABLE_6),
        "deit_tiny_patch16_224": (pixelcam.TABLE_1, pixelcam.TABLES_4_5),
        "vgg16": (pixelcam.TABLE_7,),
        "inception_v3": (pixelcam.TABLE_8,),
        "resnet18": (maxmin.TABLES_1_2, maxmin.TABLE_4),
    }.get(backbone, ())
