"""The layers of the package, read from its imports."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "wsol_jax"
FILES = {str(p.relative_to(ROOT)): p for p in ROOT.rglob("*.py")}
LAYERS = [
    {"main"},
    {"papers", "slide_maps", "stain_shift"},
    {"train", "predict", "report", "evaluate_maps", "transfer", "embedding"},
    {"results", "preflight", "stain_styles"},
    {"pseudo_labels"},
    {"trained"},
    {"selection", "identity", "pretrained"},
    {"evaluate", "experiment", "map_files", "map_scores"},
    {"map_kinds"},
    {"wording", "figures"},
    {"method", "data", "checkpoint", "logbook", "visualize", "published", "run_files"},
    {"printed"},
    {"methods"},
    {"decoder", "location"},
    {"backbones", "files", "heads", "separability"},
    {"augment", "cams", "seeds", "losses", "metrics", "optimizer", "parallel", "slides", "stains"},
    {"batch_norm", "choices", "convolution", "cpu", "distributed", "pixel_counts"},
    {"ops"},
    {"arguments", "locks", "pixel_labels", "significance", "termination"},  # without JAX
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FLAX = {"backbones", "batch_norm", "convolution", "decoder", "heads", "method", "methods"}
FLAX |= {"metrics", "separability", "train"}
ONLY_IN = {
    "tensorflow": {"data", "main"},
    "tensorflow_datasets": {"data"},
    "orbax": {"checkpoint"},
    "apache_beam": {"data", "slides"},
    "openslide": {"slides"},
    "flax": FLAX,
    "sklearn": {"embedding"},
    "clu": {"metrics", "logbook"},
    "ml_collections": {"arguments", "experiment", "main"},
    "torch": set(),
    "pickle": set(),
}


def room(name: str) -> str:
    """The layer's entry that a file belongs to."""
    return pathlib.PurePath(name).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> set[str]:
    """Dotted names of everything a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("name", FILES)
def test_imports_go_downwards(name):
    here = room(name)
    if here == "__init__":
        return
    for imported in imports(FILES[name]):
        if imported.startswith("wsol_jax.") and room(imported[9:].split(".")[0]) != here:
            there = imported.split(".")[1]
            if (here, there) in {("methods", "method"), ("method", "methods")}:
                continue  # a method file makes the tuple, and `build` finds the file by name
            assert RANK[there] > RANK[here], f"{here} imports {there}"


@pytest.mark.parametrize("name", FILES)
def test_libraries_stay_in_their_rooms(name):
    for imported in imports(FILES[name]):
        library = imported.split(".")[0]
        assert room(name) in ONLY_IN.get(library, {room(name)}), f"{name} imports {imported}"


@pytest.mark.parametrize("name", [n for n in FILES if room(n) == "methods"])
def test_methods_do_not_import_methods(name):
    others = {f"wsol_jax.methods.{p.stem}" for p in (ROOT / "methods").glob("*.py")}
    assert not imports(FILES[name]) & others


@pytest.mark.parametrize("name", FILES)
def test_every_file_and_public_definition_says_what_it_is(name):
    tree = ast.parse(FILES[name].read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}: {node.name} has no docstring"
