"""Blocks of the configs that are whole tables, and of which every row is a run.

python -m wsol_jax.main --mode=report --config=configs/paper/table01.py --config.dry_run
python -m wsol_jax.main --config=configs/paper/table01.py:glas/layer_cam+pixelcam
"""

import math
from collections.abc import Callable, Collection, Mapping

from ml_collections import ConfigDict, config_dict

from configs import common
from wsol_jax import choices, published
from wsol_jax.experiment import encoder_name

SHORT = "short"
DATA = {"glas": common.glas, "camelyon16": common.camelyon16}


def choose(
    name: str,
    table: str,
    variant: str,
    make: Callable[[str, str], ConfigDict | None],
    *,
    data: Collection[str] = DATA,
    shorten: Callable[[ConfigDict], ConfigDict] = common.short,
    shifted: bool = False,
) -> ConfigDict:
    """What a table's config file gives for a variant: the table, or one row's run.

    Args:
      table: names one of `wsol_jax.published`, such as "pixelcam.TABLE_1".
      variant: empty, or "short" for the table on a schedule for a CPU; else "DATA/ROW", or "ROW"
        where the table is of one data set, a row being spelt as in the published table but without
        spaces; with "/short" behind it on that schedule.
      make: (row, data) -> the run of a row, None where there is none to train.
      shifted: test every run on the other data set, in place of its own.
    """

    def run_of(key, shortened):
        run = make(*keys[key])
        if run is not None:
            run = shorten(run) if shortened else run
            run.name = f"{name}/{key}/{SHORT}" if shortened else f"{name}/{key}"
        return run

    long, _, length = variant.rpartition("/") if variant.endswith(SHORT) else (variant, "", "")
    keys = {}
    for row in published.table(table).rows:
        for one in data:
            key = "/".join([one, row] if len(data) > 1 else [row]).replace(" ", "")
            keys[key] = row, one
    if long and long not in keys:
        raise ValueError(f"unknown row {long!r}; have {list(keys)}")
    if long:
        if (run := run_of(long, bool(length))) is None:
            raise ValueError(f"{long!r} has no run: it is a floor in the report of every other row")
        return run
    runs = [(row, run_of(key, bool(length))) for key, (row, _) in keys.items()]
    cells = [cell(row, run, shifted=shifted) for row, run in runs if run is not None]
    return whole(name, table, cells, short=bool(length))


def of_rows(
    name: str,
    table: str,
    variant: str,
    encoder: str = "resnet50",
    changes: Mapping[str, Mapping[str, object]] = {},
    shifted: bool = False,
) -> ConfigDict:
    """`choose` among rows of PixelCAM's tables, such as "layer_cam + pixelcam, n=5".

    Args:
      changes: what differs from the row of Table 1, by what is behind the comma, such as
        {"n=5": {"method.foreground": 5}}.
      shifted: see `choose`.
    """

    def make(row, data):
        method, _, setting = row.partition(", ")
        run = common.row(name, encoder, f"{data}/{method.replace(' ', '')}")
        for path, value in (changes[setting] if setting else {}).items():
            section, _, key = path.partition(".")
            run[section][key] = value
        return run

    return choose(name, table, variant, make, shifted=shifted)


def t_tests(
    name: str, table: str, variant: str, rows: str, encoder: str = "resnet50"
) -> ConfigDict:
    """PixelCAM against each baseline, 15 runs against 15: the papers' 28 degrees of freedom.

    Args:
      variant: empty, or "short" for a schedule for a CPU.
      rows: the table that the runs are rows of, such as "paper/table01".
    """
    choices.require("variant", variant, ("", SHORT))
    cells = []
    for row in published.table(table).rows:
        for data in DATA:
            for method in (row, f"{row}+pixelcam"):
                cells.append(cell(row, row_of(rows, encoder, f"{data}/{method}", variant)))
    config = whole(name, table, cells, short=bool(variant))
    config.seeds = tuple(range(15))
    return config


def row_of(table: str, encoder: str, row: str, variant: str) -> ConfigDict:
    """A row of another table, on the schedule that the variant names."""
    run = common.row(table, encoder, row)
    if variant:
        run = common.short(run)
        run.name += f"/{SHORT}"
    return run


def costs(
    name: str,
    table: str,
    variant: str,
    run_of: Callable[[str], ConfigDict],
    *,
    seen: tuple[int, int],
    mapped: tuple[int, int],
    note: str,
) -> ConfigDict:
    """A table of parameters and times on this machine, for `--mode=report`.

    `batch_size` images are mapped at once, beside one alone, and `rounds` calls of each are timed.

    Args:
      variant: empty, or a row without spaces, for its run.
      run_of: (row without spaces) -> its run.
      seen, mapped: height and width of the image as the models see it, and of its map.
      note: what there is to say of the published numbers.
    """
    rows = {row.replace(" ", ""): row for row in published.table(table).rows}
    if variant and variant not in rows:
        raise ValueError(f"unknown row {variant!r}; have {list(rows)}")
    runs = {key: run_of(key) for key in ([variant] if variant else rows)}
    for key, run in runs.items():
        run.name = f"{name}/{key}"
    if variant:
        return runs[variant]
    cells = tuple(ConfigDict({"row": rows[key], "run": run}) for key, run in runs.items())
    timed = {"seen": seen, "mapped": mapped, "batch_size": 8, "rounds": 10, "note": note}
    timed["dry_run"] = False
    return ConfigDict({"name": name, "table": table, "cells": cells, **timed})


def cell(row: str, run: ConfigDict, *, shifted: bool = False) -> ConfigDict:
    """A row of a table on the data set of the run that its numbers are taken from.

    They are those of the first read-out of a classifier, else of the one map of the method. Columns
    of a run that is tested on the other data set begin with "glas->camelyon16" or the reverse. A
    `teacher` is the cell of a run that makes the CAMs for this one, in place of its baseline.
    """
    name = run.method.get("readouts", (run.method.name,))[0]
    data, target = run.data.name, None
    if shifted:
        (other,) = DATA.keys() - {data}
        data, target = f"{data}->{other}", DATA[other](ConfigDict()).data
    known = {"row": row, "data": data, "map": name, "run": run, "target": target}
    return ConfigDict({**known, "teacher": None})


def whole(name: str, table: str, cells: list[ConfigDict], *, short: bool = False) -> ConfigDict:
    """A table for `--mode=report`, of `wsol_jax.published` or, where `table` is empty, of its own.

    What all its runs share is set once: `--config.folders.glas=FOLDER`, and, where it is not to be
    as the rows have it, `--config.encoders.resnet50.weights.source=FILE`; a ResNet-18 with a deep
    stem is `resnet18_deep_stem`. `budget` is in hours of
    training, after which the table is written with what there is; `dry_run` shows the plan alone.
    Finished runs are looked for under `runs`, where new ones are put too. Where runs are tested on
    other data, `test_patches=500` takes so many of CAMELYON16's (see `camelyon16.drawn`). A `short`
    table has a folder of its own.
    """
    runs = [one.run for one in cells]
    name = f"{name}/{SHORT}" if short else name
    config = ConfigDict({"name": name, "table": table, "cells": tuple(cells)})
    config.seeds = (0,)
    config.runs = "runs"
    config.budget = math.inf
    config.dry_run = False
    if any(one.target for one in cells):
        config.test_patches = config_dict.placeholder(int)
    config.folders = ConfigDict({r.data.name: r.data.folder for r in runs if "folder" in r.data})
    config.encoders = ConfigDict({encoder_name(r.backbone): _settings(r.backbone) for r in runs})
    return config


def _settings(backbone: ConfigDict) -> dict:
    """What may be set for all runs of an encoder; None where it is not."""
    own = [key for key in backbone if key != "name"]
    keywords = {key: config_dict.placeholder(backbone.get_type(key)) for key in own}
    types = {"source": str, "allow_missing": tuple}
    weights = {key: config_dict.placeholder(kind) for key, kind in types.items()}
    return {"weights": weights, "backbone": keywords}
