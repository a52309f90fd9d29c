"""PixelCAM's Table 15: seeds by threshold (TH) or by probability (PB).

python -m wsol_jax.main --mode=report --config=configs/paper/table15.py
python -m wsol_jax.main --config=configs/paper/table15.py:glas/grad_cam_pp+pixelcam,threshold

PB is as trained by the authors: the background from the lowest activations, as in Table 1. Their
commands take a fifth of the pixels for the lowest with PB and two fifths with TH.
"""

from configs import tables

CHANGES = {
    "threshold": {"method.sampler": "threshold", "method.fraction": 0.4},
    "probability": {},
}


def get_config(variant=""):
    return tables.of_rows("paper/table15", "pixelcam.TABLE_15", variant, changes=CHANGES)
