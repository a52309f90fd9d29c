"""Finished runs become a table that says on what they ran, and what was reduced."""

import importlib.util
import json
import pathlib
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "scripts" / "collect.py"
MACHINES = [("1 x cpu", "Some CPU, 2 cores", "0.10.2"), ("1 x GPU", "Another, 16 cores", "0.11.2")]


@pytest.fixture
def collect(monkeypatch):
    """The script, called with arguments."""
    spec = importlib.util.spec_from_file_location("collect", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["collect.py", *map(str, arguments)])
        module.main()

    return run


def write_run(folder, *, seed, pxap, name="paper/table01/glas/layer_cam/short"):
    """A finished run of one phase, as far as the script reads it."""
    device, processor, jax = MACHINES[seed]
    start = {"commit": f"c{seed}", "device": device, "processor": processor, "seconds": 1800.0}
    start |= {"versions": {"jax": jax}, "earlier": []}
    record = {**start, "notes": ["fewer epochs"], "weights": {"source": "a.npz"}}
    data = {"name": "glas", "fold": 0, "folder": f"{folder.parent}/data"}
    config = {"name": name, "data": data, "backbone": {"name": "resnet50"}, "baseline": None}
    config["method"] = {"name": "classifier", "readouts": ["layer_cam"]}
    config |= {"metric": "pxap", "seed": seed, "weights": {"source": "a.npz"}}
    test = {"pxap": pxap, "accuracy": 90.0, "curve": [0.1, 0.2]}
    maps = {"layer_cam": {key: {"test": test} for key in ("b_loc", "b_cl", "last")}}
    metrics = {"name": name, "seed": seed, "data": data, "floors": {"constant_map": 51.5}}
    metrics["phases"] = {"classifier": {"maps": maps}}
    (folder / "classifier").mkdir(parents=True)
    (folder / "classifier" / "history.jsonl").write_text('{"epoch": 0}\n')
    for file, values in (("config", config), ("record", record), ("metrics", metrics)):
        (folder / f"{file}.json").write_text(json.dumps(values))
    return folder


def test_seeds_of_two_machines(tmp_path, monkeypatch, collect):
    monkeypatch.chdir(tmp_path)
    runs = [write_run(tmp_path / f"run{i}", seed=i, pxap=70.0 + 2 * i) for i in (0, 1)]
    collect(*runs, "--output", "results", "--note", "A paragraph.")
    text = (tmp_path / "results" / "README.md").read_text()
    for device, processor, _ in MACHINES:
        assert f"{device}, {processor}" in text
    assert "2 runs, 1h00m in all; commit c0, c1; on 1 x GPU, Another, 16 cores and 1 x cpu," in text
    assert "; jax 0.10.2, 0.11.2; weights: " in text
    assert "Reduced: fewer epochs." in text
    assert "| 71.0 ± 1.4 |" in text
    assert "| 75.1 |" in text  # Table 1's LayerCAM
    assert text.endswith("A paragraph.\n")
    folder = tmp_path / "results" / "paper_table01_glas_layer_cam_short_seed0"
    copied = (folder / "metrics.json").read_text()
    assert str(tmp_path) not in copied
    assert "curve" not in copied
    assert (folder / "classifier" / "history.jsonl").read_text() == '{"epoch": 0}\n'
    collect(*sorted((tmp_path / "results").glob("*/")), "--output", "results")  # in its place
    again = (tmp_path / "results" / "README.md").read_text()
    assert again == text.removesuffix("A paragraph.\n").rstrip("\n") + "\n"
    collect(folder, "--output", "again")
    assert "| 70.0 | \N{EN DASH} |" in (tmp_path / "again" / "README.md").read_text()


def test_a_setting_of_an_ablation_stands_beside_no_number_of_table_1(tmp_path, collect):
    for row, paper in (("layer_cam+pixelcam", "83.6"), ("layer_cam+pixelcam,n=5", "")):
        name = f"paper/table16/glas/{row}/short"
        run = write_run(tmp_path / row, seed=0, pxap=70.0, name=name)
        config, metrics = (
            json.loads((run / f"{file}.json").read_text()) for file in ("config", "metrics")
        )
        config["method"] = {"name": "pixelcam"}
        config["baseline"] = {"method": {"name": "classifier"}, "cam": "layer_cam", "workdir": "a"}
        maps = metrics["phases"]["classifier"]["maps"]
        phases = {"baseline": {"maps": maps}, "pixelcam": {"maps": {"pixelcam": maps["layer_cam"]}}}
        (run / "config.json").write_text(json.dumps(config))
        (run / "metrics.json").write_text(json.dumps({**metrics, "phases": phases}))
        collect(run, "--output", tmp_path / "results")
        lines = (tmp_path / "results" / "README.md").read_text().splitlines()
        (found,) = [line for line in lines if name in line]  # the baseline is another run's
        assert found.endswith(f"| 70.0 | 0.0 | 70.0 | 70.0 | 90.0 | {paper} |")


def test_runs_judged_by_dice(tmp_path, collect):
    """At B-CL, but for the two columns of B-LOC; rates of error, shares by class."""
    runs = [write_run(tmp_path / f"run{i}", seed=i, pxap=0.0) for i in (0, 1)]
    for i, run in enumerate(runs):
        config, metrics = (
            json.loads((run / f"{n}.json").read_text()) for n in ("config", "metrics")
        )
        config |= {"metric": "dice", "published": "eem", "method": {"name": "maxmin"}}
        b_cl = {"accuracy": 97.5, "f1_foreground": 70.0 + 2 * i, "f1_background": 60.0}
        b_cl["foreground_share"] = {"0": 12.5, "1": 40.0 + 2 * i}
        b_loc = {**b_cl, "f1_foreground": 65.0, "f1_background": 50.0}
        maps = {"b_cl": {"test": b_cl}, "b_loc": {"test": b_loc}, "last": {"test": b_loc}}
        metrics["phases"] = {"maxmin": {"maps": {"maxmin": maps}}}
        (run / "config.json").write_text(json.dumps(config))
        (run / "metrics.json").write_text(json.dumps(metrics))
    collect(*runs, "--output", tmp_path / "results")
    rows = (tmp_path / "results" / "README.md").read_text().splitlines()
    (row,) = [[cell.strip() for cell in r.split("|")] for r in rows if "layer_cam" in r]
    scores, shares = ["71.0 ± 1.4", "60.0 ± 0.0", "2.5 ± 0.0"], "12.5 ± 0.0 / 41.0 ± 1.4"
    located = ["65.0 ± 0.0", "50.0 ± 0.0"]
    assert row[2:-1] == ["maxmin: maxmin", "2", *scores, shares, *located, "72.1 / 69.1 / 0.0"]


def test_phases_and_maps_judged_by_dice_are_no_seeds(tmp_path, collect):
    run = write_run(tmp_path / "run", seed=0, pxap=0.0)
    config, metrics = (json.loads((run / f"{n}.json").read_text()) for n in ("config", "metrics"))
    config |= {"metric": "dice", "published": "", "method": {"name": "pixelcam"}}
    config["baseline"] = {"method": {"name": "classifier"}, "cam": "layer_cam", "workdir": ""}
    phases = {}
    for phase, score in (("baseline", 20.0), ("pixelcam", 80.0)):
        test = {"accuracy": 97.5, "f1_foreground": score, "f1_background": score}
        test["foreground_share"] = {"0": 12.5, "1": 40.0}
        phases[phase] = {"maps": {"layer_cam": {"b_cl": {"test": test}}}}
    (run / "config.json").write_text(json.dumps(config))
    (run / "metrics.json").write_text(json.dumps({**metrics, "phases": phases}))
    collect(run, "--output", tmp_path / "results")
    text = (tmp_path / "results" / "README.md").read_text()
    assert "baseline: layer_cam | 1 | 20.0 | 20.0 | 2.5 |" in text
    assert "pixelcam: layer_cam | 1 | 80.0 | 80.0 | 2.5 |" in text


def test_floors_are_of_an_encoder_and_gains_of_a_map(tmp_path, collect):
    runs = [write_run(tmp_path / f"run{i}", seed=i, pxap=70.0) for i in (0, 1)]
    for run, encoder, floor in zip(runs, ("resnet50", "vgg16"), (55.0, 45.0), strict=True):
        config, metrics = (
            json.loads((run / f"{n}.json").read_text()) for n in ("config", "metrics")
        )
        config |= {"backbone": {"name": encoder}, "name": encoder}
        config["baseline"] = {"method": {"name": "classifier"}, "cam": "layer_cam", "workdir": ""}
        config["baseline"]["cam_workdir"] = ""
        metrics |= {"name": encoder, "floors": {"constant_map": 51.5, "mean_feature_map": floor}}
        scores = {"baseline": (60.0, 65.0), "classifier": (61.0, 67.0)}
        for phase, values in scores.items():
            maps = zip(("layer_cam", "grad_cam_pp"), values, strict=True)
            metrics["phases"][phase] = {
                "maps": {name: {"b_loc": {"test": {"pxap": value}}} for name, value in maps}
            }
        (run / "config.json").write_text(json.dumps(config))
        (run / "metrics.json").write_text(json.dumps(metrics))
    collect(*runs, "--output", tmp_path / "results")
    text = (tmp_path / "results" / "README.md").read_text()
    assert "- mean feature map of resnet50: 55.0\n- mean feature map of vgg16: 45.0" in text
    assert "classifier: layer_cam | 1 | 61.0 | 1.0 |" in text
    assert "classifier: grad_cam_pp | 1 | 67.0 | 2.0 |" in text  # not 7


def test_a_run_without_pixel_labels(tmp_path, collect):
    run = write_run(tmp_path / "run", seed=0, pxap=0.0)
    metrics = json.loads((run / "metrics.json").read_text())
    found = {key: {"test": {"accuracy": 91.5}} for key in ("b_cl", "last")}
    metrics |= {"floors": {}, "phases": {"classifier": {"maps": {"layer_cam": found}}}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    collect(run, "--output", tmp_path / "results")
    (row,) = [
        r for r in (tmp_path / "results" / "README.md").read_text().splitlines() if "cam |" in r
    ]
    assert [cell.strip() for cell in row.split("|")][3:-2] == ["1", *4 * ["\N{EN DASH}"], "91.5"]


def test_what_are_no_seeds_of_one_table_is_refused(tmp_path, collect):
    runs = [write_run(tmp_path / name, seed=0, pxap=70.0) for name in ("a", "b")]
    with pytest.raises(ValueError, match=r"one name and seed: .*layer_cam/short, seed 0.*one of"):
        collect(*runs, "--output", tmp_path / "results")
    metrics = json.loads((runs[1] / "metrics.json").read_text())
    config = json.loads((runs[1] / "config.json").read_text())
    (runs[1] / "config.json").write_text(json.dumps({**config, "epochs": 5, "seed": 1}))
    (runs[1] / "metrics.json").write_text(json.dumps({**metrics, "seed": 1}))
    with pytest.raises(ValueError, match=r"b and .*a are of one name and differ in \['epochs'\]"):
        collect(*runs, "--output", tmp_path / "results")
    metrics["data"] = {"name": "camelyon16"}
    (runs[1] / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match=r"runs on .*camelyon16.* cannot share a table"):
        collect(*runs, "--output", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_an_unfinished_run_is_refused(tmp_path, collect):
    with pytest.raises(FileNotFoundError, match=r"lacks \['config.json'.*expected a finished run"):
        collect(tmp_path, "--output", tmp_path / "results")
