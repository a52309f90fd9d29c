"""PixelCAM's Table 18: pseudo-labels by a model of the same data set, or of the other one.

python -m wsol_jax.main --mode=report --config=configs/paper/table18.py

External CAMs are those of the other data set's LayerCAM, alone and as what PixelCAM learns from.
"""

from configs import tables
from wsol_jax import choices


def get_config(variant=""):
    choices.require("variant", variant, ("", tables.SHORT))

    def run(data, method):
        return tables.row_of("paper/table01", "resnet50", f"{data}/{method}", variant)

    cells = []
    for data, other in (("glas", "camelyon16"), ("camelyon16", "glas")):
        external = tables.cell("layer_cam, external", run(other, "layer_cam"), shifted=True)
        external.data = data
        taught = tables.cell("layer_cam + pixelcam, external", run(data, "layer_cam+pixelcam"))
        taught.teacher = tables.cell("layer_cam", run(other, "layer_cam"))
        cells += [
            tables.cell("layer_cam, same", run(data, "layer_cam")),
            external,
            tables.cell("layer_cam + pixelcam, same", run(data, "layer_cam+pixelcam")),
            taught,
        ]
    return tables.whole("paper/table18", "pixelcam.TABLE_18", cells, short=bool(variant))
