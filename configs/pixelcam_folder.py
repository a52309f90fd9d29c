"""PixelCAM on your own images: a folder with `labels.csv`, see `wsol_jax/data/folder.py`.

python -m wsol_jax.main --config=configs/pixelcam_folder.py --config.data.folder=FOLDER
python -m wsol_jax.main --config=configs/pixelcam_folder.py:vgg16/grad_cam_pp ...

It learns from the maps of layer_cam, unless told otherwise: cam, deep_mil, grad_cam, grad_cam_pp,
lse, max, wildcat or sat. Before a slash there may be another encoder than a ResNet-50: resnet18,
vgg16 or inception_v3. SAT has its own, a DeiT-Tiny.

No image needs pixel labels: the CAMs are those of the checkpoint that classifies best, and of the
second phase the last one stands. If some validation images have masks,
`--config.baseline.cam_checkpoint=b_loc` takes the one that localizes best. Where images of class 0
hold no object, as normal tissue beside tumors, say so by `--config.method.negatives=background`.
"""

from ml_collections import ConfigDict

from configs import common
from wsol_jax import choices


def get_config(variant="layer_cam"):
    encoder, _, cam = variant.rpartition("/")
    choices.require("map", cam, (*common.READ_OUT, "sat"))
    known = [common.DEIT] if cam == "sat" else [n for n in common.ENCODERS if n != common.DEIT]
    encoder = encoder or known[0]
    choices.require(f"encoder of {cam}", encoder, known)
    config = common.base(common.named("pixelcam_folder", variant.replace("/", "_")), encoder)
    config.data = ConfigDict({"name": "folder", "source": "memory", "folder": "data/images"})
    config.head = common.head(common.HEADS[cam])
    config.method = common.pixelcam(negatives="foreground")
    config.optimizer = common.released_optimizer(encoder, decay_epochs=(15, 25))
    config.epochs = 30
    if cam == "sat":
        config.method.dropout, config.optimizer.learning_rate = 0.0, 2e-3
    common.with_baseline(config, cam)
    config.baseline.cam_checkpoint = "b_cl"
    return config
