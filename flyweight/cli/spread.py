"""`--ray [ADDRESS]`: the option of a command whose searches may be made elsewhere, and what it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from flyweight.errors import ConfigError

if TYPE_CHECKING:
    from flyweight.distributed.on_ray import RayCluster

__all__ = ["Ray", "WithRay", "Workers", "cluster"]

LOCAL = "local"

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Spread the questions over a Ray cluster (HOST:PORT, ray://HOST:PORT, auto); alone, over this machine.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Workers of --ray.", show_default="one per GPU, else one per machine"),
]


class WithRay(TyperCommand):
    """A command whose --ray may stand without an address."""

    def parse_args(self, context: typer.Context, arguments: list[str]) -> list[str]:  # type: ignore[override]
        """As always, with the address in its place."""
        whole = []
        for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
            whole.append(argument)
            address = following in (LOCAL, "auto") or (":" in following and not following.startswith("-"))
            if argument == "--ray" and not address:
                whole.append(LOCAL)
        return super().parse_args(context, whole)


def cluster(address: str | None, workers: int | None) -> RayCluster | None:
    """The cluster asked for, joined or made; None if none is. Errors as of `RayCluster`."""
    if address is None:
        if workers is not None:
            raise ConfigError("--workers is of no use without --ray")
        return None
    from flyweight.distributed.on_ray import RayCluster

    return RayCluster(address, workers)
