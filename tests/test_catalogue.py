"""What is in the catalogue, what register refuses, and what other packages add."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import pytest

from lmms_tokendrop.catalogue import (
    POCKET,
    Architecture,
    Head,
    Method,
    Paper,
    architecture,
    architectures,
    method,
    methods,
    register,
    registry,
    variant,
    variants,
)

ROOT = Path(__file__).resolve().parent.parent
DECODER_METHODS = [
    "full",
    "mustdrop",
    "fastv",
    "sparsevlm",
    "pyramiddrop",
    "dart",
    "visionzip",
    "divprune",
    "cdpruner",
    "prumerge",
    "scope",
    "hiprune_like",
    "starpro_like",
    "vision_tome",
    "random",
    "uniform",
    "area_pooling",
    "composed",
]
BLIND_METHODS = [
    "full",
    "fastv",
    "sparsevlm",
    "pyramiddrop",
    "dart",
    "divprune",
    "starpro_like",
    "random",
    "uniform",
    "composed",
]
"""Those that need no more than a language model."""
ENCODER_METHODS = ["full", "pumer", "tome", "dynamicvit", "random", "cls_attention", "smres"]
PLUGIN = """
from lmms_tokendrop.catalogue import Method, method, register

KEPT = Method(name="kept", title="all kept", reducers={"fusion": "kept.reducer:Kept"})
OTHERS = (Method(name="other", title="others kept", reducers={"decoder": "kept.reducer:Other"}),)

def made():
    return Method(name="made", title=f"{method('random').title} again", reducers={"fusion": "kept.reducer:Kept"})

def registers():
    register(Method(name="registered", title="all kept", reducers={"co_attention": "kept.reducer:Kept"}))

def fails():
    registers()
    raise RuntimeError("no such\\nmachine")

NONSENSE = 5
TAKEN = Method(name="random", title="mine", reducers={"fusion": "kept.reducer:Kept"})
"""


@pytest.fixture(autouse=True)
def catalogue(monkeypatch):
    """Leave the catalogue as it was."""
    for name in ("_architectures", "_methods"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.setattr(registry, "_plugins_are_loaded", registry._plugins_are_loaded)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Return ``install(*targets)``: puts a distribution on the path whose plugins are these objects of a module."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kept_plugin", raising=False)
    monkeypatch.setattr(registry, "_plugins_are_loaded", False)
    (tmp_path / "kept_plugin.py").write_text(PLUGIN)

    def install(*targets: str) -> None:
        folder = tmp_path / "kept_plugin-1.0.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: kept-plugin\nVersion: 1.0\n")
        lines = [f"{target.lower()} = kept_plugin:{target}" for target in targets]
        (folder / "entry_points.txt").write_text("\n".join([f"[{registry.PLUGINS}]", *lines, ""]))

    return install


def ids(**chosen: str) -> list[str]:
    return [entry.model_id for entry in variants(**chosen)]


def kept(**changes) -> Method:
    return Method(**{"name": "kept", "title": "all kept", "reducers": {"fusion": "package.module:Kept"}, **changes})


def test_the_product_has_these_variants():
    for family in ("llava_next", "llava"):
        assert ids(architecture=family) == [f"{family}_{name}" for name in DECODER_METHODS]
    assert ids(architecture="vilt") == [f"vilt_{name}" for name in ENCODER_METHODS]
    meter = [*ENCODER_METHODS[:3], "vision_tome", *ENCODER_METHODS[3:]]
    assert ids(architecture="meter") == [f"meter_{name}" for name in meter]
    assert ids() == [name for family in architectures() for name in ids(architecture=family.name)]


def test_every_variant_has_the_reducer_of_the_modeling_code():
    from lmms_tokendrop.modeling.methods.available import reductions

    for family in architectures():
        found = {
            entry.method: method(entry.method).reducer(family.provides) for entry in variants(architecture=family.name)
        }
        assert {name: resolve_name(reference) for name, reference in found.items()} == dict(
            reductions(family.name).reducers
        )


def test_every_class_that_an_architecture_names_exists():
    for family in architectures():
        for head in family.heads:
            reduced = family.load(family.model_class(head))
            assert reduced.config_class is family.load(family.config_class)
            assert reduced.config_class.model_type in family.model_types
        for reference in (family.processor, *family.packed_processors.values()):
            assert resolve_name(reference).__name__ == reference.partition(":")[2]


def test_asking_imports_no_torch():
    code = (
        "import sys; from lmms_tokendrop.catalogue import variants; assert variants();"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ((), ["vilt_kept", "meter_kept"]),
        (("clip_tower",), ["meter_kept"]),
        (("clip_tower", "patch_grid"), []),
    ],
)
def test_a_method_runs_where_all_that_it_needs_is_provided(needs, expected):
    register(kept(needs=frozenset(needs)))
    assert [name for name in ids() if name.endswith("_kept")] == expected


def test_the_first_part_with_a_reducer_decides():
    reducers = {"fusion": "package.module:Fused", "co_attention": "package.module:Crossed"}
    entry = kept(reducers=reducers)
    assert entry.reducer(architecture("vilt").provides) == "package.module:Fused"
    assert entry.reducer(architecture("meter").provides) == "package.module:Crossed"
    assert entry.reducer(architecture("llava_next").provides) is None


def test_a_new_method_makes_variants_with_the_checkpoints_of_its_architectures():
    register(kept())
    assert methods()[-1].name == "kept"
    assert variant("vilt_kept").description == "ViLT with all kept"
    assert variant("vilt_kept").pretrained == variant("vilt_random").pretrained != POCKET
    assert (variant("vilt_kept").pocket, variant("meter_kept").pretrained) == ("vilt", POCKET)


def test_a_method_that_is_trained_has_a_checkpoint_only_where_one_is_bundled():
    register(kept(trained=True))
    assert (variant("vilt_kept").pretrained, variant("vilt_kept").pocket) == (None, None)
    assert (variant("vilt_dynamicvit").pretrained, variant("vilt_dynamicvit").pocket) == (POCKET, "vilt_dynamicvit")
    assert (variant("meter_dynamicvit").pretrained, variant("meter_dynamicvit").pocket) == (None, None)


def test_a_new_architecture_gets_every_method_that_it_can_have():
    register(replace(architecture("llava_next"), name="blind", title="Blind", provides=("decoder",), pocket={}))
    assert ids(architecture="blind") == [f"blind_{name}" for name in BLIND_METHODS]
    assert variant("blind_random").description.startswith("Blind with ")
    assert variant("blind_random").pocket is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (lambda: kept(name="random"), "the name of method 'random' is taken"),
        (lambda: replace(architecture("vilt")), "the name of architecture 'vilt' is taken"),
        (lambda: replace(architecture("vilt"), name="meter_vision"), "makes a second variant 'meter_vision_tome'"),
        (lambda: kept(name="full"), "method 'full' makes a second variant 'vilt_full'"),
        (lambda: "kept", "'kept' is no Method and no Architecture"),
    ],
)
def test_register_refuses_what_is_there_already(entry, message):
    before = ids()
    with pytest.raises(ValueError, match=f"register: .*{message}"):
        register(entry())
    assert ids() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Kept"}, "method: name='Kept'; allowed: lower case words"),
        ({"title": " "}, "method 'kept': title=' '; allowed: a text"),
        ({"reducers": {}}, "method 'kept': reducers has none; allowed: a Mapping of decoder, fusion"),
        ({"reducers": {"fushion": "a:B"}}, "method 'kept': reducers has 'fushion'; allowed: .* fusion"),
        ({"reducers": {"fusion": "a.B"}}, "method 'kept': reducers has 'a.B'; allowed: 'module:Class'"),
        ({"needs": frozenset({"grid"})}, "method 'kept': needs has 'grid'; allowed: a frozenset of .* patch_grid"),
        ({"needs": "decoder"}, "method 'kept': needs has 'decoder'; allowed: a frozenset of"),
        ({"paper": "a title"}, "method 'kept': paper='a title'; allowed: a Paper, None"),
    ],
)
def test_a_malformed_method_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        kept(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "architecture: name=''"),
        ({"module": None}, "architecture 'vilt': module=None; allowed: a text"),
        ({"provides": ()}, "architecture 'vilt': provides has none; allowed: a tuple of decoder"),
        ({"provides": {"fusion"}}, "architecture 'vilt': provides has {'fusion'}; allowed: a tuple of"),
        ({"heads": ()}, r"architecture 'vilt': heads=\(\); allowed: at least one Head"),
        ({"processor": "ViltProcessor"}, "architecture 'vilt': processor has 'ViltProcessor'; allowed: 'module:Class'"),
        ({"padding_side": "both"}, "architecture 'vilt': padding_side='both'; allowed: left, right"),
    ],
)
def test_a_malformed_architecture_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(architecture("vilt"), **change)


def test_a_paper_without_a_page_is_refused():
    with pytest.raises(ValueError, match="paper: url=''; allowed: a text"):
        Paper(title="Title", url="", bibtex="@article{}")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: architecture("qwen"), "architecture='qwen'; allowed: llava_next, llava, vilt, meter"),
        (lambda: method("magic"), "method='magic'; allowed: none, mustdrop, fastv, "),
        (lambda: variant("llava_next_magic"), "'llava_next_magic'; registered: llava_next_full, llava_next_mustdrop,"),
        (lambda: variants(method="magic"), "method='magic'; allowed: none, mustdrop"),
        (lambda: variants(architecture="vilt", method="mustdrop"), "method='mustdrop'; allowed: none, pumer, tome"),
        (
            lambda: architecture("vilt").head(["BertModel"]),
            r"\['BertModel'\] .*; allowed: ViltForQuestionAnswering, Vilt",
        ),
    ],
)
def test_unknown_names_list_the_known(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()


def test_a_checkpoint_has_the_head_of_its_class_stock_or_reduced():
    family: Architecture = architecture("meter")
    found = [family.head([f"Meter{reduced}ForImagesAndTextClassification"]) for reduced in ("", "TokenDrop")]
    assert [type(head) for head in found] == [Head, Head]
    assert {head.images for head in found} == {2}


def test_other_packages_add_entries_in_every_form(plugin):
    plugin("KEPT", "OTHERS", "made", "registers")
    assert [entry.name for entry in methods()[-4:]] == ["kept", "other", "made", "registered"]
    assert {"vilt_kept", "llava_next_other", "meter_made", "meter_registered"} <= set(ids())
    assert variant("vilt_made").description == f"{variant('vilt_random').description} again"
    assert len(ids()) == len(set(ids()))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("missing", "AttributeError: .*no attribute 'missing'"),
        ("fails", "RuntimeError: no such machine"),
        ("NONSENSE", "TypeError: "),
        ("TAKEN", "ValueError: register: the name of method 'random' is taken"),
    ],
)
def test_a_broken_plugin_is_named_whenever_the_catalogue_is_asked_and_leaves_nothing(plugin, target, reason):
    plugin("KEPT", target)
    for ask in (variants, methods, architectures):
        named = f"^entry point {target.lower()} = kept_plugin:{target} of {registry.PLUGINS} is broken: {reason}.*$"
        with pytest.raises(ValueError, match=named):
            ask()
    plugin("KEPT")
    assert "vilt_kept" in ids()


def test_at_the_command_line_a_broken_plugin_is_one_line_and_help_needs_none(plugin, tmp_path):
    plugin("fails")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}

    def run(argument: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "lmms_tokendrop.cli", argument]
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)

    assert run("--help").returncode == 0
    failed = run("list")
    assert failed.returncode == 1
    named = (
        f"Error: entry point fails = kept_plugin:fails of {registry.PLUGINS} is broken: RuntimeError: no such machine"
    )
    assert failed.stderr.splitlines() == [named]
