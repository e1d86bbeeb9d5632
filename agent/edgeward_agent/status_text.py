"""The status as a person reads it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edgeward_agent.status import DeviceStatus, LinkStatus, ModelStatus, OutboxStatus, ServingStatus, Status

_UNKNOWN = ("unknown", *["?"] * 6)  # from live to p99
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def status_text(status: Status) -> str:
    rows = [
        ("agent", _agent(status)),
        ("device", _device(status.device)),
        ("certificate", _certificate(status.device)),
        ("fleet", _link(status.link, status.agent.pid)),
        ("serving", _serving(status.serving)),
        ("outbox", _outbox(status.outbox)),
        ("disk", f"{size(status.disk_free_bytes)} free"),
    ]
    if status.alarms:
        rows.append(("alarms", " ".join(status.alarms)))
    lines = [f"{name:<12} {text}" for name, text in rows if text]
    known = bool(status.agent.pid) or not status.serving.pid
    return "\n".join([*lines, "", *_models(status.models, known=known)])


def duration(seconds: int) -> str:
    """`90` is `1 min`, `7200` is `2 h`: the largest unit that fits."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return "0 s"


def size(count: int) -> str:
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def _agent(status: Status) -> str:
    if status.agent.pid:
        return f"running, pid {status.agent.pid}, for {duration(status.agent.uptime_s)}, version {status.agent.version}"
    return "not running; what follows was read from the disk. Start it with `edgeward-agent run`"


def _device(device: DeviceStatus) -> str:
    return f"{device.id} of site {device.site}" if device.id else device.problem


def _certificate(device: DeviceStatus) -> str:
    if not device.id:
        return ""
    return device.problem or f"good for {device.certificate_days_left} days"


def _link(link: LinkStatus, agent_pid: int) -> str:
    if not agent_pid:
        return ""
    heard = f"last heard {duration(link.heard_s_ago)} ago" if link.heard_s_ago is not None else "not heard yet"
    return f"connected, {heard}" if link.connected else f"out of reach, {heard}: {link.error or 'asking'}"


def _serving(serving: ServingStatus) -> str:
    if not serving.pid:
        return "not running"
    named = {"http://": serving.http, "unix:": serving.unix, "frames:": serving.frames, "grpc://": serving.grpc}
    where = ", ".join(kind + address for kind, address in named.items() if address)
    times = "once" if serving.restarts == 1 else f"{serving.restarts} times"
    return f"pid {serving.pid} on {where}" + (f", restarted {times}" if serving.restarts else "")


def _outbox(outbox: OutboxStatus) -> str:
    if outbox.records < 0:
        return ""
    oldest = f", the oldest for {duration(outbox.oldest_s)}" if outbox.records else ""
    more = [(outbox.quarantined, "in quarantine"), (outbox.dropped, "dropped for room")]
    wait = "1 record waits" if outbox.records == 1 else f"{outbox.records} records wait"
    lost = "1 result" if outbox.not_kept == 1 else f"{outbox.not_kept} results"
    missing = f", {lost} not kept" if outbox.not_kept > 0 else ""
    return f"{wait}{oldest}" + "".join(f", {count} {what}" for count, what in more if count) + missing


def _models(models: tuple[ModelStatus, ...], *, known: bool) -> Iterator[str]:
    """Without `known` something serves, but nobody is there who could say what."""
    if not models:
        yield "no models: the fleet has not given this device any"
        return
    rows: list[tuple[str, ...]] = [("model", "live", "slot", "requests", "errors", "late", "refused", "p99", "update")]
    rows += [_model(each) if known else (each.name, *_UNKNOWN, _update(each)) for each in models]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if not known:
        yield "what is live is unknown: the control process is down, and the serving process goes on without it"
    for model in models:
        for remark in filter(None, (model.detail, model.fallback)):
            yield f"{model.name}: {remark}"


def _model(model: ModelStatus) -> tuple[str, ...]:
    p99 = f"{model.p99_us / 1000:.2f} ms" if model.p99_us else "-"
    counts = (model.requests, model.errors, model.late, model.refused)
    return (model.name, model.live or "-", model.slot or "-", *map(str, counts), p99, _update(model))


def _update(model: ModelStatus) -> str:
    progress = f" {model.progress_percent} %" if model.update_state == "DOWNLOADING" else ""
    reason = f" ({model.reason})" if model.reason else ""
    return f"{model.update} {model.update_state}{progress}{reason}" if model.update else "-"
