"""Where the methods are described, and how to cite them."""

from lmms_tokendrop.catalogue.entries import Paper

MUSTDROP = Paper(
    title="Multi-Stage Vision Token Dropping: Towards Efficient Multimodal Large Language Model",
    url="https://arxiv.org/abs/2411.10803",
    bibtex="""\
@article{liu2024mustdrop,
  title   = {Multi-Stage Vision Token Dropping: Towards Efficient Multimodal Large Language Model},
  author  = {Liu, Ting and Shi, Liangtao and Hong, Richang and Hu, Yue and Yin, Quanjun and Zhang, Linfeng},
  journal = {arXiv preprint arXiv:2411.10803},
  year    = {2024}
}""",
)

FASTV = Paper(
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
)

SPARSEVLM = Paper(
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
)

PYRAMIDDROP = Paper(
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
)

DART = Paper(
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
)

VISIONZIP = Paper(
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
)

DIVPRUNE = Paper(
    title="DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
    url="https://arxiv.org/abs/2503.02175",
    bibtex="""\
@inproceedings{alvar2025divprune,
  title     = {DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models},
  author    = {Alvar, Saeed Ranjbar and Singh, Gursimran and Akbari, Mohammad and Zhang, Yong},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2025}
}""",
)

CDPRUNER = Paper(
    title="Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs",
    url="https://arxiv.org/abs/2506.10967",
    bibtex="""\
@inproceedings{zhang2025cdpruner,
  title     = {Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs},
  author    = {Zhang, Qizhe and Liu, Mengzhen and Li, Lichen and Lu, Ming and Zhang, Yuan and Pan, Junwen and
               She, Qi and Zhang, Shanghang},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2025}
}""",
)

PRUMERGE = Paper(
    title="LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models",
    url="https://arxiv.org/abs/2403.15388",
    bibtex="""\
@article{shang2024prumerge,
  title   = {LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models},
  author  = {Shang, Yuzhang and Cai, Mu and Xu, Bingxin and Lee, Yong Jae and Yan, Yan},
  journal = {arXiv preprint arXiv:2403.15388},
  year    = {2024}
}""",
)

SCOPE = Paper(
    title="SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodel LLMs",
    url="https://arxiv.org/abs/2510.24214",
    bibtex="""\
@inproceedings{deng2025scope,
  title     = {SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodel LLMs},
  author    = {Deng, Jinhong and Li, Wen and Zhou, Joey Tianyi and He, Yang},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2025}
}""",
)

HIPRUNE_LIKE = Paper(
    title="HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models",
    url="https://arxiv.org/abs/2508.00553",
    bibtex="""\
@article{liu2025hiprune,
  title   = {HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models},
  author  = {Liu, Jizhihui and Du, Feiyi and Zhu, Guangdao and Lian, Niu and Li, Jun and Chen, Bin},
  journal = {arXiv preprint arXiv:2508.00553},
  year    = {2025}
}""",
)

STARPRO_LIKE = Paper(
    title="STAR-Pro",
    url="https://arxiv.org/abs/2609.05916",
    bibtex="""\
@misc{starpro2026,
  title        = {STAR-Pro},
  howpublished = {arXiv:2609.05916},
  year         = {2026}
}""",
)

PUMER = Paper(
    title="PuMer: Pruning and Merging Tokens for Efficient Vision Language Models",
    url="https://arxiv.org/abs/2305.17530",
    bibtex="""\
@inproceedings{cao2023pumer,
  title     = {PuMer: Pruning and Merging Tokens for Efficient Vision Language Models},
  author    = {Cao, Qingqing and Paranjape, Bhargavi and Hajishirzi, Hannaneh},
  booktitle = {Proceedings of the 61st Annual Meeting of the Association for Computational Linguistics},
  year      = {2023}
}""",
)

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

DYNAMICVIT = Paper(
    title="DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification",
    url="https://arxiv.org/abs/2106.02034",
    bibtex="""\
@inproceedings{rao2021dynamicvit,
  title     = {DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification},
  author    = {Rao, Yongming and Zhao, Wenliang and Liu, Benlin and Lu, Jiwen and Zhou, Jie and Hsieh, Cho-Jui},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}""",
)
