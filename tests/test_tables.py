"""A table plans what it lacks, trains that, survives being stopped, and says what it is made of."""

import csv
import io
import json
import logging
import math
import pathlib
import shutil
import types

import numpy as np
import pytest
import small
import small_run
from ml_collections import ConfigDict
from PIL import Image
from scipy import stats

from configs import common
from configs import tables as configs
from wsol_jax import experiment, logbook, published, run_files, train, trained, transfer
from wsol_jax.papers import cells, galleries, plan, tables, typeset

DASH = "\N{EN DASH}"
ROWS = ("wildcat", "foreground")  # of max-min's Table 4, whose numbers are those of a Dice


def use_small_data(patch):
    """Every run is of `small.small_data`, whatever its config says."""
    patch.setattr(experiment, "open_data", small.small_data)
    patch.setattr(experiment, "list_data", lambda config: small.small_data()._asdict())


def tiny_table(folder, seeds=(0, 1)):
    """Two rows of a published table by tiny runs: a baseline, and PixelCAM on it."""
    second = small.tiny_phases()
    second.notes, second.weights.source = ("schedule: two epochs",), ""
    first = experiment.first_phase(second)
    rows = [configs.cell(row, run) for row, run in zip(ROWS, (first, second), strict=True)]
    for cell in rows:
        cell.data = "glas"
    config = configs.whole("paper/tiny", "maxmin.TABLE_4", rows)
    config.seeds, config.runs = seeds, str(folder / "runs")
    return config


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A table that ran out of time in its first run, was called again, and once more."""
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        use_small_data(patch)
        config = tiny_table(folder)
        config.budget = 1e-9 + 0.05 / tables.HOUR  # over before the first step is compiled
        halfway = tables.run(config, folder)
        begun = [path.parent.name for path in (folder / "runs").glob("*/config.json")]
        config.budget = float("inf")
        found = tables.run(config, folder)
        patch.setattr(train, "run", None)
        again = tables.run(config, folder)
    return folder, halfway, begun, found, again


def numbers(found, row):
    return {cell.quantity: cell for cell in found if cell.row == row}


def test_out_of_time_the_table_is_written_and_the_run_goes_on(written):
    folder, halfway, begun, found, _ = written
    assert len(begun) == 1
    assert not any(cell.values for cell in halfway)
    history = folder / "runs" / begun[0] / "classifier" / "history.jsonl"
    steps = [json.loads(line)["step"] for line in history.read_text().splitlines()]
    assert steps == [0, 2, 4]
    record = json.loads((folder / "runs" / begun[0] / "record.json").read_text())
    assert len(record["earlier"]) == 1
    assert all(len(cell.values) == 2 for cell in found if cell.row in ROWS)


def test_the_same_call_again_trains_nothing(written):
    *_, found, again = written
    assert again == found


def test_rows_share_a_baseline_and_have_the_numbers_of_their_runs(written):
    folder, *_, found, _ = written
    metrics = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("runs/*/metrics.json")}
    assert len(metrics) == 4
    for row, phase in zip(ROWS, ("classifier", "pixelcam"), strict=True):
        runs = sorted((m["seed"], m) for m in metrics.values() if phase in m["phases"])
        (name,) = runs[0][1]["phases"][phase]["maps"]
        tests = [m["phases"][phase]["maps"][name]["b_cl"]["test"] for _, m in runs]
        own = numbers(found, row)
        assert own["f1_foreground"].values == tuple(t["f1_foreground"] for t in tests)
        assert own["error"].values == tuple(100 - t["accuracy"] for t in tests)
    for path in folder.glob("runs/*pixelcam*/config.json"):
        baseline = json.loads(path.read_text())["baseline"]["workdir"]
        assert baseline in {str(p) for p in folder.glob("runs/*_cam_*")}


def test_files_say_what_the_numbers_are(written):
    folder, *_, found, _ = written
    lines = (folder / "table.md").read_text().splitlines()
    cell = numbers(found, "foreground")["f1_foreground"]
    shown = f"{cell.mean:.2f} ± {cell.deviation:.2f} (n=2) [a]"
    (row,) = [line for line in lines if line.startswith("| foreground |")]
    assert shown in row
    assert "| 71.54 |" in row
    assert "- a: schedule: two epochs" in lines
    assert lines[2].startswith("4 runs, ")
    commit = logbook.commit()
    shown = commit[: logbook.COMMIT] + "-dirty" * commit.endswith("-dirty")
    assert f"commit {shown}; on 1 x cpu, " in lines[2]
    (unrun,) = [line for line in lines if line.startswith("| foreground + background, EEM |")]
    assert f"{DASH} [" in unrun
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert {r["row"]: r["seeds"] for r in rows}["wildcat"] == "2"
    (plain,) = (r for r in rows if (r["row"], r["quantity"]) == ("foreground", "f1_foreground"))
    assert float(plain["difference"]) == pytest.approx(cell.mean - 71.54)
    assert {r["remarks"] for r in rows if r["row"] == "foreground + background, sem"} == {"not run"}
    latex = (folder / "table.tex").read_text()
    assert r"$\pm$" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1


def test_a_gallery_has_a_column_for_every_row_that_is_finished(written):
    folder, halfway, *_ = written
    assert not any(cell.values for cell in halfway)  # when there was nothing to draw
    panels = 2 + len(ROWS)  # the image, the truth, and a map of each
    with Image.open(folder / "gallery_glas.png") as image:
        width, height = image.size
    with np.load(next(folder.glob("runs/*/gallery.npz"))) as kept:
        count = len(kept["name"])
    assert width == pytest.approx(230 * panels, abs=2)
    assert height == pytest.approx(230 * count + 30, abs=2)


def test_a_run_is_found_wherever_it_lies_and_whatever_it_is_called(written, tmp_path, monkeypatch):
    use_small_data(monkeypatch)
    folder, *_ = written
    source = next(folder.glob("runs/*_cam_seed0*"))
    shutil.copytree(source, tmp_path / "runs/deep/down/renamed")
    config = tiny_table(tmp_path, seeds=(0,))
    wanted = plan.needs(config)
    at_hand = plan.shelf(tmp_path / "runs")
    assert [bool(cells.origin(need, at_hand)) for need in wanted] == [True, False]
    (job,) = plan.jobs(wanted, at_hand, tmp_path)
    assert job.config.baseline.workdir == str(tmp_path / "runs/deep/down/renamed")
    assert plan.seconds(job, at_hand) is None  # no epoch of PixelCAM has been timed here


def test_a_run_is_found_without_the_one_that_it_stands_on(written, tmp_path, monkeypatch):
    use_small_data(monkeypatch)
    folder, *_ = written
    source = next(folder.glob("runs/*_cam+pixelcam_seed0*"))
    shutil.copytree(source, tmp_path / "runs/alone")
    monkeypatch.chdir(tmp_path)  # where the relative path of its baseline leads nowhere
    config = json.loads((tmp_path / "runs/alone/config.json").read_text())
    config["baseline"]["workdir"] = "gone"
    (tmp_path / "runs/alone/config.json").write_text(json.dumps(config))
    at_hand = plan.shelf(tmp_path / "runs")
    wanted = plan.needs(tiny_table(tmp_path, seeds=(0,)))
    assert [bool(cells.origin(need, at_hand)) for need in wanted] == [False, True]


def change_epochs(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "epochs": 9}))


def change_version(run):
    record = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps({**record, "methods": {"classifier": 2}}))


def change_data(run):
    record = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps({**record, "data": "other images"}))


def rename(run):
    config = json.loads((run / "config.json").read_text())
    other = {"name": "x", "notes": ["y"], "parallel": "pmap", "evaluation_batch_size": 1}
    (run / "config.json").write_text(json.dumps({**config, **other}))


@pytest.mark.parametrize(
    ("change", "kept"),
    [(change_epochs, False), (change_version, False), (change_data, False), (rename, True)],
)
def test_a_run_is_another_one_when_its_numbers_would_be(
    written, tmp_path, monkeypatch, change, kept
):
    use_small_data(monkeypatch)
    folder, *_ = written
    run = tmp_path / "runs" / "copied"
    run.mkdir(parents=True)
    for name in ("config", "record", "metrics"):
        source = next(folder.glob("runs/*_cam_seed0*"))
        shutil.copy(source / f"{name}.json", run)
    change(run)
    need = plan.needs(tiny_table(tmp_path, seeds=(0,)))[0]
    assert bool(cells.origin(need, plan.shelf(tmp_path / "runs"))) == kept


def test_a_failing_run_is_told_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    use_small_data(monkeypatch)
    tried = []

    def fail(config, folder, *, deadline):
        del config, deadline
        tried.append(folder)
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(train, "run", fail)
    with pytest.raises(SystemExit, match="4 of 4 runs failed"):
        tables.run(tiny_table(tmp_path), tmp_path)
    assert len(tried) == 4
    assert "the loss is nan" in caplog.text
    assert (tmp_path / "table.md").is_file()


def test_data_that_are_not_at_hand_are_said_and_nothing_is_trained(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    def absent(config):
        raise FileNotFoundError("no folder data/glas; get GlaS")

    monkeypatch.setattr(experiment, "list_data", absent)
    found = tables.run(tiny_table(tmp_path), tmp_path)
    assert numbers(found, "wildcat")["error"].remarks == ("no folder data/glas; get GlaS",)
    assert "cannot be run: 4 of 4: no folder data/glas" in caplog.text


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    use_small_data(monkeypatch)
    config = tiny_table(tmp_path)
    config.dry_run = True
    assert tables.run(config, tmp_path / "out") == []
    assert not list(tmp_path.iterdir())
    assert "0 of 4 finished; 4 to train: about 0s, 4 of unknown length" in caplog.text


@pytest.fixture
def elsewhere(written, monkeypatch):
    """The finished table, its runs tested on the images that they were tested on before."""
    folder, *_ = written
    use_small_data(monkeypatch)
    test = small.small_data().test
    monkeypatch.setattr(experiment, "open_split", lambda config, name: test)
    monkeypatch.setattr(transfer, "list_target", lambda target: {"test": test})
    config = tiny_table(folder, seeds=(0,))
    for cell in config.cells:
        cell.data, cell.target = "glas->elsewhere", {"name": "elsewhere", "folder": "data"}
    config.folders.elsewhere = "found/there"
    return config


def test_without_the_target_nothing_is_trained_for_it(elsewhere, tmp_path, monkeypatch):
    def absent(target):
        raise FileNotFoundError(f"no folder {target.folder}")

    monkeypatch.setattr(transfer, "list_target", absent)
    wanted = plan.needs(elsewhere)
    assert [need.blocked for need in wanted] == ["no folder found/there"] * 2
    assert plan.jobs(wanted, {}, tmp_path) == []
    found = tables.run(elsewhere, tmp_path)
    assert not any(cell.values for cell in found)  # nor is shown what was written of other images


def test_on_its_own_test_images_a_run_scores_what_it_did(elsewhere, monkeypatch):
    at_hand = plan.shelf(pathlib.Path(elsewhere.runs))
    for need in plan.needs(elsewhere):
        assert need.target.folder == "found/there"
        tested = tables._transferred(need, at_hand, math.inf, {})
        assert not tested.blocked
        for quantity in ("f1_foreground", "error"):
            own = cells._score(need._replace(target=None), cells.origin(need, at_hand), quantity)
            score = cells._score(tested, cells.origin(need, at_hand), quantity)
            assert score == pytest.approx(own, abs=1e-9)
    monkeypatch.setattr(trained, "phases", None)  # what is written is not made again
    monkeypatch.setattr(transfer, "open_target", None)  # nor are its images read
    for need in plan.needs(elsewhere):
        assert not tables._transferred(need, at_hand, math.inf, {}).blocked


def test_test_images_are_opened_once_for_every_size_that_a_run_sees(elsewhere, monkeypatch):
    sizes, stored, test = [], experiment.stored_config, small.small_data().test

    def of_size(folder, size):
        config = stored(folder)
        config.image_size = size
        return config

    monkeypatch.setattr(transfer, "open_target", lambda c, _: sizes.append(c.image_size) or test)
    monkeypatch.setattr(transfer, "run", lambda *_: {})
    monkeypatch.setattr(
        transfer, "list_target", lambda _: {"test": test._replace(labels=1 - test.labels)}
    )
    need, at_hand, opened = plan.needs(elsewhere)[0], plan.shelf(pathlib.Path(elsewhere.runs)), {}
    for size in (32, 48, 32):
        monkeypatch.setattr(experiment, "stored_config", lambda folder, s=size: of_size(folder, s))
        assert not tables._transferred(need, at_hand, math.inf, opened).blocked
    assert sizes == [32, 48]


def test_a_few_patches_of_camelyon16_are_a_target_of_their_own(elsewhere):
    elsewhere.test_patches = None
    paths = []
    for count in (None, 500):
        elsewhere.test_patches = count
        for cell in elsewhere.cells:
            cell.target = common.camelyon16(ConfigDict()).data
        target = plan.needs(elsewhere)[0].target
        assert (target.source, target.test_patches) == ("memory" if count else "tfds", count)
        paths.append(transfer.path(pathlib.Path(), target).name)
    assert paths == ["on_camelyon16.json", "on_camelyon16_500.json"]


def test_what_cannot_be_tested_elsewhere_says_why(elsewhere, monkeypatch):
    need, at_hand = plan.needs(elsewhere)[0], plan.shelf(pathlib.Path(elsewhere.runs))
    folder = cells.origin(need, at_hand).run.folder
    transfer.path(folder, need.target).unlink(missing_ok=True)
    late = tables._transferred(need, at_hand, 0.0, {})
    assert late.blocked == "not run: out of time"
    test = small.small_data().test
    more = test._replace(labels=test.labels + 1)
    monkeypatch.setattr(experiment, "open_split", lambda config, name: more)
    told = tables._transferred(need, at_hand, math.inf, {}).blocked
    assert told.startswith(
        "the test images of elsewhere have labels up to 2; expected those of the 2"
    )


def test_pixelcam_is_tested_against_its_baseline_over_the_seeds(written, monkeypatch):
    use_small_data(monkeypatch)
    folder, *_ = written
    config = tiny_table(folder)
    for cell in config.cells:
        cell.row = "layer_cam"
    wanted, at_hand = plan.needs(config), plan.shelf(folder / "runs")
    quantity = {"pxap": "f1_foreground"}  # which tiny runs have, in place of PxAP
    score = cells._score
    monkeypatch.setattr(cells, "_score", lambda n, f, q: score(n, f, quantity.get(q, q)))
    found = numbers(cells.of_table(published.pixelcam.TABLE_2, wanted, at_hand), "layer_cam")
    groups = [
        [
            cells._score(n, cells.origin(n, at_hand), "pxap")
            for n in wanted
            if bool(n.config.baseline) == two
        ]
        for two in (True, False)
    ]
    expected = stats.ttest_ind(*groups)
    assert found["t"].values == pytest.approx((expected.statistic,))
    assert found["p"].values == pytest.approx((expected.pvalue,))
    assert "layer_cam, glas: 2 against 2 runs; PxAP " in found["t"].remarks[0]
    alone = cells.of_table(published.pixelcam.TABLE_2, wanted[:1], at_hand)
    assert numbers(alone, "layer_cam")["t"].remarks == ("not run",)
    assert f"{found['p'].mean:.1e} [a, b]" in typeset.markdown("Title", list(found.values()), "")


def test_a_teacher_is_trained_before_the_run_that_learns_from_it(written, monkeypatch):
    use_small_data(monkeypatch)
    folder, *_ = written
    config = tiny_table(folder, seeds=(0,))
    first, second = config.cells
    longer = first.run.copy_and_resolve_references()
    longer.epochs = 7
    second.teacher = configs.cell("wildcat", longer)
    wanted, at_hand = plan.needs(config), plan.shelf(folder / "runs")
    teacher, taught = plan.jobs(wanted, at_hand, folder / "runs")
    assert teacher.config.epochs == 7
    assert taught.config.baseline.cam_workdir == str(teacher.folder)
    assert taught.config.baseline.workdir == str(cells.origin(wanted[0], at_hand).run.folder)
    usual = plan.needs(tiny_table(folder, seeds=(0,)))[1]
    assert taught.folder.name[-8:] == wanted[1].addresses[-1][:8] != usual.addresses[-1][:8]


def test_a_finished_run_without_the_map_is_not_gone_on_with(written, monkeypatch):
    use_small_data(monkeypatch)
    folder, *_ = written
    config = tiny_table(folder, seeds=(0,))
    config.cells = (config.cells[0],)
    config.cells[0].map = "layer_cam"  # which this classifier was not judged by
    (job,) = plan.jobs(plan.needs(config), plan.shelf(folder / "runs"), folder / "runs")
    assert job.run is None
    assert not job.folder.exists()


def test_pixels_are_drawn_from_the_cams_of_another_run(written, tmp_path, monkeypatch):
    use_small_data(monkeypatch)
    folder, *_ = written
    taught = next(folder.glob("runs/*_cam+pixelcam_seed0*"))
    other = next(folder.glob("runs/*_cam_seed1*"))
    config = small.tiny_phases()
    config.epochs, config.baseline.workdir = 1, run_files.read_config(taught)["baseline"]["workdir"]
    config.baseline.cam_workdir = str(other)
    train.run(config, tmp_path / "run")
    expected = np.load(next(folder.glob("runs/*_cam+pixelcam_seed1*")) / "cams.npy")
    found = np.load(tmp_path / "run" / "cams.npy")
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, np.load(taught / "cams.npy"))
    config.baseline.workdir, config.baseline.cam_workdir = "", str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere is not a run"):
        train.run(config, tmp_path / "late")
    config.baseline.cam_workdir, config.baseline.cam = str(other), "grad_cam"
    with pytest.raises(ValueError, match="chose no checkpoint 'b_loc' of the map 'grad_cam'"):
        train.run(config, tmp_path / "late")
    assert not (tmp_path / "late").exists()  # told before the baseline is trained


def test_all_ones_is_a_floor_of_every_run(written, monkeypatch):
    use_small_data(monkeypatch)
    folder, *_ = written
    wanted, at_hand = plan.needs(tiny_table(folder)), plan.shelf(folder / "runs")
    found = numbers(cells.of_table(published.maxmin.TABLES_1_2, wanted, at_hand), "all_ones")
    masks = small.squares(small.SPLITS["test"], 3)["mask"][:, : small.SIZE, : small.SIZE]
    share = masks.mean((1, 2))
    assert found["f1_foreground"].mean == pytest.approx(100 * np.mean(2 * share / (1 + share)))
    assert (found["f1_background"].values, found["error"].values) == ((0.0,), ())


def test_maps_of_images_of_another_size_are_left_out():
    random, rows = np.random.default_rng(0), {}
    for title, size in (("first", 32), ("second", 32), ("smaller", 16)):
        gallery = small_run.gallery_of(random, small_run.PHASES, size)
        rows[title] = (gallery, gallery["map_pixelcam_pixelcam"].astype(np.float32))
    with Image.open(io.BytesIO(galleries._drawn(rows))) as image:
        assert image.size[0] == pytest.approx(230 * 4, abs=2)  # image, truth and two maps


def test_every_quantity_is_what_it_is_called():
    test = {"pxap": 1.0, "accuracy": 98.0, "separability": {"0": 3.0, "1": 4.0, "all": 5.0}}
    test["at_best_test_threshold"] = {"tp": 6.0, "fn": 7.0, "tn": 8.0, "fp": 9.0}
    test["at_validation_threshold"] = dict.fromkeys(("tp", "fn", "tn", "fp"), 0.0)
    config = small.small_config()
    need = types.SimpleNamespace(name="pixelcam", target=None, config=config)
    found = types.SimpleNamespace(maps={"pixelcam": {"b_loc": {"test": test}}})
    quantities = ("pxap", "error", "j_benign", "j_malignant", "j_metastatic", "j_all")
    quantities += ("tp", "fn", "tn", "fp")
    scores = [cells._score(need, found, quantity) for quantity in quantities]
    assert scores == [1, 2, 3, 4, 4, 5, 6, 7, 8, 9]


def test_encoders_of_a_table_are_set_once_for_all_its_runs(tmp_path, monkeypatch):
    use_small_data(monkeypatch)
    config = tiny_table(tmp_path)
    config.encoders.double_conv.weights.source = "mine.npz"
    found = {need.config.weights.source for need in plan.needs(config)}
    assert found == {"mine.npz"}
