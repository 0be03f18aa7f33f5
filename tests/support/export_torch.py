"""A user's PyTorch file, as the tests of the exporter give it: factories, good and bad, and DATA.

As a program it writes what goes with it to a folder: the weights, samples of scikit-learn's digits,
``net.pt2``, ``net.onnx``, ``mended.onnx``, and ``along.pt2`` with its scores of signals.

    python export_torch.py FOLDER

The classifier is trained in closed form: random convolutions, then least squares.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

FOLDER = Path(os.environ.get("EXPORT_TEST_FOLDER", "."))
CLASSES = 10


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(1, 24, 3), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.Linear(24 * 9, CLASSES)

    def forward(self, image):
        return {"logits": self.head(self.features(image).flatten(1))}


class Two(nn.Module):
    def forward(self, left, right, scale=1.0):
        return left @ right.transpose(1, 2) * scale


class Along(nn.Module):
    """Takes a signal of any length: filters, then their mean and largest over time."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.filters = nn.Conv1d(3, 8, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, signal):
        x = self.filters(signal).relu()
        return {"scores": self.head(torch.cat([x.mean(2), x.amax(2)], 1)), "envelope": x.amax(1)}


class Rigid(nn.Module):
    """Takes 20 steps and no others."""

    def forward(self, signal):
        return signal * torch.arange(20.0)


class Spectrum(nn.Module):
    """Has an operator that LiteRT lacks."""

    def __init__(self):
        super().__init__()
        self.front = nn.Conv2d(1, 2, 3)
        self.spectrum = Eigen()

    def forward(self, image):
        return self.spectrum(self.front(image).mean(1))


class Eigen(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvalsh(x @ x.transpose(1, 2))


class Branching(nn.Module):
    def forward(self, image):
        if image.sum() > 0:
            return image.flatten(1)
        return -image.flatten(1)


class Wrong(nn.Module):
    def forward(self, image):
        raise ValueError("the image must be square")


class Mended(nn.Module):
    """Takes NaN for a missing value: the mean of the training stands in for it."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, image):
        return self.net(torch.where(torch.isnan(image), 0.3, image))


class NotANumber(nn.Module):
    def forward(self, image):
        return image.flatten(1) / 0 * 0


def trained():
    net = Net()
    net.load_state_dict(torch.load(FOLDER / "weights.pt", weights_only=True))
    return net.train()  # the exporter puts it into eval mode


def with_examples():
    return trained(), torch.zeros(5, 1, 8, 8)


def along():
    return Along()


def rigid():
    return Rigid()


def two():
    return Two(), {"left": torch.zeros(1, 2, 3), "right": torch.zeros(1, 4, 3)}


def spectrum():
    return Spectrum()


def branching():
    return Branching()


def wrong():
    return Wrong()


def mended(folder=FOLDER):
    found = Mended()
    found.net.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return found


def not_a_number():
    return NotANumber()


def number():
    return 3


def state():
    return trained().state_dict()


def needs(width):
    return Net(), width


def raises():
    return {}["weights"]


def dies():
    os.kill(os.getpid(), 9)


def talks():
    sys.stdout.write("a progress bar\n")
    os.system("echo a subprocess")
    return trained()


def samples():
    """Pairs of an image and its label."""
    data = np.load(FOLDER / "evaluation.npz")
    yield from zip(torch.from_numpy(data["image"]), data["labels"], strict=True)


def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = (images[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return images, labels[order].astype(np.int64)


def main(folder):
    from signals import LENGTHS, signal  # beside this file

    folder.mkdir(parents=True, exist_ok=True)
    images, labels = digits()
    net = Net().eval()
    with torch.no_grad():
        x = net.features(torch.from_numpy(images[:1000])).flatten(1)
        x1 = torch.cat([x, torch.ones(len(x), 1)], 1)
        truth = nn.functional.one_hot(torch.from_numpy(labels[:1000]), CLASSES).float() * 10
        solved = torch.linalg.solve(x1.T @ x1 + torch.eye(x1.shape[1]), x1.T @ truth)
        net.head.weight.copy_(solved[:-1].T)
        net.head.bias.copy_(solved[-1])
    torch.save(net.state_dict(), folder / "weights.pt")
    np.savez(folder / "calibration.npz", image=images[1000:1200])
    np.save(folder / "images.npy", images[1000:1200].astype(np.float64))
    np.savez(folder / "evaluation.npz", image=images[1200:1400], labels=labels[1200:1400])
    length = torch.export.Dim("length", min=4)
    along = torch.export.export(
        Along(), (torch.zeros(1, 3, 20),), dynamic_shapes={"signal": {2: length}}
    )
    torch.export.save(along, folder / "along.pt2")
    with torch.no_grad():
        found = {
            str(length): Along()(torch.from_numpy(signal(length, last=False)))["scores"].numpy()
            for length in LENGTHS
        }
    np.savez(folder / "along.npz", **found)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        net, (torch.zeros(2, 1, 8, 8),), dynamic_shapes={"image": {0: batch}}
    )
    torch.export.save(program, folder / "net.pt2")
    save_onnx(net, batch, folder / "net.onnx")
    save_onnx(mended(folder).eval(), batch, folder / "mended.onnx")


def save_onnx(module, batch, path):
    torch.onnx.export(
        module,
        (torch.zeros(2, 1, 8, 8),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: batch}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
