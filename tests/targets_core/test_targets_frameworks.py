"""Importing a framework without what it only looks for."""

import gc
import importlib
import json
import sys

import pytest

from edgeml.targets.frameworks import absent, uncollected


def test_what_is_absent_cannot_be_imported_for_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with absent("wave"), pytest.raises(ImportError):
        importlib.import_module("wave")
    assert importlib.import_module("wave").Wave_read


def test_what_was_imported_before_stays():
    with absent("json"):
        assert importlib.import_module("json") is json
    assert sys.modules["json"] is json


def test_what_is_absent_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with pytest.raises(ValueError, match="meanwhile"), absent("wave"):
        raise ValueError("meanwhile")
    assert importlib.import_module("wave")


def test_garbage_is_collected_again_after_an_import():
    with uncollected(), uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()
