"""The committed ecg-rhythm is held to what its card claims, and its simulator and reader to the rules of an ECG."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ecg_beats import Rhythm, beats_of
from ecg_card import held_out, sliding
from ecg_heart import RATE_HZ
from ecg_recording import RecordingError, at_model_rate, read_recording
from ecg_simulator import LEADS, WINDOW, Ecg, simulate

from edgeward_agent.ports import ProbeReason
from edgeward_agent.serving.session import Session
from edgeward_agent.update.probe import examine
from edgeward_contract.artifact import sha256_of_file
from support.ecg import ECG_RHYTHM, RELEASE, real_recording, write_wfdb
from support.models import ROOT, read_arrays, read_manifest

RHYTHMS = read_manifest(RELEASE).outputs[0].labels
QUICK = 12  # windows of each rhythm, where the card has 150


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(RELEASE / "model.onnx")


@pytest.fixture(scope="module")
def card() -> str:
    return (ECG_RHYTHM / "README.md").read_text(encoding="utf-8")


def probabilities(session: Session, windows: Ecg) -> npt.NDArray[np.float64]:
    """(windows, rhythms), each window as a batch of one, as at a bedside."""
    answers = [session.run(["probability"], {"ecg": each[np.newaxis]})[0] for each in windows]
    return np.concatenate(answers).astype(np.float64)


def simulated(rhythm: str, seed: int, seconds: float = 10.0) -> Ecg:
    return simulate(Rhythm(rhythm), np.random.default_rng(seed), seconds)


def confusion() -> npt.NDArray[np.int64]:
    return np.array(json.loads((ECG_RHYTHM / "evaluation.json").read_bytes())["confusion"], dtype=np.int64)


def beats_per_minute(lead: npt.NDArray[np.float32]) -> float:
    """Counted without the model: the period at which the slope's energy repeats itself best."""
    slope = np.abs(np.diff(lead.astype(np.float64), prepend=float(lead[0])))
    energy = np.convolve(slope, np.ones(50) / 50, "same")
    energy -= energy.mean()
    lags = np.arange(round(0.3 * RATE_HZ), round(1.8 * RATE_HZ))
    best = lags[np.argmax([float(energy[lag:] @ energy[:-lag]) / (len(energy) - lag) for lag in lags])]
    return 60.0 * RATE_HZ / float(best)


# -- the release


def test_the_release_is_what_its_manifest_says_and_small_enough_to_be_committed(card: str) -> None:
    manifest = read_manifest(RELEASE)
    assert manifest.canonical() == (RELEASE / "manifest.json").read_bytes()
    assert str(manifest.release) == "ecg-rhythm@1"
    for reference, name in ((manifest.file, "model.onnx"), (manifest.golden.file, "golden.npz")):
        assert reference.sha256 == sha256_of_file(RELEASE / name)
    assert sum(path.stat().st_size for path in RELEASE.iterdir()) < 8 << 20
    assert "why the release is committed" in " ".join(card.split())


@pytest.mark.parametrize("place", ["card", "manifest"])
def test_it_is_said_that_it_is_no_medical_device(place: str, card: str) -> None:
    text = card if place == "card" else read_manifest(RELEASE).intended_use
    assert "not for clinical use" in text
    assert "simulated" in text


def test_the_manifest_describes_the_tensors_and_the_order_of_the_leads(session: Session) -> None:
    manifest = read_manifest(RELEASE)
    assert [(each.name, each.shape) for each in manifest.inputs] == [("ecg", (-1, 12, WINDOW))]
    assert [(each.name, each.shape) for each in manifest.outputs] == [("probability", (-1, 8)), ("rhythm", (-1,))]
    assert tuple(session.interface.inputs) == ("ecg",)
    assert tuple(session.interface.outputs) == ("probability", "rhythm")
    assert "I, II, III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6" in manifest.intended_use
    assert "500 Hz in millivolt" in manifest.intended_use


def test_the_card_names_each_rhythm_with_its_number(card: str) -> None:
    assert [tuple(row) for row in re.findall(r"^\| (\d) \| `(\w+)` \|", card, re.MULTILINE)] == [
        (str(number), rhythm) for number, rhythm in enumerate(RHYTHMS)
    ]


def test_the_graph_satisfies_the_checker_and_has_the_parameters_that_the_card_states(card: str) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = onnx.load(RELEASE / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    weights = sum(int(np.prod(each.dims)) for each in model.graph.initializer if each.name.endswith(".weight"))
    stated = int(re.findall(r"^([\d,]+) parameters, trained on", card, re.MULTILINE)[0].replace(",", ""))
    assert 1_000_000 < weights < stated < 2_000_000
    assert stated - weights < 10_000  # biases and what was folded away
    assert {each.key: each.value for each in model.metadata_props}["leads"].split() == list(LEADS)


def test_a_device_takes_it() -> None:
    verdict = examine(RELEASE)
    assert (verdict.reason, verdict.cases) == (ProbeReason.OK, 16), verdict.detail


def test_the_golden_set_holds_every_rhythm_and_windows_that_are_hard() -> None:
    golden = read_arrays(RELEASE / "golden.npz")
    ranked = np.sort(golden["output:probability"].astype(np.float64), axis=1)
    lead = ranked[:, -1] - ranked[:, -2]
    assert set(golden["output:rhythm"].tolist()) == set(range(len(RHYTHMS)))
    assert (lead < 0.5).sum() >= 3
    assert (lead > 0.04).all()  # or another processor's rounding could change `rhythm`


def test_a_swapped_pair_of_leads_would_be_caught_by_the_golden_set(session: Session) -> None:
    golden = read_arrays(RELEASE / "golden.npz")
    windows = golden["input:ecg"].astype(np.float32)
    windows[:, [6, 11]] = windows[:, [11, 6]]
    moved = np.abs(probabilities(session, windows) - golden["output:probability"].astype(np.float64)).max(axis=1)
    assert (moved > read_manifest(RELEASE).golden.tolerances["probability"].atol).sum() >= 8


def test_no_artefact_carries_a_time_or_a_place() -> None:
    with zipfile.ZipFile(RELEASE / "golden.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    for path in RELEASE.iterdir():
        assert str(ROOT).encode() not in path.read_bytes()


# -- what it answers


def test_probabilities_sum_to_one_and_the_rhythm_is_the_likeliest(session: Session) -> None:
    windows = np.stack([simulated(rhythm, 5) for rhythm in RHYTHMS])
    probability, rhythm = session.run(["probability", "rhythm"], {"ecg": windows})
    assert np.isfinite(probability.astype(np.float64)).all()
    np.testing.assert_allclose(probability.astype(np.float64).sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(rhythm.astype(np.int64), probability.astype(np.float64).argmax(axis=1))
    np.testing.assert_allclose(probabilities(session, windows), probability.astype(np.float64), atol=1e-4)


@pytest.mark.parametrize("level", [0.0, 1.0, -7.5])
def test_a_line_without_a_heart_is_unreadable(session: Session, level: float) -> None:
    (probability,) = probabilities(session, np.full((1, 12, WINDOW), level, dtype=np.float32))
    assert RHYTHMS[int(probability.argmax())] == "unreadable"


def test_neither_an_offset_nor_the_size_of_a_lead_changes_the_rhythm(session: Session) -> None:
    windows = np.stack([simulated("atrial_fibrillation", seed) for seed in range(6)])
    before = probabilities(session, windows).argmax(axis=1)
    np.testing.assert_array_equal(probabilities(session, windows + np.float32(3)).argmax(axis=1), before)
    np.testing.assert_array_equal(probabilities(session, windows * np.float32(1.5)).argmax(axis=1), before)


@pytest.mark.parametrize("number", range(len(RHYTHMS)))
def test_windows_that_neither_training_nor_card_knew_are_named_about_as_often_as_the_card_says(
    session: Session, number: int
) -> None:
    """Seeds of this test's own. Below the interval's lower end by more than chance, and the card would be wrong."""
    windows = np.stack([simulated(RHYTHMS[number], 10_000 + seed) for seed in range(QUICK)])
    hits = int((probabilities(session, windows).argmax(axis=1) == number).sum())
    claimed = confusion()[number, number] / confusion()[number].sum()
    assert hits / QUICK > claimed - 3 * np.sqrt(claimed * (1 - claimed) / QUICK) - 0.1
    assert claimed > 0.85


def test_the_card_states_the_figures_of_the_evaluation(card: str) -> None:
    counts = confusion()
    assert f"All rhythms together: {counts.trace() / counts.sum():.3f} (" in card
    for number, rhythm in enumerate(RHYTHMS):
        row = re.search(rf"^\| `{rhythm}` \| (\d+) \| ([\d.]+) \(.*?\) \| ([\d.]+) \(", card, re.MULTILINE)
        assert row is not None
        assert int(row[1]) == counts[number].sum() == 150
        assert row[2] == f"{counts[number, number] / counts[number].sum():.3f}"
        assert row[3] == f"{counts[number, number] / counts[:, number].sum():.3f}"


def test_the_evaluation_is_of_the_committed_model(session: Session) -> None:
    """Its first windows of the two rhythms that are taken for each other most, judged once more."""
    off = confusion() - np.diag(np.diag(confusion()))
    number = int(off.sum(axis=1).argmax())
    answers = probabilities(session, held_out(tuple(Rhythm)[number], 150)).argmax(axis=1)
    np.testing.assert_array_equal(np.bincount(answers, minlength=len(RHYTHMS)), confusion()[number])


# -- a real heart


def test_on_a_real_recording_it_does_what_the_card_says(session: Session, card: str) -> None:
    windows = sliding(read_recording(real_recording()))
    probability = probabilities(session, windows)
    assert np.isfinite(probability).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-5)
    stated = {name: int(count) for name, count in re.findall(r"^- answered `(\w+)`: (\d+)$", card, re.MULTILINE)}
    answered = [RHYTHMS[number] for number in probability.argmax(axis=1)]
    assert {rhythm: answered.count(rhythm) for rhythm in set(answered)} == stated
    assert answered.count("sinus_rhythm") > len(answered) / 2


def test_the_real_recording_is_at_a_rate_of_sinus_rhythm() -> None:
    """So that the answer above is right by a count that has nothing to do with the model."""
    ecg = read_recording(real_recording())
    assert ecg.shape == (12, 19_200)
    assert beats_per_minute(ecg[LEADS.index("V3")]) == pytest.approx(82, abs=3)


def test_a_real_recording_is_read_to_the_last_step_and_keeps_einthovens_rule() -> None:
    header = real_recording()
    ecg = read_recording(header)
    raw = np.frombuffer((header.parent / "s0010_re.dat").read_bytes(), "<i2").reshape(-1, 12) / 2000.0
    np.testing.assert_allclose(ecg[:, ::50].mean(axis=1), raw[::100].mean(axis=0), atol=0.02)
    lead = {name: ecg[number] for number, name in enumerate(LEADS)}
    np.testing.assert_allclose(lead["III"], lead["II"] - lead["I"], atol=0.005)


# -- the reader of recordings


def steps(samples: int = 6000) -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).integers(-3000, 3000, (samples, 12)).astype(np.int16)


def test_a_recording_at_the_models_rate_is_read_exactly(tmp_path: Path) -> None:
    written = steps()
    ecg = read_recording(write_wfdb(tmp_path, "r", written, rate_hz=500))
    np.testing.assert_array_equal(ecg, (written.T / 2000).astype(np.float32))


@pytest.mark.parametrize("rate_hz", [1000, 2000])
def test_resampling_keeps_what_fits_and_filters_what_would_fold_back(rate_hz: int) -> None:
    time_s = np.arange(10 * rate_hz) / rate_hz
    slow, fast = np.sin(2 * np.pi * 40 * time_s), np.sin(2 * np.pi * 420 * time_s)
    kept, folded = at_model_rate(np.stack([slow, fast]), rate_hz)
    inside = slice(50, -50)
    np.testing.assert_allclose(kept[inside], slow[:: rate_hz // RATE_HZ][inside], atol=0.01)
    assert np.abs(folded[inside]).max() < 0.01


def damage_a_sample(header: Path) -> None:
    data = bytearray(header.with_suffix(".dat").read_bytes())
    data[1000] ^= 1
    header.with_suffix(".dat").write_bytes(data)


def cut(header: Path) -> None:
    header.with_suffix(".dat").write_bytes(header.with_suffix(".dat").read_bytes()[:-24])


def edit(old: str, new: str) -> Callable[[Path], object]:
    return lambda header: header.write_text(header.read_text("ascii").replace(old, new), "ascii")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (damage_a_sample, "expected checksum"),
        (cut, "expected 144000 bytes, found 143976"),
        (edit(" v6", " vx"), "missing: V6"),
        (edit(".dat 16 ", ".dat 212 "), "expected format 16"),
        (edit("r 12 500", "r 12 360"), "multiple of 500 Hz, found 360 Hz"),
        (edit(" 2000 ", " 2000/uV "), "expected a gain in steps per mV, found '2000/uV'"),
        (edit("r 12 500 6000", "r 12"), "expected a WFDB header"),
        (edit("r 12", "r/2 12"), "header of one segment"),
        (edit(" 0 i\n", "\n"), "expected the nine fields"),
    ],
    ids=["damaged", "cut", "lead", "format", "rate", "unit", "short", "segments", "fields"],
)
def test_a_recording_that_is_not_what_it_should_be_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    header = write_wfdb(tmp_path, "r", steps(), rate_hz=500)
    spoil(header)
    with pytest.raises(RecordingError, match=re.escape(words)):
        read_recording(header)


def test_a_gain_may_name_its_baseline_and_unit(tmp_path: Path) -> None:
    written = steps()
    header = write_wfdb(tmp_path, "r", written, rate_hz=500)
    header.write_text(header.read_text("ascii").replace(" 2000 ", " 1000(100)/mV "), "ascii")
    np.testing.assert_allclose(read_recording(header), (written.T - 100.0) / 1000, atol=1e-6)


# -- the simulator


def test_a_seed_gives_the_same_recording_each_time_and_another_another() -> None:
    first, again, other = (simulated("sinus_rhythm", seed) for seed in (1, 1, 2))
    assert first.shape == (12, WINDOW)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_simulated_leads_keep_the_rules_of_einthoven_and_goldberger(rhythm: str) -> None:
    lead = dict(zip(LEADS, simulated(rhythm, 3), strict=True))
    np.testing.assert_allclose(lead["III"], lead["II"] - lead["I"], atol=1e-4)
    np.testing.assert_allclose(lead["aVR"] + lead["aVL"] + lead["aVF"], 0, atol=1e-4)
    assert np.isfinite(np.stack(list(lead.values()))).all()


@pytest.mark.parametrize(
    ("rhythm", "slowest", "fastest"),
    [("sinus_bradycardia", 35, 60), ("sinus_rhythm", 60, 100), ("sinus_tachycardia", 100, 160)],
)
def test_a_sinus_rhythm_has_the_rate_of_its_name(rhythm: str, slowest: float, fastest: float) -> None:
    for seed in range(20):
        beats = beats_of(Rhythm(rhythm), np.random.default_rng(seed), 60.0)
        rate = 60.0 / float(np.mean([beat.interval_s for beat in beats]))
        assert slowest * 0.98 < rate < fastest * 1.02
        assert all(beat.p_wave and not beat.ventricular for beat in beats)


def test_early_beats_are_single_in_ectopy_and_every_second_in_bigeminy() -> None:
    for seed in range(20):
        ectopy = beats_of(Rhythm.VENTRICULAR_ECTOPY, np.random.default_rng(seed), 10.0)
        early = [index for index, beat in enumerate(ectopy) if beat.ventricular]
        assert any(0 < ectopy[index].at_s < 10 for index in early)
        assert all(after - before >= 3 for before, after in pairwise(early))
        bigeminy = beats_of(Rhythm.VENTRICULAR_BIGEMINY, np.random.default_rng(seed), 10.0)
        assert all(a.ventricular != b.ventricular for a, b in pairwise(bigeminy))
        assert all(a.at_s < b.at_s for a, b in pairwise(ectopy))


def test_fibrillation_is_irregular_and_sinus_rhythm_is_not() -> None:
    for seed in range(20):
        spread = {
            rhythm: float(np.std(intervals) / np.mean(intervals))
            for rhythm in (Rhythm.ATRIAL_FIBRILLATION, Rhythm.SINUS_RHYTHM)
            for intervals in [[beat.interval_s for beat in beats_of(rhythm, np.random.default_rng(seed), 60.0)]]
        }
        assert spread[Rhythm.ATRIAL_FIBRILLATION] > 0.1 > spread[Rhythm.SINUS_RHYTHM]
