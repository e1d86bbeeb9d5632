"""What the words of devices mean, and what a person does about it: one catalogue for every page. Pure.

A word that is not here (of a newer agent) is shown as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from edgeward_fleet.dashboard.words import state_word


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """`words` go on after a colon; `advice` is a sentence, "" where there is none."""

    words: str
    advice: str = ""


_CHECK: Final = "Check the release with `edgeward model check` and pack a new version; the devices are not at fault."
_LOOK: Final = "Run `edgeward-agent doctor` on the device."
_DISK: Final = "If it comes back, replace the disk."
_ROOM: Final = "Make room on the device's disk; it goes on by itself."

UPDATES: Final[Mapping[str, Cause]] = {
    "golden_mismatch": Cause(words="its answers differ from the golden set", advice=_CHECK),
    "load_failed": Cause(words="the runtime cannot load it", advice=_CHECK),
    "load_refused": Cause(words="the serving process refused to load it", advice=_CHECK),
    "policy": Cause(words="it contains what devices never load", advice=_CHECK),
    "manifest_mismatch": Cause(
        words="it is not what its manifest says", advice="Pack the release again, push it, and ask for a new rollout."
    ),
    "digest_mismatch": Cause(
        words="its bytes are not those that were named",
        advice="Push the release again; if it comes back, something between fleet and device changes bytes.",
    ),
    "crashed": Cause(words="it ended the process that tried it", advice=_CHECK),
    "crashes": Cause(words="it ended the serving process again and again", advice=_CHECK),
    "too_slow": Cause(
        words="it is slower than its budget",
        advice="Make the model smaller or its budget larger; these devices are too slow for it as it is.",
    ),
    "too_large": Cause(
        words="it takes more memory than its budget", advice="Make the model smaller or its memory budget larger."
    ),
    "timeout": Cause(
        words="its check did not end in time, or was ended from outside",
        advice="Look whether the device has a processor and memory to spare.",
    ),
    "latency": Cause(
        words="its answers took longer than its budget under real load",
        advice="Compare with other devices: one alone is overloaded, many say that the model is too slow.",
    ),
    "errors": Cause(words="too many of its answers were errors", advice=_CHECK),
    "attempts": Cause(words="the device restarted too often before a verdict", advice=_LOOK),
    "loop_guard": Cause(words="the update went in circles and was ended", advice=_LOOK),
    "incompatible": Cause(
        words="the device cannot take it", advice="Update the agent there, or raise `update.max_model_bytes`."
    ),
    "disk": Cause(words="the disk is full", advice=_ROOM),
    "storage": Cause(words="the disk did not do what it was asked", advice=_LOOK),
    "link_lost": Cause(words="the link is lost", advice="Nothing to do: it goes on when the network is back."),
    "refused": Cause(words="the fleet refused a request of the device", advice=_LOOK),
    "stranded": Cause(
        words="neither the new release nor the one before can be loaded",
        advice="The device does not answer for this model: roll out a release that loads, then look at the device.",
    ),
}

ALARMS: Final[Mapping[str, Cause]] = {
    "outbox_full": Cause(
        words="its outbox is full",
        advice="It answers, but durable results are refused: bring its link back, or raise `outbox.max_bytes`.",
    ),
    "outbox_corrupt": Cause(
        words="its outbox was damaged and set aside",
        advice="A new one was begun; save the results with `edgeward-agent outbox export`, then remove the folder.",
    ),
    "results_not_kept": Cause(
        words="it answers without keeping the results",
        advice="Its disk or processor cannot keep up, or its outbox is full; durable capture would refuse instead.",
    ),
    "outbox_maintenance": Cause(words="its outbox cannot be tidied", advice="Look at the disk of the device."),
    "outbox_quarantine": Cause(
        words="records wait in its quarantine", advice="`edgeward-agent outbox quarantine` on the device says why."
    ),
    "outbox_unwritable": Cause(
        words="its disk takes no results",
        advice="It answers, but durable results are refused: the disk is read-only or broken. " + _LOOK,
    ),
    "quarantine": Cause(
        words="records wait in its quarantine", advice="`edgeward-agent outbox quarantine` on the device says why."
    ),
    "not_serving": Cause(
        words="its serving process is not ready", advice="At this bedside a model does not answer. " + _LOOK
    ),
    "stranded": UPDATES["stranded"],
    "not-live": Cause(words="its current release is not live", advice="It tries again by itself. " + _LOOK),
    "damaged": Cause(
        words="the files of its current release are damaged",
        advice="It fetches them again where the fleet still wants that release; else roll it out again. " + _DISK,
    ),
    "disk_low": Cause(words="its disk is nearly full", advice=_ROOM),
}


def of_update(reason: str) -> Cause:
    """Why an update did not come about."""
    return UPDATES.get(reason, Cause(words=state_word(reason)))


def of_alarm(word: str) -> Cause:
    """`stranded:risk` is the alarm `stranded` of the model risk."""
    kind, _, about = word.partition(":")
    found = ALARMS.get(kind, Cause(words=state_word(kind), advice=_LOOK))
    return Cause(words=f"{found.words} ({about})" if about else found.words, advice=found.advice)


def of_alarms(words: Iterable[str]) -> tuple[Cause, ...]:
    """Each once: two alarms may mean the same."""
    return tuple(dict.fromkeys(of_alarm(word) for word in words))
