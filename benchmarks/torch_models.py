"""Three networks in PyTorch, with the same parameters as ours, to compare speeds with; PyTorch is no dependency.

Written as PyTorch users write them: NCHW modules, its own batch normalisation, no compilation.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


class DsCnnS(nn.Module):
    """`conf/model/ds_cnn_s.yaml`: features [batch, frames, bins (an even number)] → logits [batch, labels]."""

    def __init__(self, num_labels: int, filters: int = 64, num_blocks: int = 4) -> None:
        super().__init__()
        layers = _conv_norm_relu(1, filters, (10, 4), stride=2)
        for _ in range(num_blocks):
            layers += _conv_norm_relu(filters, filters, 3, padding=1, groups=filters)
            layers += _conv_norm_relu(filters, filters, 1)
        self.body = nn.Sequential(*layers)
        self.logits = nn.Linear(filters, num_labels)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        x = functional.pad(features.unsqueeze(1), (1, 1, 4, 4 + features.shape[1] % 2))  # TensorFlow's "same"
        return self.logits(self.body(x).mean((2, 3)))


class BcResNet(nn.Module):
    """`conf/model/bc_resnet_<tau>.yaml`: features [batch, frames, 40] → logits [batch, labels]; arXiv:2106.04140."""

    STAGES = ((2, 8, 1, 1), (2, 12, 2, 2), (4, 16, 2, 4), (4, 20, 1, 8))  # blocks, channels, bin stride, dilation

    def __init__(self, num_labels: int, tau: int = 1) -> None:
        super().__init__()
        channels_in = 16 * tau
        layers = _conv_norm_relu(1, channels_in, 5, stride=(2, 1), padding=2)
        for num_blocks, channels, stride, dilation in self.STAGES:
            for block in range(num_blocks):
                layers.append(BroadcastedBlock(channels_in, channels * tau, stride if block == 0 else 1, dilation))
                channels_in = channels * tau
        layers.append(nn.Conv2d(channels_in, channels_in, 5, padding=(0, 2), groups=channels_in, bias=False))
        layers += _conv_norm_relu(channels_in, 32 * tau, 1)
        self.body = nn.Sequential(*layers)
        self.logits = nn.Linear(32 * tau, num_labels)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        return self.logits(self.body(features.transpose(1, 2).unsqueeze(1)).mean((2, 3)))


class BroadcastedBlock(nn.Module):
    """x [batch, channels, bins, frames]: a convolution along bins, and one along frames of its mean over the bins."""

    def __init__(self, channels_in: int, channels: int, stride: int, dilation: int, dropout_rate: float = 0.1) -> None:
        super().__init__()
        self.widen = nn.Sequential(*_conv_norm_relu(channels_in, channels, 1)) if channels_in != channels else None
        self.along_bins = nn.Conv2d(channels, channels, (3, 1), (stride, 1), (1, 0), groups=channels, bias=False)
        self.norm = SubSpectralNorm(channels)
        self.along_frames = nn.Sequential(
            nn.Conv2d(
                channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation), groups=channels, bias=False
            ),
            nn.BatchNorm2d(channels),
            nn.SiLU(inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Dropout2d(dropout_rate),
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        two_d = self.norm(self.along_bins(x if self.widen is None else self.widen(x)))
        y = two_d + self.along_frames(two_d.mean(2, keepdim=True))
        return functional.relu(y if self.widen is not None else y + x, inplace=True)


class SubSpectralNorm(nn.Module):
    """Batch normalisation of each of `sub_bands` stretches of the bins by itself."""

    def __init__(self, channels: int, sub_bands: int = 5) -> None:
        super().__init__()
        self.sub_bands = sub_bands
        self.norm = nn.BatchNorm2d(channels * sub_bands)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, channels, bins, frames = x.shape
        stretches = x.reshape(batch, channels * self.sub_bands, bins // self.sub_bands, frames)
        return self.norm(stretches).reshape(x.shape)


def _conv_norm_relu(
    channels_in: int, channels: int, kernel: int | tuple[int, int], **arguments: object
) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels, kernel, bias=False, **arguments)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


# By the names in conf/model/.
MODELS = {"ds_cnn_s": DsCnnS, "bc_resnet_1": BcResNet, "bc_resnet_2": partial(BcResNet, tau=2)}


class Network:
    """A network with its optimizer, ready to be trained and run on one batch.

    Args:
        network: features → logits.
        features: [batch, frames, bins] float32.
        labels: [batch] int64.
        learning_rate: Adam's.
        channels_last: the memory order of images inside.
    """

    def __init__(
        self, network: nn.Module, features: Tensor, labels: Tensor, *, learning_rate: float, channels_last: bool
    ) -> None:
        order = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=order)
        self._features, self._labels = features, labels
        self._optimizer = torch.optim.Adam(network.parameters(), learning_rate, eps=1e-7, fused=True)

    def train(self) -> None:
        """One step."""
        self.network.train()
        self._optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self.network(self._features), self._labels)
        loss.backward()
        self._optimizer.step()

    def infer(self) -> None:
        """Logits of one batch."""
        self.network.eval()
        with torch.inference_mode():
            self.network(self._features)
