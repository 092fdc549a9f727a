"""The methods of this package, in the order in which tables show them."""

from lmms_tokendrop.catalogue import papers
from lmms_tokendrop.catalogue.entries import Method

MODELING = "lmms_tokendrop.modeling"

METHODS = (
    Method(
        name="none",
        title="every token; the baseline",
        reducers={
            "decoder": f"{MODELING}.core.reducer:NoReduction",
            "fusion": f"{MODELING}.core.reducer:NoReduction",
        },
    ),
    Method(
        name="mustdrop",
        title="MustDrop: merging in CLIP, a dual-attention filter in prefill, a smaller cache",
        reducers={"decoder": f"{MODELING}.methods.mustdrop:MustDrop"},
        needs=frozenset({"clip_tower", "cls_attention", "patch_grid"}),
        paper=papers.MUSTDROP,
    ),
    Method(
        name="fastv",
        title="FastV: one drop in an early layer, by what the last token attends",
        reducers={"decoder": f"{MODELING}.methods.fastv:FastV"},
        paper=papers.FASTV,
    ),
    Method(
        name="sparsevlm",
        title="SparseVLM: text tokens rate the image's in some layers, and what leaves is recycled",
        reducers={"decoder": f"{MODELING}.methods.sparsevlm:SparseVLM"},
        paper=papers.SPARSEVLM,
    ),
    Method(
        name="pyramiddrop",
        title="PyramidDrop: half of the visual tokens leaves in each of some layers, by what the last token attends",
        reducers={"decoder": f"{MODELING}.methods.pyramiddrop:PyramidDrop"},
        paper=papers.PYRAMIDDROP,
    ),
    Method(
        name="dart",
        title="DART: of the visual tokens stay those that are least like a few pivots, in an early layer",
        reducers={"decoder": f"{MODELING}.methods.dart:Dart"},
        paper=papers.DART,
    ),
    Method(
        name="visionzip",
        title="VisionZip: the patches that CLS attends, and the others merged into a few, before the language model",
        reducers={"decoder": f"{MODELING}.methods.visionzip:VisionZip"},
        needs=frozenset({"clip_tower", "cls_attention", "patch_grid"}),
        paper=papers.VISIONZIP,
    ),
    Method(
        name="divprune",
        title="DivPrune: the most diverse visual tokens, by max-min distance, before the language model",
        reducers={"decoder": f"{MODELING}.methods.divprune:DivPrune"},
        paper=papers.DIVPRUNE,
    ),
    Method(
        name="cdpruner",
        title="CDPruner: diverse visual tokens that fit the question, as a CLIP reads it, before the language model",
        reducers={"decoder": f"{MODELING}.methods.cdpruner:CDPruner"},
        needs=frozenset({"clip_tower", "patch_grid"}),
        paper=papers.CDPRUNER,
    ),
    Method(
        name="prumerge",
        title="PruMerge: the patches that CLS attends take in their like before the language model",
        reducers={"decoder": f"{MODELING}.methods.prumerge:PruMerge"},
        needs=frozenset({"clip_tower", "cls_attention", "patch_grid"}),
        paper=papers.PRUMERGE,
    ),
    Method(
        name="scope",
        title="SCOPE: patches that cover the others and that CLS attends, before the language model",
        reducers={"decoder": f"{MODELING}.methods.scope:Scope"},
        needs=frozenset({"clip_tower", "cls_attention", "patch_grid"}),
        paper=papers.SCOPE,
    ),
    Method(
        name="hiprune_like",
        title="anchors of a middle block of its tower, their neighbours, and the best of a deep one, after HiPrune",
        reducers={"decoder": f"{MODELING}.methods.hiprune_like:HiPruneLike"},
        needs=frozenset({"clip_tower", "patch_grid"}),
        paper=papers.HIPRUNE_LIKE,
    ),
    Method(
        name="starpro_like",
        title="a diverse pool of visual tokens, from which the text chooses in some layers, after STAR-Pro",
        reducers={"decoder": f"{MODELING}.methods.starpro_like:StarProLike"},
        paper=papers.STARPRO_LIKE,
    ),
    Method(
        name="pumer",
        title="PuMer: image tokens pruned by what the text looks at, text and image merged apart",
        reducers={
            "fusion": f"{MODELING}.methods.pumer:PuMer",
            "co_attention": f"{MODELING}.methods.pumer_in_pairs:PairPuMer",
        },
        paper=papers.PUMER,
    ),
    Method(
        name="tome",
        title="ToMe: the most similar image tokens merge, a few at every depth",
        reducers={
            "fusion": f"{MODELING}.methods.tome:ToMe",
            "co_attention": f"{MODELING}.methods.tome:PairToMe",
        },
        paper=papers.TOME,
    ),
    Method(
        name="vision_tome",
        title="ToMe in its CLIP tower",
        reducers={
            "decoder": f"{MODELING}.methods.tome:LlavaTowerToMe",
            "fusion": f"{MODELING}.methods.tome:TowerToMe",
        },
        needs=frozenset({"clip_tower"}),
        paper=papers.TOME,
    ),
    Method(
        name="dynamicvit",
        title="DynamicViT: trained predictors decide which patches stay; needs a checkpoint with them",
        reducers={"fusion": f"{MODELING}.methods.dynamicvit:DynamicViT"},
        trained=True,
        paper=papers.DYNAMICVIT,
    ),
    Method(
        name="random",
        title="visual tokens dropped at random; the control",
        reducers={
            "decoder": f"{MODELING}.methods.random_drop:RandomDrop",
            "fusion": f"{MODELING}.methods.random_pruning:RandomPruning",
        },
    ),
    Method(
        name="uniform",
        title="evenly spaced visual tokens kept before the language model; another control",
        reducers={"decoder": f"{MODELING}.methods.uniform:UniformDrop"},
    ),
    Method(
        name="area_pooling",
        title="the grid of each tile pooled by area before the language model: a smaller image, the plain baseline",
        reducers={"decoder": f"{MODELING}.methods.area_pooling:AreaPooling"},
        needs=frozenset({"patch_grid"}),
    ),
    Method(
        name="composed",
        title="another method at each place: in the tower, behind it, in the decoder, in the cache",
        reducers={"decoder": f"{MODELING}.methods.composed:Composed"},
    ),
    Method(
        name="cls_attention",
        title="the image tokens that a CLS token looks at least dropped at PuMer's places",
        reducers={
            "fusion": f"{MODELING}.methods.cls_attention:ClsAttentionPruning",
            "co_attention": f"{MODELING}.methods.cls_attention:PairClsAttentionPruning",
        },
    ),
    Method(
        name="smres",
        title="images scaled down and positions interpolated",
        reducers={"fusion": f"{MODELING}.methods.smres:SmallerResolution"},
    ),
)
