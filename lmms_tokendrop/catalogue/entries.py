"""What is said of an architecture, of a method, and of the two together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from lmms_tokendrop.catalogue.checks import check_parts, check_reference, check_texts, owner_of
from lmms_tokendrop.catalogue.heads import Head

POCKET = "pocket"
"""The value of ``pretrained`` that stands for a bundled model."""

UNREDUCED = "none"
"""The method that leaves every token where it is."""

PADDING_SIDES = ("left", "right")


@dataclass(frozen=True)
class Paper:
    """Where a method is described.

    Parameters
    ----------
    title
        Title of the paper.
    url
        Its page.
    bibtex
        Entry to cite it by.
    """

    title: str
    url: str
    bibtex: str

    def __post_init__(self) -> None:
        check_texts("paper", title=self.title, url=self.url, bibtex=self.bibtex)


@dataclass(frozen=True)
class Method:
    """A way to reduce tokens.

    Parameters
    ----------
    name
        Value of ``method`` in the options; with an architecture's name it makes a variant's.
    title
        One line that completes "LLaVA-NeXT with ...".
    reducers
        ``"module:Class"`` of the reducer for each of `PARTS` that it works with. The first word of an architecture's
        `provides` that is here decides.
    paper
        Where it comes from; None for a baseline of this package.
    needs
        Words of `PARTS` that an architecture has to provide as well.
    trained
        Whether it has parameters, so that only a checkpoint trained with it will do.

    Raises
    ------
    ValueError
        If something is missing or malformed; names the method, the field and what is allowed.
    """

    name: str
    title: str
    reducers: Mapping[str, str]
    paper: Paper | None = None
    needs: frozenset[str] = frozenset()
    trained: bool = False

    def __post_init__(self) -> None:
        owner = owner_of("method", self.name)
        check_texts(owner, title=self.title)
        check_parts(owner, "reducers", self.reducers, Mapping, least=1)
        check_parts(owner, "needs", self.needs, frozenset)
        for reference in self.reducers.values():
            check_reference(owner, "reducers", reference)
        if not isinstance(self.paper, Paper | None):
            raise ValueError(f"{owner}: paper={self.paper!r}; allowed: a Paper, None")

    def reducer(self, provides: Sequence[str]) -> str | None:
        """``"module:Class"`` of the reducer for what an architecture provides; None if the method can't work there."""
        if not self.needs <= set(provides):
            return None
        return next((self.reducers[part] for part in provides if part in self.reducers), None)


@dataclass(frozen=True)
class Architecture:
    """A family of models.

    Parameters
    ----------
    name
        Model type of the stock class; with a method's name it makes a variant's.
    title
        What tables call it.
    module
        Dotted name of the module with all reduced classes and their configuration.
    stock, reduced
        What the names of the stock and of the reduced classes begin with.
    heads
        The reduced classes with an output; the first is the default.
    provides
        Words of `PARTS`, those that decide on a reducer in order of preference.
    checkpoint
        Default of ``pretrained``: Hub id, ``"pocket"``, or None if there is none.
    processor
        ``"module:Class"`` of the processor.
    padding_side
        Where texts of a batch are padded: ``"left"`` or ``"right"``.
    limits
        What model cards say of its limits, as Markdown.
    exported_processor
        The one that goes with an exported model; None if it is the same.
    packed_processors
        Processors for values of the option ``packing`` that need another.
    unquantized
        Modules that bitsandbytes leaves as they are; None if it can't quantise this architecture.
    token_types
        Parameter of the encoder with a row for text and one for each image; None if it can't be trained here.
    pocket
        Folder of the bundled model for each method that has its own; the others run on that of ``"none"``.
    pocket_tables
        Tables of `lmms_tokendrop.results.tables` with what the bundled models were measured on.
    benchmarks
        Table there with MACs and time, for each method that has a row in one.

    Raises
    ------
    ValueError
        If something is missing or malformed; names the architecture, the field and what is allowed.
    """

    name: str
    title: str
    module: str
    stock: str
    reduced: str
    heads: tuple[Head, ...]
    provides: tuple[str, ...]
    checkpoint: str | None
    processor: str
    padding_side: str
    limits: str
    exported_processor: str | None = None
    packed_processors: Mapping[str, str] = field(default_factory=dict)
    unquantized: tuple[str, ...] | None = None
    token_types: str | None = None
    pocket: Mapping[str, str] = field(default_factory=dict)
    pocket_tables: tuple[str, ...] = ()
    benchmarks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        owner = owner_of("architecture", self.name)
        texts = ("title", "module", "stock", "reduced", "limits")
        check_texts(owner, **{name: getattr(self, name) for name in texts})
        check_parts(owner, "provides", self.provides, tuple, least=1)
        if not self.heads or not all(isinstance(head, Head) for head in self.heads):
            raise ValueError(f"{owner}: heads={self.heads!r}; allowed: at least one Head")
        for reference in (self.processor, self.exported_processor or self.processor, *self.packed_processors.values()):
            check_reference(owner, "processor", reference)
        if self.padding_side not in PADDING_SIDES:
            raise ValueError(f"{owner}: padding_side={self.padding_side!r}; allowed: {', '.join(PADDING_SIDES)}")

    @property
    def generates(self) -> bool:
        """Whether it writes its answers; an encoder picks or ranks them."""
        return "decoder" in self.provides

    @property
    def model_types(self) -> tuple[str, str]:
        """What ``config.json`` of its checkpoints says: of stock and of reduced ones."""
        return self.name, f"{self.name}_tokendrop"

    @property
    def config_class(self) -> str:
        """Name of the reduced models' configuration."""
        return f"{self.reduced}Config"

    def model_class(self, head: Head) -> str:
        """Name of the reduced class with a head."""
        return f"{self.reduced}For{head.ending}"

    def head(self, class_names: Collection[str] | None) -> Head:
        """The head of a checkpoint.

        Parameters
        ----------
        class_names
            ``architectures`` of its configuration.

        Raises
        ------
        ValueError
            If there is no head for it; the message names the classes that exist.
        """
        named = ((made(head), head) for head in self.heads for made in (self.stock_class, self.model_class))
        known = dict(named)
        for name in class_names or ():
            if name in known:
                return known[name]
        raise ValueError(f"architectures={class_names!r} in the config; allowed: {', '.join(known)}")

    def stock_class(self, head: Head) -> str:
        """Name of the stock class with a head, which `module` has too if there is one."""
        return f"{self.stock}For{head.ending}"

    def load(self, class_name: str) -> Any:
        """Import a class of `module`."""
        return getattr(import_module(self.module), class_name)

    def processor_for(self, reduction: Mapping[str, Any] | None, *, exported: bool = False) -> str:
        """``"module:Class"`` of the processor for the options of a reduction, here or with an exported model."""
        plain = (exported and self.exported_processor) or self.processor
        return self.packed_processors.get((reduction or {}).get("packing", ""), plain)

    def pocket_folder(self, method: Method) -> str | None:
        """Folder of the bundled model that a method runs on; None if there is none."""
        return self.pocket.get(method.name, None if method.trained else self.pocket.get(UNREDUCED))


@dataclass(frozen=True)
class Variant:
    """One architecture with one method, as lmms-eval knows it.

    Parameters
    ----------
    model_id
        Name for ``lmms-eval --model``.
    architecture, method
        Names of the two.
    pretrained
        Checkpoint that is loaded unless ``pretrained=`` names another one; None: one must be named.
    pocket
        Folder of the bundled model that ``pretrained=pocket`` gives; None if there is none.
    adapter
        Dotted path of the lmms-eval model class.
    description
        One line for tables.
    """

    model_id: str
    architecture: str
    method: str
    pretrained: str | None
    pocket: str | None
    adapter: str
    description: str

    @classmethod
    def of(cls, architecture: Architecture, method: Method) -> Variant:
        """Put the two together."""
        model_id = f"{architecture.name}_{'full' if method.name == UNREDUCED else method.name}"
        pocket = architecture.pocket_folder(method)
        trained = None if pocket is None else POCKET
        return cls(
            model_id=model_id,
            architecture=architecture.name,
            method=method.name,
            pretrained=trained if method.trained else architecture.checkpoint,
            pocket=pocket,
            adapter=f"lmms_tokendrop.evaluation.adapters.{model_id}",
            description=f"{architecture.title} with {method.title}",
        )
