"""Every config builds, takes one finite step, and has the published number of parameters."""

import importlib.util
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SHALLOW, initialize, shapes

from configs import maxmin
from wsol_jax import (
    choices,
    experiment,
    heads,
    identity,
    method,
    optimizer,
    published,
    run_files,
    train,
)
from wsol_jax.experiment import sections
from wsol_jax.papers import addresses

ROOT = pathlib.Path(__file__).parents[1]
BLOCKS = ("common", "maxmin", "tables")  # what configs are made of
FILES = sorted(p for p in (ROOT / "configs").rglob("*.py") if p.stem not in BLOCKS)
PARAMETERS = {
    "layercam_glas": 23_514_179,
    **dict.fromkeys(("pixelcam_glas", "pixelcam_glas_short", "pixelcam_folder"), 23_518_277),
    **dict.fromkeys(("maxmin_eem_glas", "maxmin_sem_glas"), 11_335_252),
    **dict.fromkeys(("maxmin_eem_camelyon16", "maxmin_sem_camelyon16"), 11_333_200),
    "maxmin_camelyon16_released": 11_335_765,
    "quickstart": 310_101,  # our own
}
NARROW = {  # the tables' encoders, small enough to train a step of each row
    "resnet18": {"width": 8, "blocks": SHALLOW},
    "resnet50": {"width": 8, "blocks": SHALLOW},
    "double_conv": {"widths": (4, 8, 8)},
    "vgg16": {"width": 8},
    "inception_v3": {"width": 8},
    "deit_tiny_patch16_224": {"width": 24, "depth": 4},
}
GRADIENT = [
    f"{cam}{second}"
    for cam in ("deep_mil", "grad_cam_pp", "layer_cam")
    for second in ("", "+negev", "+pixelcam")
]
ROWS = {
    "table01": [*GRADIENT, "sat", "sat+pixelcam", "unet"],
    "table07": GRADIENT,
    "table08": GRADIENT,
}
MAXMIN = {
    "maxmin_table1": maxmin.ROWS,
    "maxmin_table2": maxmin.ROWS,
    "maxmin_table3": ["eem", "grad_cam"],
    "maxmin_table4": [
        *("wildcat", "foreground", "foreground+background,eem", "foreground+background,sem"),
        *(f"foreground+background,{name},sizeconstraints" for name in ("eem", "sem")),
    ],
    "maxmin_sweep": ["eem/lambda=1e-1", "sem/sigma=0.5", "eem/omega=10"],
}
STEPS = {  # rows that between them train every model of the table
    "table01": [
        *("glas/deep_mil+pixelcam", "camelyon16/grad_cam_pp+negev"),
        *("camelyon16/sat+pixelcam", "glas/unet"),
    ],
    "table07": ["glas/deep_mil+pixelcam", "glas/layer_cam+negev"],
    # InceptionV3 takes long to compile; its methods have golden cases.
    "table08": ["glas/deep_mil"],
}
# Trained by another set's or schedule's config; rows of tables have a test of their own.
SAME_STEP = ("maxmin_sem_glas", "maxmin_eem_camelyon16", "pixelcam_folder", "pixelcam_glas_short")
ELSEWHERE = {"table02": "table01", "table09": "table07", "table10": "table08", "table18": "table01"}
BATCH = 2


def load(path):
    """A config file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = [path for path in FILES if "cells" in load(path).get_config()]
COSTS = [path for path in TABLES if "rounds" in load(path).get_config()]  # of untrained methods
WHOLE = [path for path in TABLES if path not in COSTS and load(path).get_config().table]  # papers'
CONFIGS = [path for path in FILES if path not in TABLES]


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request):
    return load(request.param).get_config()


@pytest.mark.parametrize("variant", ["layer_cam", "grad_cam_pp", "control"])
def test_variants_of_the_short_schedule_share_a_baseline(variant):
    module = load(ROOT / "configs" / "pixelcam_glas_short.py")
    usual, other = module.get_config(), module.get_config(variant)
    assert set(other.baseline.method.readouts) == set(usual.baseline.method.readouts)
    assert (other.name == usual.name) == (variant == "layer_cam")
    for section in ("optimizer", "epochs", "batch_size"):
        assert other[section] == usual[section]
        assert other.baseline[section] == usual.baseline[section]


def test_is_named_after_its_file_and_survives_json(config):
    name = re.sub(r"^(paper/\w+)/.*", r"\1", config.name)  # a row of a table adds its own
    assert (ROOT / "configs" / f"{name}.py").is_file()
    assert json.loads(config.to_json())["name"] == config.name


def test_every_setting_of_a_method_a_backbone_and_a_head_can_be_set(config):
    for section in sections(config).values():
        assert set(section.method) == {"name", *method.defaults(section.method.name)}
    assert set(config.backbone) == {"name", *experiment.settings(config.backbone.name)}
    if config.head:
        assert set(config.head) == {"name", *choices.settings(heads.HEADS[config.head.name])}


def test_parameter_count(config):
    built = experiment.build(config, config.method)
    count = sum(x.size for x in jax.tree.leaves(shapes(built, 64)["params"]))
    assert count == PARAMETERS[config.name]


def table_row(table, variant):
    """A row of a table in `configs/paper`."""
    return load(ROOT / "configs" / "paper" / f"{table}.py").get_config(variant)


@pytest.mark.parametrize("variant", ROWS["table01"])
def test_parameters_of_table_11(variant):
    config = table_row("table01", f"glas/{variant}")
    built = experiment.build(config, config.method)
    count = sum(x.size for x in jax.tree.leaves(shapes(built, 224)["params"]))
    (_, published_count) = published.pixelcam.TABLE_11.rows[variant.replace("+", " + ")]
    # Of SAT the published counts have the nine fixed values of the smoothing kernel; with PixelCAM
    # the table says 384 more, where 2 x 192 + 2 are.
    kernel = {"sat": 9, "sat+pixelcam": 7}.get(variant, 0)
    assert count + kernel == published_count


@pytest.mark.parametrize(("table", "variant"), [(t, v) for t, rows in STEPS.items() for v in rows])
def test_rows_of_the_tables_take_one_finite_step(table, variant):
    """Both phases of a row, and so the row of the baseline alone."""
    config = table_row(table, variant)
    config.backbone.update(NARROW[config.backbone.name])
    for section in (config.baseline, config):
        if section is not None:
            take_one_finite_step(config, section)


@pytest.mark.parametrize(("table", "variant"), [(t, v) for t, rows in ROWS.items() for v in rows])
def test_rows_build_and_normal_patches_of_camelyon16_give_no_foreground(table, variant):
    for data, negatives in (("camelyon16", "background"), ("glas", "foreground")):
        config = table_row(table, f"{data}/{variant}")
        assert config.data.name == data
        experiment.build(config, config.method)
        if config.baseline:
            assert config.method.negatives == negatives


@pytest.mark.parametrize(("table", "variant"), [(t, v) for t, rows in MAXMIN.items() for v in rows])
def test_rows_of_the_max_min_tables_build(table, variant):
    config = table_row(table, variant)
    built = experiment.build(config, config.method)
    assert config.metric == "dice"
    data = "camelyon16" if table == "maxmin_table2" else "glas"
    assert config.data.name == data
    row = {"data": data, "backbone": "resnet18", "method": config.published}
    if table == "maxmin_sweep":  # the published rows are of the usual settings
        assert published.lookup(**row) is None
    else:
        assert published.lookup(**row)["f1_foreground"] > 0
    if table == "maxmin_table1":
        count = sum(x.size for x in jax.tree.leaves(shapes(built, 64)["params"]))
        assert count == published.maxmin.TABLE_3.rows[variant][0]


@pytest.mark.parametrize("variant", ["pn", "erase", "unet"])  # others have tests of their own
def test_rows_of_the_max_min_tables_take_one_finite_step(variant):
    config = table_row("maxmin_table1", variant)
    config.backbone.update(NARROW[config.backbone.name])
    take_one_finite_step(config, config)


def test_short_schedules_keep_their_decays_in_proportion():
    config = table_row("maxmin_table1", "wildcat/short")
    assert (config.epochs, config.optimizer.decay_epochs) == (20, (10,))
    assert "853" in config.notes[0]
    whole, short = (table_row("maxmin_table1", f"eem{end}").method for end in ("", "/short"))
    assert short.sigma_step * 20 == pytest.approx(whole.sigma_step * 80)
    assert short.t_growth**20 == pytest.approx(whole.t_growth**80)


@pytest.mark.parametrize(
    ("table", "variant", "message"),
    [
        ("maxmin_table3", "wildcam", r"unknown row 'wildcam'; have \['pn'.*'eem'"),
        ("maxmin_table4", "foreground+kl", r"unknown row 'foreground\+kl'; have \['wildcat'"),
        ("maxmin_table1", "all_ones", "'all_ones' has no run: it is a floor in the report of"),
        ("maxmin_sweep", "eem/kappa=3", r"unknown setting 'eem/kappa=3'; expected .*'lambda'"),
        ("maxmin_sweep", "eem/lambda=few", r"setting 'eem/lambda=few'; .* a number as VALUE"),
        ("maxmin_sweep", "eem/sigma=0.3/shrot", r"setting 'eem/sigma=0.3/shrot'; .* and /short"),
    ],
)
def test_unknown_rows_of_the_max_min_tables_say_what_there_is(table, variant, message):
    with pytest.raises(ValueError, match=message):
        table_row(table, variant)


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
@pytest.mark.parametrize("variant", ["", "short"])
def test_whole_tables_have_a_run_for_every_row(path, variant):
    config = load(path).get_config(variant)
    own = ROOT / "configs" / config.name
    assert (own.parent if variant else own).with_suffix(".py") == path  # its folder, too
    known = published.table(config.table)
    rows = set(known.rows) - {"all_ones"}
    assert {cell.row for cell in config.cells} == rows
    for cell in config.cells:
        assert bool(cell.run.notes) == bool(variant)
        owner = ELSEWHERE.get(path.stem, path.stem)
        name = cell.run.name.removeprefix(f"paper/{owner}/")
        assert table_row(owner, name).to_json() == cell.run.to_json()
        readouts = cell.run.method.get("readouts", [cell.run.method.name])
        assert cell.map == readouts[0]
        assert any(column.startswith(f"{cell.data}/") for column in known.columns)
        tested_on = cell.target.name if cell.target else cell.run.data.name
        assert cell.data.rpartition("->")[2] == tested_on


@pytest.mark.parametrize("variant", ["", "short"])
def test_a_table_of_ones_own_has_the_runs_of_its_rows(variant):
    config = load(ROOT / "configs" / "miniature.py").get_config(variant)
    assert (config.table, config.seeds) == ("", (0, 1))
    first, second = (cell.run for cell in config.cells)
    assert [cell.map for cell in config.cells] == ["layer_cam", "pixelcam"]
    assert first.to_json() == experiment.first_phase(second).to_json()
    assert bool(second.notes) == (second.epochs == 2) == bool(variant)
    usual = load(ROOT / "configs" / "quickstart.py").get_config()
    assert (second.to_json() == usual.to_json()) == (not variant)


def test_unknown_variants_of_a_table_of_ones_own():
    with pytest.raises(ValueError, match=r"unknown variant 'long'; have \['', 'short'\]"):
        load(ROOT / "configs" / "miniature.py").get_config("long")


@pytest.mark.parametrize("path", COSTS, ids=lambda path: path.stem)
def test_tables_of_costs_time_the_one_map_of_every_row(path):
    module = load(path)
    config = module.get_config()
    assert (ROOT / "configs" / f"{config.name}.py") == path
    assert [cell.row for cell in config.cells] == list(published.table(config.table).rows)
    for cell in config.cells:
        assert len(cell.run.method.get("readouts", ["one"])) == 1
        assert module.get_config(cell.row.replace(" ", "")).to_json() == cell.run.to_json()


def test_rows_of_the_ablations_differ_as_they_say():
    def changed(table, row):
        return table_row(table, f"glas/{row}")

    assert changed("table16", "grad_cam_pp+pixelcam,n=20").method.foreground == 20
    assert changed("table17", "layer_cam+pixelcam,lambda=0.001").method.pixel_weight == 0.001
    method = changed("table15", "sat+pixelcam,threshold").method
    assert (method.sampler, method.fraction) == ("threshold", 0.4)
    assert changed("table12", "deep_mil+pixelcam,multi-layer").method.pixel_head == "multi_layer"
    assert changed("table14", "sat+pixelcam,b_cl").baseline.cam_checkpoint == "b_cl"
    first, usual = changed("table16", "grad_cam_pp+pixelcam,n=5"), "glas/grad_cam_pp+pixelcam"
    assert _own_address(first) == _own_address(table_row("table01", usual))


def _own_address(config):
    resolved, versions = json.loads(config.to_json()), identity.versions(config)
    return addresses.of_phases(resolved, versions, "data")[config.method.name]


@pytest.mark.parametrize("variant", ["glas/wildcam", "moon/sat", "glas/unet+pixelcam", "layer_cam"])
def test_unknown_rows_say_what_there_is(variant):
    with pytest.raises(
        ValueError, match=f"unknown row '{re.escape(variant)}'; have .'glas/deep_mil'"
    ):
        table_row("table01", variant)


def _phases_to_step():
    """Every phase of every config that trains alone, but for those that another one trains."""
    for path in CONFIGS:
        config = load(path).get_config()
        if not config.name.startswith("paper/") and config.name not in SAME_STEP:
            yield from (pytest.param(path, t, id=f"{path.stem}-{t}") for t in sections(config))


@pytest.mark.parametrize(("path", "title"), list(_phases_to_step()))
def test_takes_one_finite_step(path, title):
    config = load(path).get_config()
    if config.name != "quickstart":
        config.backbone.update(NARROW[config.backbone.name])
    take_one_finite_step(config, sections(config)[title])


def take_one_finite_step(config, section):
    """Trains a phase of a config for one step on small images, and maps one."""
    built = experiment.build(config, section.method)
    variables = initialize(built, 64)
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    given = {**experiment.keywords(section.optimizer), "fast": ()}  # of whole encoders
    descent = optimizer.sgd(steps_per_epoch=2, frozen=built.frozen, **given)
    state = train.State(jnp.int32(0), params, stats, descent.init(params))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (BATCH, 72, 72, 3), np.uint8),
        "mask": rng.integers(0, 2, (BATCH, 72, 72), np.uint8),
        "label": np.array([0, 1], np.int32),
        "index": np.arange(BATCH, dtype=np.int32),
        "valid": np.ones(BATCH, bool),
        "cam": rng.random((BATCH, 8, 8)).astype(np.float16),
    }
    options = {"per_epoch": 2, "turn": config.augment.turn}
    step = jax.jit(train.make_step(built, descent, 64, **options))
    state, losses = step(state, batch, jax.random.key(0))
    assert all(np.isfinite(float(value)) for value in losses.values())
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    image = rng.normal(size=(1, 64, 64, 3)).astype(np.float32)
    _, maps = jax.jit(built.localize)(variables, image, jnp.array([1]))
    for values in maps.values():
        assert float(values.min()) >= 0
        assert float(values.max()) <= 1


RECORDED = sorted((ROOT / "results").glob("*/*/config.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_runs_of_earlier_commits_can_still_be_built(path):
    config = experiment.stored_config(path.parent)
    for section in sections(config).values():
        experiment.build(config, section.method)


def test_options_that_have_other_names_now_leave_the_address_as_it_is():
    config = table_row("table01", "glas/layer_cam+negev")
    resolved, versions = json.loads(config.to_json()), identity.versions(config)
    old = json.loads(config.to_json())
    for now, then in {
        "t": "sharpness",
        "t_growth": "sharpness_growth",
        "t_max": "sharpest",
    }.items():
        old["method"][then] = old["method"].pop(now)
    found = [addresses.of_phases(c, versions, "data") for c in (resolved, run_files.filled(old))]
    assert found[0] == found[1]
    assert found[0]["negev"] != addresses.of_phases(old, versions, "data")["negev"]
