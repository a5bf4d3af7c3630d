"""A tiny CLIP model with random weights and a tokenizer of its own, saved and read as a published one is."""

from pathlib import Path

SENTENCES = [
    "a red kite for the beach",
    "a blue pan for the kitchen",
    "a green book about the ocean and the stars",
    "a photo of a shark near a boat",
]
SIZE = 32
"""Side in pixels of the images that the model reads."""
DIM = 12


def tiny_clip(folder: Path, limit: int | None = 77) -> Path:
    """Save the model.

    Args:
        folder: A folder for its files.
        limit: The length that the tokenizer names; None if it names none, as some published ones.

    Returns:
        The folder of the model.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = _tokenizer(limit)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**small, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.eos_token_id, **special},
        vision_config={**small, "image_size": SIZE, "patch_size": 16},
        projection_dim=DIM,
        initializer_factor=20.0,  # the tiny model tells texts and images apart
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder / "clip")
    processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    processor.save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    SentenceTransformer(str(folder / "clip"), device="cpu").save(str(folder / "sentence-clip"))
    return folder / "sentence-clip"


def _tokenizer(limit: int | None):
    """Return CLIP's tokenizer with a token for each word of SENTENCES, and for each letter and digit.

    The merges of a word join its letters from the left. To train them would give other ones in each process.
    """
    from transformers import CLIPTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    merges: list[tuple[str, str]] = []
    for word in sorted({word for sentence in SENTENCES for word in sentence.split()}):
        letters = [*word[:-1], f"{word[-1]}</w>"]
        merges += [("".join(letters[:n]), letters[n]) for n in range(1, len(letters))]
    merges = list(dict.fromkeys(merges))
    tokens = [*alphabet, *(f"{one}</w>" for one in alphabet), *("".join(pair) for pair in merges), start, end]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, **({"model_max_length": limit} if limit else {}))
