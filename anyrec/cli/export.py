"""The command that writes a model as ONNX graphs for programs without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyrec.cli.load import load
from anyrec.cli.options import ImageRoot, ModelDir, ModelName, ModelPath, PluginFolders, Trust, app, log, out


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the export to.")],
    model_path: ModelPath = None,
    without: Annotated[
        list[str],
        typer.Option(help="Part of the model to leave out: pipeline, blend or heads; may be repeated."),
    ] = [],
    users: Annotated[
        bool, typer.Option("--users/--no-users", help="Write the known users, their vectors and their histories.")
    ] = True,
    image_root: ImageRoot = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
) -> None:
    """Write a model as ONNX graphs, with the preprocessing and the vectors, for programs without torch.

    The folder has everything that lists need: `anyrec.export.load` reads it, and any ONNX runtime runs the graphs. Some
    users and items are encoded by the graphs and compared with the model.
    """
    from anyrec.export.write import check_export_output

    check_export_output(output.resolve())
    recommender = load(model_path, model_dir, model_name, None, plugins, trust_plugins, image_root)
    written = recommender.export(output, without=without, users=users)
    for note in written.notes:
        log.warning(note)
    size = sum(written.files.values()) / 1e6
    out.print(f"{len(written.files)} files, {size:,.1f} MB -> {written.folder}", markup=False)
    out.print(f"largest difference from the model: {written.difference:.1g}", markup=False)
