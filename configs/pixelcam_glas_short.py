"""PixelCAM over LayerCAM on GlaS with a schedule for a CPU: 14 epochs a phase at batch 8.

python -m wsol_jax.main --config=configs/pixelcam_glas_short.py

Small batches and a joint phase at five times the baseline's learning rate are what short training
needs on 67 images; see results/README.md for what it reaches.
"""

from configs import common, pixelcam_glas


def get_config():
    config = pixelcam_glas.get_config()
    config.name = "pixelcam_glas_short"
    return common.short(config)
