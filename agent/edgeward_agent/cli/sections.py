"""A command whose options are listed in sections, for one that has more of them than a person reads in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

_TYPED = "edgeward.typed"


class Sectioned(click.Command):
    """Takes `sections`: a heading and the names of its parameters, in order. What is in none goes into the last."""

    def __init__(self, *args: object, sections: Mapping[str, Sequence[str]], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._sections = sections

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_TYPED] = tuple(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        named = {each.name: each for each in self.get_params(ctx) if isinstance(each, click.Option)}
        last, left = list(self._sections)[-1], dict(named)
        for heading, names in self._sections.items():
            shown = [left.pop(name) for name in names]
            shown += list(left.values()) if heading == last else []
            with formatter.section(heading):
                formatter.write_dl([row for each in shown if (row := each.get_help_record(ctx))])


def typed_words() -> tuple[str, ...]:
    """The arguments of the running command, as they were typed."""
    words = click.get_current_context().meta[_TYPED]
    return tuple(str(word) for word in words)
