"""Max-min uncertainty, surrogate entropy maximisation, on CAMELYON16 (max-min paper, Table 2).

python -m wsol_jax.main --config=configs/maxmin_sem_camelyon16.py  F1+ 68.3, F1- 88.6, error 7.0

20 epochs at batch 8, the paper's objective; configs/maxmin_camelyon16_released.py is what the
released code has in its place, and what the numbers most likely come from: here the map of a normal
patch is stretched to [0, 1] like any other, so that part of it is always called tumour. The
deep-stem ResNet-18 is expected, converted by scripts/convert_weights.py, at
weights/resnet18_deep_stem.safetensors.
"""

from configs import maxmin


def get_config():
    return maxmin.row("maxmin_sem_camelyon16", "camelyon16", "sem")
