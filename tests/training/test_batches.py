"""Batches of training examples."""

import torch
from tiny_models import tiny_image
from tiny_vilt import tiny_vilt_processor

from lmms_tokendrop.training.batches import Collator
from lmms_tokendrop.training.tasks import Example


def test_vilt_trains_on_pictures_of_any_shape():
    examples = [Example((tiny_image(*size),), ("red ?",), torch.zeros(3)) for size in ((4000, 7), (1, 4000), (1, 1))]
    inputs = Collator(tiny_vilt_processor(), 40)(list(enumerate(examples)))
    assert inputs["pixel_mask"].sum((1, 2)).tolist() == [52 * 4, 4 * 52, 32 * 32]
