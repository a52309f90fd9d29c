"""The report of fabricated runs: whole in one file, true to the numbers, clear about what lacks."""

import base64
import html.parser
import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image
from small_run import PHASES, RATES, fabricate

from wsol_jax import figures, map_kinds, published, report, run_files

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
VOID = {"meta", "img", "source", "br"}
ALONE = {"classifier": ("classifier", "layer_cam")}


class Page(html.parser.HTMLParser):
    """What a page refers to and says; fails where its tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.rows, self.open, self.words = set(), [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td") and self.rows:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data.strip()

    def values(self, *names):
        return [value for _, name, value in self.attributes if name in names]

    def row(self, title, occurrence=0):
        return [row for row in self.rows if row and row[0] == title][occurrence][1:]


def change(path, edit):
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def page_of(folder):
    return Page(report.write(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    metrics = fabricate(folder)
    path = report.write(folder)
    return metrics, path, Page(path.read_text(encoding="utf-8"))


def test_page_needs_nothing_else(finished):
    _, path, page = finished
    text = path.read_text(encoding="utf-8")
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert not re.search(r"https?:|url\(|@import", text)
    assert page.values("src", "srcset")
    assert all(value.startswith("data:image/") for value in page.values("src", "srcset", "href"))


def test_pictures_decode_and_are_described(finished):
    _, _, page = finished
    for uri in page.values("src", "srcset"):
        kind, _, encoded = uri.partition(";base64,")
        content = base64.b64decode(encoded, validate=True)
        if kind == "data:image/svg+xml":
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            Image.open(io.BytesIO(content)).load()
    described = page.values("alt")
    assert len(described) == len(page.values("src"))
    assert all(described)


def test_title_and_headline(finished):
    _, _, page = finished
    assert "pixelcam_glas · GlaS, fold 0, seed 3" in page.text
    assert "PixelCAM raises the PxAP of LayerCAM from 74.6 to 83.2 (+8.6)" in page.text
    assert re.search(r"Published: 75\.1 to 83\.6\s+\(\+8\.5\)", page.text)


@pytest.mark.parametrize(("place", "phase"), list(enumerate(PHASES)))
def test_every_checkpoint_has_its_numbers(finished, place, phase):
    metrics, _, page = finished
    maps = metrics["phases"][phase]["maps"][PHASES[phase][1]]
    for key, title in {"b_loc": "B-LOC", "b_cl": "B-CL", "last": "last"}.items():
        test = maps[key]["test"]
        validation = [maps[key]["valpx"]["pxap"], maps[key]["valcl"]["accuracy"]]
        scores = [f"{value:.1f}" for value in (test["pxap"], test["accuracy"], *validation)]
        assert page.row(title, place) == [str(maps[key]["epoch"]), *scores]
        for table, threshold in enumerate(("at_validation_threshold", "at_best_test_threshold")):
            shown = [f"{test[threshold][rate]:.1f}" for rate in RATES]
            row = page.row(title, 2 * (table + 1) + place)
            assert row == [f"{test[threshold]['threshold']:.3f}", *shown]


@pytest.mark.parametrize(("place", "pixelcam"), [(0, False), (1, True)])
def test_published_numbers_and_differences_stand_below(finished, place, pixelcam):
    _, _, page = finished
    query = {"data": "glas", "backbone": "resnet50", "method": "layer_cam"}
    row = published.lookup(**query, pixelcam=pixelcam)
    for occurrence, keys in ((place, ("pxap", "accuracy")), (2 + place, RATES[:4])):
        ours = page.row("B-LOC", occurrence if occurrence < 2 else occurrence + 2)[1:]
        printed = page.row("published", occurrence)[1:]
        gaps = page.row(f"B-LOC {MINUS} published", occurrence)[1:]
        for i, key in enumerate(keys):
            assert printed[i] == f"{row[key]:.1f}"
            gap = float(gaps[i].replace(MINUS, "-"))
            assert gap == pytest.approx(float(ours[i]) - row[key], abs=1e-6)
    assert "PixelCAM, Table 1" in page.text


def test_floors_and_thresholds_are_named(finished):
    _, _, page = finished
    assert page.row("Constant map")[1] == "51.2"
    assert page.row("Mean feature map")[1] == "70.0"
    assert "best mIoU on validation images" in page.text
    assert "best mIoU on the test split itself" in page.text
    assert "with pixel labels (6 images, 301,056 pixels)" in " ".join(page.text.split())


def test_gallery_shows_both_classes_in_turn(finished):
    _, _, page = finished
    names = [value for _, name, value in page.attributes if name == "alt" and "testA" in value]
    columns = ("image", "truth", "LayerCAM", "PixelCAM")
    order = [0, 7, 1, 8, 2, 9, 3, 4, 5, 6]
    assert names == [f"testA_{i}: {column}" for i in order for column in columns]
    assert page.text.count("malignant") == 3


def test_curves_are_drawn_for_white_and_dark_pages(finished):
    _, _, page = finished
    titles = [v for v in page.values("alt") if v.startswith(("Precision", "Selection"))]
    assert len(titles) == 3
    assert len(page.values("srcset")) == 3
    dark = base64.b64decode(page.values("srcset")[0].partition(",")[2]).decode()
    assert figures.DARK.maps[1] in dark
    assert figures.LIGHT.maps[1] not in dark


def test_how_it_was_run(finished):
    _, _, page = finished
    facts = ("3f2a9c1", "jax: 0.10.2", "time 1h02m", "source: resnet50.npz", "pixelcam_glas.py")
    facts += ("earlier 2026-11-01, 1ca4b61, 1m",)
    assert all(fact in page.text for fact in facts)
    assert "origins" not in page.text
    assert "30 epochs <instead> of 1000" in page.text
    assert '"name": "resnet50"' in page.text


def test_writing_twice_gives_the_same_file_and_leaves_nothing_else(tmp_path):
    fabricate(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    first = report.write(tmp_path).read_bytes()
    assert report.write(str(tmp_path)).read_bytes() == first
    assert {path.name for path in tmp_path.iterdir()} - before == {"report.html"}


@pytest.mark.parametrize(
    ("pxap", "sentence"),
    [
        ((80.0, 78.5), f"PixelCAM lowers the PxAP of LayerCAM from 80.0 to 78.5 ({MINUS}1.5)"),
        ((80.0, 80.01), "PixelCAM takes the PxAP of LayerCAM from 80.0 to 80.0 (+0.0)"),
    ],
)
def test_headline_admits_what_was_not_gained(tmp_path, pxap, sentence):
    fabricate(tmp_path, pxap=pxap)
    assert sentence in page_of(tmp_path).text


def test_the_gain_is_over_the_map_that_gave_the_seeds(tmp_path):
    """Whatever other maps the baseline was judged by, and in whatever order they are kept."""
    fabricate(tmp_path, pxap=(70.0, 80.0))

    def judged_by_another(metrics):
        maps = metrics["phases"]["baseline"]["maps"]
        other = json.loads(json.dumps(maps["layer_cam"]).replace("70.0", "60.0"))
        metrics["phases"]["baseline"]["maps"] = {"grad_cam_pp": other, **maps}

    change(tmp_path / "metrics.json", judged_by_another)
    page = page_of(tmp_path)
    assert "PixelCAM raises the PxAP of LayerCAM from 70.0 to 80.0 (+10.0)" in page.text
    assert re.search(r"Published: 75\.1 to 83\.6\s+\(\+8\.5\)", page.text)


def test_read_outs_of_one_classifier_are_no_gain(tmp_path):
    fabricate(tmp_path, pxap=(70.0,), phases=ALONE)

    def judged_by_another(metrics):
        maps = metrics["phases"]["classifier"]["maps"]
        maps["grad_cam_pp"] = json.loads(json.dumps(maps["layer_cam"]).replace("70.0", "68.0"))

    change(tmp_path / "metrics.json", judged_by_another)
    words = " ".join(page_of(tmp_path).text.split())
    assert "LayerCAM reaches a PxAP of 70.0" in words
    assert "Published: 75.1." in words


def test_a_control_is_compared_with_the_map_that_it_began_from(tmp_path):
    phases = {"baseline": ("classifier", "layer_cam"), "classifier": ("classifier", "layer_cam")}
    fabricate(tmp_path, pxap=(70.0, 72.0), phases=phases)

    def judged_by_another(metrics):
        for results in metrics["phases"].values():
            maps = results["maps"]
            maps["grad_cam_pp"] = json.loads(json.dumps(maps["layer_cam"]))

    change(tmp_path / "metrics.json", judged_by_another)
    words = " ".join(page_of(tmp_path).text.split())
    headline = (
        "LayerCAM (classifier) raises the PxAP of LayerCAM (baseline) from 70.0 to 72.0 (+2.0)"
    )
    assert headline in words
    run = run_files.read(tmp_path)
    drawn = {f"map_{phase}_grad_cam_pp": run.gallery[f"map_{phase}_layer_cam"] for phase in phases}
    np.savez(tmp_path / "gallery.npz", **run.gallery, **drawn)
    run = run_files.read(tmp_path)
    (first, *_) = report._gallery(run, map_kinds.of_run(run))
    maps = [f"{name} ({phase})" for phase in phases for name in ("LayerCAM", "Grad-CAM++")]
    assert [title for title in first["panels"] if title in maps] == maps
    assert "Published:" not in words  # no paper has a control


@pytest.mark.parametrize("setting", ["name", "cam_workdir", "cam_checkpoint", "pixel_weight"])
def test_settings_of_ablations_stand_beside_no_number_of_the_main_table(tmp_path, setting):
    fabricate(tmp_path)

    def changed(config):
        if setting == "name":
            config["name"] = "paper/table17/glas/layer_cam+pixelcam,lambda=0.001"
        elif setting == "pixel_weight":
            config["method"]["pixel_weight"] = 0.001
        else:
            config["baseline"][setting] = "b_cl"

    change(tmp_path / "config.json", changed)
    page = page_of(tmp_path)
    assert "Published: " not in page.text
    assert page.row("published")[1] == "75.1"  # of the baseline
    assert "83.6" not in page.text


@pytest.mark.parametrize(
    ("section", "other"),
    [
        ("data", {"fold": 3}),
        ("data", {"name": "camelyon16", "division": "released"}),
        ("head", {"name": "lse"}),
        ("head", {"name": "deep_mil"}),
        (None, {"image_size": 112}),
    ],
)
def test_other_images_and_heads_stand_beside_no_published_number(tmp_path, section, other):
    fabricate(tmp_path)
    usual = {"image_size": 224, "head": {"name": "wgap", "gated": None}}
    change(tmp_path / "config.json", lambda config: config.update(usual))
    assert page_of(tmp_path).row("published")[1] == "75.1"
    change(
        tmp_path / "config.json",
        lambda config: (config[section] if section else config).update(other),
    )
    page = page_of(tmp_path)
    assert "Published: " not in page.text
    assert not [row for row in page.rows if row and row[0] == "published"]


def test_every_kind_of_map_has_a_colour(tmp_path):
    fabricate(tmp_path, phases=ALONE)

    def judged_by_many(metrics):
        maps = metrics["phases"]["classifier"]["maps"]
        for name in ("cam", "deep_mil", "grad_cam", "grad_cam_pp", "grad_cam_pp_published"):
            maps[name] = json.loads(json.dumps(maps["layer_cam"]))

    change(tmp_path / "metrics.json", judged_by_many)
    text = report.write(tmp_path).read_text()
    used = set(re.findall(r"var\(--(map\d+)\)", text))
    assert len(used) == 6
    assert used <= set(re.findall(r"--(map\d+):", text))


def test_run_of_the_classifier_alone(tmp_path):
    fabricate(tmp_path, phases=ALONE)
    page = page_of(tmp_path)
    assert "LayerCAM reaches a PxAP of 74.6" in page.text
    assert "Published: 75.1." in page.text
    assert "testA_0: LayerCAM" in page.values("alt")
    assert "PixelCAM raises" not in page.text


def test_unpublished_data_have_no_published_rows(tmp_path):
    fabricate(tmp_path)
    change(tmp_path / "config.json", lambda c: c["data"].update(name="synthetic_glands"))
    page = page_of(tmp_path)
    assert "Synthetic glands" in page.text
    assert "ublished" not in page.text.replace('"published": ""', "")


def test_numbers_that_are_undefined_are_dashes(tmp_path):
    fabricate(tmp_path)

    def spoil(metrics):
        test = metrics["phases"]["pixelcam"]["maps"]["pixelcam"]["b_loc"]["test"]
        test["at_best_test_threshold"]["tn"] = float("nan")
        del test["at_best_test_threshold"]["miou"]

    change(tmp_path / "metrics.json", spoil)
    row = page_of(tmp_path).row("B-LOC", 5)
    assert (row[3], row[-1]) == (DASH, DASH)


def test_unfinished_run_says_what_lacks_and_how_to_go_on(tmp_path):
    fabricate(tmp_path)
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "gallery.npz").unlink()
    (tmp_path / "pixelcam" / "history.jsonl").unlink()
    page = page_of(tmp_path)
    assert "No test results yet" in page.text
    assert "metrics.json is missing" in page.text
    assert "gallery.npz is missing" in page.text
    assert "goes on where the run stopped: python -m wsol_jax.main" in page.text
    assert [v for v in page.values("alt") if v.startswith("Selection")] == [
        "Selection of LayerCAM on validation images"
    ]
    assert not page.rows


def test_run_with_one_phase_of_two_tested(tmp_path):
    fabricate(tmp_path)
    change(tmp_path / "metrics.json", lambda metrics: metrics["phases"].pop("pixelcam"))
    page = page_of(tmp_path)
    assert "LayerCAM reaches a PxAP of 74.6" in page.text
    assert "There are no test numbers of pixelcam yet" in page.text


def test_run_that_has_only_its_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"name": "tiny"}))
    assert "No test results yet" in page_of(tmp_path).text


@pytest.mark.parametrize("there", [True, False])
def test_folder_without_a_run_is_explained(tmp_path, there):
    folder = tmp_path if there else tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError) as caught:
        report.write(folder)
    message = str(caught.value)
    parts = (str(folder), "config.json", "metrics.json", "gallery.npz", "python -m wsol_jax.main")
    assert all(part in message for part in parts)
    assert ("does not exist" in message) != there


@pytest.mark.parametrize("name", ["metrics.json", "gallery.npz", "pixelcam/history.jsonl"])
def test_damaged_files_are_named(tmp_path, name):
    fabricate(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2 + 3])
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
        report.write(tmp_path)


def test_run_judged_by_dice(tmp_path, monkeypatch):
    """F1+, F1- and error at B-CL beside the row of the max-min paper that the config names."""
    drawn, plot = [], Axes.plot

    def recorded(axis, *arguments, **options):
        if arguments[2:] == ("o",):
            drawn.append((*arguments[:2], axis))
        return plot(axis, *arguments, **options)

    monkeypatch.setattr(Axes, "plot", recorded)
    phases = {"maxmin": ("maxmin", "maxmin")}
    fabricate(tmp_path, phases=phases)

    def by_dice(metrics):
        metrics["floors"] = {"all_foreground": 66.01}
        for checkpoint in metrics["phases"]["maxmin"]["maps"]["maxmin"].values():
            test = {"accuracy": 97.5, "f1_foreground": 70.04, "f1_background": 65.0}
            test["confusion"] = {"tp": 71.0, "fn": 29.0, "tn": 72.0, "fp": 28.0}
            test["foreground_share"] = {"0": 12.5, "1": 50.0}
            test["regions"] = {"true": [40.0, 60.0], "predicted": [50.0, 55.0]}
            checkpoint |= {"test": test, "valpx": {"dice": 61.0}}
            checkpoint["seen"] = {"regions": {"true": [10.0], "predicted": [20.0]}}
            checkpoint["valcl"] = {"regions": {"true": [30.0], "predicted": [35.0]}}

    change(tmp_path / "metrics.json", by_dice)
    change(tmp_path / "config.json", lambda c: c.update(metric="dice", published="eem"))
    page = page_of(tmp_path)
    assert f"EEM reaches F1+ 70.0, F1{MINUS} 65.0, Class. error 2.5" in page.text
    words = " ".join(page.text.split())
    assert f"Published: F1+ 72.1, F1{MINUS} 69.1, Class. error 0.0." in words
    assert page.row("B-CL")[1:5] == ["70.0", "65.0", "2.5", "61.0"]
    assert page.row("published")[1:4] == ["72.1", "69.1", "0.0"]
    assert page.row(f"B-CL {MINUS} published")[1:4] == [f"{MINUS}2.1", f"{MINUS}4.1", "+2.5"]
    assert page.row("All foreground")[1] == "66.0"
    assert page.row("B-CL", 1) == ["71.0", "29.0", "72.0", "28.0", "12.5", "50.0"]
    kinds = ("training", "validation", "test")
    assert {f"Regions of EEM, {kind} images" for kind in kinds} <= {*page.values("alt")}
    labels = ("true foreground, percent", "predicted, percent")
    found = [(x, y) for x, y, a in drawn if (a.get_xlabel(), a.get_ylabel()) == labels]
    points = found[::2]  # light, then dark
    assert points == [([10.0], [20.0]), ([30.0], [35.0]), ([40.0, 60.0], [50.0, 55.0])]
    assert "PxAP" not in page.text
