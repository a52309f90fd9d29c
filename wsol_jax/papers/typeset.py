"""Tables as text: Markdown, CSV and LaTeX.

Of each quantity a row has mean and deviation over the seeds and, where the paper has any, the
published number and the difference; remarks stand below, by letter.
"""

import collections
import csv
import io
import logging
import pathlib
import re
import statistics
import string
from collections.abc import Sequence
from typing import NamedTuple

from wsol_jax import files, wording

QUANTITIES = {
    "pxap": "PxAP",
    "accuracy": "CL",
    "error": "error",
    "f1_foreground": "F1+",
    "f1_background": "F1\N{MINUS SIGN}",
    **{rate: f"{rate.upper()}*" for rate in ("tp", "fn", "tn", "fp")},
    **{f"j_{group}": f"J, {group}" for group in ("benign", "malignant", "metastatic", "all")},
    "milliseconds": "ms, one image",
    "milliseconds_batch": "ms per image, batched",
    "seconds": "s, one image",
    "seconds_batch": "s per image, batched",
}
DIGITS = {"j": 2, "f1": 2, "error": 2, "parameters": 0, "seconds": 4}  # by its first word; or one
UNLIKE = ("p", "milliseconds", "seconds")  # whose difference from the published one says nothing
FIELDS = ("row", "data", "quantity", "seeds", "mean", "deviation", "paper", "difference")
LISTS = ("remarks", "runs")
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
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
    def difference(self) -> float | None:
        """From the published number, None where there is none."""
        known = self.mean is not None and self.paper is not None
        return self.mean - self.paper if known else None

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
    writer = csv.DictWriter(text, (*FIELDS, *LISTS), lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        known = {field: getattr(cell, field, None) for field in FIELDS}
        several = {field: "; ".join(getattr(cell, field)) for field in LISTS}
        one_each = len(cell.values) == len(cell.runs)  # t and p are of all runs together
        seeds = len(cell.values) if one_each else ""
        writer.writerow({**known, **several, "seeds": seeds})
    return text.getvalue()


FORMATS = {"md": markdown, "csv": as_csv, "tex": latex}


def write(folder: pathlib.Path, title: str, cells: Sequence[Cell], about: str) -> None:
    """Writes table.md, table.csv and table.tex."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text_of in FORMATS.items():
        files.write_text(folder / f"table.{suffix}", text_of(title, cells, about))
    logging.info("table: %s", folder / "table.md")


def _grid(cells):
    """Header, rows and remarks by their letters, all as text."""
    compared = collections.defaultdict(bool)
    for cell in cells:
        compared[cell.data, cell.quantity] |= cell.paper is not None
    remarks = dict.fromkeys(remark for cell in cells for remark in cell.remarks)
    letters = dict(zip(remarks, _letters(), strict=False))
    header = [""]
    for column, published in compared.items():
        header += [_column(*column), "paper", "difference"][: _width(column[1], published)]
    placed = {(cell.row, cell.data, cell.quantity): cell for cell in cells}
    rows = []
    for row in dict.fromkeys(cell.row for cell in cells):
        texts = [row_title(row)]
        for column, published in compared.items():
            texts += _texts(placed[row, *column], letters)[: _width(column[1], published)]
        rows.append(texts)
    return header, rows, letters


def _width(quantity, published):
    """How many of our number, the paper's and the difference a quantity has."""
    return (2 if quantity in UNLIKE else 3) if published else 1


def _texts(cell, letters):
    """What a cell says: our number, the paper's, the difference."""
    marks = f" [{', '.join(letters[remark] for remark in cell.remarks)}]" if cell.remarks else ""
    digits = DIGITS.get(cell.quantity.partition("_")[0], 1)
    ours = _shown(cell.mean, cell.quantity, digits)
    if cell.deviation is not None:
        deviation = _shown(cell.deviation, cell.quantity, digits)
        ours += f" \N{PLUS-MINUS SIGN} {deviation} (n={len(cell.values)})"
    difference = wording.difference(cell.mean, cell.paper, digits)
    paper = _shown(cell.paper, cell.quantity, digits)
    return [ours + marks, paper, wording.signed(difference, digits)]


def _shown(value, quantity, digits):
    if value is not None and quantity == "p":
        return f"{value:.1e}"
    if value is not None and quantity == "parameters":
        return f"{value:,}"
    return wording.number(value, digits)


def row_title(key: str) -> str:
    """A row as the papers spell it."""
    return re.sub(r"[a-z][a-z_]+", lambda word: wording.name_of(word.group()), key)


def _column(data, quantity):
    names = " \N{RIGHTWARDS ARROW} ".join(map(wording.name_of, data.split("->")))
    return f"{names} {QUANTITIES.get(quantity, quantity)}".lstrip()


def _letters():
    yield from string.ascii_lowercase
    yield from (a + b for a in string.ascii_lowercase for b in string.ascii_lowercase)


def _escaped(text):
    return "".join(LATEX.get(character, character) for character in text)
