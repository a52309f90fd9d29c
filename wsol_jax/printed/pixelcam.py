"""The tables of PixelCAM, as printed; `None` is the paper's dash.

Guichemerre et al., "PixelCAM: Pixel Class Activation Mapping for Histology Image Classification and
ROI Localization", MIDL 2025. Known inconsistencies:
- Table 12 repeats rows of Table 1, but prints Grad-CAM++ on GlaS with PxAP 77.9 (Table 1: 76.8)
  and Grad-CAM++ with PixelCAM on CAMELYON16 with 63.4/88.7 (64.1/85.1).
- Table 11 gives SAT with PixelCAM 384 parameters more than SAT; a linear pixel head on 192
  features has 2 * 192 + 2 = 386.
- Rows of Table 6 miss 100 by up to 0.1 in TP + FN and TN + FP: rounding. Its text discusses SAT,
  which has no row.
- No table says which checkpoint it reports; B-LOC is the likely one. Table 6 is read at the
  threshold that is best on the test split itself.
"""

from wsol_jax.printed.table import Table

_SCORES = ("glas/pxap", "glas/accuracy", "camelyon16/pxap", "camelyon16/accuracy")
_SHIFTED = (
    "camelyon16->glas/pxap",
    "camelyon16->glas/accuracy",
    "glas->camelyon16/pxap",
    "glas->camelyon16/accuracy",
)
_TESTED = ("glas/t", "glas/p", "camelyon16/t", "camelyon16/p")
_RATES = (
    *("glas/tp", "glas/fn", "glas/tn", "glas/fp"),
    *("camelyon16/tp", "camelyon16/fn", "camelyon16/tn", "camelyon16/fp"),
)

TABLE_1 = Table(
    "PixelCAM, Table 1: test split; ResNet-50, SAT on DeiT-Tiny",
    _SCORES,
    {
        "deep_mil": (79.9, 100.0, 71.3, 85.0),
        "deep_mil + negev": (85.9, 100.0, 75.6, 89.9),
        "deep_mil + pixelcam": (85.5, 100.0, 75.7, 88.2),
        "grad_cam_pp": (76.8, 100.0, 49.1, 63.4),
        "grad_cam_pp + negev": (77.1, 100.0, 68.6, 89.4),
        "grad_cam_pp + pixelcam": (86.6, 100.0, 64.1, 85.1),
        "layer_cam": (75.1, 100.0, 33.2, 84.8),
        "layer_cam + negev": (73.8, 100.0, 66.8, 89.1),
        "layer_cam + pixelcam": (83.6, 100.0, 66.2, 89.1),
        "sat": (65.9, 98.8, 32.8, 83.2),
        "sat + pixelcam": (79.1, 100.0, 51.2, 87.2),
        "unet": (95.8, None, 81.6, None),
    },
)

TABLE_2 = Table(
    "PixelCAM, Table 2: t-test of PixelCAM against its baseline; backbones of Table 1",
    _TESTED,
    {
        "deep_mil": (10.8, 1.5e-11, 4.8, 4.1e-5),
        "grad_cam_pp": (29.1, 1.8e-22, 17.9, 7.4e-17),
        "layer_cam": (12.7, 4.0e-13, 26.5, 2.2e-21),
        "sat": (58.3, 8.9e-31, 99.7, 2.8e-37),
    },
)

TABLE_3 = Table(
    "PixelCAM, Table 3: trained on one data set, tested on the other; backbones of Table 1",
    _SHIFTED,
    {
        "deep_mil": (64.5, 81.2, 29.0, 55.2),
        "deep_mil + negev": (62.7, 81.2, 27.8, 52.9),
        "deep_mil + pixelcam": (69.1, 83.8, 30.2, 52.5),
        "grad_cam_pp": (52.9, 53.7, 39.1, 52.4),
        "grad_cam_pp + negev": (64.5, 75.0, 24.2, 56.7),
        "grad_cam_pp + pixelcam": (56.2, 71.2, 36.9, 63.3),
        "layer_cam": (59.5, 77.5, 30.4, 51.4),
        "layer_cam + negev": (63.9, 83.7, 27.9, 52.3),
        "layer_cam + pixelcam": (67.2, 78.8, 34.8, 55.8),
        "sat": (50.7, 67.5, 24.3, 50.2),
        "sat + pixelcam": (55.1, 78.8, 22.5, 50.4),
    },
)

TABLES_4_5 = Table(
    "PixelCAM, Tables 4 and 5: class separability J of the features; backbones of Table 1",
    (
        *("glas/j_benign", "glas/j_malignant", "glas/j_all", "camelyon16/j_metastatic"),
        *("camelyon16->glas/j_benign", "camelyon16->glas/j_malignant", "camelyon16->glas/j_all"),
        "glas->camelyon16/j_metastatic",
    ),
    {
        "deep_mil": (0.13, 0.07, 0.10, 0.11, 0.05, 0.11, 0.08, 0.05),
        "deep_mil + pixelcam": (0.21, 0.09, 0.14, 0.17, 0.06, 0.13, 0.10, 0.05),
        "grad_cam_pp": (0.22, 0.13, 0.17, 0.22, 0.08, 0.19, 0.14, 0.08),
        "grad_cam_pp + pixelcam": (0.25, 0.15, 0.20, 0.16, 0.05, 0.09, 0.07, 0.07),
        "layer_cam": (0.17, 0.04, 0.10, 0.07, 0.02, 0.13, 0.08, 0.04),
        "layer_cam + pixelcam": (0.14, 0.12, 0.13, 0.17, 0.06, 0.11, 0.09, 0.09),
        "sat": (0.21, 0.06, 0.13, 0.17, 0.11, 0.09, 0.10, 0.08),
        "sat + pixelcam": (0.25, 0.10, 0.17, 0.22, 0.12, 0.12, 0.12, 0.09),
    },
)

TABLE_6 = Table(
    "PixelCAM, Table 6: pixel rates at the threshold that is best on the test split; ResNet-50",
    _RATES,
    {
        "deep_mil": (63.4, 36.6, 76.3, 23.6, 66.9, 33.1, 89.6, 10.4),
        "deep_mil + negev": (79.0, 21.0, 75.5, 24.5, 64.0, 36.0, 92.6, 7.4),
        "deep_mil + pixelcam": (76.4, 23.6, 77.4, 22.6, 59.0, 41.0, 93.3, 6.7),
        "grad_cam_pp": (62.0, 38.0, 79.9, 20.1, 42.1, 57.8, 89.4, 10.6),
        "grad_cam_pp + negev": (58.4, 41.6, 76.0, 24.0, 53.5, 46.5, 92.2, 7.8),
        "grad_cam_pp + pixelcam": (76.9, 23.1, 78.8, 21.2, 49.2, 50.8, 91.4, 8.6),
        "layer_cam": (62.3, 37.7, 72.6, 27.4, 29.6, 70.3, 86.8, 13.2),
        "layer_cam + negev": (66.3, 33.7, 70.7, 29.3, 54.4, 45.6, 90.9, 9.1),
        "layer_cam + pixelcam": (77.6, 22.4, 72.5, 27.5, 56.5, 43.5, 89.2, 10.8),
        "unet": (88.9, 11.1, 89.8, 10.2, 68.0, 32.0, 94.5, 5.5),
    },
)

TABLE_7 = Table(
    "PixelCAM, Table 7: test split; VGG16",
    _SCORES,
    {
        "deep_mil": (73.3, 100.0, 60.3, 88.0),
        "deep_mil + negev": (76.7, 100.0, 62.2, 86.6),
        "deep_mil + pixelcam": (78.6, 100.0, 69.9, 85.4),
        "grad_cam_pp": (72.9, 100.0, 27.7, 87.4),
        "grad_cam_pp + negev": (80.4, 100.0, 68.3, 87.3),
        "grad_cam_pp + pixelcam": (76.9, 100.0, 64.9, 87.7),
        "layer_cam": (73.0, 100.0, 24.5, 88.7),
        "layer_cam + negev": (80.7, 100.0, 68.7, 88.1),
        "layer_cam + pixelcam": (76.3, 100.0, 64.2, 87.1),
    },
)

TABLE_8 = Table(
    "PixelCAM, Table 8: test split; InceptionV3",
    _SCORES,
    {
        "deep_mil": (62.6, 87.5, 58.1, 89.0),
        "deep_mil + negev": (66.1, 91.2, 76.8, 89.5),
        "deep_mil + pixelcam": (72.0, 88.8, 75.7, 83.2),
        "grad_cam_pp": (70.0, 53.8, 64.0, 88.4),
        "grad_cam_pp + negev": (81.7, 93.7, 74.1, 86.9),
        "grad_cam_pp + pixelcam": (81.0, 96.3, 75.0, 89.8),
        "layer_cam": (68.3, 92.5, 53.7, 83.8),
        "layer_cam + negev": (77.8, 93.8, 71.6, 83.8),
        "layer_cam + pixelcam": (78.3, 100.0, 65.5, 82.5),
    },
)

TABLE_9 = Table(
    "PixelCAM, Table 9: t-test of PixelCAM against its baseline; VGG16",
    _TESTED,
    {
        "deep_mil": (16.8, 3.4e-16, 9.3, 5.1e-10),
        "grad_cam_pp": (11.2, 7.9e-12, 139.1, 2.1e-41),
        "layer_cam": (6.6, 3.9e-7, 180.1, 1.9e-44),
    },
)

TABLE_10 = Table(
    "PixelCAM, Table 10: t-test of PixelCAM against its baseline; InceptionV3",
    _TESTED,
    {
        "deep_mil": (17.8, 8.2e-17, 18.0, 6.5e-17),
        "grad_cam_pp": (19.3, 1.0e-17, 10.9, 1.5e-11),
        "layer_cam": (13.7, 5.8e-14, 11.0, 1.1e-11),
    },
)

TABLE_11 = Table(
    "PixelCAM, Table 11: one 224x224 image on an RTX A6000, full-size map; backbones of Table 1",
    ("milliseconds", "parameters"),
    {
        "deep_mil": (9.1, 24_036_932),
        "deep_mil + negev": (12.3, 33_050_150),
        "deep_mil + pixelcam": (9.2, 24_041_030),
        "grad_cam_pp": (40.9, 23_514_179),
        "grad_cam_pp + negev": (10.3, 32_527_397),
        "grad_cam_pp + pixelcam": (8.8, 23_518_277),
        "layer_cam": (37.9, 23_514_179),
        "layer_cam + negev": (10.4, 32_527_397),
        "layer_cam + pixelcam": (8.4, 23_518_277),
        "sat": (10.5, 5_528_267),
        "sat + pixelcam": (11.5, 5_528_651),
        "unet": (10.1, 32_521_250),
    },
)

TABLES_12_13 = Table(
    "PixelCAM, Tables 12 and 13: depth of the pixel head; ResNet-50",
    _SCORES + _SHIFTED,
    {
        "deep_mil": (79.9, 100.0, 71.3, 85.0, 64.5, 81.2, 29.0, 55.2),
        "deep_mil + pixelcam, linear": (85.5, 100.0, 75.7, 88.2, 69.1, 83.8, 30.2, 52.5),
        "deep_mil + pixelcam, multi-layer": (86.3, 95.0, 74.4, 88.6, 67.4, 80.0, 25.0, 51.6),
        "grad_cam_pp": (77.9, 100.0, 49.1, 63.4, 52.9, 53.7, 39.1, 52.4),
        "grad_cam_pp + pixelcam, linear": (86.6, 100.0, 63.4, 88.7, 56.2, 71.2, 36.9, 63.3),
        "grad_cam_pp + pixelcam, multi-layer": (86.5, 95.0, 64.0, 85.8, 55.8, 71.2, 33.8, 50.6),
    },
)

TABLE_14 = Table(
    "PixelCAM, Table 14: the checkpoint whose CAMs give the seeds",
    _SCORES,
    {
        "layer_cam": (75.1, 100.0, 33.2, 84.8),
        "layer_cam + pixelcam, b_loc": (83.6, 100.0, 66.2, 89.1),
        "layer_cam + pixelcam, b_cl": (80.6, 98.8, 67.5, 89.4),
        "sat": (65.9, 98.8, 32.8, 83.2),
        "sat + pixelcam, b_loc": (79.1, 100.0, 51.2, 87.2),
        "sat + pixelcam, b_cl": (75.5, 100.0, 35.6, 86.4),
    },
)

TABLE_15 = Table(
    "PixelCAM, Table 15: seeds by threshold (TH) or by probability (PB)",
    _SCORES,
    {
        "grad_cam_pp": (76.8, 100.0, 49.1, 63.4),
        "grad_cam_pp + pixelcam, threshold": (85.4, 100.0, 54.2, 89.9),
        "grad_cam_pp + pixelcam, probability": (86.6, 100.0, 64.1, 85.1),
        "sat": (65.9, 98.8, 32.8, 83.2),
        "sat + pixelcam, threshold": (71.5, 92.5, 50.9, 81.0),
        "sat + pixelcam, probability": (79.1, 100.0, 51.2, 87.2),
    },
)

TABLE_16 = Table(
    "PixelCAM, Table 16: seeds per class, n",
    _SCORES,
    {
        "grad_cam_pp": (76.8, 100.0, 49.1, 63.4),
        "grad_cam_pp + pixelcam, n=1": (86.7, 100.0, 63.5, 90.1),
        "grad_cam_pp + pixelcam, n=5": (86.6, 100.0, 64.1, 85.1),
        "grad_cam_pp + pixelcam, n=10": (86.0, 100.0, 63.2, 88.8),
        "grad_cam_pp + pixelcam, n=20": (86.0, 100.0, 64.7, 88.7),
    },
)

TABLE_17 = Table(
    "PixelCAM, Table 17: weight of the pixel loss, lambda",
    _SCORES,
    {
        "layer_cam + pixelcam, lambda=1": (83.6, 100.0, 66.2, 89.1),
        "layer_cam + pixelcam, lambda=0.5": (83.1, 100.0, 66.6, 89.7),
        "layer_cam + pixelcam, lambda=0.1": (82.2, 100.0, 67.4, 88.3),
        "layer_cam + pixelcam, lambda=0.01": (79.3, 96.3, 66.7, 89.1),
        "layer_cam + pixelcam, lambda=0.001": (76.1, 98.8, 61.6, 89.2),
    },
)

TABLE_18 = Table(
    "PixelCAM, Table 18: pseudo-labels from the same or from the other data set",
    _SCORES,
    {
        "layer_cam, same": (75.1, 100.0, 33.2, 84.8),
        "layer_cam, external": (58.1, 83.8, 22.7, 50.4),
        "layer_cam + pixelcam, same": (83.6, 100.0, 66.2, 89.1),
        "layer_cam + pixelcam, external": (68.1, 92.5, 59.2, 81.7),
    },
)
