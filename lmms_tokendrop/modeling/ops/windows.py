"""Pure tensor functions on windows of a grid of patches: their similarity and merging (MustDrop)."""

import torch


def window_cells(height: int, width: int, size: int = 3) -> torch.Tensor:
    """Cells of the whole, non-overlapping windows of a grid.

    Parameters
    ----------
    height, width : int
        Size of the grid in cells.
    size : int
        Side of a window in cells. Rows and columns that do not fill a window belong to none.

    Returns
    -------
    torch.LongTensor
        `[windows, size * size]`, raster indices into the flattened grid; the centre is member `size * size // 2`.
    """
    rows, columns = height // size, width // size
    cells = torch.arange(height * width).view(height, width)[: rows * size, : columns * size]
    return cells.reshape(rows, size, columns, size).transpose(1, 2).reshape(rows * columns, size * size)


def window_similarity(tokens: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    """Mean pairwise cosine similarity of the members of each window (MustDrop, vision encoding).

    Parameters
    ----------
    tokens : torch.Tensor
        `[..., windows, members, channels]`.
    alive : torch.BoolTensor
        `[..., windows, members]`; other members take no part.

    Returns
    -------
    torch.Tensor
        `[..., windows]`, float32; `-inf` where fewer than two members are alive.
    """
    unit = torch.nn.functional.normalize(tokens.float(), dim=-1) * alive.unsqueeze(-1)
    count = alive.sum(-1).float()
    pairs = count * (count - 1)
    similarity = (unit.sum(-2).square().sum(-1) - count) / pairs.clamp_min(1)
    return similarity.masked_fill(pairs == 0, float("-inf"))


def window_targets(windows: torch.Tensor, alive: torch.Tensor, merged: torch.Tensor) -> torch.Tensor:
    """Where each cell goes if some windows merge: into the window's slot, see :func:`window_slots`.

    Parameters
    ----------
    windows : torch.LongTensor
        `[windows, members]`, from :func:`window_cells`.
    alive : torch.BoolTensor
        `[batch, cells]`.
    merged : torch.BoolTensor
        `[batch, windows]`.

    Returns
    -------
    torch.LongTensor
        `[batch, cells]`: itself outside of merged windows; -1 for members of them that are not alive.
    """
    target = torch.arange(alive.shape[1], device=alive.device).repeat(len(alive), 1)
    row, window = merged.nonzero(as_tuple=True)
    row, slot, members = row.unsqueeze(-1), window_slots(windows, alive)[row, window].unsqueeze(-1), windows[window]
    target[row, members] = torch.where(alive[row, members], slot, -1)
    return target


def window_slots(windows: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    """Cell that keeps the merged value of each window: the centre, else the first alive member.

    Parameters
    ----------
    windows : torch.LongTensor
        `[windows, members]`.
    alive : torch.BoolTensor
        `[batch, cells]`.

    Returns
    -------
    torch.LongTensor
        `[batch, windows]`, cell indices.
    """
    member_alive, centre = alive[:, windows], windows.shape[1] // 2
    member = torch.where(member_alive[..., centre], centre, member_alive.int().argmax(-1))
    return windows[torch.arange(len(windows), device=windows.device), member]


def window_order(slots: torch.Tensor, merged: torch.Tensor, similarity: torch.Tensor, target: torch.Tensor):
    """The order of the MustDrop release: merged tokens by falling similarity, then the others, then what left.

    Parameters
    ----------
    slots : torch.LongTensor
        `[batch, windows]`, from :func:`window_slots`.
    merged : torch.BoolTensor
        `[batch, windows]`.
    similarity : torch.Tensor
        `[batch, windows]`.
    target : torch.LongTensor
        `[batch, cells]`, from :func:`window_targets`.

    Returns
    -------
    torch.Tensor
        `[batch, cells]` float32; the order is that of rising values, ties by place.
    """
    order = (target != torch.arange(target.shape[1], device=target.device)).float() * 2
    row, window = merged.nonzero(as_tuple=True)
    order[row, slots[row, window]] = -2 - similarity[row, window]
    return order
