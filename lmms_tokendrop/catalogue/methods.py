"""The methods of this package, in the order in which tables show them."""

from lmms_tokendrop.catalogue.entries import Method, Paper

MODELING = "lmms_tokendrop.modeling"

TOME = Paper(
    title="Token Merging: Your ViT But Faster",
    url="https://arxiv.org/abs/2210.09461",
    bibtex="""\
@inproceedings{bolya2023tome,
  title     = {Token Merging: Your ViT But Faster},
  author    = {Bolya, Daniel and Fu, Cheng-Yang and Dai, Xiaoliang and Zhang, Peizhao and Feichtenhofer, Christoph and
               Hoffman, Judy},
  booktitle = {International Conference on Learning Representations},
  year      = {2023}
}""",
)

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
        paper=Paper(
            title="Multi-Stage Vision Token Dropping: Towards Efficient Multimodal Large Language Model",
            url="https://arxiv.org/abs/2411.10803",
            bibtex="""\
@article{liu2024mustdrop,
  title   = {Multi-Stage Vision Token Dropping: Towards Efficient Multimodal Large Language Model},
  author  = {Liu, Ting and Shi, Liangtao and Hong, Richang and Hu, Yue and Yin, Quanjun and Zhang, Linfeng},
  journal = {arXiv preprint arXiv:2411.10803},
  year    = {2024}
}""",
        ),
    ),
    Method(
        name="fastv",
        title="FastV: one drop in an early layer, by what the last token attends",
        reducers={"decoder": f"{MODELING}.methods.fastv:FastV"},
        paper=Paper(
            title="An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration for Large "
            "Vision-Language Models",
            url="https://arxiv.org/abs/2403.06764",
            bibtex="""\
@inproceedings{chen2024fastv,
  title     = {An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration for Large
               Vision-Language Models},
  author    = {Chen, Liang and Zhao, Haozhe and Liu, Tianyu and Bai, Shuai and Lin, Junyang and Zhou, Chang and
               Chang, Baobao},
  booktitle = {European Conference on Computer Vision},
  year      = {2024}
}""",
        ),
    ),
    Method(
        name="sparsevlm",
        title="SparseVLM: text tokens rate the image's in some layers, and what leaves is recycled",
        reducers={"decoder": f"{MODELING}.methods.sparsevlm:SparseVLM"},
        paper=Paper(
            title="SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference",
            url="https://arxiv.org/abs/2410.04417",
            bibtex="""\
@inproceedings{zhang2025sparsevlm,
  title     = {SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference},
  author    = {Zhang, Yuan and Fan, Chun-Kai and Ma, Junpeng and Zheng, Wenzhao and Huang, Tao and Cheng, Kuan and
               Gudovskiy, Denis and Okuno, Tomoyuki and Nakata, Yohei and Keutzer, Kurt and Zhang, Shanghang},
  booktitle = {International Conference on Machine Learning},
  year      = {2025}
}""",
        ),
    ),
    Method(
        name="pyramiddrop",
        title="PyramidDrop: half of the visual tokens leaves in each of some layers, by what the last token attends",
        reducers={"decoder": f"{MODELING}.methods.pyramiddrop:PyramidDrop"},
        paper=Paper(
            title="PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction",
            url="https://arxiv.org/abs/2410.17247",
            bibtex="""\
@inproceedings{xing2025pyramiddrop,
  title     = {PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction},
  author    = {Xing, Long and Huang, Qidong and Dong, Xiaoyi and Lu, Jiajie and Zhang, Pan and Zang, Yuhang and
               Cao, Yuhang and He, Conghui and Wang, Jiaqi and Wu, Feng and Lin, Dahua},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2025}
}""",
        ),
    ),
    Method(
        name="dart",
        title="DART: of the visual tokens stay those that are least like a few pivots, in an early layer",
        reducers={"decoder": f"{MODELING}.methods.dart:Dart"},
        paper=Paper(
            title='Stop Looking for "Important Tokens" in Multimodal Language Models: Duplication Matters More',
            url="https://arxiv.org/abs/2502.11494",
            bibtex="""\
@inproceedings{wen2025dart,
  title     = {Stop Looking for ``Important Tokens'' in Multimodal Language Models: Duplication Matters More},
  author    = {Wen, Zichen and Gao, Yifeng and Wang, Shaobo and Zhang, Junyuan and Zhang, Qintong and Li, Weijia and
               He, Conghui and Zhang, Linfeng},
  booktitle = {Conference on Empirical Methods in Natural Language Processing},
  year      = {2025}
}""",
        ),
    ),
    Method(
        name="visionzip",
        title="VisionZip: the patches that CLS attends, and the others merged into a few, before the language model",
        reducers={"decoder": f"{MODELING}.methods.visionzip:VisionZip"},
        needs=frozenset({"clip_tower", "cls_attention", "patch_grid"}),
        paper=Paper(
            title="VisionZip: Longer is Better but Not Necessary in Vision Language Models",
            url="https://arxiv.org/abs/2412.04467",
            bibtex="""\
@inproceedings{yang2025visionzip,
  title     = {VisionZip: Longer is Better but Not Necessary in Vision Language Models},
  author    = {Yang, Senqiao and Chen, Yukang and Tian, Zhuotao and Wang, Chengyao and Li, Jingyao and Yu, Bei and
               Jia, Jiaya},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2025}
}""",
        ),
    ),
    Method(
        name="divprune",
        title="DivPrune: the most diverse visual tokens, by max-min distance, before the language model",
        reducers={"decoder": f"{MODELING}.methods.divprune:DivPrune"},
        paper=Paper(
            title="DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
            url="https://arxiv.org/abs/2503.02175",
            bibtex="""\
@inproceedings{alvar2025divprune,
  title     = {DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models},
  author    = {Alvar, Saeed Ranjbar and Singh, Gursimran and Akbari, Mohammad and Zhang, Yong},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2025}
}""",
        ),
    ),
    Method(
        name="prumerge",
        title="PruMerge: the patches that CLS attends take in their like before the language model",
        reducers={"decoder": f"{MODELING}.methods.prumerge:PruMerge"},
        needs=frozenset({"clip_tower", "cls_attention", "patch_grid"}),
        paper=Paper(
            title="LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models",
            url="https://arxiv.org/abs/2403.15388",
            bibtex="""\
@article{shang2024prumerge,
  title   = {LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models},
  author  = {Shang, Yuzhang and Cai, Mu and Xu, Bingxin and Lee, Yong Jae and Yan, Yan},
  journal = {arXiv preprint arXiv:2403.15388},
  year    = {2024}
}""",
        ),
    ),
    Method(
        name="scope",
        title="SCOPE: patches that cover the others and that CLS attends, before the language model",
        reducers={"decoder": f"{MODELING}.methods.scope:Scope"},
        needs=frozenset({"clip_tower", "cls_attention", "patch_grid"}),
        paper=Paper(
            title="SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodel LLMs",
            url="https://arxiv.org/abs/2510.24214",
            bibtex="""\
@inproceedings{deng2025scope,
  title     = {SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodel LLMs},
  author    = {Deng, Jinhong and Li, Wen and Zhou, Joey Tianyi and He, Yang},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2025}
}""",
        ),
    ),
    Method(
        name="hiprune_like",
        title="anchors of a middle block of its tower, their neighbours, and the best of a deep one, after HiPrune",
        reducers={"decoder": f"{MODELING}.methods.hiprune_like:HiPruneLike"},
        needs=frozenset({"clip_tower", "patch_grid"}),
        paper=Paper(
            title="HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models",
            url="https://arxiv.org/abs/2508.00553",
            bibtex="""\
@article{liu2025hiprune,
  title   = {HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models},
  author  = {Liu, Jizhihui and Du, Feiyi and Zhu, Guangdao and Lian, Niu and Li, Jun and Chen, Bin},
  journal = {arXiv preprint arXiv:2508.00553},
  year    = {2025}
}""",
        ),
    ),
    Method(
        name="starpro_like",
        title="a diverse pool of visual tokens, from which the text chooses in some layers, after STAR-Pro",
        reducers={"decoder": f"{MODELING}.methods.starpro_like:StarProLike"},
        paper=Paper(
            title="STAR-Pro",
            url="https://arxiv.org/abs/2609.05916",
            bibtex="""\
@misc{starpro2026,
  title        = {STAR-Pro},
  howpublished = {arXiv:2609.05916},
  year         = {2026}
}""",
        ),
    ),
    Method(
        name="pumer",
        title="PuMer: image tokens pruned by what the text looks at, text and image merged apart",
        reducers={
            "fusion": f"{MODELING}.methods.pumer:PuMer",
            "co_attention": f"{MODELING}.methods.pumer_in_pairs:PairPuMer",
        },
        paper=Paper(
            title="PuMer: Pruning and Merging Tokens for Efficient Vision Language Models",
            url="https://arxiv.org/abs/2305.17530",
            bibtex="""\
@inproceedings{cao2023pumer,
  title     = {PuMer: Pruning and Merging Tokens for Efficient Vision Language Models},
  author    = {Cao, Qingqing and Paranjape, Bhargavi and Hajishirzi, Hannaneh},
  booktitle = {Proceedings of the 61st Annual Meeting of the Association for Computational Linguistics},
  year      = {2023}
}""",
        ),
    ),
    Method(
        name="tome",
        title="ToMe: the most similar image tokens merge, a few at every depth",
        reducers={
            "fusion": f"{MODELING}.methods.tome:ToMe",
            "co_attention": f"{MODELING}.methods.tome:PairToMe",
        },
        paper=TOME,
    ),
    Method(
        name="vision_tome",
        title="ToMe in its CLIP tower",
        reducers={
            "decoder": f"{MODELING}.methods.tome:LlavaTowerToMe",
            "fusion": f"{MODELING}.methods.tome:TowerToMe",
        },
        needs=frozenset({"clip_tower"}),
        paper=TOME,
    ),
    Method(
        name="dynamicvit",
        title="DynamicViT: trained predictors decide which patches stay; needs a checkpoint with them",
        reducers={"fusion": f"{MODELING}.methods.dynamicvit:DynamicViT"},
        trained=True,
        paper=Paper(
            title="DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification",
            url="https://arxiv.org/abs/2106.02034",
            bibtex="""\
@inproceedings{rao2021dynamicvit,
  title     = {DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification},
  author    = {Rao, Yongming and Zhao, Wenliang and Liu, Benlin and Lu, Jiwen and Zhou, Jie and Hsieh, Cho-Jui},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}""",
        ),
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
