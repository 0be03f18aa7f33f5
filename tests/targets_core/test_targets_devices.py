"""Profiles of devices: each is whole, and its name stands for its targets."""

from __future__ import annotations

import pytest

from edgeml import machine
from edgeml.errors import UsageError
from edgeml.targets import devices
from edgeml.targets.devices import Profile
from edgeml.targets.registry import TARGETS

NAMED = {
    "raspberry-pi-4",
    "raspberry-pi-5",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-agx-orin",
    "jetson-thor",
    "intel-n100",
    "intel-core-ultra",
    "android-arm64",
    "x86-64",
}
EACH = pytest.mark.parametrize("profile", devices.profiles().values(), ids=devices.profiles())


def test_all_that_are_promised_are_there():
    assert set(devices.names()) == set(devices.profiles()) == NAMED
    assert not NAMED & set(TARGETS)  # one word after -t has one meaning


@EACH
def test_a_profile_is_whole(profile: Profile):
    assert set(profile.targets) <= set(TARGETS)
    assert profile.machine in {"aarch64", "x86_64"}
    # What a benchmark there will say of its machine is one of them.
    assert set(profile.instructions) & set(machine.INSTRUCTION_SETS)
    assert list(profile.memory_gb) == sorted(profile.memory_gb)
    memory, deadline = profile.budgets.memory_mb, profile.budgets.deadline_ms
    assert memory is not None
    assert deadline is not None
    assert memory <= profile.memory_gb[0] * 1000 / 3


@EACH
def test_a_jetson_says_which_tensorrt_it_has(profile: Profile):
    versions = {system.tensorrt for system in profile.systems}
    assert all(versions) if "tensorrt" in profile.targets else versions <= {""}
    assert ("tensorrt" in profile.targets) == profile.gpu.startswith("NVIDIA")


def test_a_device_stands_for_its_targets_and_brings_its_budgets():
    found = devices.resolve(["jetson-orin-nano"])
    assert found.targets == ("tensorrt",)
    assert found.devices == ("jetson-orin-nano",)
    assert found.budgets == devices.profile("jetson-orin-nano").budgets


def test_targets_and_devices_mix_and_none_comes_twice():
    found = devices.resolve(["onnx", "x86-64", "intel-n100", "onnx"])
    assert found.targets == ("onnx", "openvino")
    assert found.devices == ("x86-64", "intel-n100")


def test_of_several_budgets_the_tightest_holds():
    budgets = devices.resolve(["raspberry-pi-4", "jetson-agx-orin"]).budgets
    assert budgets.deadline_ms == devices.profile("jetson-agx-orin").budgets.deadline_ms
    assert budgets.memory_mb == devices.profile("raspberry-pi-4").budgets.memory_mb


def test_targets_alone_bring_no_budget():
    assert devices.resolve(["tflite"]).budgets == devices.Budgets()


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("orin-nano", "jetson-orin-nano"),
        ("Raspberry_Pi_5", "raspberry-pi-5"),
        ("n100", "intel-n100"),
        ("tensort", "tensorrt"),
        ("x86_64", "x86-64"),
    ],
)
def test_a_slip_is_answered_with_the_nearest(word: str, near: str):
    with pytest.raises(UsageError) as caught:
        devices.resolve([word])
    assert near in caught.value.remedy
