"""Train the digit classifier on scikit-learn's handwritten digits, and write what an export needs.

    python sample_models/digits/train.py OUT

The 1,797 images come with scikit-learn, so nothing is downloaded. OUT then holds ``weights.pt``,
``calibration.npz``, ``evaluation.npz`` (with labels) and ``training.json``. The three parts share
no image: a calibration on training images would show a confidence that no new image reaches.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from model import Digits
from sklearn.datasets import load_digits
from torch import nn

EPOCHS = 30
BATCH = 64
SPLIT = (0.6, 0.2)
"""Shares for training and for calibration; the rest evaluates."""


def split_digits(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """(images [n, 1, 8, 8] float32 in 0 … 1, labels [n] int64) to train, calibrate, evaluate."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images = (images[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = labels[order].astype(np.int64)
    cuts = (np.cumsum(SPLIT) * len(labels)).astype(int)
    return tuple(zip(np.split(images, cuts), np.split(labels, cuts), strict=True))


def train(images: np.ndarray, labels: np.ndarray, seed: int) -> nn.Module:
    """A trained network, the same for the same seed on the same machine."""
    torch.manual_seed(seed)
    model = Digits()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(y) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(y)).split(BATCH):
            loss = nn.functional.cross_entropy(model(x[rows])["logits"], y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)

    started = time.perf_counter()
    training, calibration, evaluation = split_digits(arguments.seed)
    model = train(*training, seed=arguments.seed)
    with torch.no_grad():
        decided = model(torch.from_numpy(evaluation[0]))["logits"].argmax(1).numpy()
    result = {
        "accuracy": float((decided == evaluation[1]).mean()),
        "training_images": len(training[1]),
        "evaluation_images": len(evaluation[1]),
        "seconds": round(time.perf_counter() - started, 1),
    }
    torch.save(model.state_dict(), arguments.out / "weights.pt")
    np.savez(arguments.out / "calibration.npz", image=calibration[0])
    np.savez(arguments.out / "evaluation.npz", image=evaluation[0], labels=evaluation[1])
    (arguments.out / "training.json").write_text(json.dumps(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
