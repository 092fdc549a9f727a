"""Model arguments of every method with which every image of the tiny models loses tokens."""

FEWER_TOKENS = {
    "none": {},
    "mustdrop": {"keep_ratio": 0.4, "layers": "0+1"},
    "random": {"keep_ratio": 0.4},
    "uniform": {"keep_ratio": 0.4},
    "vision_tome": {"vision_r": 5},
    "fastv": {"K": 1, "keep_ratio": 0.4},
    "visionzip": {"keep_ratio": 0.4},
    "divprune": {"keep_ratio": 0.4},
    "cdpruner": {"keep_ratio": 0.4, "clip": "clip"},
    "prumerge": {"keep_ratio": 0.4},
    "scope": {"keep_ratio": 0.4},
    "hiprune_like": {"keep_ratio": 0.4},
    "starpro_like": {"keep_ratio": 0.4},
    "area_pooling": {"keep_ratio": 0.25},
    "sparsevlm": {"keep_ratio": 0.4},
    "composed": {"features": "random", "keep_ratio": 0.4},
    "pyramiddrop": {"keep_ratio": 0.4},
    "dart": {"K": 1, "keep_ratio": 0.4},
}
