"""A drop-in encoder: WAV files by their spectrogram, in pure NumPy. Having this file here is enough."""

import wave

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import nn

from anyrec import Encoder
from anyrec.core.contracts import Params
from anyrec.core.ragged import Prepared
from anyrec.data.images import ImageFault as FileFault
from anyrec.data.images import find_file


class Audio(Encoder):
    """A sound by the mean and deviation of its log spectrum in bands an octave's fraction wide."""

    type = "audio"

    class Params(Params):
        bands: int = Field(32, ge=4, le=1024, description="Bands of the spectrum.")
        seconds: float = Field(30.0, ge=0.01, le=3600, description="Sound read of each file.")

    def prepare(self, column: pa.Array) -> Prepared:
        """(rows,) file names, relative to the data file -> (rows, 2 * bands) float32."""
        values, present = np.zeros((len(column), 2 * self.params.bands), np.float32), np.zeros(len(column), bool)
        unreadable = []
        for row, name in enumerate(column.to_pylist()):
            if name is None:
                continue
            try:
                file = find_file(name, self.context.root, self.context.allow_outside_root)
                values[row] = spectrum(file, self.params.bands, self.params.seconds)
                present[row] = True
            except (OSError, EOFError, wave.Error, ValueError, FileFault) as error:
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


def spectrum(path, bands: int, seconds: float) -> np.ndarray:
    """(2 * bands,) mean and deviation over time of the log energy in each band."""
    samples, rate = read_wav(path, seconds)
    window = 1024
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 2] * np.hanning(window)
    energy = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.geomspace(50, rate / 2, bands + 1) / (rate / 2) * (energy.shape[1] - 1)
    cumulative = np.concatenate([np.zeros((len(energy), 1)), np.cumsum(energy, 1)], 1)
    low, high = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int) + 1
    levels = np.log1p(cumulative[:, np.minimum(high, energy.shape[1])] - cumulative[:, low])
    return np.concatenate([levels.mean(0), levels.std(0)]).astype(np.float32)


def read_wav(path, seconds: float) -> tuple[np.ndarray, int]:
    """Samples in -1 to 1, channels averaged, and the sampling rate. 8, 16, 24 and 32 bit PCM."""
    with wave.open(str(path), "rb") as file:
        rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
        data = np.frombuffer(file.readframes(int(rate * seconds)), np.uint8)
    if not len(data):
        raise ValueError("it holds no sound")
    if width == 1:
        samples = data.astype(np.float64) / 127.5 - 1
    else:
        wide = np.zeros((len(data) // width, 4), np.uint8)
        wide[:, 4 - width :] = data.reshape(-1, width)
        samples = wide.view("<i4").ravel() / 2.0**31
    return samples.reshape(-1, channels).mean(1), rate
