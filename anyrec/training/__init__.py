"""From samples to a trained model: `samples` (what is learned), `loop`, `optimizers`, `checkpoints`."""
