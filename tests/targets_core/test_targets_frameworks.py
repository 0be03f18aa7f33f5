"""Importing a framework without what it only looks for."""

import gc
import importlib
import json
import sys
import typing

import pytest

from edgeml.targets.frameworks import absent, hints_once, uncollected


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


class Port:
    size: "Size"  # noqa: F821 - it is looked up where the caller says


def test_type_hints_are_found_once_for_each_place_to_look_in(monkeypatch: pytest.MonkeyPatch):
    asked: list[object] = []

    def find(thing: object, *names: object, **options: object) -> dict[str, object]:
        asked.append(thing)
        return real(thing, *names, **options)

    real = typing.get_type_hints
    monkeypatch.setattr(typing, "get_type_hints", find)
    one, other = {"Size": int}, {"Size": float}
    with hints_once():
        for names, kind in ((one, int), (other, float), (one, int)):
            assert typing.get_type_hints(Port, globalns=names) == {"size": kind}
        typing.get_type_hints(Port, one)["size"] = str  # what one does with its answer is its own
        assert typing.get_type_hints(Port, one) == {"size": int}
    assert asked == [Port] * 3  # by the name of the argument, and by its place
    assert typing.get_type_hints is find
