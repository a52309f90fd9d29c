"""How reports and tables word what they show: names as the papers spell them, numbers rounded."""

import math
from typing import Any

NAMES = {
    "folder": "Own images",
    "glas": "GlaS",
    "camelyon16": "CAMELYON16",
    "synthetic_glands": "Synthetic glands",
    "cam": "CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "layer_cam": "LayerCAM",
    "deep_mil": "DeepMIL",
    "sat": "SAT",
    "negev": "NEGEV",
    "pixelcam": "PixelCAM",
    "unet": "U-Net",
    "b_loc": "B-LOC",
    "b_cl": "B-CL",
    "eem": "EEM",
    "sem": "SEM",
    "maxmin": "max-min",
    "maxmin_camelyon16": "max-min as released",
    "pn": "PN",
    "erase": "ERASE",
    "wildcat": "WILDCAT",
    "cam_avg": "CAM-Avg",
    "cam_max": "CAM-Max",
    "cam_lse": "CAM-LSE",
    "constant_map": "Constant map",
    "all_foreground": "All foreground",
    "mean_feature_map": "Mean feature map",
    "seconds": "time",
}


def name_of(key: str) -> str:
    """The spelling of the papers, where there is one; else the key without underscores."""
    return NAMES.get(key, key.replace("_", " "))


def number(value: Any, digits: int = 1) -> str:
    """A number as shown: rounded, or a dash where there is none."""
    return f"{value:.{digits}f}" if is_number(value) else "\N{EN DASH}"


def signed(value: Any, digits: int = 1) -> str:
    """A difference as shown: +1.0 or −1.0, with a true minus, or a dash."""
    if not is_number(value):
        return "\N{EN DASH}"
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def difference(value: Any, reference: Any, digits: int = 1) -> float | None:
    """Of the numbers as shown, so that the page adds up."""
    if not (is_number(value) and is_number(reference)):
        return None
    return round(round(value, digits) - round(reference, digits), digits) + 0.0  # no negative zero


def is_number(value: Any) -> bool:
    """Whether there is a number to show."""
    return isinstance(value, int | float) and math.isfinite(value)
