"""The tables of max-min uncertainty, as printed; `None` is the paper's dash.

Belharbi et al., "Deep Interpretable Classification and Weakly-Supervised Segmentation of Histology
Images via Max-Min Uncertainty", IEEE Transactions on Medical Imaging 2022.
"""

from wsol_jax.printed.table import Table

TABLES_1_2 = Table(
    "Max-min uncertainty, Tables 1 and 2: test splits, percentages; ResNet-18",
    (
        *("glas/error", "glas/f1_foreground", "glas/f1_background"),
        *("camelyon16/error", "camelyon16/f1_foreground", "camelyon16/f1_background"),
    ),
    {
        "all_ones": (None, 66.01, 0.00, None, 59.44, 0.00),
        "pn": (None, 65.52, 24.08, None, 31.15, 37.36),
        "erase": (7.50, 65.60, 25.01, 8.61, 31.30, 42.48),
        "cam_max": (1.25, 66.00, 26.32, 10.06, 48.28, 81.92),
        "cam_lse": (1.25, 66.05, 27.93, 1.51, 64.31, 63.78),
        "grad_cam": (0.00, 66.30, 21.30, 2.40, 62.78, 79.05),
        "cam_avg": (0.00, 66.90, 17.88, 2.40, 62.75, 79.05),
        "wildcat": (1.25, 67.21, 22.96, 1.48, 62.73, 72.59),
        "deep_mil": (2.50, 68.52, 41.34, 1.93, 59.01, 36.94),
        "eem": (0.00, 72.11, 69.07, 6.26, 67.98, 88.80),
        "sem": (0.00, 71.94, 69.23, 6.95, 68.26, 88.55),
        "unet": (None, 90.19, 88.52, None, 71.11, 89.68),
    },
)

TABLE_3 = Table(
    "Max-min uncertainty, Table 3: one 522x775 image on a GTX 1080 Ti",
    ("parameters", "seconds"),
    {
        "pn": (11_330_122, 0.0034),
        "erase": (11_326_016, 0.0027),
        "cam_max": (11_177_538, 0.3111),
        "cam_lse": (11_177_538, 0.3790),
        "grad_cam": (11_177_538, 5.2132),
        "cam_avg": (11_177_538, 0.3295),
        "wildcat": (11_180_616, 0.3596),
        "deep_mil": (11_243_460, 0.4523),
        "eem": (11_335_252, 0.0190),
        "sem": (11_335_252, 0.0190),
        "unet": (14_154_706, 0.0081),
    },
)

TABLE_4 = Table(
    "Max-min uncertainty, Table 4: what each term adds, GlaS test split; ResNet-18",
    ("glas/error", "glas/f1_foreground", "glas/f1_background"),
    {
        "wildcat": (1.25, 67.21, 22.96),
        "foreground": (1.25, 71.54, 49.23),
        "foreground + background, eem": (1.25, 72.54, 61.82),
        "foreground + background, eem, size constraints": (0.00, 72.11, 69.07),
        "foreground + background, sem": (1.25, 72.96, 61.95),
        "foreground + background, sem, size constraints": (0.00, 71.94, 69.23),
    },
)
