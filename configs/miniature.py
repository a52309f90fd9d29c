"""A table of runs of one's own: PixelCAM and its baseline on drawn tissue, two seeds of each.

python -m wsol_jax.main --mode=report --config=configs/miniature.py

Four minutes on two cores, then runs/miniature/table.md: a PxAP of 59 and 73. `miniature.py:short`,
two epochs a phase, shows how a table is made, and nothing else. For other runs, other cells.
"""

from configs import quickstart, tables
from wsol_jax import choices, experiment


def get_config(variant=""):
    choices.require("variant", variant, ("", tables.SHORT))
    pixelcam = quickstart.get_config()
    if variant:
        pixelcam.resize, pixelcam.image_size = 72, 64
        pixelcam.epochs = pixelcam.baseline.epochs = 2
        pixelcam.notes = ("schedule: 2 epochs a phase at 64 pixels",)
    layer_cam = experiment.first_phase(pixelcam)
    cells = [tables.cell("layer_cam", layer_cam), tables.cell("layer_cam + pixelcam", pixelcam)]
    config = tables.whole("miniature", "", cells, short=bool(variant))
    config.seeds = (0, 1)
    return config
