"""The architectures of this package, in the order in which tables show them."""

from lmms_tokendrop.catalogue.entries import POCKET, Architecture
from lmms_tokendrop.catalogue.heads import ENCODER_HEADS, Head

MODELING = "lmms_tokendrop.modeling"

GENERATION = Head(
    "conditional_generation",
    "ConditionalGeneration",
    "image-text-to-text",
    "AutoModelForImageTextToText",
    tasks=("gqa", "pope", "textvqa_val", "vizwiz_vqa_val"),
)

DECODER_LIMITS = (
    "- Static and quantised caches, chunked prefill, assisted decoding and right padding raise an error.\n"
    "- A prompt must not end in an image. Training through a drop is not possible."
)

ARCHITECTURES = (
    Architecture(
        name="llava_next",
        title="LLaVA-NeXT",
        module=f"{MODELING}.architectures.modeling_llava_next_tokendrop",
        stock="LlavaNext",
        reduced="LlavaNextTokenDrop",
        heads=(GENERATION,),
        provides=("decoder", "clip_tower", "cls_attention", "patch_grid", "newlines"),
        checkpoint="llava-hf/llava-v1.6-vicuna-7b-hf",
        processor="transformers:LlavaNextProcessor",
        exported_processor=f"{MODELING}.architectures.processing_llava_next_tokendrop:LlavaNextTokenDropProcessor",
        packed_processors={"flat": f"{MODELING}.architectures.processing_llava_next_tokendrop:FlatLlavaNextProcessor"},
        padding_side="left",
        unquantized=("model.vision_tower", "model.multi_modal_projector", "lm_head"),
        limits=DECODER_LIMITS,
        pocket={"none": "llava_next"},
        pocket_tables=("pocket-scenes", "easy-vqa"),
        benchmarks={"mustdrop": "speed-32x512"},
    ),
    Architecture(
        name="llava",
        title="LLaVA-1.5",
        module=f"{MODELING}.architectures.modeling_llava_tokendrop",
        stock="Llava",
        reduced="LlavaTokenDrop",
        heads=(GENERATION,),
        provides=("decoder", "clip_tower", "cls_attention", "patch_grid"),
        checkpoint="llava-hf/llava-1.5-7b-hf",
        processor="transformers:LlavaProcessor",
        padding_side="left",
        unquantized=("model.vision_tower", "model.multi_modal_projector", "lm_head"),
        limits=DECODER_LIMITS,
    ),
    Architecture(
        name="vilt",
        title="ViLT",
        module=f"{MODELING}.architectures.modeling_vilt_tokendrop",
        stock="Vilt",
        reduced="ViltTokenDrop",
        heads=ENCODER_HEADS,
        provides=("fusion",),
        checkpoint="dandelin/vilt-b32-finetuned-vqa",
        processor="transformers:ViltProcessor",
        padding_side="right",
        token_types="embeddings.token_type_embeddings.weight",
        limits="- Text past 40 tokens has to be cut off.",
        pocket={"none": "vilt", "pumer": "vilt_pumer", "dynamicvit": "vilt_dynamicvit"},
        pocket_tables=("pocket-vilt-methods",),
        benchmarks=dict.fromkeys(("none", "pumer", "tome", "dynamicvit", "random", "smres"), "throughput-vilt"),
    ),
    Architecture(
        name="meter",
        title="METER",
        module=f"{MODELING}.architectures.modeling_meter_tokendrop",
        stock="Meter",
        reduced="MeterTokenDrop",
        heads=ENCODER_HEADS,
        provides=("co_attention", "fusion", "clip_tower"),
        checkpoint=POCKET,
        processor="transformers:CLIPProcessor",
        padding_side="right",
        token_types="token_type_embeddings.weight",
        limits="- Text past 50 tokens has to be cut off.",
        pocket={"none": "meter", "pumer": "meter_pumer"},
        pocket_tables=("pocket-meter-methods",),
        benchmarks=dict.fromkeys(
            ("none", "pumer", "tome", "vision_tome", "dynamicvit", "random", "smres"), "throughput-meter"
        ),
    ),
)
