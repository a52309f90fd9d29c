"""The PyTorch side of `bench.py`: the same encoders, their training steps, and `grad-cam`."""

import functools
import importlib

import flax.traverse_util
import numpy as np
import torch
from torch import nn

from wsol_jax.backbones import weights

ON_GPU = torch.cuda.is_available()  # there as fast as it goes: channels last, half precision
WIDTHS, BLOCKS, STRIDES = (64, 128, 256, 512), (3, 4, 6, 3), (1, 2, 1, 1)
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512,) * 6)


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


class ResNet50(nn.Module):
    """ResNet-50 at stride 8."""

    channels = 2048

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

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def last(self):
        """The module whose output is mapped."""
        return self.layer4


class Vgg16(nn.Module):
    """VGG16 without its last two poolings, and one more convolution."""

    channels = 1024

    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for stage, widths in enumerate(VGG16):
            layers += [nn.MaxPool2d(2)] if stage else []
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.conv6, self.relu = nn.Conv2d(channels, 1024, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv6(self.features(x)))

    def last(self):
        """The module whose output is mapped."""
        return self.relu


class InceptionV3(nn.Module):
    """Torchvision's blocks up to Mixed_6e, padded, Mixed_6a without stride; two convolutions."""

    channels = 1024
    stem = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "pool", "Conv2d_3b_1x1")
    stem += ("Conv2d_4a_3x3", "pool")
    mixed = tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e"))

    def __init__(self):
        super().__init__()
        whole = torchvision().models.inception_v3(init_weights=False, aux_logits=False)
        for name in {*self.stem, *self.mixed} - {"pool"}:
            setattr(self, name, getattr(whole, name))
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.padding = (1, 1)
        for name in ("branch3x3", "branch3x3dbl_3"):
            getattr(self.Mixed_6a, name).conv.stride = (1, 1)
        self.Mixed_6a._forward = functools.partial(_without_stride, self.Mixed_6a)
        self.SPG_A3_1b = nn.Sequential(nn.Dropout(), nn.Conv2d(768, 1024, 3, padding=1), nn.ReLU())
        self.SPG_A3_2b = nn.Sequential(nn.Dropout(), nn.Conv2d(1024, 1024, 3, padding=1), nn.ReLU())

    def forward(self, x):
        for name in self.stem:
            if name == "pool":
                x = nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
            else:
                x = getattr(self, name)(x)
        for name in self.mixed:
            x = getattr(self, name)(x)
        return self.SPG_A3_2b(self.SPG_A3_1b(x))

    def last(self):
        """The module whose output is mapped."""
        return self.SPG_A3_2b


def _without_stride(block, x):
    branches = (
        block.branch3x3(x),
        block.branch3x3dbl_3(block.branch3x3dbl_2(block.branch3x3dbl_1(x))),
    )
    return [*branches, nn.functional.max_pool2d(x, 3, 1, 1)]


class DeitTiny(nn.Module):
    """Timm's DeiT-Tiny/16: image -> patch tokens as a map."""

    channels = 192

    def __init__(self):
        super().__init__()
        torchvision()
        self.vit = importlib.import_module("timm").create_model(
            "deit_tiny_patch16_224", num_classes=0, dynamic_img_size=True
        )

    def forward(self, x):
        tokens = self.vit.forward_features(x)[:, 1:]
        side = round(tokens.shape[1] ** 0.5)
        return tokens.transpose(1, 2).unflatten(2, (side, side))


class Sat(nn.Module):
    """SAT on a transformer of timm: image -> logits, and the mean of the last blocks' masks."""

    masked = 3

    def __init__(self, encoder):
        super().__init__()
        torchvision()
        self.encoder = importlib.import_module("timm").create_model(
            encoder, num_classes=0, dynamic_img_size=True
        )
        width = self.encoder.embed_dim
        self.encoder.loc_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder.loc_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.conv = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, x):
        tokens = self.encoder._pos_embed(self.encoder.patch_embed(x))
        location = (self.encoder.loc_token + self.encoder.loc_embed).expand(len(x), -1, -1)
        tokens, masks = torch.cat([tokens, location], 1), []
        plain = len(self.encoder.blocks) - self.masked
        for index, block in enumerate(self.encoder.blocks):
            attend = _attention if index < plain else functools.partial(_masked_attention, masks)
            tokens = tokens + attend(block.attn, block.norm1(tokens))
            tokens = tokens + block.mlp(block.norm2(tokens))
        side = round((tokens.shape[1] - 2) ** 0.5)
        patches = self.encoder.norm(tokens)[:, 1:-1].transpose(1, 2).unflatten(2, (side, side))
        maps = torch.stack(masks).mean(0)[:, 1:-1].unflatten(1, (side, side))
        return self.conv(patches).mean((2, 3)), maps


def _projected(attention, x):
    qkv = attention.qkv(x).reshape(*x.shape[:2], 3, attention.num_heads, -1)
    return qkv.permute(2, 0, 3, 1, 4)  # each b h n d


def _attention(attention, x):
    y = nn.functional.scaled_dot_product_attention(*_projected(attention, x))
    return attention.proj(y.transpose(1, 2).reshape(x.shape))


def _masked_attention(masks, attention, x):
    query, key, value = _projected(attention, x)
    scores = query * attention.scale @ key.transpose(2, 3)
    masks.append(scores[:, :, -1].mean(1).sigmoid())
    y = scores.softmax(-1) * masks[-1][:, None, None] @ value
    return attention.proj(y.transpose(1, 2).reshape(x.shape))


ENCODERS = {
    "resnet50": ResNet50,
    "vgg16": Vgg16,
    "inception_v3": InceptionV3,
    "deit_tiny_patch16_224": DeitTiny,
}


class Classifier(nn.Module):
    """An encoder, average pooling and a linear layer whose first row is not used."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.linear = nn.Linear(self.encoder.channels, 3)

    def forward(self, x):
        return self.linear(self.encoder(x).mean((2, 3)))[:, 1:]


def training_step(encoder, batch, size):
    """A function that takes one SGD step on normalised images, and waits for it."""
    model = _placed(Classifier(encoder)).train()
    sgd = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9, nesterov=True, weight_decay=1e-4)
    image = _placed(torch.randn(len(batch["label"]), 3, size, size))
    label = torch.as_tensor(batch["label"]).long().to(image.device)

    def run():
        sgd.zero_grad()
        with _precision():
            loss = nn.functional.cross_entropy(model(image), label)
        loss.backward()
        sgd.step()
        _wait()

    return run


def forward(encoder, image):
    """A function that classifies images (b H W 3) without a gradient, and waits for it."""
    model = _placed(Classifier(encoder)).eval()
    image = _placed(_nchw(image))

    @torch.no_grad()
    def run():
        with _precision():
            logits = model(image)
        _wait()
        return logits

    return run


def sat(encoder, variables, image):
    """A function that gives SAT's maps (b h w) of images (b H W 3), of our weights."""
    model, image = _placed(with_weights(Sat(encoder), variables)), _placed(_nchw(image))

    @torch.no_grad()
    def run():
        with _precision():
            _, maps = model(image)
        _wait()
        return maps.float().cpu().numpy()

    return run


def _placed(values):
    """A model or images where PyTorch computes fastest, in the layout it likes there."""
    return values.to("cuda", memory_format=torch.channels_last) if ON_GPU else values


def _precision():
    return torch.autocast("cuda", torch.bfloat16, enabled=ON_GPU)


def _wait():
    if ON_GPU:
        torch.cuda.synchronize()


class readout:  # noqa: N801  (called like the functions beside it)
    """The `grad-cam` package's maps, as a function of images (b H W 3) and classes (b)."""

    def __init__(self, encoder, title, variables):
        torchvision()
        package = importlib.import_module("pytorch_grad_cam")
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
        self._target = targets.ClassifierOutputTarget
        model = with_weights(Classifier(encoder), variables)
        self._cam = getattr(package, title)(model=model, target_layers=[model.encoder.last()])

    def __call__(self, image, label):
        targets = [self._target(int(k)) for k in label]
        return self._cam(input_tensor=_nchw(image), targets=targets)

    def low(self, image, label):
        """Min-max normalised maps before they are resized."""
        self(image, label)
        passed = self._cam.activations_and_grads
        maps = self._cam.get_cam_image(
            _nchw(image),
            self._cam.target_layers[0],
            [self._target(int(k)) for k in label],
            passed.activations[0].numpy(),
            passed.gradients[0].numpy(),
            eigen_smooth=False,
        )
        maps = np.maximum(maps, 0)
        maps -= maps.min(axis=(1, 2), keepdims=True)
        return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)


@functools.cache
def torchvision():
    """Torchvision's Python, also where its compiled part does not fit the PyTorch that is there.

    Importing it registers shapes of operators that the compiled part brings; none is used here.
    """
    register, ignore = torch.library.register_fake, lambda *_, **__: lambda function: function
    try:
        torch.library.register_fake = ignore
        return importlib.import_module("torchvision")
    finally:
        torch.library.register_fake = register


def with_weights(model, variables):
    """A PyTorch model with our weights, in evaluation mode."""
    state = {}
    for path, leaf in flax.traverse_util.flatten_dict(dict(variables)).items():
        name = weights.torch_name(path).removeprefix("head.")
        value = np.asarray(leaf)
        order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(value.ndim, range(value.ndim))
        state[name] = torch.as_tensor(value.transpose(order).copy())
    missing, surplus = model.load_state_dict(state, strict=False)
    if surplus or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"the models differ: missing {missing}, extra {surplus}")
    return model.eval()


def _nchw(image):
    return torch.as_tensor(np.moveaxis(np.asarray(image), -1, 1).copy())
