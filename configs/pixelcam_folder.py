"""PixelCAM on your own images: a folder with `labels.csv`, see `wsol_jax/data/folder.py`.

python -m wsol_jax.main --config=configs/pixelcam_folder.py --config.data.folder=FOLDER

No image needs pixel labels: the CAMs are those of the checkpoint that classifies best, and of the
second phase the last one stands. If some validation images have masks,
`--config.baseline.cam_checkpoint=b_loc` takes the one that localizes best. Where images of class 0
hold no object, as normal tissue beside tumors, say so by `--config.method.negatives=background`.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(cam="layer_cam"):
    config = common.base(common.named("pixelcam_folder", cam))
    config.data = ConfigDict({"name": "folder", "source": "memory", "folder": "data/images"})
    config.method = common.pixelcam(negatives="foreground")
    config.optimizer = common.released_optimizer(decay_epochs=(15, 25))
    config.epochs = 30
    common.with_baseline(config, cam)
    config.baseline.cam_checkpoint = "b_cl"
    return config
