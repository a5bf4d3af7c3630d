"""The command that publishes a model on the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from anyrec.cli.load import load
from anyrec.cli.options import Changes, ChangesPath, ModelDir, ModelName, ModelPath, PluginFolders, Trust, app, out
from anyrec.core.hub_address import hub_name


@app.command()
def push(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository of the Hub.", show_default=False)],
    model_path: ModelPath = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody read it, with the records and histories of the users.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch; by default the main one. It is created if needed.")
    ] = None,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Message of the commit.")] = None,
    config: ChangesPath = None,
    overrides: Changes = [],
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
) -> None:
    """Publish a model on the Hugging Face Hub, in a private repository unless --public is given.

    The token is in HF_TOKEN, or saved by `hf auth login`. --set card.license=apache-2.0 and the other keys of `card`
    complete the model card.
    """
    recommender = load(model_path, model_dir, model_name, config, plugins, trust_plugins, overrides=overrides)
    address = recommender.push_to_hub(repository, private=not public, revision=revision, message=message)
    out.print(f"hf://{hub_name(repository)} ({'public' if public else 'private'}): {address}", markup=False)
