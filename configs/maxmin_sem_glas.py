"""Max-min uncertainty, surrogate entropy maximisation, on GlaS (max-min paper, Table 1).

python -m wsol_jax.main --config=configs/maxmin_sem_glas.py  F1+ 71.9, F1- 69.2, error 0.0

80 epochs at batch 4. The paper's deep-stem ResNet-18 is expected, converted by
scripts/convert_weights.py, at weights/resnet18_deep_stem.safetensors; for torchvision's ResNet-18
pass --config.backbone.deep_stem=False --config.weights.source=timm/resnet18.tv_in1k.
"""

from configs import maxmin


def get_config():
    return maxmin.row("maxmin_sem_glas", "glas", "sem")
