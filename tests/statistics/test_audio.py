"""What sound is like, in numbers that can be checked by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.statistics.families import FAMILIES, Context
from edgeml.statistics.families.audio import BANDS, names

AUDIO = FAMILIES["audio"]
PCM = Context(low=-32768.0, high=32767.0)
TIME = np.arange(16_000) / 16_000
RANDOM = np.random.default_rng(0)


def statistics(wave, context=PCM) -> dict[str, float]:
    wave = np.asarray(wave)
    return dict(zip(names(context), AUDIO.compute(wave[None], context, None)[0], strict=True))


def tone(hertz: float, amplitude: float = 10_000) -> np.ndarray:
    return np.rint(amplitude * np.sin(2 * np.pi * hertz * TIME)).astype(np.int16)


def test_a_full_scale_sine_is_three_decibels_below_full_scale():
    assert statistics(tone(1000, 32_767))["level_db"] == pytest.approx(-3.01, abs=0.01)


@pytest.mark.parametrize("factor", [2, 10, 100])
def test_level_falls_by_decibels(factor):
    fall = statistics(tone(500))["level_db"] - statistics(tone(500, 10_000 / factor))["level_db"]
    assert fall == pytest.approx(20 * np.log10(factor), abs=0.1)


def test_clipping_is_seen_at_full_scale_and_below_it():
    speech = RANDOM.laplace(0, 3000, 16_000)
    over = np.clip(speech * 8, -32_768, 32_767).astype(np.int16)
    inside = np.clip(speech, -6000, 6000).astype(np.int16)
    usual = statistics(np.clip(speech, -32_768, 32_767).astype(np.int16))
    assert usual["clipped"] < 0.001
    assert usual["at_peak"] < 0.001
    assert statistics(over)["clipped"] > 0.2
    assert statistics(inside)["clipped"] == 0
    assert statistics(inside)["at_peak"] > 0.1


def test_an_offset_is_seen_and_moves_no_zero_crossing():
    usual, moved = statistics(tone(440)), statistics(tone(440) + np.int16(3277))
    assert moved["offset"] - usual["offset"] == pytest.approx(0.1, abs=1e-4)
    assert moved["zero_crossings"] == pytest.approx(usual["zero_crossings"], abs=1e-3)
    assert usual["zero_crossings"] == pytest.approx(880 / 16_000, rel=0.01)


def test_silence_is_the_share_of_quiet_blocks():
    wave = tone(440)
    wave[:8000] = 3
    assert statistics(wave)["silence"] == pytest.approx(0.5, abs=0.02)


def test_a_tone_lies_in_the_band_of_its_pitch():
    def band(hertz: float) -> int:
        found = statistics(tone(hertz))
        return int(np.argmax([found[f"mel_{i:02}"] for i in range(BANDS)]))

    bands = [band(hertz) for hertz in (100, 300, 800, 1500, 3000, 5000, 7000)]
    assert bands == sorted(set(bands))
    assert bands[0] == 0
    assert bands[-1] == BANDS - 1


def test_noise_raises_the_bands_that_were_quiet():
    usual = statistics(tone(300))
    noisy = statistics(tone(300) + RANDOM.normal(0, 300, TIME.size).astype(np.int16))
    assert noisy["mel_15"] > usual["mel_15"] + 2
    assert noisy["mel_01"] < usual["mel_01"] + 0.5


@pytest.mark.parametrize("samples", [0, 1, 2, 255, 511, 512, 513, 100_000])
@pytest.mark.parametrize("value", [0, -32_768, 32_767])
def test_a_clip_of_one_value_gives_finite_numbers(samples, value):
    found = checked(np.full((2, samples), value, np.int16))
    assert np.isfinite(found).all() or not samples


def test_a_clip_without_samples_is_missing():
    assert np.isnan(checked(np.zeros((2, 0), np.int16))).all()


@given(
    st.lists(
        st.sampled_from([0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e300, 5e-324]),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 700),
    st.sampled_from([Context(), Context(low=0.0, high=0.0), Context(low=-1e300, high=1e300)]),
)
def test_any_numbers_make_a_clip(values, samples, context):
    checked(np.resize(np.array(values), (1, samples)), context)


def checked(batch, context=PCM):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = AUDIO.compute(batch, context, None)
    assert found.shape == (len(batch), len(names(context)))
    return found
