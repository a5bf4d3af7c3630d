"""Images of generated products by a text-to-image diffusion model of diffusers, such as Stable Diffusion."""

from __future__ import annotations

from typing import Any

from PIL import Image

from anyrec.core.errors import Fault, InputError, MissingDependency

PROMPT = "a studio photo of {title}, {category}, on a plain white background"
SIDE = 256
"""Side in pixels of the images that are written; models paint 512 or 1024 pixels."""


class Painter:
    """Paints an image for a text.

    References:
        Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022.
    """

    def __init__(self, model: str, steps: int):
        """Load the model.

        Args:
            model: The published name or the folder of a model of diffusers, with weights as safetensors: files of
                pickle are not opened.
            steps: Steps of denoising.

        Raises:
            MissingDependency: If diffusers is not installed.
            InputError: If the model cannot be loaded.
        """
        try:
            import torch
            from diffusers import AutoPipelineForText2Image  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingDependency("diffusers", "diffusion", "The option --image-model") from None
        try:
            self.pipeline: Any = AutoPipelineForText2Image.from_pretrained(model, use_safetensors=True)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
            hint = "Name the folder of a text-to-image model of diffusers, or leave the option out to draw shapes."
            what = f"the model '{model}' cannot be loaded: {reason}."
            raise InputError(Fault("--image-model", what, hint, "no such model")) from None
        self.pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
        self.pipeline.set_progress_bar_config(disable=True)
        self.steps = steps

    def paint(self, title: str, category: str, seed: int) -> Image.Image:
        """Return an RGB image of a product, at most SIDE pixels wide and high, the same for the same seed and machine.

        Args:
            title: The product.
            category: What it is.
            seed: Seed of the noise that the image starts from.
        """
        import torch

        prompt = PROMPT.format(title=title, category=category)
        noise = torch.Generator("cpu").manual_seed(seed)
        painted = self.pipeline(prompt, num_inference_steps=self.steps, generator=noise).images[0].convert("RGB")
        painted.thumbnail((SIDE, SIDE))
        return painted
