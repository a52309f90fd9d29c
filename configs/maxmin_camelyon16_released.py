"""Max-min uncertainty on CAMELYON16 as in the released code, which is EEM and SEM alike.

python -m wsol_jax.main --config=configs/maxmin_camelyon16_released.py

20 epochs at batch 4. 10 CE of the image, BCE of a mask of normal patches, a barrier on the size of
that of metastatic ones: no entropy, no sigma, no masked image. No number is published as its
own: the paper describes another objective, that of configs/maxmin_eem_camelyon16.py, but its
numbers on CAMELYON16 most likely come from this one. The deep-stem ResNet-18 is expected, converted
by scripts/convert_weights.py, at weights/resnet18_deep_stem.safetensors.
"""

from configs import maxmin


def get_config():
    return maxmin.released_camelyon16("maxmin_camelyon16_released")
