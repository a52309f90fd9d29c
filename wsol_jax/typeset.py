"""Tables as text: Markdown, CSV and LaTeX.

Of each quantity a row has mean and deviation over the seeds, the published number, and the
difference; remarks stand below, by letter.
"""

import csv
import io
import re
import statistics
import string
from collections.abc import Sequence
from typing import NamedTuple

from wsol_jax import wording

QUANTITIES = {
    "pxap": "PxAP",
    "accuracy": "CL",
    "error": "error",
    "f1_foreground": "F1+",
    "f1_background": "F1\N{MINUS SIGN}",
    **{rate: f"{rate.upper()}*" for rate in ("tp", "fn", "tn", "fp")},
    **{f"j_{group}": f"J, {group}" for group in ("benign", "malignant", "metastatic", "all")},
}
DIGITS = {"j": 2}  # by what the quantity begins with; others have one
FIELDS = ("row", "data", "quantity", "seeds", "mean", "deviation", "paper", "remarks", "runs")
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{RIGHTWARDS ARROW}": r"$\to$",
    "\N{EN DASH}": "--",
}


class Cell(NamedTuple):
    """One number of a table.

    Attributes:
      row, data, quantity: its place in the published table.
      paper: the published number, None where that is a dash.
      values: by seed.
      remarks: on what these numbers are not to be compared for, or why there are none.
      runs: their folders.
    """

    row: str
    data: str
    quantity: str
    paper: float | None
    values: tuple[float, ...] = ()
    remarks: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        """Over the seeds, None where there is none."""
        return statistics.mean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds, None where there are not two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def markdown(title: str, cells: Sequence[Cell], about: str) -> str:
    """A title, what the table is `about`, three columns for each quantity, and the remarks."""
    header, rows, remarks = _grid(cells)
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "\n".join(f"- {letter}: {remark}" for remark, letter in remarks.items())
    return f"# {title}\n\n{about}\n\n{table}\n\n{notes}\n"


def latex(title: str, cells: Sequence[Cell], about: str) -> str:
    """The same as a `table` environment; needs the package booktabs."""
    header, rows, remarks = _grid(cells)
    lines = [" & ".join(map(_escaped, line)) + r" \\" for line in [header, *rows]]
    notes = [rf"\\ {letter}: {_escaped(remark)}" for remark, letter in remarks.items()]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            rf"\\ {_escaped(about)}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def as_csv(title: str, cells: Sequence[Cell], about: str) -> str:
    """One line a number, unrounded."""
    del title, about  # a table of numbers alone
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        known = {field: getattr(cell, field, None) for field in FIELDS}
        several = {field: "; ".join(known[field]) for field in ("remarks", "runs")}
        writer.writerow({**known, **several, "seeds": len(cell.values)})
    return text.getvalue()


FORMATS = {"md": markdown, "csv": as_csv, "tex": latex}


def _grid(cells):
    """Header, rows and remarks by their letters, all as text."""
    columns = list(dict.fromkeys((cell.data, cell.quantity) for cell in cells))
    remarks = dict.fromkeys(remark for cell in cells for remark in cell.remarks)
    letters = dict(zip(remarks, _letters(), strict=False))
    header = [""]
    for column in columns:
        header += [_column(*column), "paper", "difference"]
    placed = {(cell.row, cell.data, cell.quantity): cell for cell in cells}
    rows = []
    for row in dict.fromkeys(cell.row for cell in cells):
        texts = [row_title(row)]
        for column in columns:
            texts += _texts(placed[row, *column], letters)
        rows.append(texts)
    return header, rows, letters


def _texts(cell, letters):
    """What a cell says: our number, the paper's, the difference."""
    marks = f" [{', '.join(letters[remark] for remark in cell.remarks)}]" if cell.remarks else ""
    if cell.quantity == "p":
        return [_exponent(cell.mean) + marks, _exponent(cell.paper), ""]
    digits = DIGITS.get(cell.quantity.partition("_")[0], 1)
    ours = wording.number(cell.mean, digits)
    if cell.deviation is not None:
        deviation = wording.number(cell.deviation, digits)
        ours += f" \N{PLUS-MINUS SIGN} {deviation} (n={len(cell.values)})"
    difference = wording.difference(cell.mean, cell.paper, digits)
    paper = wording.number(cell.paper, digits)
    return [ours + marks, paper, wording.signed(difference, digits)]


def _exponent(value):
    return wording.number(None) if value is None else f"{value:.1e}"


def row_title(key: str) -> str:
    """A row as the papers spell it."""
    return re.sub(r"[a-z][a-z_]+", lambda word: wording.name_of(word.group()), key)


def _column(data, quantity):
    names = " \N{RIGHTWARDS ARROW} ".join(map(wording.name_of, data.split("->")))
    return f"{names} {QUANTITIES.get(quantity, quantity)}"


def _letters():
    yield from string.ascii_lowercase
    yield from (a + b for a in string.ascii_lowercase for b in string.ascii_lowercase)


def _escaped(text):
    return "".join(LATEX.get(character, character) for character in text)
