"""The reference networks in PyTorch's own modules: conv4, ResNet-12, ResNet-18, perceptrons."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["TorchResNet12", "TorchResNet18", "torch_conv4", "torch_mlp"]


def torch_mlp(inputs, *units):
    layers, width = [], inputs
    for n in units[:-1]:
        layers += [nn.Linear(width, n), nn.ReLU()]
        width = n
    return nn.Sequential(*layers, nn.Linear(width, units[-1]))


def torch_conv4(classes, channels, side, filters, reduction):
    layers = []
    for _ in range(4):
        layers += [nn.Conv2d(channels, filters, 3, stride=2 if reduction == "stride" else 1, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(filters), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if reduction == "pool" else []
        channels, side = filters, -(-side // 2) if reduction == "stride" else side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(filters * side * side, classes))


class Block12(nn.Module):
    def __init__(self, channels, filters):
        super().__init__()
        for i, width in enumerate((channels, filters, filters), start=1):
            setattr(self, f"conv{i}", nn.Conv2d(width, filters, 3, padding=1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(filters))
        self.relu, self.maxpool = nn.LeakyReLU(0.1), nn.MaxPool2d(2)
        self.downsample = nn.Sequential(nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.maxpool(self.relu(self.bn3(self.conv3(y)) + self.downsample(x)))


class TorchResNet12(nn.Module):
    """Lee et al. 2019 with average pooling and a linear layer, without DropBlock."""

    def __init__(self, classes, filters):
        super().__init__()
        for i, (before, width) in enumerate(zip((3, *filters), filters, strict=False), start=1):
            setattr(self, f"layer{i}", nn.Sequential(Block12(before, width)))
        self.fc = nn.Linear(filters[-1], classes)

    def forward(self, x):
        for i in (1, 2, 3, 4):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean(dim=(2, 3)))


class Block18(nn.Module):
    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1, self.conv2 = nn.BatchNorm2d(filters), nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2, self.downsample = nn.BatchNorm2d(filters), None
        if stride > 1:
            shortcut = nn.Conv2d(channels, filters, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchResNet18(nn.Module):
    """He et al. 2016, with the names of torchvision's."""

    def __init__(self, classes, filters):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, filters, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(filters)
        before = filters
        for i in range(4):
            width = filters << i
            blocks = Block18(before, width, 2 if i else 1), Block18(width, width, 1)
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            before = width
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        for i in (1, 2, 3, 4):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean(dim=(2, 3)))
