"""PixelCAM's Table 11: parameters, and milliseconds from an image to its map, on this machine.

python -m wsol_jax.main --mode=report --config=configs/paper/table11.py

The rows are those of Table 1, by the same names: table11.py:layer_cam+pixelcam is one row's run.
"""

from configs import common, tables

NAME = "paper/table11"
NOTE = (
    "SAT's counts include the 9 fixed values of its smoothing kernel, as the published ones do; "
    "with PixelCAM the published one is 2 too low. The published times are of another device."
)


def get_config(variant=""):
    facts = {"seen": (224, 224), "mapped": (224, 224), "note": NOTE}
    return tables.costs(NAME, "pixelcam.TABLE_11", variant, _run, **facts)


def _run(row):
    run = common.row(NAME, "resnet50", f"glas/{row}")
    if "readouts" in run.method:  # its own map alone: the others take their time, too
        run.method.readouts = run.method.readouts[:1]
    return run
