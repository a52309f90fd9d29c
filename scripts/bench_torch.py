"""The PyTorch side of `bench.py`: the same ResNet-50, its training step, and `grad-cam`."""

import importlib
import sys
import types

import numpy as np
import torch
from torch import nn

from wsol_jax.backbones import weights

WIDTHS, BLOCKS, STRIDES = (64, 128, 256, 512), (3, 4, 6, 3), (1, 2, 1, 1)


class Block(nn.Module):
    """A bottleneck with the stride in its 3x3 convolution."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            shortcut = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Classifier(nn.Module):
    """ResNet-50 at stride 8, average pooling and a linear layer whose first row is not used."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for number, (width, count, stride) in enumerate(
            zip(WIDTHS, BLOCKS, STRIDES, strict=True), 1
        ):
            blocks = []
            for index in range(count):
                blocks.append(Block(channels, width, stride if index == 0 else 1))
                channels = 4 * width
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(2048, 3)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(x.mean((2, 3)))[:, 1:]


def training_step(batch, size):
    """A function that takes one SGD step on images that are already normalised."""
    model = Classifier().train()
    sgd = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9, nesterov=True, weight_decay=1e-4)
    image = torch.randn(len(batch["label"]), 3, size, size)
    label = torch.as_tensor(batch["label"]).long()

    def run():
        sgd.zero_grad()
        nn.functional.cross_entropy(model(image), label).backward()
        sgd.step()

    return run


class readout:  # noqa: N801  (called like the functions beside it)
    """The `grad-cam` package's maps, as a function of images (b H W 3) and classes (b)."""

    def __init__(self, title, variables):
        package = import_grad_cam()
        self._target = importlib.import_module(
            "pytorch_grad_cam.utils.model_targets"
        ).ClassifierOutputTarget
        model = with_weights(variables)
        self._cam = getattr(package, title)(model=model, target_layers=[model.layer4])

    def __call__(self, image, label):
        image = torch.as_tensor(np.moveaxis(image, -1, 1).copy())
        return self._cam(input_tensor=image, targets=[self._target(int(k)) for k in label])

    def low(self, image, label):
        """Min-max normalised maps before they are resized."""
        self(image, label)
        passed = self._cam.activations_and_grads
        maps = self._cam.get_cam_image(
            torch.as_tensor(np.moveaxis(image, -1, 1).copy()),
            self._cam.target_layers[0],
            [self._target(int(k)) for k in label],
            passed.activations[0].numpy(),
            passed.gradients[0].numpy(),
            eigen_smooth=False,
        )
        maps = np.maximum(maps, 0)
        maps -= maps.min(axis=(1, 2), keepdims=True)
        return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)


def import_grad_cam():
    """The `grad-cam` package, also where torchvision has no build for the PyTorch that is there.

    The package imports a few image transforms from torchvision; nothing here calls them.
    """
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        for name in ("", ".transforms", ".transforms.functional"):
            module = types.ModuleType(f"torchvision{name}")
            module.__getattr__ = lambda _: None
            sys.modules[module.__name__] = module
    return importlib.import_module("pytorch_grad_cam")


def with_weights(variables):
    """The PyTorch model with our weights, in evaluation mode."""
    import flax.traverse_util

    model = Classifier().eval()
    state = {}
    for path, leaf in flax.traverse_util.flatten_dict(dict(variables)).items():
        name = weights.torch_name(path).removeprefix("encoder.").removeprefix("head.")
        value = np.asarray(leaf)
        state[name] = torch.as_tensor(
            (value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T).copy()
        )
    missing, surplus = model.load_state_dict(state, strict=False)
    if surplus or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"the models differ: missing {missing}, extra {surplus}")
    return model
