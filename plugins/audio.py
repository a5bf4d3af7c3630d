"""A drop-in encoder of WAV files by their spectrum, in pure NumPy. anyrec finds it because it is in this folder."""

import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import nn

from anyrec import Encoder, Params, Prepared
from anyrec.data.images import ImageFault, find_file

WINDOW = 1024
"""Samples in a frame of the spectrogram."""


class Audio(Encoder):
    """Encodes a sound by the mean and standard deviation over time of its log energy in frequency bands."""

    type = "audio"
    reads_files = True

    class Params(Params):
        bands: int = Field(32, ge=4, le=1024, description="Frequency bands, equally wide on a logarithmic scale.")
        seconds: float = Field(30.0, ge=0.01, le=3600, description="Seconds read from the start of each file.")

    def prepare(self, column: pa.Array) -> Prepared:
        """Read the files.

        Args:
            column: (rows,) file names, relative to the data file.

        Returns:
            (rows, 2 * bands) float32, and the mask of the files that could be read.
        """
        values, present = np.zeros((len(column), 2 * self.params.bands), np.float32), np.zeros(len(column), bool)
        unreadable = []
        for row, name in enumerate(column.to_pylist()):
            if name is None:
                continue
            try:
                file = find_file(name, self.context.root, self.context.allow_outside_root)
                values[row] = spectrum(file, self.params.bands, self.params.seconds)
                present[row] = True
            except (OSError, EOFError, wave.Error, ValueError, ImageFault) as error:
                unreadable.append(f"'{name}' ({error})")
        if unreadable:
            self.context.warnings.append(
                f"{len(unreadable)} sounds cannot be read and count as absent; the first: {unreadable[0]}."
            )
        return Prepared(torch.from_numpy(values), torch.from_numpy(present))

    def build(self) -> None:
        width = 2 * self.params.bands
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.output_dim))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layers(values)


def spectrum(path: Path, bands: int, seconds: float) -> np.ndarray:
    """Compute the log energy in each band.

    Args:
        path: A WAV file.
        bands: Number of bands.
        seconds: Seconds to read.

    Returns:
        (2 * bands,) float32, the means over time, then the standard deviations.
    """
    samples, rate = read_wav(path, seconds)
    padded = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:: WINDOW // 2] * np.hanning(WINDOW)
    energy = np.abs(np.fft.rfft(frames, axis=1)) ** 2  # (frames, WINDOW // 2 + 1)
    # Edges of the bands, from 50 Hz to half the sampling rate, as positions among the frequencies. No band is empty.
    edges = np.geomspace(50, rate / 2, bands + 1) / (rate / 2) * (energy.shape[1] - 1)
    cumulative = np.concatenate([np.zeros((len(energy), 1)), np.cumsum(energy, 1)], 1)
    low, high = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int) + 1
    levels = np.log1p(cumulative[:, np.minimum(high, energy.shape[1])] - cumulative[:, low])
    return np.concatenate([levels.mean(0), levels.std(0)]).astype(np.float32)


def read_wav(path: Path, seconds: float) -> tuple[np.ndarray, int]:
    """Read a WAV file of 8, 16, 24 or 32 bit PCM.

    Args:
        path: The file.
        seconds: Seconds to read.

    Returns:
        (samples,) float64 in -1 to 1, the mean of the channels; and the sampling rate in Hz.
    """
    with wave.open(str(path), "rb") as file:
        rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
        data = np.frombuffer(file.readframes(int(rate * seconds)), np.uint8)
    if not len(data):
        raise ValueError("it holds no sound")
    if width == 1:
        samples = data.astype(np.float64) / 127.5 - 1
    else:  # the bytes become the upper ones of a 32 bit integer
        wide = np.zeros((len(data) // width, 4), np.uint8)
        wide[:, 4 - width :] = data.reshape(-1, width)
        samples = wide.view("<i4").ravel() / 2.0**31
    return samples.reshape(-1, channels).mean(1), rate
