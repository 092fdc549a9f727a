"""What model cards say of a method or an architecture whatever was measured."""

from __future__ import annotations

TOME = """\
@inproceedings{bolya2023tome,
  title     = {Token Merging: Your ViT But Faster},
  author    = {Bolya, Daniel and Fu, Cheng-Yang and Dai, Xiaoliang and Zhang, Peizhao and Feichtenhofer, Christoph and
               Hoffman, Judy},
  booktitle = {International Conference on Learning Representations},
  year      = {2023}
}"""

CITATIONS = {
    "mustdrop": """\
@article{liu2024mustdrop,
  title   = {Multi-Stage Vision Token Dropping: Towards Efficient Multimodal Large Language Model},
  author  = {Liu, Ting and Shi, Liangtao and Hong, Richang and Hu, Yue and Yin, Quanjun and Zhang, Linfeng},
  journal = {arXiv preprint arXiv:2411.10803},
  year    = {2024}
}""",
    "pumer": """\
@inproceedings{cao2023pumer,
  title     = {PuMer: Pruning and Merging Tokens for Efficient Vision Language Models},
  author    = {Cao, Qingqing and Paranjape, Bhargavi and Hajishirzi, Hannaneh},
  booktitle = {Proceedings of the 61st Annual Meeting of the Association for Computational Linguistics},
  year      = {2023}
}""",
    "tome": TOME,
    "vision_tome": TOME,
    "dynamicvit": """\
@inproceedings{rao2021dynamicvit,
  title     = {DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification},
  author    = {Rao, Yongming and Zhao, Wenliang and Liu, Benlin and Lu, Jiwen and Zhou, Jie and Hsieh, Cho-Jui},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}""",
}
"""Papers of the methods that have one."""

OWN_METHOD = "This method is a baseline of lmms_tokendrop."

LIMITS = {
    "llava_next": """\
- Static and quantised caches, chunked prefill, assisted decoding and right padding raise an error.
- A prompt must not end in an image. Training through a drop is not possible.""",
    "vilt": "- Text past 40 tokens has to be cut off.",
    "meter": "- Text past 50 tokens has to be cut off.",
}
"""By architecture."""

COMMON_LIMIT = "- Figures hold for the settings, tasks and machines that they name."
UNTUNED_LIMIT = "- The weights were trained without this reduction, as far as their configuration says."
BASE_LIMIT = "- The weights are fetched from the base model's repository, which has to stay available."
POCKET_LIMIT = (
    "- The bundled model is small and was trained on generated scenes: its figures rank methods on this model only."
)
