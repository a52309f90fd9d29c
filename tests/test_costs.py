"""Tables of parameters and times."""

import csv

import jax
import pytest
from ml_collections import ConfigDict

from configs import maxmin, tables
from wsol_jax import experiment, published
from wsol_jax.papers import costs


def small_rows():
    """The U-Net and a classifier of the max-min paper, narrow, on small images."""
    facts = {"seen": (32, 48), "mapped": (40, 60), "note": "Of another device."}
    config = tables.costs("paper/maxmin_table3", "maxmin.TABLE_3", "", small_run, **facts)
    config.cells = tuple(cell for cell in config.cells if cell.row in ("unet", "cam_max"))
    config.batch_size, config.rounds = 2, 1
    return config


def small_run(row):
    run = maxmin.row("paper/maxmin_table3", "glas", row)
    narrow = {"widths": (4, 8, 8)} if row == "unet" else {"width": 8, "blocks": (1, 1, 1, 1)}
    run.backbone.update(narrow)
    return run


def test_costs_stand_beside_the_published_ones(tmp_path):
    config = small_rows()
    found = {(cell.row, cell.quantity): cell for cell in costs.run(config, tmp_path)}
    for row in ("cam_max", "unet"):
        run = next(cell.run for cell in config.cells if cell.row == row)
        variables = experiment.initialize(run, experiment.build(run, run.method))
        count = sum(x.size for x in jax.tree.leaves(variables["params"]))
        theirs = dict(
            zip(published.maxmin.TABLE_3.columns, published.maxmin.TABLE_3.rows[row], strict=True)
        )
        assert found[row, "parameters"].values == (count,)
        assert found[row, "parameters"].paper == theirs["parameters"]
        assert found[row, "seconds"].paper == theirs["seconds"]
        assert found[row, "seconds_batch"].paper is None
        assert 0 < found[row, "seconds_batch"].mean < 60
    _, _, about, _, header, *_ = (tmp_path / "table.md").read_text().splitlines()
    assert about.endswith("Of another device.")
    columns = ["", "parameters", "paper", "difference", "s, one image", "paper"]
    assert [text.strip() for text in header.split("|")[1:-1]] == [*columns, "s per image, batched"]
    with (tmp_path / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found)


def test_a_batch_of_one_is_refused(tmp_path):
    config = small_rows()
    config.batch_size = 1
    with pytest.raises(ValueError, match="batch_size 1: expected 2 or more"):
        costs.run(config, tmp_path)


def test_rows_take_turns_and_a_batch_is_divided_by_its_images(monkeypatch):
    order, clock = [], [0.0]

    def call(name, count, seconds):
        def run():
            order.append((name, count))
            clock[0] += seconds.pop(0)

        return run

    monkeypatch.setattr(costs.time, "perf_counter", lambda: clock[0])
    rows = {
        "a": {1: call("a", 1, [3.0, 1.0, 2.0]), 4: call("a", 4, [4.0, 4.0, 8.0])},
        "b": {1: call("b", 1, [1.0, 1.0, 9.0])},
    }
    assert costs.timed(rows, 3) == {"a": {1: 2.0, 4: 1.0}, "b": {1: 1.0}}
    assert order == [("a", 1), ("a", 4), ("b", 1)] * 3


def test_the_kernel_of_sat_is_counted_alone_and_under_pixelcam():
    counts = {}
    for name, baseline in (("sat", None), ("pixelcam", ConfigDict({"method": {"name": "sat"}}))):
        run = ConfigDict({"method": {"name": name}, "baseline": baseline})
        counts[name] = costs.fixed(run)
    assert counts == {"sat": 9, "pixelcam": 9}
    assert costs.fixed(ConfigDict({"method": {"name": "classifier"}, "baseline": None})) == 0
