"""Says what happens as it happens: lines with the time, and on a terminal a last line that moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from edgeward_fleet.demo.reckoning import Check


class Narrator:
    """`counts` gives the words for the moving line; nothing moves where nobody watches."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s = time.monotonic()
        self._spinner = Spinner("dots")
        self._title = ""
        self.counts: Callable[[], str] = lambda: ""
        self._live = Live(console=console, get_renderable=self._moving, refresh_per_second=4, transient=True)

    def __enter__(self) -> Narrator:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def chapter(self, title: str) -> None:
        """What is shown next."""
        self._title = title
        self._print(title, style="bold")

    def say(self, line: str) -> None:
        """Something that has happened."""
        self._print(f"  {line}", style="")

    def finish(self, checks: Sequence[Check]) -> None:
        """The table at the end."""
        self._live.stop()
        table = Table(title="What had to be so, and what was", title_justify="left")
        for heading in ("", "must be", "was", ""):
            table.add_column(heading, overflow="fold")
        for check in checks:
            verdict = Text("ok", style="green") if check.ok else Text("WRONG", style="bold red")
            table.add_row(Text(check.name), Text(check.expected), Text(check.found), verdict)
        self._console.print(table)

    def _print(self, line: str, *, style: str) -> None:
        stamp = Text(f"{self.elapsed_s:6.1f} s  ", style="dim")
        self._console.print(Text.assemble(stamp, Text(line, style=style)), soft_wrap=True)

    def _moving(self) -> Spinner:
        self._spinner.update(text=Text(f"{self.elapsed_s:5.0f} s  {self.counts() or self._title}"))
        return self._spinner
