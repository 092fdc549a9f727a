"""Files with exactly the keys that METER's authors publish, and random weights."""

import torch
from tiny_meter import VOCABULARY

WIDTH, BLOCKS, PAIRS, LABELS = 64, 3, 2, 5


def linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str, width: int = WIDTH) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def layer(name: str, *attentions: str) -> dict[str, tuple[int, ...]]:
    shapes = linear(f"{name}.intermediate.dense", 4 * WIDTH, WIDTH) | linear(f"{name}.output.dense", WIDTH, 4 * WIDTH)
    shapes |= norm(f"{name}.output.LayerNorm")
    for attention in attentions:
        for part in ("query", "key", "value"):
            shapes |= linear(f"{name}.{attention}.self.{part}", WIDTH, WIDTH)
        shapes |= linear(f"{name}.{attention}.output.dense", WIDTH, WIDTH)
        shapes |= norm(f"{name}.{attention}.output.LayerNorm")
    return shapes


def vision(prefix: str) -> dict[str, tuple[int, ...]]:
    shapes = {
        f"{prefix}class_embedding": (WIDTH,),
        f"{prefix}positional_embedding": (17, WIDTH),
        f"{prefix}conv1.weight": (WIDTH, 3, 16, 16),
        **norm(f"{prefix}ln_pre"),
        **norm(f"{prefix}ln_post"),
    }
    for number in range(BLOCKS):
        block = f"{prefix}transformer.resblocks.{number}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{block}.attn.in_proj_bias": (3 * WIDTH,)}
        shapes |= linear(f"{block}.attn.out_proj", WIDTH, WIDTH) | norm(f"{block}.ln_1") | norm(f"{block}.ln_2")
        shapes |= linear(f"{block}.mlp.c_fc", 4 * WIDTH, WIDTH) | linear(f"{block}.mlp.c_proj", WIDTH, 4 * WIDTH)
    return shapes


def encoder(vision_prefix: str, types: int, pairs: int = PAIRS) -> dict[str, tuple[int, ...]]:
    text = "text_transformer.embeddings"
    shapes = {
        f"{text}.word_embeddings.weight": (VOCABULARY, WIDTH),
        f"{text}.position_embeddings.weight": (50, WIDTH),
        f"{text}.token_type_embeddings.weight": (1, WIDTH),
        **norm(f"{text}.LayerNorm"),
        **layer("text_transformer.encoder.layer.0", "attention"),
        **layer("text_transformer.encoder.layer.1", "attention"),
        **vision(vision_prefix),
        "token_type_embeddings.weight": (types, WIDTH),
    }
    for stream in ("text", "image"):
        shapes |= linear(f"cross_modal_{stream}_transform", WIDTH, WIDTH)
        shapes |= linear(f"cross_modal_{stream}_pooler.dense", WIDTH, WIDTH)
        for number in range(pairs):
            shapes |= layer(f"cross_modal_{stream}_layers.{number}", "attention", "crossattention")
    return shapes


def classifier(name: str, inputs: int, labels: int) -> dict[str, tuple[int, ...]]:
    shapes = linear(f"{name}.0", 2 * WIDTH, inputs) | norm(f"{name}.1", 2 * WIDTH)
    return shapes | linear(f"{name}.3", labels, 2 * WIDTH)


HEADS = {
    "pretraining": {
        **linear("mlm_score.transform.dense", WIDTH, WIDTH),
        **norm("mlm_score.transform.LayerNorm"),
        "mlm_score.decoder.weight": (VOCABULARY, WIDTH),
        "mlm_score.bias": (VOCABULARY,),
        **linear("itm_score.fc", 2, 2 * WIDTH),
    },
    "vqav2": classifier("vqa_classifier", 2 * WIDTH, LABELS),
    "snli-ve": classifier("snli_classifier", 2 * WIDTH, 3),
    "nlvr2": classifier("nlvr2_classifier", 4 * WIDTH, 2),
    "retrieval": {**linear("rank_output", 1, 2 * WIDTH), **linear("itm_score.fc", 2, 2 * WIDTH)},
}
UNUSED = {
    "text_transformer.embeddings.position_ids": (1, 50),
    **linear("text_transformer.pooler.dense", WIDTH, WIDTH),
    "vit_model.positional_embedding": (77, 32),
    **norm("vit_model.ln_final", 32),
}


def public_weights(task: str, pairs: int = PAIRS) -> dict[str, torch.Tensor]:
    """A file as METER's authors publish it, for a task."""
    torch.manual_seed(0)
    shapes = encoder("vit_model.visual.", 3 if task == "nlvr2" else 2, pairs) | UNUSED | HEADS[task]
    return {name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}
