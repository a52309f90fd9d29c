"""Weakly supervised object localization in histology: image labels in, labels and maps out."""
