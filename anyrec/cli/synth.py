"""The commands `synth planted` and `synth amazon`, which generate data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyrec.cli.options import err, finite, log, sizes, synth_app
from anyrec.core.errors import Fault, InputError, did_you_mean
from anyrec.core.outputs import check_output

MOST = 100_000_000
"""The most users, items and interactions that are made: more do not fit the memory of one machine."""

Users = Annotated[int, typer.Option("--users", "--n-users", "--n_users", min=1, max=MOST, help="Number of users.")]
Items = Annotated[int, typer.Option("--items", "--n-items", "--n_items", min=1, max=MOST, help="Number of items.")]
Interactions = Annotated[
    int,
    typer.Option(
        "--interactions", "--n-interactions", "--n_interactions", min=1, max=MOST, help="Number of interactions."
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of all random numbers.")]


@synth_app.command()
def planted(
    path: Annotated[Path, typer.Argument(help="The JSON file to write; images go into the same folder.")],
    users: Users = 1000,
    items: Items = 100,
    interactions: Interactions = 13600,
    seed: Seed = 0,
    noise: Annotated[
        float, typer.Option(min=0, max=1, callback=finite, help="Fraction of interactions that are random.")
    ] = 0.1,
    preferences: Annotated[str, typer.Option(help="Planted preferences, by commas; 'all' or 'none'.")] = "all",
    images: Annotated[bool, typer.Option(help="Draw an image of each item.")] = True,
) -> None:
    """Make data with planted preferences, so that the right model is known in advance.

    `anyrec synth PATH` is short for it. The number of interactions is approximate: each user's number is drawn.
    """
    from anyrec.data.synthetic.generate import generate
    from anyrec.data.synthetic.world import PREFERENCES

    wanted = PREFERENCES if preferences == "all" else () if preferences == "none" else tuple(preferences.split(","))
    for name in wanted:
        if name not in PREFERENCES:
            raise InputError(
                Fault("--preferences", f"there is no preference '{name}'.", did_you_mean(name, PREFERENCES), "option")
            )
    check_output(path)
    world = generate(users=users, items=items, interactions=interactions, seed=seed, noise=noise, preferences=wanted)
    world.write(path, images=images)
    made = len(world.dataset.interactions)
    if made != interactions:
        low, high = min(3, max(1, items - 4)), max(1, items - 5)
        log.info(
            f"{made:,} interactions instead of {interactions:,}: the number of each user is drawn and rounded, "
            f"and is {low} to {high} with {items:,} items. `anyrec synth amazon` makes exact numbers."
        )
    err.print(f"{sizes(world.dataset)} -> {path}")


@synth_app.command()
def amazon(
    path: Annotated[
        Path, typer.Argument(help="The folder to write the Parquet files to, or the JSON file to write.")
    ] = Path("amazon"),
    users: Users = 1000,
    items: Items = 500,
    interactions: Interactions = 20_000,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            autocompletion=lambda: ["parquet", "json"],
            help="parquet or json; by default json if the path ends in .json.",
        ),
    ] = None,
    seed: Seed = 0,
    images: Annotated[bool, typer.Option(help="Draw an image of each item, in the folder `images`.")] = False,
    image_model: Annotated[
        str | None,
        typer.Option(
            "--image-model",
            "--image_model",
            metavar="MODEL",
            help="Name or folder of a Stable Diffusion model that paints the images; needs anyrec[diffusion].",
        ),
    ] = None,
    image_steps: Annotated[
        int, typer.Option("--image-steps", "--image_steps", min=1, max=1000, help="Denoising steps of --image-model.")
    ] = 25,
) -> None:
    """Make data in the manner of an online shop: products, customers, views, purchases and ratings.

    The numbers of users, items and interactions are exact; no user has an item twice.
    """
    from anyrec.data.synthetic.amazon import generate_shop
    from anyrec.data.synthetic.diffusion import Painter

    kind = kind or ("json" if path.suffix == ".json" else "parquet")
    if kind not in ("parquet", "json"):
        raise InputError(Fault("--format", f"there is no format '{kind}'.", "Use parquet or json.", "option"))
    if kind == "json" and not path.suffix:
        path = path / "data.json"
    check_output(path, "inside" if kind == "parquet" else "file")
    painter = Painter(image_model, image_steps) if image_model is not None else None
    shop = generate_shop(users, items, interactions, seed)
    shop.write(path, kind, images or painter is not None, painter)
    err.print(f"{sizes(shop.dataset)} -> {path}")
