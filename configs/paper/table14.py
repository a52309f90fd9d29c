"""PixelCAM's Table 14: the checkpoint of the baseline whose CAMs give the seeds.

python -m wsol_jax.main --mode=report --config=configs/paper/table14.py
python -m wsol_jax.main --config=configs/paper/table14.py:glas/layer_cam+pixelcam,b_cl
"""

from configs import tables

CHANGES = {name: {"baseline.cam_checkpoint": name} for name in ("b_loc", "b_cl")}


def get_config(variant=""):
    return tables.of_rows("paper/table14", "pixelcam.TABLE_14", variant, changes=CHANGES)
