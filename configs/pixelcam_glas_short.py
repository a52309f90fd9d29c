"""PixelCAM on GlaS with a schedule for a CPU: 14 epochs a phase at batch 8.

python -m wsol_jax.main --config=configs/pixelcam_glas_short.py
python -m wsol_jax.main --config=configs/pixelcam_glas_short.py:grad_cam_pp
python -m wsol_jax.main --config=configs/pixelcam_glas_short.py:control

Half an hour on four cores; LayerCAM 70.2 and PixelCAM 76.0 over three seeds, with the weights that
results/glas_short names. Small batches are what short training needs on 67 images. `control` is the
same second phase without the pixel classifier: what training on from the same weights gives by
itself.
"""

from configs import common, pixelcam_glas


def get_config(variant="layer_cam"):
    control = variant == "control"
    config = pixelcam_glas.get_config("layer_cam" if control else variant)
    config.name = common.named("pixelcam_glas_short", variant)
    if control:
        config.method = common.classifier("layer_cam", "grad_cam_pp")
    return common.short(config)
