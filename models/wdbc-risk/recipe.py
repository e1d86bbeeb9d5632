"""Train wdbc-risk, plant the faults that a rollout must survive, and write every release with its model card.

    pip install -e '.[agent,train-sklearn]'
    python models/wdbc-risk/recipe.py            # rewrites this folder
    python models/wdbc-risk/recipe.py --output DIR

Golden outputs come from the trained scikit-learn pipeline in double precision, not from the exported graph:
a golden set that a graph makes for itself could never find that graph wrong.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import wdbc_graphs as graphs
from onnx import ModelProto
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from wdbc_card import Quality, answers, judge, quality_table, with_block
from wdbc_data import (
    TRIGGERS,
    Floats,
    Indices,
    Patients,
    Split,
    load_patients,
    patients_csv,
    split_patients,
    untroubled,
)
from wdbc_data import units as units_of
from wdbc_release import Arrays, Release, deterministic_npz, write_release

from edgeward_contract.schema import JsonValue

HERE: Final = Path(__file__).resolve().parent

# Both are ratios without a unit and of the same size, so neither a unit nor a range check would tell them apart.
SWAPPED: Final = ("concave_points_error", "fractal_dimension_error")
REGULARISATION: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
NEAR_CASES: Final = 8
SPREAD_CASES: Final = 16

SUMMARIES: Final = {
    1: "Logistic regression on the ten mean measurements.",
    2: "Logistic regression on all thirty measurements, regularised by cross-validation.",
    3: "Planted fault: version 2 with two columns swapped. Loads and answers, and misses malignant tumours.",
    4: "Planted fault: version 2 with a look-up that fails on very large tumours. Passes its golden check.",
    5: "Planted fault: version 2 with an answer that takes many times the latency budget.",
    6: "Planted fault: version 2 with a division that ends the process on some patients. Passes its golden check.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Row numbers of held-out patients: those of the golden set, and the clear ones that would not do."""

    golden: Indices
    clear: Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A graph, and the trained pipeline that says what the graph should answer."""

    number: int
    reference: Pipeline
    graph: ModelProto

    @property
    def model(self) -> bytes:
        return bytes(self.graph.SerializeToString(deterministic=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Build everything into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Build the releases, the patients' table and the card of wdbc-risk.")
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to (default: the model's own)")
    build(parser.parse_args(arguments).output)


def build(output: Path) -> None:
    """Train, export, judge and write. Raises OSError when `output` cannot be written."""
    patients = load_patients()
    split = split_patients(patients)
    versions = train(patients, split)
    cases = choose_cases(patients, split, versions[1].reference)
    qualities = {version.number: _quality(version, patients, split.held_out) for version in versions[:3]}
    for version in versions:
        _write(version, patients, cases.golden, output / "releases" / str(version.number))
    (output / "clear-cases.npz").write_bytes(
        deterministic_npz(golden_arrays(versions[1].reference, patients, cases.clear))
    )
    (output / "patients.csv").write_bytes(patients_csv(patients))
    (output / "evaluation.json").write_text(_evaluation(patients, split, cases, qualities), encoding="utf-8")
    (output / "README.md").write_text(_card(patients, split, qualities), encoding="utf-8")


def train(patients: Patients, split: Split) -> tuple[Version, ...]:
    """Fit the two good versions on the training rows and derive the faulty ones from the second."""
    inputs, truth = patients.features[split.train], patients.malignant[split.train]
    mean_columns = [column for column, name in enumerate(patients.names) if name.startswith("mean_")]
    first = Pipeline(
        [("scale", ColumnTransformer([("mean", StandardScaler(), mean_columns)])), ("classify", _classifier())]
    ).fit(inputs, truth)
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("classify", _classifier())]),
        {"classify__C": list(REGULARISATION)},
        scoring="neg_log_loss",
        cv=5,
    ).fit(inputs, truth)
    graph = graphs.export(first, len(patients.names))
    return (Version(number=1, reference=first, graph=graph), *_family(search.best_estimator_, patients.names))


def choose_cases(patients: Patients, split: Split, reference: Pipeline) -> Cases:
    """Pick golden cases where a wrong model shows: the nearest to the decision, then evenly over all risks.

    Patients on whom a planted fault shows are left out, for that is what a golden set meets in the field: a
    fault that no case of it touches. The clear cases are what a careless author would have taken instead.
    """
    rows = untroubled(patients, split.held_out)
    risk = reference_risk(reference, patients.tensor[rows])
    near = np.argsort(np.abs(risk - 0.5), kind="stable")[:NEAR_CASES]
    by_risk = np.argsort(risk, kind="stable")
    others = by_risk[~np.isin(by_risk, near)]
    spread = others[np.linspace(0, len(others) - 1, SPREAD_CASES).astype(np.int64)]
    half = (NEAR_CASES + SPREAD_CASES) // 2
    return Cases(
        golden=np.sort(rows[np.r_[near, spread]]),
        clear=np.sort(rows[np.r_[by_risk[:half], by_risk[-half:]]]),
    )


def golden_arrays(reference: Pipeline, patients: Patients, rows: Indices) -> Arrays:
    """What clients send for `rows`, and what the trained pipeline answers."""
    inputs = patients.tensor[rows]
    risk = reference_risk(reference, inputs)
    return {
        "input:features": inputs,
        "output:risk": risk.astype(np.float32)[:, np.newaxis],
        "output:label": (risk > 0.5).astype(np.int64),
    }


def reference_risk(reference: Pipeline, inputs: npt.NDArray[np.float32]) -> Floats:
    """The pipeline's probability of malignancy (cases,), in double precision."""
    return np.asarray(reference.predict_proba(inputs.astype(np.float64))[:, 1], dtype=np.float64)


def _family(reference: Pipeline, names: tuple[str, ...]) -> tuple[Version, ...]:
    good = graphs.export(reference, len(names))
    planted = {
        2: good,
        3: graphs.with_swapped_columns(good, *(names.index(name) for name in SWAPPED)),
        4: graphs.with_short_size_table(good, names.index("worst_area")),
        5: graphs.with_slow_settling(good),
        6: graphs.with_trapping_division(good, names.index("mean_compactness"), names.index("mean_concavity")),
    }
    return tuple(Version(number=number, reference=reference, graph=graph) for number, graph in planted.items())


def _classifier() -> LogisticRegression:
    """A solver that runs to the one minimum there is, so that other machines arrive at the same coefficients."""
    return LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000)


def _quality(version: Version, patients: Patients, rows: Indices) -> Quality:
    return judge(patients.malignant[rows], answers(version.model, patients.tensor[rows]))


def _write(version: Version, patients: Patients, rows: Indices, folder: Path) -> None:
    release = Release(
        version=version.number,
        summary=SUMMARIES[version.number],
        model=version.model,
        golden=golden_arrays(version.reference, patients, rows),
    )
    write_release(release, folder, names=patients.names, units=units_of(patients.names))


def _evaluation(patients: Patients, split: Split, cases: Cases, qualities: Mapping[int, Quality]) -> str:
    ids = np.array(patients.ids)
    faults: dict[str, JsonValue] = {
        str(each.version): {"rule": each.rule, "patients": ids[each.concerns(patients)].tolist()} for each in TRIGGERS
    }
    document: dict[str, JsonValue] = {
        "held_out": ids[split.held_out].tolist(),
        "golden": ids[cases.golden].tolist(),
        "clear_cases": ids[cases.clear].tolist(),
        "swapped_columns": list(SWAPPED),
        "faults": faults,
        "quality": {str(version): each.document() for version, each in qualities.items()},
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _card(patients: Patients, split: Split, qualities: Mapping[int, Quality]) -> str:
    card = (HERE / "README.md").read_text(encoding="utf-8")
    card = with_block(card, "data", _data_lines(patients, split))
    card = with_block(card, "quality", quality_table(qualities))
    return with_block(card, "faults", _fault_lines(patients))


def _data_lines(patients: Patients, split: Split) -> str:
    def counted(rows: Indices) -> str:
        malignant = int(patients.malignant[rows].sum())
        return f"{len(rows)} patients ({malignant} malignant, {len(rows) - malignant} benign)"

    everybody = np.arange(len(patients.ids))
    return "\n".join(
        [
            f"- all: {counted(everybody)}",
            f"- trained on: {counted(split.train)}",
            f"- held out: {counted(split.held_out)}",
        ]
    )


def _fault_lines(patients: Patients) -> str:
    lines = ["| version | shows on patients with | how many of them |", "|---|---|---|"]
    for each in TRIGGERS:
        count, total = int(each.concerns(patients).sum()), len(patients.ids)
        lines.append(f"| {each.version} | `{each.rule}` | {count} of {total} ({count / total:.1%}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
