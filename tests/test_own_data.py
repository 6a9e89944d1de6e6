"""Your own data and network in ``TrainConfig``: folders, npz files, functions, timm."""

import contextlib
import importlib
import linecache
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import textwrap
import types
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from gcelib import TrainConfig, data, fit, runs, sweeps, training
from gcelib.study import fingerprints, functions, networks, own_networks
from gcelib.study.data import own

RNG = np.random.default_rng(0)
QUICK = {"model": "mlp", "loss": "ce", "epochs": 1, "device": "cpu"}


def pictures(labels, shape=(8, 8)):
    """Noise, brighter for higher labels: a class that can be learnt."""
    noise = RNG.integers(0, 60, (len(labels), *shape))
    return (noise + 90 * labels.reshape(-1, *[1] * len(shape))).astype(np.uint8)


def write_npz(path, n=120, shape=(8, 8), parts=("train",), **changed):
    arrays = {}
    for part in parts:
        labels = np.arange(n) % 2
        arrays |= {f"{part}_images": pictures(labels, shape), f"{part}_labels": labels}
    np.savez(path, **arrays | changed)
    return f"npz:{path}"


def write_folder(root, parts=("train",), n=40, mode="L", size=(8, 8)):
    for part in parts:
        for k, name in enumerate(["cat", "dog"]):
            place = root / part / name
            place.mkdir(parents=True)
            for i, pixels in enumerate(pictures(np.full(n, k), size)):
                Image.fromarray(pixels).convert(mode).save(place / f"{i}.png")
    return f"folder:{root}"


# --- what is read ---------------------------------------------------------------------


def test_a_folder_of_pngs_trains_and_everything_downstream_reads_it(tmp_path):
    """The worked example of lesson 03."""
    dataset = write_folder(tmp_path / "my images", ("train", "test"), n=50)
    config = TrainConfig(dataset, loss="gce", epochs=2, device="cpu", runs_dir=tmp_path)
    assert config.model == "convnet"
    assert config.ood == ("noise",)
    assert [record["epoch"] for record in fit(config)] == [1, 2]
    name = config.run_dir.relative_to(tmp_path).parts[0]
    assert name.startswith("folder-my-images-")
    table = runs.load_results(tmp_path)
    assert table.dataset[0] == dataset
    assert table.test_raw_error[0] < 0.2
    assert np.isfinite(table.noise_raw_auroc[0])
    from gcelib import ReliabilityExplorer

    explorer = ReliabilityExplorer({"gce": config.run_dir})
    assert explorer is not None
    stored = runs.read_json(config.run_dir / "config.json")["settings"]["dataset"]
    splits = data.load(stored)
    assert splits.class_names == ("cat", "dog")
    sizes = [len(part[1]) for part in (splits.train, splits.val, splits.test)]
    assert sizes == [90, 10, 100]


@pytest.mark.parametrize("remove_folder", [True, False])
def test_a_class_without_test_images_is_told(tmp_path, remove_folder):
    dataset = write_folder(tmp_path / "mine", ("train", "test"))
    place = tmp_path / "mine" / "test" / "dog"
    for path in place.iterdir():
        path.unlink()
    if remove_folder:
        place.rmdir()
    told = "the test part of folder:.* has no sample of class 'dog', so that no number"
    with pytest.warns(UserWarning, match=told):
        assert data.load(dataset).test[1].unique().tolist() == [0]


def test_a_class_that_only_the_test_part_has_is_told(tmp_path):
    names = np.array(["no", "yes", "never"])
    labels = np.arange(120) % 3
    dataset = write_npz(
        tmp_path / "x.npz",
        parts=("train", "test"),
        test_images=pictures(labels),
        test_labels=labels,
        class_names=names,
    )
    told = "the training part of npz:.* has no sample of class 'never', so that they"
    with pytest.warns(UserWarning, match=told):
        data.load(dataset)


@pytest.mark.parametrize("parts", [("train",), ("train", "test")])
def test_a_class_that_no_part_has_is_told(tmp_path, parts):
    names = np.array(["no", "yes", "never", "neither"])
    dataset = write_npz(tmp_path / "x.npz", parts=parts, class_names=names)
    told = "has no sample of class 'never' and of 1 more, so that they count among"
    with pytest.warns(UserWarning, match=told):
        data.load(dataset, 1)


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [("0", "00", True), ("K\u00e4se", "Ka\u0308se", True), ("cat", "Cat", False)],
)
def test_a_class_in_two_folders_is_told(tmp_path, one, other, refused):
    for name in (one, other):
        write_folder(tmp_path / "mine" / name)
        source = tmp_path / "mine" / name / "train" / "cat"
        place = tmp_path / "mine" / "train" / name
        place.parent.mkdir(exist_ok=True)
        source.rename(place)
        shutil.rmtree(tmp_path / "mine" / name)
    dataset = f"folder:{tmp_path / 'mine'}"
    if refused:
        with pytest.raises(ValueError, match="has one class in the folders"):
            data.load(dataset)
    else:
        with pytest.warns(UserWarning, match="'Cat' and 'cat' count as two classes"):
            data.load(dataset)


def test_what_a_folder_lacks_is_drawn_by_the_seed(tmp_path):
    dataset = write_folder(tmp_path, n=100)
    one, again, two = (data.load(dataset, seed) for seed in (1, 1, 2))
    sizes = [len(part[1]) for part in (one.train, one.val, one.test)]
    assert sizes == [140, 20, 40]
    assert torch.equal(one.val[0], again.val[0])
    assert not torch.equal(one.val[0], two.val[0])
    pixels = one.train[0].double() / 255
    torch.testing.assert_close(
        one.mean.double(), pixels.mean((0, 2, 3)), rtol=1e-6, atol=0
    )
    assert one.input_shape == (1, 8, 8)


@pytest.mark.parametrize("parts", [("train",), ("train", "test")])
def test_a_test_part_that_only_a_seed_draws_is_told_to_who_names_none(tmp_path, parts):
    dataset = write_npz(tmp_path / "x.npz", 200, parts=parts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain = data.load(dataset)
        seeded = data.load(dataset, 1)
        training.prepare(TrainConfig(dataset, ood=[], runs_dir=tmp_path, **QUICK))
    assert torch.equal(plain.test[0], seeded.test[0])
    said = [str(warning.message) for warning in caught]
    assert len(said) == ("test" not in parts)
    assert all("brings no test part, so that the seed draws it" in m for m in said)


def test_any_coloured_image_makes_all_of_them_rgb(tmp_path):
    dataset = write_folder(tmp_path, n=60)
    Image.new("RGB", (8, 8), (9, 8, 7)).save(tmp_path / "train" / "cat" / "zz.png")
    images, labels = data.load(dataset).train
    assert images.shape[1:] == (3, 8, 8)
    coloured = (images[:, 0] != images[:, 1]).flatten(1).any(1)
    assert coloured.sum() <= 1
    assert labels[coloured].sum() == 0


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 9), (1, 8, 9)), ((8, 9, 3), (3, 8, 9)), ((3, 8, 9), (3, 8, 9))],
)
def test_the_channels_of_an_npz_are_found(tmp_path, shape, expected):
    dataset = write_npz(tmp_path / "x.npz", 200, shape, ("train", "val", "test"))
    with np.load(tmp_path / "x.npz") as file:
        stored = file["test_images"]
    images = data.load(dataset).test[0].numpy()
    assert images.shape == (200, *expected)
    if shape[-1] == 3:
        stored = stored.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images.reshape(stored.shape), stored)


def test_features_train_and_pictures_are_not_shown_to_them(tmp_path):
    labels = np.arange(300) % 3
    features = RNG.normal(size=(300, 5)) + labels[:, None]
    path = tmp_path / "t.npz"
    np.savez(path, train_images=features, train_labels=labels)
    with pytest.warns(UserWarning, match=r"ood: .*is a table; they are skipped"):
        config = TrainConfig(f"npz:{path}", ood=["noise"], epochs=3, runs_dir=tmp_path)
    assert (config.model, config.ood) == ("mlp", ())
    (*_, last) = fit(config)
    assert last["test_error"] < 0.6


# --- settings and folders -------------------------------------------------------------


def test_large_tables_are_normalised_by_their_true_mean_and_deviation(tmp_path):
    features = RNG.normal(1000, 1, (300_000, 2)).astype(np.float32)
    features[:, 1] = 0.1  # what never changes is left as it is
    labels = np.arange(len(features)) % 2
    np.savez(tmp_path / "x.npz", train_images=features, train_labels=labels)
    splits = data.load(f"npz:{tmp_path / 'x.npz'}")
    true = splits.train[0].double()
    torch.testing.assert_close(splits.mean.double(), true.mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        splits.std[0].double(), true[:, 0].std(), rtol=1e-4, atol=0
    )
    assert splits.std[1] == 1


def test_a_file_that_changed_is_another_result(tmp_path):
    dataset = write_npz(tmp_path / "x.npz")
    config = TrainConfig(dataset, runs_dir=tmp_path, ood=[], **QUICK)
    list(fit(config))
    assert list(fit(config)) == []
    with np.load(tmp_path / "x.npz") as file:
        arrays = dict(file)
    arrays["train_images"][0, 0, 0] ^= 1
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=r"another result.*data_fingerprint"):
        list(fit(TrainConfig(dataset, runs_dir=tmp_path, ood=[], **QUICK)))


def test_a_file_of_the_same_size_and_time_is_read_anew(tmp_path):
    dataset = write_npz(tmp_path / "x.npz")
    before = os.stat(tmp_path / "x.npz")
    labels = data.load(dataset).train[1]
    write_npz(tmp_path / "x.npz", train_labels=1 - np.arange(120) % 2)
    os.utime(tmp_path / "x.npz", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert torch.equal(data.load(dataset).train[1], 1 - labels)


def test_a_load_reads_anew_what_a_config_was_told_a_moment_ago(modules):
    reading = f'int(np.load("{modules}/bright.npy"))'
    text = "import numpy as np\n" + DATA.replace("90", reading)
    (modules / "my_own_data.py").write_text(text)
    np.save(modules / "bright.npy", 90)
    config = TrainConfig("my_own_data:load", ood=[], device="cpu", runs_dir=modules)
    config.resolved()
    before = data.load("my_own_data:load").train[0]
    config.resolved()
    np.save(modules / "bright.npy", 91)
    assert not torch.equal(data.load("my_own_data:load").train[0], before)


def test_a_function_is_called_once_for_a_run(modules):
    count = f'open("{modules}/calls", "a").write("x")'
    text = DATA.replace("def load(seed):", f"def load(seed):\n    {count}")
    assert text != DATA
    (modules / "my_own_data.py").write_text(text)
    config = TrainConfig("my_own_data:load", ood=[], runs_dir=modules, **QUICK)
    (modules / "calls").unlink()  # the config asked, too
    list(fit(config))
    assert (modules / "calls").read_text() == "x"


def test_one_file_is_one_data_set_by_whatever_path_it_is_named(tmp_path, monkeypatch):
    """Also in a folder that a link leads to: `..` goes back from there."""
    write_npz(tmp_path / "a.npz")
    (tmp_path / "notebooks" / "far").mkdir(parents=True)
    (tmp_path / "near").symlink_to(tmp_path / "notebooks" / "far")
    (tmp_path / "m.py").write_text(DATA)
    monkeypatch.chdir(tmp_path)
    kinds = {"npz:a.npz": "npz:{}a.npz", "m.py:load": "{}m.py:load"}
    for name, pattern in kinds.items():
        ways = ["./", "notebooks/../", "near/../../", "notebooks/far/../../"]
        names = {data.parent(pattern.format(way)) for way in ways}
        assert names == {data.parent(name)}
        assert ".." not in names.pop()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert data.parent("npz:../a.npz") == f"npz:{tmp_path / 'a.npz'}"
    assert data.load("npz:../a.npz").name == f"npz:{tmp_path / 'a.npz'}"


def test_data_and_networks_behind_a_function_are_another_result_once_changed(modules):
    reading = f'np.load("{modules}/bright.npy")'
    text = "import numpy as np\n" + DATA.replace("90", f"int({reading})")
    (modules / "my_own_data.py").write_text(text)
    np.save(modules / "bright.npy", 90)
    options = {"runs_dir": modules, "ood": [], "device": "cpu", "loss": "ce"}
    config = TrainConfig("my_own_data:load", "my_own_net:build", epochs=2, **options)
    run = fit(config)
    next(run)
    run.close()
    (modules / "my_own_net.py").write_text(NETWORK.replace("0.2", "0.3"))
    with pytest.raises(ValueError, match=r"another result.*model_fingerprint"):
        list(fit(config))
    (modules / "my_own_net.py").write_text(NETWORK)
    np.save(modules / "bright.npy", 91)  # what the function reads, not its own text
    with pytest.raises(ValueError, match=r"another result.*data_fingerprint"):
        list(fit(config))


def test_a_network_that_changes_after_prepare_is_not_built_for_the_old_settings(
    modules,
):
    options = {"runs_dir": modules, "ood": [], "device": "cpu", "loss": "ce"}
    config = TrainConfig("digits", "my_own_net:build", epochs=2, **options)
    job = training.prepare(config)

    def interrupt(_):
        raise KeyboardInterrupt

    trainer = training.Trainer(job, on_batch=interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(iter(trainer))
    (modules / "my_own_net.py").write_text(NETWORK.replace("0.2", "0.3"))
    with pytest.raises(ValueError, match="has changed since the run was prepared"):
        training.Trainer(job)
    with pytest.raises(ValueError, match="has changed since the run was prepared"):
        next(iter(trainer))


CELL = """
import dataclasses, functools, torch
from torch import nn
WIDTH, SIZES, TABLE = 8, [8, {"a": (1,)}], torch.ones(2)
KIND = nn.ReLU
@dataclasses.dataclass
class Options:
    depth: int = 5
OPTIONS = Options(depth=6)
def activation(): return nn.ReLU()
def twice(function):
    @functools.wraps(function)
    def called(*args): return [function(*args), 4]
    return called
class Base(nn.Module):
    @staticmethod
    def scale(): return 3
class Net(Base):
    def forward(self, x): return self.scale() * activation()(x)
def unrelated(): return 1
@functools.lru_cache
def cached(): return OPTIONS, SIZES, TABLE, KIND, None
@twice
def wrapped(k, shape, n=2, *, m=7): return nn.Sequential(Net(), nn.Linear(WIDTH, k))
def closing(w):
    def inner(k, shape, v): return wrapped(k, shape), cached(), w, v
    return inner
build = functools.partial(closing(10), v=11)
"""
SPOILED = {
    **{"nn.ReLU()": "nn.Tanh()", "KIND = nn.ReLU": "KIND = nn.Tanh"},
    **{"scale() *": "scale() +", "return 3": "return 31", "n=2": "n=21", "m=7": "m=71"},
    **{"8, [8": "81, [8", "[8, {": "[81, {", "(1,)": "(1, 1)", "ones": "zeros"},
    **{"depth=6": "depth=61", "int = 5": "int = 51", "None": "0", ", 4]": ", 41]"},
    **{"closing(10)": "closing(101)", "v=11": "v=111"},
}


@pytest.fixture
def notebook(monkeypatch):
    """The fingerprint of a network in a cell that has just run."""

    def fingerprint(cell):
        name = f"<cell {len(linecache.cache)}>"  # as IPython keeps its cells
        lines = cell.splitlines(keepends=True)
        monkeypatch.setitem(linecache.cache, name, (len(cell), None, lines, name))
        module = types.ModuleType("my_notebook")
        monkeypatch.setitem(sys.modules, "my_notebook", module)
        exec(compile(cell, name, "exec"), vars(module))
        return networks.fingerprint("my_notebook:build")

    return fingerprint


def test_the_fingerprint_of_a_notebooks_network_covers_what_it_uses_there(notebook):
    before = notebook(CELL)
    assert before == notebook(CELL)
    assert before == notebook(CELL.replace("unrelated(): return 1", "other(): 2"))
    seen = {notebook(CELL.replace(line, new, 1)) for line, new in SPOILED.items()}
    assert before not in seen
    assert len(seen) == len(SPOILED)


def test_the_fingerprint_of_a_notebooks_network_covers_the_files_it_uses(
    modules, notebook
):
    cell = "from my_own_layers import Net\ndef build(k, shape): return Net(k)\n"
    seen = set()
    for layer in ("Tanh", "ReLU"):
        text = f"from torch import nn\ndef Net(k): return nn.{layer}()\n"
        (modules / "my_own_layers.py").write_text(text)
        sys.modules.pop("my_own_layers", None)  # as in a new process
        importlib.invalidate_caches()
        seen.add(notebook(cell))
    assert len(seen) == 2


LAYERS = """
import collections, functools, numpy as np, torch
from torch import nn
class Noise(nn.Module):
    def __init__(self, std):
        super().__init__()
        self.std = std
    def set_std(self, std): self.std = std
    def forward(self, x): return x + self.std * torch.randn_like(x)
class Scale(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.std = torch.tensor([1.0, 2.0])
    def forward(self, x):
        y = torch.add(x, self.mean.add(1))
        return y.sub_(self.mean)
class Lambda(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f
    def forward(self, x): return self.f(x)
class Drop(nn.Dropout):
    def __init__(self, p, ramp):
        super().__init__(p)
        self.ramp = ramp
class Holder:
    def __init__(self, layer): self.layer = layer
def twice(x): return 2 * x
noise, scale, applied, drop = Noise(0.1), Scale(0.5), Lambda(twice), Drop(0.1, 5)
listed, held, within = [Noise(0.3)], Holder(Noise(0.4)), nn.Sequential(Noise(0.6))
class Cut(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.inner = Noise(n)
cut = Cut(7)
class Guarded(nn.Module):
    def __init__(self):
        super().__init__()
        self._size = 1
    @property
    def size(self): return self._size
    @size.setter
    def size(self, size): self._size = size
    def forward(self, x): return x * self.size
guarded = Guarded()
guarded.size = 19
later = Noise(None)
later.set_std(0.8)
def build(k, shape):
    return noise, scale, applied, drop, listed, held, within, cut, later, guarded
"""
OTHER_LAYERS = [
    *[("Noise(0.1)", "Noise(3.0)"), ("Scale(0.5)", "Scale(0.6)"), ("2 * x", "3 * x")],
    *[("1.0, 2.0", "1.0, 3.0"), ("Drop(0.1, 5)", "Drop(0.1, 50)"), ("0.3", "0.4")],
    *[("0.4", "0.5"), ("0.6", "0.7"), ("Cut(7)", "Cut(8)"), ("(0.8)", "(0.9)")],
    *[
        ("Lambda(twice)", "Lambda(torch.relu)"),
        ("y.sub_(", "y.add_("),
        ("= 19", "= 20"),
    ],
]
CALLABLES = """
import collections, functools, numpy as np, torch
from torch import nn
A, B = 1, 2
class Net(nn.Module):
    __scale__ = 3
    @functools.cached_property
    def width(self): return 4 + A
    def _times(self, n): return n
    times = functools.partialmethod(_times, 5)
@torch.jit.script
def swish(x): return x * torch.sigmoid(x * 6.0)
@np.vectorize
def rounded(x): return x + 7 + B
class Wrapper:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function, self.depth = function, 8
    def __call__(self, *args): return self.function(*args)
@Wrapper
def head(k): return 9
class Options(dict):
    def size(self): return 10
options = Options()
options.depth = 11
by_name = collections.defaultdict(lambda: 12)
squash = (
    lambda x: torch.relu(x)
    * 13
)
acts = {
    "a": lambda x:
        x * 14,
}
both = [lambda x: x + 15, lambda x: x - 15]
act = both[0]
class Kind(type):
    @property
    def size(self): return 16
class Sized(metaclass=Kind): pass
def build(k, shape):
    return Net, swish, rounded, head, options, by_name, squash, acts, act, Sized
build.width = 17
"""
OTHER_CALLABLES = [
    *[("A, B = 1", "A, B = -1"), ("= 1, 2", "= 1, -2"), ("__ = 3", "__ = -3")],
    *[("4 + A", "-4 + A"), (", 5)", ", -5)"), ("6.0", "-6.0"), ("+ 7", "- 7")],
    *[("function, 8", "function, -8"), ("return 9", "return -9"), ("10", "-10")],
    *[("11", "-11"), ("12", "-12"), ("* 13", "* -13"), ("* 14", "* -14")],
    *[("both[0]", "both[1]"), ("16", "-16"), ("17", "-17")],
]


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize(
    ("cell", "line", "new"),
    [(LAYERS, *pair) for pair in OTHER_LAYERS]
    + [(CALLABLES, *pair) for pair in OTHER_CALLABLES],
)
def test_a_fingerprint_covers_own_layers_and_all_that_holds_code(
    notebook, cell, line, new
):
    before = notebook(cell)
    assert notebook(cell) == before
    assert cell.count(line) == 1
    assert notebook(cell.replace(line, new)) != before


def test_settings_of_layers_from_an_own_file_are_in_a_notebooks_fingerprint(
    modules, notebook
):
    text = LAYERS.partition("def twice")[0]
    (modules / "my_own_layers.py").write_text(text)
    cell = "from my_own_layers import Noise\nnoise = Noise(0.1)\n"
    cell += "def build(k, shape): return noise\n"
    assert notebook(cell) == notebook(cell)
    assert notebook(cell) != notebook(cell.replace("0.1", "3.0"))


SETTINGS = """
import argparse, collections, functools, types, torch
from torch import nn
def own(x): return x
near = types.SimpleNamespace(width=1, activation=torch.relu)
asked = argparse.Namespace(width=2, activation=own)
user = collections.UserDict(width=3, activation=torch.relu)
chain = collections.ChainMap({"width": 4, "activation": torch.relu})
queue = collections.deque([5, torch.relu])
proxy = types.MappingProxyType({"width": 6, "activation": torch.relu})
class Net:
    @functools.singledispatchmethod
    def size(self, x): return 7
    @size.register
    def _(self, x: int): return 8
class Field:
    def __init__(self, default): self.default = default
    def __repr__(self): return f"Field(default={self.default})"
class Config:  # as pydantic leaves its classes
    __pydantic_fields__ = {"width": Field(9)}
def build(k, shape):
    return near, asked, user, chain, queue, proxy, Net, Config
"""


@pytest.mark.parametrize(
    ("line", "new"),
    [(f"width={n}", f"width={n}0") for n in (1, 2, 3)]
    + [('"width": 4', '"width": 40'), ("[5,", "[50,"), ('"width": 6', '"width": 60')]
    + [("return 7", "return 70"), ("return 8", "return 80"), ("(9)", "(90)")]
    + [("return x", "return -x")],
)
def test_a_fingerprint_sees_settings_beside_a_function(notebook, line, new):
    before = notebook(SETTINGS)
    assert notebook(SETTINGS) == before
    assert SETTINGS.count(line) == 1
    assert notebook(SETTINGS.replace(line, new)) != before


LATE_IMPORTS = [
    "from my_own_late_nets import Body",
    "import my_own_late_nets",
    "from my_own_late import nets",
    "import my_own_late.nets as nets",
]


@pytest.mark.parametrize("line", LATE_IMPORTS)
@pytest.mark.parametrize("place", ["build", "helper", "lambda"])
def test_what_a_script_imports_within_a_function_is_in_its_fingerprint(
    modules, notebook, line, place
):
    """Whether or not it has been imported before."""
    (modules / "my_own_late").mkdir()
    (modules / "my_own_late" / "__init__.py").touch()
    cell = {
        "build": f"def build(k, shape):\n    {line}\n",
        "helper": f"def helper():\n    {line}\ndef build(k, shape): return helper()\n",
        "lambda": "def make():\n    def within():\n"
        f"        {line}\n    return lambda k, shape: within()\nbuild = make()\n",
    }[place]
    found = []
    for width in (2, 2, 64):
        for file in ("my_own_late_nets.py", "my_own_late/nets.py"):
            (modules / file).write_text(f"Body = {width}\n")
        for name in ("my_own_late", "my_own_late.nets", "my_own_late_nets"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        found += [notebook(cell), notebook(cell)]
    assert len({*found[:4]}) == 1
    assert {*found[4:]} != {*found[:4]}
    assert len({*found[4:]}) == 1


COUNTING = """
import functools, torch
import torch.nn.functional as F
from torch import nn
def update(mean, x): mean.copy_(x.mean(0))
class Busy(nn.Module):
    def __init__(self):
        super().__init__()
        self.std, self.calls, self.seen, self.cache = 0.1, 0, [], {}
        self.last = self.late = None
        self.inner = nn.BatchNorm1d(64, affine=False)
        for name in ("mean", "var", "n", "sum", "other", "third"):
            self.register_buffer(name, torch.ones(64))
    @functools.cached_property
    def ones(self): return torch.ones(64)
    def remember(self, x):
        self.last = x.detach()
        self.__dict__["hidden"] = None
        del self.__dict__["hidden"]
    def forward(self, x):
        x = x.flatten(1)
        self.calls += 1
        self.seen.append(self.calls)
        self.cache[self.calls] = self.ones
        self.remember(x)
        with torch.no_grad():
            self.n += 1
            self.sum.mul_(0.9).add_(x.mean(0))
            other = self.other
            other += 1
            other.mul_(2)
            update(self.third, x)
        if not hasattr(self, "made"):
            self.register_buffer("made", torch.zeros(1))
            setattr(self, "late", 3)
        x = F.batch_norm(x, self.mean, self.var, training=self.training)
        return self.inner(x)
class Norm(nn.BatchNorm1d):
    def __init__(self, extra):
        super().__init__(64, affine=False)
        self.extra = extra
def count(layer, *_): layer.hooked = getattr(layer, "hooked", 0) + 1
busy, norm = Busy(), Norm(3)
busy.register_forward_hook(count)
class Net(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.n = nn.Linear(64, k)
    def forward(self, x):
        build.calls = getattr(build, "calls", 0) + 1
        return self.n(norm(busy(x)))
def build(k, shape): return Net(k)
build.width = 16
"""


def test_what_a_network_fills_while_it_runs_is_not_in_its_fingerprint(notebook):
    """Else it would refuse itself: counters, caches, running statistics, modes."""
    before = notebook(COUNTING)

    def fingerprint():
        return networks.fingerprint("my_notebook:build")

    module = sys.modules["my_notebook"]
    for _ in range(2):
        network = module.build(3, (1, 8, 8))
        network(torch.randn(8, 1, 8, 8)).sum().backward()
        module.busy.eval()
        network(torch.randn(8, 1, 8, 8))
        assert fingerprint() == before
    assert module.busy.calls == 4
    for owner, name in [(module.busy, "std"), (module.norm, "extra")]:
        value = getattr(owner, name)
        setattr(owner, name, 5)
        assert fingerprint() != before
        setattr(owner, name, value)
        assert fingerprint() == before


@pytest.mark.filterwarnings("ignore:model. my_notebook")
def test_a_run_with_a_layer_that_counts_is_done_and_one_of_another_layer_is_not(
    notebook, tmp_path
):
    notebook(COUNTING)
    options = {"runs_dir": tmp_path, "ood": [], "device": "cpu", "loss": "ce"}
    config = TrainConfig("digits", "my_notebook:build", epochs=2, **options)
    run = fit(config)
    next(run)
    run.close()
    assert [record["epoch"] for record in fit(config)] == [2]
    assert list(fit(config)) == []
    sys.modules["my_notebook"].busy.std = 3.0
    with pytest.raises(ValueError, match=r"another result.*model_fingerprint"):
        list(fit(config))


def test_a_fingerprint_is_the_same_in_every_process(tmp_path):
    text = (
        COUNTING
        + CALLABLES.replace("build", "build_2")
        + LAYERS.replace("build", "build_3")
    )
    text += "def build(*_): return Net, busy, norm, build_2, build_3\n"
    text += "from gcelib.study import networks\n"
    text += "print(networks.fingerprint('__main__:build'))\n"
    (tmp_path / "script.py").write_text(text)
    seen = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-W", "ignore", str(tmp_path / "script.py")]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        seen.add(subprocess.check_output(command, env=environment))
    assert len(seen) == 1


WIDE = """
class Config:
    width = 16
    made = 0
    names = []
class Net:
    def __init__(self, width):
        self.width = width
        self.made = 3
        self.names = []
def build(*_): return Net(Config.width)
"""


def test_a_class_value_counts_though_methods_store_its_name_in_their_objects(modules):
    (modules / "my_own_package").mkdir()
    (modules / "my_own_package" / "nets.py").write_text(WIDE)
    module = importlib.import_module("my_own_package.nets")
    before = networks.fingerprint("my_own_package.nets:build")
    module.Config.width = 3
    assert networks.fingerprint("my_own_package.nets:build") != before
    told = networks.values_set_in_memory("my_own_package.nets:build")
    assert told == ["my_own_package.nets.Config.width = 3"]
    grid = QUICK | {"dataset": "digits", "model": "my_own_package.nets:build"}
    with pytest.raises(ValueError, match=r"nets\.Config\.width = 3"):
        list(sweeps.run(grid | {"seed": 1}, modules))
    module.build()
    module.Config.width = 16
    assert networks.fingerprint("my_own_package.nets:build") == before


@pytest.mark.parametrize(
    "method",
    [
        "def f(self): Config.width = 3",
        "def f(self): type(self).width = 3",
        "def f(self): self.__class__.width = 3",
        "def f(self, other): other.width = 3",
        "def f(self):\n        self = Config\n        self.width = 3",
        "@classmethod\n    def f(kind): kind.width = 3",
        "@staticmethod\n    def f(it): it.width = 3",
        "def __init_subclass__(it): it.width = 3",
        "def f(self): return [setting for self.width in ()]\ndef g(x): x.width = 3",
    ],
)
def test_what_code_can_set_in_a_class_is_no_setting(modules, method):
    text = f"class Config:\n    width = 16\n    {method}\ndef build(*_): ...\n"
    (modules / "my_own_package").mkdir()
    (modules / "my_own_package" / "nets.py").write_text(text)
    module = importlib.import_module("my_own_package.nets")
    before = networks.fingerprint("my_own_package.nets:build")
    module.Config.width = 3
    assert networks.fingerprint("my_own_package.nets:build") == before


def test_a_network_in_a_package_has_the_fingerprint_of_its_file(modules):
    package = modules / "my_own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    seen = set()
    for width in ("0.2", "0.3", "0.2"):
        (package / "nets.py").write_text(NETWORK.replace("0.2", width))
        for name in [m for m in sys.modules if m.startswith("my_own_package")]:
            del sys.modules[name]  # as a new process would
        importlib.invalidate_caches()
        seen.add(networks.fingerprint("my_own_package.nets:build"))
    assert len(seen) == 2
    assert None not in seen
    assert networks.fingerprint("torchvision.models:resnet18") is None


def test_relative_imports_in_a_package_are_in_its_fingerprint(modules):
    package = modules / "my_own_package"
    (package / "deep").mkdir(parents=True)
    files = {
        "nets.py": "from .deep import net\ndef build(k, shape): return net.Net()\n",
        "deep/net.py": "from ..acts import Act as Net\n",
        "acts.py": "import my_own_beside\nfrom torch.nn import ReLU as Act\n",
        "__init__.py": "WIDTH = 1\n",
        "../my_own_beside.py": "DEPTH = 1\n",
        "unrelated.py": "WIDTH = 1\n",
    }

    def fingerprint(changed=None):
        for name, text in files.items():
            (package / name).write_text(text + "#" * (name == changed))
        for name in [m for m in sys.modules if m.startswith("my_own_")]:
            del sys.modules[name]  # as a new process would
        importlib.invalidate_caches()
        return networks.fingerprint("my_own_package.nets:build")

    before = fingerprint()
    assert fingerprint() == fingerprint("unrelated.py") == before
    used = [name for name in files if name != "unrelated.py"]
    assert len({before, *map(fingerprint, used)}) == 1 + len(used)


def test_a_package_that_changed_since_its_import_is_refused(modules):
    package = modules / "my_own_package"
    package.mkdir()
    (package / "acts.py").write_text(
        "from torch import nn\ndef act(): return nn.ReLU()\n"
    )
    (package / "nets.py").write_text(
        "from .acts import act\ndef build(*_): return act()\n"
    )
    module = importlib.import_module("my_own_package.nets")
    (package / "acts.py").write_text(
        "from torch import nn\ndef act(): return nn.Tanh()\n"
    )
    with pytest.raises(ValueError, match=r"^model: .*acts.py has changed since it was"):
        networks.fingerprint("my_own_package.nets:build")
    importlib.reload(sys.modules["my_own_package.acts"])
    importlib.reload(module)
    assert networks.fingerprint("my_own_package.nets:build") is not None


@pytest.mark.parametrize("home", ["my_own_package.nets", "__main__"])
def test_a_network_that_was_read_anew_has_the_fingerprint_of_what_runs(
    modules, monkeypatch, home
):
    """Of a file that it uses: the package's own module is left as it is."""
    package = modules / "my_own_package"
    package.mkdir()
    acts = package / "acts.py"
    relu = "from torch import nn\nclass Acts:\n    @staticmethod\n"
    relu += "    def act(): return nn.ReLU()\n"
    acts.write_text(relu)
    (package / "nets.py").write_text(
        "from . import acts\ndef build(*_): return acts.Acts.act()\n"
    )
    module = importlib.import_module("my_own_package.nets")
    main = types.ModuleType("__main__")
    main.nets = module
    exec("def build(*_): return nets.build()", vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    autoreload = pytest.importorskip("IPython.extensions.autoreload")
    reloader = autoreload.ModuleReloader()
    reloader.check(True)

    def write(text):
        seconds = os.stat(acts).st_mtime + 10
        acts.write_text(text)
        os.utime(acts, (seconds, seconds))

    def fingerprint():
        return networks.fingerprint(f"{home}:build")

    before = fingerprint()
    write(relu.replace("ReLU", "Tanh"))
    importlib.reload(module.acts)
    after = fingerprint()
    assert len({before, after, fingerprint()}) == 2
    write(relu.replace("ReLU", "GELU"))  # and is not read: Tanh is still what runs
    assert fingerprint() == after
    importlib.reload(module.acts)
    assert fingerprint() not in {before, after}
    write(relu)
    importlib.reload(module.acts)
    assert fingerprint() == before
    reloader.check(True)
    write(relu.replace("ReLU", "Tanh"))
    reloader.check(True)
    assert type(module.build()).__name__ == "Tanh"
    with contextlib.suppress(ValueError):  # a repair in memory is refused
        assert fingerprint() == after


@pytest.mark.parametrize("kind", ["function", "class"])
@pytest.mark.parametrize("home", ["my_own_package.nets", "__main__"])
def test_what_was_imported_before_a_reload_has_not_the_new_fingerprint(
    modules, monkeypatch, home, kind
):
    """``from .acts import act`` keeps the old one when ``acts`` alone is reloaded."""
    package = modules / "my_own_package"
    package.mkdir()
    acts = package / "acts.py"
    text = "from torch import nn\ndef act(): return nn.ReLU()\n"
    text += "class Net(nn.ReLU):\n    def forward(self, x): return act()(x)\n"
    acts.write_text(text)
    used = "act()" if kind == "function" else "Net()"
    build = f"from my_own_package.acts import act, Net\ndef build(*_): return {used}\n"
    (package / "nets.py").write_text(build)
    module = importlib.import_module("my_own_package.nets")
    main = types.ModuleType("__main__")
    exec(build, vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)

    def fingerprint():
        return networks.fingerprint(f"{home}:build")

    before = fingerprint()
    acts.write_text(text.replace("ReLU()", "Tanh()").replace("act()(x)", "-act()(x)"))
    assert fingerprint() == before  # nothing has been read
    importlib.reload(sys.modules["my_own_package.acts"])
    with pytest.raises(ValueError, match=r"^model: .*acts.py has changed since it was"):
        fingerprint()
    importlib.reload(module)
    exec(build, vars(main))
    assert fingerprint() != before


@pytest.mark.parametrize("text", ["from .sizes import WIDTH", "from . import sizes"])
def test_a_number_from_before_a_reload_has_not_the_new_fingerprint(modules, text):
    """As IPython's autoreload leaves it, which does not follow imported numbers."""
    package = modules / "my_own_package"
    package.mkdir()
    (package / "sizes.py").write_text("WIDTH = 16\n")
    keeps = text.endswith("WIDTH")
    width = "WIDTH" if keeps else "sizes.WIDTH"
    (package / "nets.py").write_text(f"{text}\ndef build(*_): return {width}\n")
    module = importlib.import_module("my_own_package.nets")

    def fingerprint():
        return networks.fingerprint("my_own_package.nets:build")

    before = fingerprint()
    (package / "sizes.py").write_text("WIDTH = 2\n")
    if keeps:  # reloaded in the wrong order is not enough
        importlib.reload(module)
    importlib.reload(sys.modules["my_own_package.sizes"])
    if keeps:
        assert module.build() == 16
        for _ in range(2):
            with pytest.raises(
                ValueError, match=r"^model: WIDTH in .*nets.py is from b"
            ):
                fingerprint()
        importlib.reload(module)
    assert module.build() == 2
    assert fingerprint() != before


@pytest.mark.parametrize(
    ("use", "is_kept"),
    [
        ("class Net(acts.Base): pass\ndef build(*_): return Net()", True),
        ("WIDTHS = [2 * acts.WIDTH]\ndef build(*_): return WIDTHS", True),
        ("def build(k, shape, width=acts.WIDTH): return width", True),
        ("ACTS = {'a': acts.act}\ndef build(*_): return ACTS['a']()", True),
        ("class Net:\n    width = acts.WIDTH\ndef build(*_): return Net().width", True),
        ("build = (lambda act: lambda *_: act())(acts.act)", True),
        ("def build(*_): return acts.act()", False),
        ("build = lambda *_: acts.Base()", False),
        (
            "class Net:\n    def f(self): return acts.WIDTH\nbuild = lambda *_: Net",
            False,
        ),
    ],
)
def test_what_a_file_took_while_it_was_imported_is_not_what_was_reloaded(
    modules, use, is_kept
):
    package = modules / "my_own_package"
    package.mkdir()
    text = "from torch import nn\nWIDTH = 16\nclass Base(nn.ReLU): pass\n"
    (package / "acts.py").write_text(text + "def act(): return nn.ReLU()\n")
    (package / "nets.py").write_text(f"from . import acts\n{use}\n")
    module = importlib.import_module("my_own_package.nets")

    def fingerprint():
        return networks.fingerprint("my_own_package.nets:build")

    before = fingerprint()
    text = "from torch import nn\nWIDTH = 2\nclass Base(nn.Tanh): pass\n"
    (package / "acts.py").write_text(text + "def act(): return nn.Tanh()\n")
    importlib.reload(module.acts)
    if is_kept:
        with pytest.raises(
            ValueError, match=r"from before my_own_package.acts was rel"
        ):
            fingerprint()
        importlib.reload(module)
    assert fingerprint() != before


@pytest.mark.parametrize("where", ["nets", "sizes"])
@pytest.mark.parametrize("value", ["16", "{'a': 16}"])
def test_a_number_that_autoreload_has_put_in_its_place_is_refused(
    modules, where, value
):
    """It leaves the module's functions and specification as they are."""
    autoreload = pytest.importorskip("IPython.extensions.autoreload")
    package = modules / "my_own_package"
    package.mkdir()
    (package / "sizes.py").write_text(f"WIDTH = {value}\n")
    text = f"from . import sizes\nWIDTH = {value}\ndef build(*_): return "
    text += "WIDTH" if where == "nets" else "sizes.WIDTH"
    (package / "nets.py").write_text(text)
    module = importlib.import_module("my_own_package.nets")
    reloader = autoreload.ModuleReloader()
    reloader.check(True)

    def fingerprint():
        return networks.fingerprint("my_own_package.nets:build")

    before = fingerprint()
    file = package / f"{where}.py"
    file.write_text(file.read_text().replace("16", "2"))
    seconds = os.stat(file).st_mtime + 10
    os.utime(file, (seconds, seconds))
    assert fingerprint() == before
    reloader.check(True)
    assert "2" in repr(module.build())
    with contextlib.suppress(ValueError):  # where it repairs, that is refused
        assert fingerprint() != before


@pytest.mark.parametrize("where", ["nets", "sizes", "class", "class within"])
def test_a_value_that_was_set_in_a_package_is_in_the_fingerprint(modules, where):
    package = modules / "my_own_package"
    package.mkdir()
    text = "WIDTH: int = 16\nclass Config:\n    WIDTH = 16\n    class Deep:\n"
    (package / "sizes.py").write_text(f"{text}        WIDTH: int = 16\n")
    text = "from . import sizes\nWIDTH = 16\nDEVICE = 'cpu'\nif WIDTH: DEVICE = 'gpu'\n"
    text += "def build(*_): return WIDTH + sizes.WIDTH + sizes.Config.WIDTH\n"
    (package / "nets.py").write_text(text)
    module = importlib.import_module("my_own_package.nets")

    def fingerprint():
        return networks.fingerprint("my_own_package.nets:build")

    before = fingerprint()
    owner = {
        "nets": module,
        "sizes": module.sizes,
        "class": module.sizes.Config,
        "class within": module.sizes.Config.Deep,
    }[where]
    owner.WIDTH = 3
    set_by_hand = fingerprint()
    assert set_by_hand != before
    owner.WIDTH = 4
    assert fingerprint() not in {before, set_by_hand}
    owner.WIDTH = 16
    assert fingerprint() == before == fingerprint()


@pytest.mark.parametrize(
    ("said", "name", "value"),
    [
        ("HIDDEN = (16, 16)", "HIDDEN", (64, 64)),
        ("HIDDEN = [16, 16]", "HIDDEN", [64, 64]),
        ("SCALE = -2.0", "SCALE", -20.0),
        ("A, B = 16, 16", "B", 3),
        ("CONFIG = {'width': 16, 'act': 'relu'}", "CONFIG", {"width": 3}),
    ],
)
def test_values_of_every_plain_kind_that_were_set_are_in_the_fingerprint(
    modules, said, name, value
):
    (modules / "my_own_package").mkdir()
    (modules / "my_own_package" / "nets.py").write_text(f"{said}\ndef build(*_): ...\n")
    module = importlib.import_module("my_own_package.nets")
    before = networks.fingerprint("my_own_package.nets:build")
    setattr(module, name, value)
    assert networks.fingerprint("my_own_package.nets:build") != before
    told = networks.values_set_in_memory("my_own_package.nets:build")
    assert told == [f"my_own_package.nets.{name} = {value!r}"]


def test_what_a_packages_own_code_fills_is_not_in_its_fingerprint(modules):
    """Registries, caches and counters: their fingerprint is that of another process."""
    text = (
        "REGISTRY = {}\nCACHE = {'a': 1}\nSEEN = []\nCALLS = 0\nLAST = None\n"
        "SEEN += [-1]\nDEEP = {'a': {}}\nDEEP['a']['b'] = 1\n"
        "def register(f):\n    REGISTRY[f.__name__] = f\n    return f\n"
        "class Net:\n    made = 0\n    def __init__(self): Net.made += 1\n"
        "@register\ndef build(*_):\n    global CALLS, LAST\n    CALLS += 1\n"
        "    LAST = 'now'\n    SEEN.append(CALLS)\n    CACHE['b'] = CALLS\n"
        "    return Net()\n"
    )
    (modules / "my_own_package").mkdir()
    (modules / "my_own_package" / "nets.py").write_text(text)
    module = importlib.import_module("my_own_package.nets")

    def fingerprint():
        return networks.fingerprint("my_own_package.nets:build")

    before = fingerprint()
    for _ in range(2):
        module.build()
        assert fingerprint() == before
    for name in [m for m in sys.modules if m.startswith("my_own_")]:
        del sys.modules[name]  # as a new process would
    assert fingerprint() == before


def test_a_number_whose_file_was_not_read_anew_has_not_the_new_fingerprint(modules):
    """Where the module beside it was."""
    package = modules / "my_own_package"
    package.mkdir()
    (package / "sizes.py").write_text("WIDTH = 16\n")
    text = "from .sizes import WIDTH\ndef build(*_): return WIDTH\n"
    (package / "nets.py").write_text(text)
    module = importlib.import_module("my_own_package.nets")
    before = networks.fingerprint("my_own_package.nets:build")
    (package / "sizes.py").write_text("WIDTH = 2\n")
    importlib.reload(module)
    assert module.build() == 16
    with pytest.raises(
        ValueError, match=r"^model: .*sizes.py has changed since it was"
    ):
        networks.fingerprint("my_own_package.nets:build")
    importlib.reload(sys.modules["my_own_package.sizes"])
    importlib.reload(module)
    assert networks.fingerprint("my_own_package.nets:build") != before


def test_a_value_set_in_an_imported_module_is_told_to_be_read_from_its_file(
    modules, recwarn
):
    (modules / "my_own_wide.py").write_text("WIDTH = 16\ndef build(*_): return WIDTH\n")
    module = importlib.import_module("my_own_wide")
    networks.check_name("my_own_wide:build")
    assert not len(recwarn)
    module.WIDTH = 64
    with pytest.warns(
        UserWarning, match=r"^model: .*in which WIDTH is 16, though .*64"
    ):
        networks.check_name("my_own_wide:build")
    text = (
        "HIDDEN = (16, 16)\nSEEN = []\nSEEN.append(2)\nclass Config:\n    width = 16\n"
    )
    (modules / "my_own_sizes.py").write_text(text)
    text = "import my_own_sizes\ndef build(*_): return my_own_sizes.Config.width\n"
    (modules / "my_own_net.py").write_text(text)
    neighbour = importlib.import_module("my_own_sizes")
    networks.check_name("my_own_net:build")
    neighbour.Config.width = 64
    for name in ("my_own_net:build", f"{modules / 'my_own_net.py'}:build"):
        with pytest.warns(
            UserWarning, match=r"sizes.py is read .*Config.width is 16, though .*64"
        ):
            networks.check_name(name)
    neighbour.Config.width = 16
    neighbour.SEEN.append(3)
    neighbour.HIDDEN = (64, 64)
    with pytest.warns(
        UserWarning, match=r"which HIDDEN is \(16, 16\), though .*\(64, 64\)"
    ):
        networks.check_name("my_own_net:build")


def test_a_folder_without_init_beside_a_network_is_in_its_fingerprint(tmp_path):
    (tmp_path / "my_parts").mkdir()
    (tmp_path / "torch").mkdir()  # Python prefers the installed one
    net = tmp_path / "net.py"
    net.write_text("import torch\nfrom my_parts.acts import Act as build\n")
    seen = []
    for layer in ("ReLU", "Tanh"):
        text = f"def Act(k, shape): import torch; return torch.nn.{layer}()\n"
        (tmp_path / "my_parts" / "acts.py").write_text(text)
        (tmp_path / "torch" / "notes.py").write_text(text)
        name = networks.check_name(f"{net}:build")
        network = networks.build(name, 2, (4,))
        seen.append((type(network), networks.fingerprint(name)))
    assert [kind for kind, _ in seen] == [torch.nn.ReLU, torch.nn.Tanh]
    assert seen[0][1] != seen[1][1]


def test_files_that_a_network_imports_are_its_own_and_in_its_fingerprint(tmp_path):
    def write(folder, activation, when="above"):
        (tmp_path / folder / "parts").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "parts" / "__init__.py").touch()
        text = f"from torch.nn import {activation} as Activation\n"
        (tmp_path / folder / "parts" / "acts.py").write_text(text)
        (tmp_path / folder / "my_layers.py").write_text(
            "from parts.acts import Activation\n"
        )
        line = "from my_layers import Activation"
        above, inside = (line, "") if when == "above" else ("", f"    {line}\n")
        body = f"{above}\ndef build(k, shape):\n{inside}    return Activation()\n"
        (tmp_path / folder / "net.py").write_text(body)

    def built(folder):
        name = networks.check_name(f"{tmp_path / folder}/net.py:build")
        return type(networks.build(name, 2, (4,))).__name__, networks.fingerprint(name)

    write("a", "ReLU")
    write("b", "Tanh")
    write("c", "Sigmoid", when="inside")
    seen = [built(folder) for folder in "abca"]
    assert [name for name, _ in seen] == ["ReLU", "Tanh", "Sigmoid", "ReLU"]
    assert seen[3] == seen[0]
    write("a", "LeakyReLU")  # two files away, and the process has imported it
    assert built("a")[0] == "LeakyReLU"
    assert len({digest for _, digest in seen} | {built("a")[1]}) == 4
    assert not {"my_layers", "parts", "parts.acts"} & set(sys.modules)


def test_the_name_holds_in_any_folder_and_two_places_never_share_one(
    tmp_path, monkeypatch
):
    write_npz(tmp_path / "x.npz")
    monkeypatch.chdir(tmp_path)
    config = TrainConfig("npz:x.npz", runs_dir=tmp_path, **QUICK)
    assert config.dataset == f"npz:{tmp_path / 'x.npz'}"
    assert own.folder_name("npz:/a/x.npz") != own.folder_name("npz:/b/x.npz")
    assert "/" not in own.folder_name("npz:/a/$^ ü$.npz")


def test_published_data_has_no_fingerprint_so_old_runs_stay_theirs():
    assert "data_fingerprint" not in TrainConfig("digits", device="cpu").settings()


def test_grids_take_own_data_and_networks(tmp_path, monkeypatch):
    write_npz(tmp_path / "x.npz")
    (tmp_path / "my_grid_net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    grid = {"dataset": "npz:x.npz", "model": "my_grid_net.py:build", "device": "cpu"}
    ((run_dir, cell),) = sweeps.expand(grid, tmp_path / "runs").items()
    assert cell.given["dataset"] == f"npz:{tmp_path / 'x.npz'}"
    assert cell.given["model"] == f"{tmp_path / 'my_grid_net.py'}:build"
    assert "my_grid_net-build" in run_dir


# --- functions ------------------------------------------------------------------------

NETWORK = textwrap.dedent("""
    from torch import nn

    def build(n_classes, input_shape):
        n = input_shape[0] * input_shape[1] * input_shape[2]
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(n, n_classes))

    def wrong(n_classes, input_shape):
        return nn.Flatten()

    def no_module(n_classes, input_shape):
        return None

    def raises(n_classes, input_shape):
        raise RuntimeError("no such width")
""")
DATA = textwrap.dedent("""
    import torch
    from gcelib.data import Splits

    def load(seed):
        g = torch.Generator().manual_seed(seed)
        labels = torch.arange(180) % 2
        images = torch.randint(0, 60, (180, 1, 8, 8), generator=g)
        images = (images + 90 * labels.view(-1, 1, 1, 1)).byte()
        parts = [(images[k::3], labels[k::3]) for k in range(3)]
        half = torch.tensor([0.5])
        names = ("no", "yes")
        return Splits("mine", *parts, 2, half, half, names, (1, 8, 8), False)

    def nothing(seed):
        return seed
""").replace("from gcelib.data import", "from gcelib.study.data import")


@pytest.fixture
def modules(tmp_path, monkeypatch):
    (tmp_path / "my_own_data.py").write_text(DATA)
    (tmp_path / "my_own_net.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [m for m in sys.modules if m.startswith(("my_own_", "gcelib_user_"))]:
        del sys.modules[name]


def test_a_sweep_sees_that_what_a_function_reads_has_changed(modules):
    read = modules / "brightness.txt"
    lines = DATA.replace("90 *", f"int(open({str(read)!r}).read()) *")
    (modules / "my_own_reader.py").write_text(lines)
    read.write_text("90")
    grid = QUICK | {"dataset": "my_own_reader:load", "seed": 1}
    list(fit(TrainConfig(**grid, runs_dir=modules)))
    assert sweeps.status(grid, modules).state.tolist() == ["done"]
    read.write_text("80")
    assert sweeps.status(grid, modules).state.tolist() == ["another"]
    with pytest.raises(ValueError, match="another result, which differs in"):
        sweeps.expand(grid, modules)


def test_functions_bring_data_and_network_and_resume_with_dropout(modules):
    logits = []
    for place, stop in (("whole", False), ("broken", True)):
        options = {"loss": "ce", "epochs": 2, "ood": [], "device": "cpu"}
        config = TrainConfig(
            "my_own_data:load", "my_own_net:build", runs_dir=modules / place, **options
        )
        run = fit(config)
        next(run)
        if stop:
            run.close()
            torch.manual_seed(99)  # dropout must not hang on the global generator
            run = fit(config)
        list(run)
        logits.append(runs.load_logits(config.run_dir, "test")[0])
    np.testing.assert_array_equal(*logits)
    assert len(runs.load_results(modules / "whole")) == 1


ACTIVE = """
import torch
from torch import nn
from torch.nn import functional as F

class Active(nn.Module):
    def __init__(self, k, shape):
        super().__init__()
        self.layer = nn.Linear(8, k)
        for name in ("mean", "trained", "average"):
            self.register_buffer(name, self.layer.weight.detach().clone())
        self.register_buffer("count", torch.tensor(0.0))
        self.register_buffer("ready", self.mean.clone(), persistent=False)

    def train(self, mode=True):
        if mode != self.training:
            with torch.no_grad():
                self.change(mode)
        return super().train(mode)

    def forward(self, x):
        if self.training:
            self.mean.lerp_(self.layer.weight.detach(), 0.1)
        return self.say(x.flatten(1)[:, :8])

    def say(self, x): return self.layer(x)

class Swapping(Active):
    def change(self, mode):
        if mode:
            self.layer.weight.copy_(self.trained)
        else:
            self.trained.copy_(self.layer.weight)
            self.layer.weight.copy_(self.mean)

class Exchanging(Active):
    def change(self, mode):
        weight = self.layer.weight.clone()
        self.layer.weight.copy_(self.mean)
        self.mean.copy_(weight)

class Preparing(Active):
    def change(self, mode):
        self.ready = None if mode else F.normalize(self.layer.weight.detach())
    def say(self, x):
        return x @ (F.normalize(self.layer.weight) if self.training else self.ready).T

class Averaging(Active):
    def change(self, mode):
        if not mode:
            self.count += 1
            self.average.lerp_(self.layer.weight, 1 / float(self.count))
    def say(self, x):
        return self.layer(x) if self.training else x @ self.average.T
"""
ACTIVE_NETWORKS = ("Swapping", "Exchanging", "Preparing", "Averaging")


def of_active(modules, network, place):
    (modules / "my_active_nets.py").write_text(ACTIVE)
    return TrainConfig(
        "my_own_data:load",
        f"my_active_nets:{network}",
        loss="ce",
        epochs=4,
        ood=[],
        device="cpu",
        runs_dir=modules / place,
    )


@pytest.mark.filterwarnings("ignore:model. my_active_nets.* changes its weights")
@pytest.mark.parametrize("network", ACTIVE_NETWORKS)
def test_a_stopped_run_of_a_network_that_acts_in_eval_and_train_ends_the_same(
    modules, network
):
    """What it swaps there is in its state; what it makes there of weights is not."""
    logits = []
    for place, stops in (
        ("whole", ()),
        ("once", (1,)),
        ("often", (1, 2)),
        ("end", (4,)),
    ):
        config = of_active(modules, network, place)
        for n_epochs in stops:
            run = fit(config)
            for record in run:
                if record["epoch"] >= n_epochs:
                    break
            run.close()
        list(fit(config))
        logits.append(runs.load_logits(config.run_dir, "test")[0])
    for stopped in logits[1:]:
        np.testing.assert_array_equal(stopped, logits[0])


@pytest.mark.filterwarnings("ignore:model. my_active_nets.* changes its weights")
@pytest.mark.parametrize("network", ACTIVE_NETWORKS)
def test_a_state_predicts_what_its_network_did_also_one_that_was_training(
    modules, network
):
    trainer = training.Trainer(training.prepare(of_active(modules, network, "whole")))
    inputs = trainer.splits.test[0]
    states, seen = [], []

    def look(progress):
        if network != "Averaging" and (progress.epoch, progress.step) == (2, 1):
            states.append(trainer.state_dict())
            seen.append(trainer.predict(inputs))

    trainer.on_batch = look
    for _ in trainer:
        states.append(trainer.state_dict())
        seen.append(trainer.predict(inputs))
    other = training.Trainer(training.prepare(of_active(modules, network, "other")))
    for state, logits in zip(states, seen, strict=True):
        for each in (trainer, other):
            each.load_state_dict(state)
            assert torch.equal(each.predict(inputs), logits)


def test_that_weights_must_be_loaded_in_evaluation_is_told(modules):
    with pytest.warns(UserWarning, match="call eval.. before you load weights.pt"):
        list(fit(of_active(modules, "Exchanging", "whole")))


DRAWS = """
import random
import numpy as np, torch
from torch import nn

class Noisy(nn.Module):
    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.directions = nn.Buffer(torch.from_numpy(np.random.randn(n_inputs, 16)))
        self.head = nn.Linear(16, n_classes)

    def forward(self, x):
        noise = np.random.normal(0, 0.5) + random.random() + torch.rand(1)
        x = x.flatten(1)
        return self.head(x @ self.directions.float()) + noise * x[:, :1]

def build(n_classes, input_shape): return Noisy(64, n_classes)
"""


def set_generators(seed):
    np.random.seed(seed)  # noqa: NPY002 - what networks draw from
    random.seed(seed)
    torch.manual_seed(seed)


def next_numbers():
    return np.random.random(), random.random(), float(torch.rand(1))  # noqa: NPY002


def test_a_network_that_draws_from_numpy_and_python_draws_as_its_seed_says(modules):
    """Wherever the generators stand, also of a run that was stopped: in a sweep's
    processes numpy's would stand at one place for all seeds."""
    (modules / "my_own_draws.py").write_text(DRAWS)
    dataset = write_npz(modules / "x.npz")
    options = {**QUICK, "model": "my_own_draws:build", "epochs": 2, "ood": []}

    def weights_and_logits(place, seed, is_stopped):
        config = TrainConfig(
            dataset, seed=seed, runs_dir=modules / place, keep_weights=True, **options
        )
        run = fit(config)
        next(run)
        if is_stopped:
            run.close()
            set_generators(99)
            run = fit(config)
        list(run)
        weights = torch.load(config.run_dir / "weights.pt", weights_only=True)
        return weights["directions"], runs.load_logits(config.run_dir, "test")[0]

    set_generators(0)
    following = next_numbers()
    set_generators(0)
    expected = [weights_and_logits("one", seed, False) for seed in (1, 2)]
    assert next_numbers() == following
    assert not torch.equal(expected[0][0], expected[1][0])
    set_generators(7)
    found = weights_and_logits("other", 2, is_stopped=True)
    assert torch.equal(found[0], expected[1][0])
    np.testing.assert_array_equal(found[1], expected[1][1])


@pytest.mark.parametrize("form", ["file", "package"])
def test_what_a_file_draws_while_it_is_imported_is_a_part_of_it(modules, form):
    text = "import random\nimport numpy as np, torch\n"
    text += "DRAWN = [random.random(), np.random.random(), float(torch.rand(1))]\n"
    text += "def build(*_): return DRAWN\n"
    drawn = []
    for i in range(2):
        name = f"my_own_drawn_{form}_{i}"
        if form == "file":
            (modules / f"{name}.py").write_text(f"{text}#{i}")
        else:
            (modules / name).mkdir()
            (modules / name / "__init__.py").write_text("")
            (modules / name / "nets.py").write_text(text)
            name += ".nets"
        set_generators(i)
        following = next_numbers()
        set_generators(i)
        drawn.append(functions.load_function("model", f"{name}:build")())
        assert next_numbers() == following
    assert drawn[0] == drawn[1]


SHARED = """
import copy, functools
from torch import nn
@functools.lru_cache
def kept(k, shape): return nn.Sequential(nn.Flatten(), nn.Linear(64, k))
BACKBONE = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
def shared(k, shape): return nn.Sequential(BACKBONE, nn.Linear(3, k))
def copied(k, shape): return nn.Sequential(copy.deepcopy(BACKBONE), nn.Linear(3, k))
def reset(k, shape):
    for layer in BACKBONE[1:]: layer.reset_parameters()
    return shared(k, shape)
"""


def test_a_network_that_begins_with_what_another_run_learnt_is_refused(modules):
    (modules / "my_own_shared.py").write_text(SHARED)

    def built(which):
        name = networks.check_name(f"my_own_shared:{which}")
        network = networks.build(name, 2, (4,))
        return network, torch.optim.SGD(network.parameters(), lr=0.1)

    built("shared")  # looked at and not trained
    network, optimizer = built("shared")
    network(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    with pytest.raises(
        ValueError, match=r"^model: 0\.1\.weight of .*shared is shared w"
    ):
        built("shared")
    built("copied")
    built("reset")
    built("shared")


PRETRAINED = """
import numpy as np, torch
from torch import nn
STATE = {"weight": torch.full((4, 4), 0.5), "bias": torch.zeros(4)}
ROWS = np.full((5, 4), 0.25, np.float32)
def body(k): return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, k))
def with_weight(k, weight):
    network = body(k)
    network[0].weight = nn.Parameter(weight)
    return network
def assigned(k, shape):
    network = body(k)
    network[0].load_state_dict(STATE, assign=True)
    return network
def parameter(k, shape): return with_weight(k, STATE["weight"])
def part_of_it(k, shape): return with_weight(k, STATE["weight"].t()[:, :4])
def from_numpy(k, shape): return with_weight(k, torch.from_numpy(ROWS[1:]))
def frombuffer(k, shape):
    return with_weight(k, torch.frombuffer(ROWS, dtype=torch.float32)[:16].view(4, 4))
def data(k, shape):
    network = body(k)
    network[0].weight.data = STATE["weight"]
    return network
def embedding(k, shape):
    network = body(k)
    network[0] = nn.Embedding.from_pretrained(torch.from_numpy(ROWS), freeze=False)
    network[0].forward = lambda x: x @ network[0].weight[:4]
    return network
def buffer(k, shape):
    network = body(k)
    network[1].running_mean = STATE["bias"].view(4)
    return network
"""


def steps_of(network, n=3):
    """Train a network for some steps and return its logits in each."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    inputs = torch.linspace(-1, 1, 32).reshape(8, 4)
    logits = []
    for _ in range(n):
        optimizer.zero_grad()
        logits.append(network(inputs))
        logits[-1].square().mean().backward()
        optimizer.step()
    return torch.stack(logits).detach()


@pytest.mark.parametrize(
    "which",
    [
        *("assigned", "parameter", "part_of_it", "from_numpy", "frombuffer", "data"),
        *("embedding", "buffer"),
    ],
)
def test_what_was_pretrained_stays_as_it_was_whatever_learns_from_it(modules, which):
    (modules / "my_own_pretrained.py").write_text(PRETRAINED)
    name = networks.check_name(f"my_own_pretrained:{which}")
    home = functions.load_function("model", name).__globals__

    def digest():
        return fingerprints.digest_of_use([home["STATE"], home["ROWS"]], "__main__")

    def trained():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = networks.build(name, 2, (4,))
        return steps_of(network), [*network.state_dict().values()]

    before = digest()  # a part of a notebook's fingerprint
    first, first_state = trained()
    again, again_state = trained()
    assert not torch.equal(first[0], first[2])
    assert torch.equal(first, again)
    assert all(map(torch.equal, first_state, again_state))
    assert digest() == before


def test_a_run_from_pretrained_memory_that_is_started_again_ends_with_the_same_bits(
    modules,
):
    text = PRETRAINED + "def flat(k, shape): return "
    text += "nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False), parameter(k, 4))"
    (modules / "my_own_pretrained.py").write_text(text)
    dataset = write_npz(modules / "x.npz")

    def config(variant):
        asked = {**QUICK, "model": "my_own_pretrained:flat", "ood": [], "epochs": 2}
        return TrainConfig(dataset, runs_dir=modules, variant=variant, **asked)

    def stop(progress):
        raise KeyboardInterrupt

    list(fit(config("whole")))
    with contextlib.suppress(KeyboardInterrupt):
        list(fit(config("stopped"), stop))
    list(fit(config("stopped")))
    whole, stopped = (
        runs.load_logits(config(variant).run_dir, "test")[0]
        for variant in ("whole", "stopped")
    )
    np.testing.assert_array_equal(whole, stopped)


class WithViews(torch.nn.Module):
    """Weights that share memory in each way, and what is kept beside them."""

    def __init__(self):
        super().__init__()
        flat = torch.randn(40)
        self.first = torch.nn.Parameter(flat[:16].view(4, 4).t())
        self.second = torch.nn.Parameter(flat[16:32].view(4, 4))
        self.over_both = torch.nn.Parameter(flat[4:32:2].view(7, 2)[:4])
        self.tied = self.second
        self.register_buffer("count", torch.zeros(2))
        self.register_buffer("first_count", self.count[:1])
        self.register_buffer("graph", torch.eye(4).to_sparse())
        self.register_buffer("wide", torch.ones(1).expand(4))
        self.register_buffer("nothing", torch.empty(0))
        self.rows = self.first[:2]
        self.kept = {"others": [self.first[2:]]}
        self.counted = self.count[1:]

    def forward(self, x):
        with torch.no_grad():
            self.count += 1
        rows = torch.cat([self.rows, *self.kept["others"]])
        hidden = torch.sparse.mm(self.graph, (x @ rows @ self.tied).t()).t()
        return (hidden + self.wide * self.first_count) @ self.over_both + self.counted


def test_memory_of_its_own_changes_no_bit_of_a_network():
    from torch.nn.utils import parametrizations

    makers = {
        "views": WithViews,
        "weight_norm": lambda: parametrizations.weight_norm(torch.nn.Linear(4, 3)),
        "spectral_norm": lambda: parametrizations.spectral_norm(torch.nn.Linear(4, 3)),
        "scripted": lambda: torch.jit.script(torch.nn.Linear(4, 3)),
        "in shared memory": lambda: torch.nn.Linear(4, 3).share_memory(),
        "meta": lambda: torch.nn.Linear(4, 3, device="meta"),
    }

    def layout(network):
        tensors = [*network.parameters(), *network.buffers()]
        dense = [t for t in tensors if t.layout == torch.strided]
        return [(id(t), t.stride(), t.storage_offset()) for t in dense]

    for name, make in makers.items():
        found = []
        for has_own in (False, True):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                network = make()
                before = layout(network)
                if has_own:
                    own_networks.give_own_memory(network)
                assert layout(network) == before
                if name != "meta":
                    found.append(steps_of(network))
        assert all(torch.equal(found[0], other) for other in found), name


def test_weights_that_a_network_has_collected_follow_what_it_learns():
    """For an average, or a limit of norms."""
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    weights = [*network.parameters()]
    network.collected = [weight.detach() for weight in weights]
    network.limited = {"weights": (weights[0].data, weights[2].data.t())}
    network.pairs = [(torch.zeros(()), weight.detach()[:1]) for weight in weights]
    network.one = weights[1].data
    own_networks.give_own_memory(network)
    steps_of(network)
    for alias, weight in zip(network.collected, weights, strict=True):
        assert torch.equal(alias, weight)
    assert torch.equal(network.limited["weights"][0], weights[0])
    assert torch.equal(network.limited["weights"][1], weights[2].t())
    assert torch.equal(network.pairs[3][1], weights[3][:1])
    assert torch.equal(network.one, weights[1])


def test_a_network_that_its_function_keeps_begins_as_its_seed_says(modules):
    (modules / "my_own_shared.py").write_text(SHARED)
    dataset = write_npz(modules / "x.npz")
    asked = {**QUICK, "model": "my_own_shared:kept", "ood": [], "seed": 5}
    job = training.prepare(TrainConfig(dataset, runs_dir=modules, **asked))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = torch.nn.Linear(64, 2).weight
    assert torch.equal(training.Trainer(job).model[1].weight, expected)


def test_a_network_that_was_registered_with_timm_has_a_fingerprint(modules):
    pytest.importorskip("timm")
    text = (
        "import timm\nfrom torch import nn\n@timm.models.register_model\n"
        "def my_own_registered(pretrained=False, **kwargs): return nn.ReLU()\n"
    )
    (modules / "my_own_timm.py").write_text(text)
    module = importlib.import_module("my_own_timm")
    before = networks.fingerprint("timm:my_own_registered")
    assert before is not None
    (modules / "my_own_timm.py").write_text(text.replace("ReLU", "Tanh "))
    importlib.invalidate_caches()
    importlib.reload(module)
    assert networks.fingerprint("timm:my_own_registered") not in {before, None}
    assert networks.fingerprint("timm:test_resnet") is None


def test_a_timm_name_that_means_weights_is_told_that_they_are_not_loaded():
    pytest.importorskip("timm")
    with pytest.warns(
        UserWarning, match="'r160_in1k' of timm:test_resnet.* are not lo"
    ):
        networks.check_name("timm:test_resnet.r160_in1k")


def test_timm_networks_train(tmp_path):
    timm = pytest.importorskip("timm")
    assert timm
    config = TrainConfig("digits", "timm:test_resnet", runs_dir=tmp_path, device="cpu")
    job = training.prepare(TrainConfig(**{**config.__dict__, "ood": [], "epochs": 1}))
    images, labels = job.splits.train
    record = training.Trainer(job).train_epoch(0, (images[:64], labels[:64]))
    assert np.isfinite(record["train_loss"])
    with pytest.raises(ValueError, match="model: unknown 'test_resnett'; did you mean"):
        TrainConfig("digits", "timm:test_resnett")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("my_own_net:wrong", r"model: .*returns torch.float32 of shape \(8, 64\)"),
        (
            "my_own_net:no_module",
            "model: .*returned NoneType; return a torch.nn.Module",
        ),
        ("my_own_net:raises", "model: .*cannot be built .*no such width"),
        ("my_own_net:absent", "model: .*has no function 'absent'"),
        ("no_such_module_of_mine:build", "model: there is no module"),
        ("/no/such/file.py:build", "model: there is no file"),
    ],
)
def test_networks_that_cannot_be_used_are_refused_before_work(modules, model, message):
    folder = modules / "runs"
    with pytest.raises((ValueError, TypeError), match=message):
        next(fit(TrainConfig("digits", model, ood=[], device="cpu", runs_dir=folder)))
    assert not folder.exists()


# --- what own networks hide -----------------------------------------------------------

HIDING = textwrap.dedent("""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, k):
            super().__init__()
            self.last = nn.Linear(16, k)

        def hidden(self, x):
            return self.first(x.flatten(1))

        def forward(self, x):
            return self.last(self.hidden(x).relu())

    class Plain(Net):
        def __init__(self, k):
            super().__init__(k)
            self.layers = [nn.Linear(64, 16)]
        def hidden(self, x): return self.layers[0](x.flatten(1))
    def in_a_list(k, shape): return Plain(k)
    def frozen_in_a_list(k, shape):
        net = Plain(k)
        net.layers[0].requires_grad_(False)
        return net
    def listed_twice(k, shape):
        net = Plain(k)
        net.first = net.layers[0]
        return net

    class Deep(Net):
        def __init__(self, k):
            super().__init__(k)
            self.blocks = {"a": (nn.Linear(64, 16), nn.ReLU())}
        def hidden(self, x): return self.blocks["a"][0](x.flatten(1))
    def in_a_dict(k, shape): return Deep(k)

    class Tensor(Net):
        def __init__(self, k):
            super().__init__(k)
            self.w = (0.1 * torch.randn(64, 16)).requires_grad_()
        def hidden(self, x): return x.flatten(1) @ self.w
    def a_tensor(k, shape): return Tensor(k)

    class State(Net):
        def __init__(self, k):
            super().__init__(k)
            self.first = nn.Linear(64, 16)
        def hidden(self, x):
            start = torch.zeros(len(x), 16).requires_grad_()
            return self.first(x.requires_grad_().flatten(1)) + start
    def states_with_gradients(k, shape): return State(k)

    OF_THE_MODULE = nn.Linear(64, 16)
    class Global(Net):
        def hidden(self, x): return OF_THE_MODULE(x.flatten(1))
    def of_the_module(k, shape): return Global(k)

    def all_frozen(k, shape):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, k)).requires_grad_(False)
    class Nothing(nn.Module):
        def forward(self, x): return x.flatten(1)[:, :2]
    def no_weights(k, shape): return Nothing()
    def lazy(k, shape): return nn.Sequential(nn.Flatten(), nn.LazyLinear(k))
    def lazy_norm(k, shape):
        return nn.Sequential(nn.LazyBatchNorm2d(), nn.Flatten(), nn.Linear(64, k))

    class Average(Net):
        def __init__(self, k, persistent):
            super().__init__(k)
            self.first = nn.Linear(64, 16)
            self.register_buffer("average", torch.zeros(16), persistent=persistent)
        def hidden(self, x):
            h = self.first(x.flatten(1))
            if self.training:
                self.average.mul_(0.9).add_(0.1 * h.detach().mean(0))
            return h - self.average
    def lost_average(k, shape): return Average(k, False)
    def kept_average(k, shape): return Average(k, True)

    class Cache(Net):
        def __init__(self, k):
            super().__init__(k)
            self.first = nn.Linear(64, 16)
            self.register_buffer("scale", torch.full((), 2.0), persistent=False)
            self.register_buffer("seen", None, persistent=False)
        def hidden(self, x):
            if self.seen is None:
                self.seen = torch.arange(16.0)
            return self.first(x.flatten(1)) * self.scale + self.seen
    def constants(k, shape): return Cache(k)

    class Drop(Net):
        def __init__(self, k):
            super().__init__(k)
            self.first = nn.Linear(64, 16)
            self._drops = [nn.Dropout(0.5)]
        def hidden(self, x): return self._drops[0](self.first(x.flatten(1)))
    def dropout_in_a_list(k, shape): return Drop(k)
    def switched_off(k, shape):
        net = Drop(k)
        net._drops[0].eval()
        return net

    class Centred(Net):
        def __init__(self, k):
            super().__init__(k)
            self.first = nn.Linear(64, 16)
        def hidden(self, x):
            x = self.first(x.flatten(1))
            return x - x.mean(0)
    def centred(k, shape): return Centred(k)
    def norm(k, shape, **options):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16, **options),
            nn.ReLU(), nn.Linear(16, k),
        )
    def norm_of_the_batch(k, shape): return norm(k, shape, track_running_stats=False)
    class Drawing(Centred):
        def hidden(self, x):
            return nn.functional.dropout(self.first(x.flatten(1)), 0.5, training=True)
    def drawing(k, shape): return Drawing(k)
    class Made(Centred):
        def hidden(self, x):
            return nn.Dropout(0.5)(self.first(x.flatten(1)))
    def drawing_in_a_new_layer(k, shape): return Made(k)
    class Switched(Centred):
        def hidden(self, x):
            h = self.first(x.flatten(1))
            return nn.functional.dropout(h, 0.5, training=self.training)
    def drawing_in_training(k, shape): return Switched(k)
    def softmax(k, shape):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, k), nn.Softmax(1))

    class Late(Net):
        def __init__(self, k):
            super().__init__(k)
            self.first = None
        def hidden(self, x):
            if self.first is None:
                self.first = nn.Linear(64, 16)
            return self.first(x.flatten(1))
    def late(k, shape): return Late(k)
    def late_but_run_once(k, shape):
        net = Late(k)
        net(torch.zeros(2, *shape))
        return net
    def lazy_but_run_once(k, shape):
        net = nn.Sequential(nn.Flatten(), nn.LazyLinear(k))
        net(torch.zeros(2, *shape))
        return net
    class LateTensor(Centred):
        def hidden(self, x):
            if not hasattr(self, "scale"):
                self.scale = nn.Parameter(torch.ones(16))
            return self.first(x.flatten(1)) * self.scale
    def late_tensor(k, shape): return LateTensor(k)
    class Again(Centred):
        def hidden(self, x):
            self.scale = nn.Parameter(torch.ones(16))
            return self.first(x.flatten(1)) * self.scale
    def put_in_again(k, shape): return Again(k)
    class Anew(Centred):
        def hidden(self, x):
            return nn.Linear(16, 16)(self.first(x.flatten(1)).relu())
    def made_anew(k, shape): return Anew(k)
    class Hyper(Centred):
        def hidden(self, x):
            h = self.first(x.flatten(1))
            self.made = h.mean(0).diag() + torch.eye(16)
            return h @ self.made
    def computed_weights(k, shape): return Hyper(k)
    class LateBuffer(Centred):
        def hidden(self, x):
            if not hasattr(self, "ramp"):
                self.register_buffer("ramp", torch.arange(16.0), persistent=True)
            return self.first(x.flatten(1)) + self.ramp
    def late_buffer(k, shape): return LateBuffer(k)
    class LateFrozen(Centred):
        def hidden(self, x):
            if not hasattr(self, "ramp"):
                self.ramp = nn.Parameter(torch.arange(16.0), requires_grad=False)
            return self.first(x.flatten(1)) + self.ramp
    def late_and_frozen(k, shape): return LateFrozen(k)

    class CutOff(Centred):
        def hidden(self, x):
            return self.first(x.flatten(1)).detach()
    def cut_off(k, shape): return CutOff(k)
    def cut_off_and_frozen(k, shape):
        net = CutOff(k)
        net.first.requires_grad_(False)
        return net
    class Mean(nn.Module):
        def __init__(self, k, is_buffer):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, k))
            if is_buffer:
                self.register_buffer("mean", torch.zeros(k))
            else:
                self.mean = torch.zeros(k)
        def forward(self, x):
            z = self.net(x)
            if self.training:
                self.mean = 0.5 * self.mean + z.detach().mean(0) + 1 / z.shape[1]
                self.mean[0] += 3
            return z - self.mean
    def mean_of_its_own(k, shape): return Mean(k, False)
    def mean_in_a_buffer(k, shape): return Mean(k, True)
""")


@pytest.fixture
def hiding(modules):
    (modules / "my_own_hiding.py").write_text(HIDING)
    dataset = write_npz(modules / "x.npz")

    def config(network, **options):
        asked = QUICK | {"model": f"my_own_hiding:{network}"} | options
        return TrainConfig(dataset, ood=[], runs_dir=modules / network, **asked)

    return config


def told_of_model(caught):
    messages = [str(w.message) for w in caught]
    return [message for message in messages if message.startswith("model:")]


@pytest.mark.parametrize(
    "network", ["in_a_list", "in_a_dict", "a_tensor", "of_the_module"]
)
def test_weights_that_nobody_would_train_are_refused(hiding, network):
    with pytest.raises(ValueError, match=r"^model: .* none of its parameters\(\)"):
        training.prepare(hiding(network))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("late", r"first\.weight of .* is made in the first pass"),
        ("late_tensor", "scale of .* is made in the first pass"),
        ("put_in_again", "scale of .* is made in the first pass"),
        ("made_anew", r"makes a weight of shape \(16, 16\) in its pass"),
    ],
)
def test_weights_that_a_pass_makes_are_refused(hiding, network, message):
    """The optimiser has taken the others by then: these stayed as they were drawn."""
    with pytest.raises(ValueError, match=f"^model: .*{message}.*__init__"):
        training.prepare(hiding(network))


@pytest.mark.parametrize(
    "network",
    [
        "frozen_in_a_list",
        "listed_twice",
        "states_with_gradients",
        "computed_weights",
        "late_but_run_once",
        "lazy_but_run_once",
    ],
)
def test_weights_that_are_frozen_or_known_and_what_a_pass_makes_are_taken(
    hiding, network
):
    training.prepare(hiding(network))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("all_frozen", "depend on none of its weights that is not frozen"),
        ("no_weights", "depend on no weight: it has none"),
        ("lazy", r"^model: 1\.weight of .* has no shape yet; run network\(torch.zeros"),
        ("lazy_norm", r"^model: 0\.weight of .* has no shape yet"),
    ],
)
def test_networks_that_cannot_learn_or_are_not_ready_are_refused(
    hiding, network, message
):
    with pytest.raises(ValueError, match=message):
        training.prepare(hiding(network))


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ("lost_average", "the buffer average of .* is not kept"),
        ("kept_average", None),
        ("constants", None),
        ("late_buffer", "ramp of .* is made in the first pass"),
        ("late_and_frozen", "ramp of .* is made in the first pass"),
        (
            "dropout_in_a_list",
            "Dropout in the plain container _drops of .* stays in tr",
        ),
        ("switched_off", None),
    ],
)
def test_what_training_changes_and_nobody_keeps_is_told(hiding, network, told):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        training.prepare(hiding(network))
    said = told_of_model(caught)
    assert len(said) == (told is not None)
    assert told is None or re.search(told, said[0])


@pytest.mark.parametrize(
    ("network", "is_told"),
    [
        ("centred", True),
        ("norm_of_the_batch", True),
        ("norm", False),
    ],
)
def test_logits_that_hang_on_other_samples_are_told(hiding, network, is_told):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(fit(hiding(network)))
    said = told_of_model(caught)
    assert len(said) == is_told
    assert all("hang on which other samples are evaluated with them" in m for m in said)


def all_told_of_model(config):
    """What a whole run tells of its network."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(fit(config))
    return told_of_model(caught)


@pytest.mark.parametrize("network", ["drawing", "drawing_in_a_new_layer"])
def test_a_network_that_draws_in_evaluation_is_told(hiding, network):
    [said] = all_told_of_model(hiding(network))
    assert "draws random numbers in evaluation" in said


def test_weights_that_no_gradient_reaches_are_told(hiding):
    [said] = all_told_of_model(hiding("cut_off"))
    assert "no gradient reaches first.weight and 1 more" in said


def test_what_a_network_keeps_beside_its_state_is_told(hiding):
    """weights.pt is another network then."""
    [said] = all_told_of_model(hiding("mean_of_its_own"))
    assert "keeps something beside its weights and buffers" in said


@pytest.mark.parametrize(
    "network", ["drawing_in_training", "cut_off_and_frozen", "mean_in_a_buffer"]
)
def test_of_a_network_that_keeps_all_it_needs_nothing_is_told(hiding, network):
    assert all_told_of_model(hiding(network)) == []


def test_a_network_that_ends_in_a_softmax_is_told_once(hiding):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(fit(hiding("softmax", epochs=3)))
    said = [str(w.message) for w in caught]
    assert len([m for m in said if m.startswith("logits:")]) == 1
    assert len(said) < 5


# --- what is refused ------------------------------------------------------------------

Y = np.arange(40) % 2
X = pictures(Y)
TABLE = RNG.normal(size=(40, 3))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "has no train_images, only nothing"),
        ({"train_images": X}, "has no train_labels"),
        ({"train_images": X, "train_labels": Y[:-1]}, r"shape \(39,\) for 40 samples"),
        ({"train_images": X, "train_labels": Y * 0}, "fewer than two classes"),
        ({"train_images": X, "train_labels": Y + 1}, "reach to 2 but lack class 0"),
        ({"train_images": X, "train_labels": Y - 1}, "contain -1"),
        ({"train_images": X, "train_labels": Y * 1.0}, "train_labels .*dtype float64"),
        ({"train_images": X / 255, "train_labels": Y}, "train_images .*dtype float64"),
        ({"train_images": X[:, :4, :4, None, None], "train_labels": Y}, "have shape"),
        (
            {"train_images": pictures(Y, (8, 8, 8)), "train_labels": Y},
            "no axis is clearly",
        ),
        ({"train_images": X[:9], "train_labels": Y[:9]}, "samples for train"),
        (
            {"train_images": np.full((40, 3), np.nan), "train_labels": Y},
            "NaN or infinity",
        ),
        (
            {"train_images": X, "train_labels": Y, "val_images": X},
            "only one of val_images",
        ),
        (
            {
                "train_images": X,
                "train_labels": Y,
                "val_images": X,
                "val_labels": Y + 1,
            },
            r"val_labels .*contain 2, outside \[0, 2\)",
        ),
        (
            {
                "train_images": X,
                "train_labels": Y,
                "test_images": pictures(Y, (9, 9)),
                "test_labels": Y,
            },
            r"test_images .*\(1, 9, 9\), train_images \(1, 8, 8\)",
        ),
        ({"train_images": np.array([{}] * 40), "train_labels": Y}, "Python objects"),
        (
            {"train_images": X, "train_labels": Y.astype("u8") * 2**63 + 1},
            "contain 9223372036854775809",
        ),
        (
            {
                "train_images": X,
                "train_labels": Y,
                "validation_images": X,
                "validation_labels": Y,
            },
            "'validation_images' in .* is not read",
        ),
        ({"train_images": TABLE * 1e30, "train_labels": Y}, "reach to"),
        (
            {"train_images": X, "train_labels": Y, "class_names": np.array(["a", "a"])},
            "two classes 'a'",
        ),
        ({"train_images": TABLE + 1.7e9, "train_labels": Y}, "than float32 can tell"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_sentence(
    tmp_path, arrays, message
):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=rf"^dataset: .*{message}.*; "):
        TrainConfig(f"npz:{tmp_path / 'x.npz'}", runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_places_that_are_not_there_or_damaged_are_refused(tmp_path, modules):
    (tmp_path / "x.npz").write_bytes(b"PK\3\4 and then nothing")
    (tmp_path / "empty").mkdir()
    cases = {
        "npz:/no/such.npz": "there is no file",
        f"npz:{tmp_path / 'x.npz'}": "no whole .npz file",
        "npz:": "names no place",
        "folder:/no/such": "there is no folder",
        f"folder:{tmp_path / 'empty'}": "has no folder train",
        "my_own_data:nothing": "returned int",
        "my_own_data:absent": "has no function 'absent'",
        "no_such_module_of_mine:load": "there is no module",
    }
    for dataset, message in cases.items():
        with pytest.raises((ValueError, TypeError), match=f"^dataset: .*{message}.*; "):
            TrainConfig(dataset)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (127.5, 64.0, "mean and std of .* reach to 127.5; .* divide by 255"),
        (0.5, 64.0, "mean and std of .* reach to 64; give those of pixels in"),
        (-0.5, 0.5, "mean of .* contains -0.5; give those of pixels"),
        (0.5, 0.0, "std of .* contains 0; give 1"),
    ],
)
def test_constants_that_pixels_scaled_to_1_cannot_have_are_refused(
    modules, mean, std, message
):
    constants = f"torch.tensor([{mean}]), torch.tensor([{std}])"
    code = DATA.replace("half, half", constants)
    (modules / "my_own_data.py").write_text(code)
    with pytest.raises(ValueError, match=f"^dataset: {message}"):
        TrainConfig("my_own_data:load")


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.0, 0.5), (0.0, 0.001)])
def test_constants_that_pixels_scaled_to_1_can_have_are_taken(modules, mean, std):
    constants = f"torch.tensor([{mean}]), torch.tensor([{std}])"
    (modules / "my_own_data.py").write_text(DATA.replace("half, half", constants))
    splits = data.load("my_own_data:load")
    assert (splits.mean.item(), splits.std.item()) == pytest.approx((mean, std))


def test_ninety_images_are_enough_for_three_parts(tmp_path):
    """A tenth of them would be too few to calibrate on, so ten are drawn."""
    splits = data.load(write_folder(tmp_path, n=45))
    assert [len(y) for _, y in (splits.train, splits.val, splits.test)] == [62, 10, 18]


def test_a_folder_of_classes_without_parts_is_told_where_to_put_them(tmp_path):
    write_folder(tmp_path, n=1)
    with pytest.raises(ValueError, match=r"folders of its classes into .*train/train"):
        data.load(f"folder:{tmp_path / 'train'}")


def sixteen_bit_colours(width, height):
    """A PNG of 16 bits a channel, chunk by chunk."""

    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = (b"\0" + struct.pack(">H", 300) * 3 * width) * height
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_folders_of_mixed_or_unreadable_images_are_refused(tmp_path):
    dataset = write_folder(tmp_path, n=60)
    odd = tmp_path / "train" / "cat" / "odd.png"
    for picture, message in (
        (Image.new("L", (9, 8)), "8 x 9 pixels"),
        (Image.fromarray(np.zeros((8, 8), np.uint16)), "more than 8 bits"),
    ):
        picture.save(odd)
        with pytest.raises(ValueError, match=rf"^dataset: .*{message}.*; "):
            TrainConfig(dataset)
    odd.write_bytes(sixteen_bit_colours(8, 8))
    with Image.open(odd) as image:
        assert image.mode == "RGB"  # PIL would keep the upper eight bits
    with pytest.raises(ValueError, match=r"^dataset: .*more than 8 bits.*; "):
        TrainConfig(dataset)
    odd.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^dataset: .*odd.png cannot be read"):
        TrainConfig(dataset)
    odd.unlink()
    (tmp_path / "val" / "bird").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "val" / "bird" / "1.png")
    with pytest.raises(ValueError, match=r"^dataset: .*'bird', which .*train lacks"):
        TrainConfig(dataset)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("train/dog/99.bmp", "99.bmp is neither png nor jpg"),
        ("train/bird/0.tif", "0.tif is neither png nor jpg"),
        ("train/bird/notes.txt", "bird holds no png or jpg"),
        ("train/dog/more/0.png", "more is a folder in the folder of a class"),
        ("validation/dog/0.png", "validation is not read; call it val"),
        ("Test/dog/0.png", "Test is not read; call it test"),
        ("train/dog/99.jfif", "99.jfif is neither png nor jpg"),
        ("train/dog/99.heic", "99.heic is neither png nor jpg"),
        ("train/dog/99", "99 is neither png nor jpg"),
        ("train/0.png", "0.png lies in no folder of a class"),
        ("test/0.jpe", "0.jpe lies in no folder of a class"),
        ("Test set/dog/0.png", "Test set is not read; call it test"),
        ("test_images/0.png", "test_images is not read; call it test"),
        ("hold-out/dog/0.png", "hold-out is not read; call it test"),
        ("val1/dog/0.jfif", "val1 is not read; call it val"),
        ("test/dog/.0.png", "test holds no png or jpg; fill it, or remove it"),
    ],
)
def test_images_that_would_be_left_out_are_told(tmp_path, there, message):
    dataset = write_folder(tmp_path)
    place = tmp_path / there
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(place, "png")
    with pytest.raises(ValueError, match=f"^dataset: .*{message}"):
        data.load(dataset)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize(
    ("place", "target", "message"),
    [
        ("test", "/nowhere/test", "test is a link to nothing"),
        ("Validation set", "/nowhere", "Validation set is a link to nothing"),
        ("train/bird", "/nowhere/bird", "bird is a link to nothing"),
        ("test", None, "test is a file that holds a path"),
        ("test.zip", None, "test.zip is no folder; make it the folder test"),
        ("test_images.tar.gz", None, "is no folder; make it the folder test"),
        ("train/bird", None, "bird is a file that holds a path"),
    ],
)
def test_parts_and_classes_that_are_not_there_are_not_drawn_elsewhere(
    tmp_path, place, target, message
):
    dataset = write_folder(tmp_path, ("train",))
    if target:
        (tmp_path / place).symlink_to(target)
    else:  # as Git writes a link where there are none
        (tmp_path / place).write_text("../elsewhere/bird")
    with pytest.raises(ValueError, match=f"^dataset: .*{message}"):
        data.load(dataset)


def test_a_part_may_be_a_link_and_lie_beside_its_archive(tmp_path, recwarn):
    dataset = write_folder(tmp_path, ("train", "elsewhere"))
    (tmp_path / "test").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "test.zip").write_text("packed")
    (tmp_path / "train.tar.gz").write_text("packed")
    assert len(data.load(dataset).test[1])
    assert not recwarn.list


def test_other_images_beside_train_are_told_where_one_may_be_the_test_set(tmp_path):
    dataset = write_folder(tmp_path, ("train", "unseen"))
    with pytest.warns(UserWarning, match=r"folders with images .* not read: unseen;"):
        data.load(dataset)


def test_what_lies_beside_images_usually_is_no_image(tmp_path, recwarn):
    dataset = write_folder(tmp_path, ("train", "test"))
    litter = {".DS_Store": b"\0\0\0\1Bud1", "Thumbs.db": b"\xd0\xcf\x11\xe0\0"}
    litter |= {
        "README": b"Cats.",
        "LICENSE": b"\xa9 me",
        "a.csv": "1,2".encode("utf-16"),
    }
    litter |= {"a.json": b"{}", "a.txt": b"", "a.xml": b"<a/>", "labels.xlsx": b"PK\0"}
    for folder in (tmp_path, tmp_path / "train", tmp_path / "train" / "cat"):
        for name, content in litter.items():
            (folder / name).write_bytes(content)
    (tmp_path / "logs").mkdir()
    write_folder(tmp_path / "originals")  # with a test set, nothing is drawn for one
    assert data.load(dataset).class_names == ("cat", "dog")
    assert not len(recwarn)


COUNTED = """
import torch
from gcelib import data
calls = []
def load(seed):
    calls.append(seed)
    x = torch.full((30, 4), float(len(calls)))
    part = (x, torch.arange(30) % 2)
    return data.Splits("d", part, part, part, 2, torch.zeros(4), torch.ones(4),
                       ("a", "b"), (4,), False)
"""


@pytest.mark.filterwarnings("ignore:dataset. 30 of the 30 samples")
def test_a_function_is_asked_anew_by_each_load_and_once_by_a_run(modules):
    (modules / "my_own_counted.py").write_text(COUNTED)
    name = data.parent("my_own_counted:load")
    loads = [float(data.load(name).train[0][0, 0]) for _ in range(3)]
    assert loads == [1, 2, 3]
    training.prepare(TrainConfig(name, ood=[], runs_dir=modules, **QUICK))
    assert float(data.load(name).train[0][0, 0]) == 5  # one for the run


def test_classes_that_are_numbers_are_numbered_by_value(tmp_path):
    for k in range(1, 12):
        (tmp_path / "train" / str(k)).mkdir(parents=True)
        for i in range(5):
            pixels = np.full((2, 2), 20 * k + i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / str(k) / f"{i}.png")
    samples, labels = data.load(f"folder:{tmp_path}").train
    assert np.array_equal(samples[:, 0, 0, 0] // 20 - 1, labels)


def test_hidden_folders_are_no_classes(tmp_path):
    dataset = write_folder(tmp_path)
    hidden = tmp_path / "train" / ".ipynb_checkpoints"
    hidden.mkdir()
    Image.new("L", (8, 8)).save(hidden / "0-checkpoint.png")
    (tmp_path / "train" / "dog" / "._0.png").write_bytes(b"what macOS leaves there")
    assert data.load(dataset).class_names == ("cat", "dog")


def test_samples_that_were_copied_before_the_parts_were_drawn_are_told(tmp_path):
    """As a scarce class is, to balance the classes."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 4)).astype(np.float32)
    labels = (np.arange(300) >= 270).astype(int)
    rows = np.concatenate([np.arange(270), rng.integers(270, 300, 240)])
    path = tmp_path / "balanced.npz"
    np.savez(path, train_images=features[rows], train_labels=labels[rows])
    with pytest.warns(UserWarning, match="^dataset: ") as told:
        splits = data.load(f"npz:{path}", 1)
    train = {row.numpy().tobytes() for row in splits.train[0]}
    n_again = sum(row.numpy().tobytes() in train for row in splits.test[0])
    assert n_again > 30
    said = [str(warning.message) for warning in told]
    start = f"dataset: {n_again} of the {len(splits.test[1])} samples for test of"
    assert any(message.startswith(start) for message in said)
    few = rng.integers(0, 2, (300, 4)).astype(np.float32)  # alike by chance
    path = tmp_path / "few.npz"
    np.savez(path, train_images=few, train_labels=rng.integers(0, 2, 300))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load(f"npz:{path}", 1)


@pytest.mark.parametrize(("n_features", "digits"), [(3, 1), (4, 1), (5, 1), (6, 0)])
def test_features_of_few_digits_are_alike_by_chance(tmp_path, n_features, digits):
    path = tmp_path / "few.npz"
    for seed in range(4):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(1500, n_features)).round(digits)
        labels = (features[:, 0] + rng.normal(size=1500) > 0).astype(int)
        np.savez(path, train_images=features, train_labels=labels)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data.load(f"npz:{path}", seed=seed + 1)
    twice = np.tile(features, (2, 1)), np.tile(labels, 2)
    if n_features > 3 and digits:  # of fewer, most are alike by chance
        np.savez(path, train_images=twice[0], train_labels=twice[1])
        with pytest.warns(UserWarning, match="samples for test of .* are among those"):
            data.load(f"npz:{path}")


@pytest.mark.parametrize("name", ["train_images_2", "extra_images"])
def test_arrays_of_more_samples_that_are_not_read_are_told(tmp_path, name):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 90, 8, 8), dtype=np.uint8)
    labels = np.arange(90) % 3
    path = tmp_path / "shards.npz"
    own = {"train_images": images[0], "train_labels": labels, "ids": np.arange(90)}
    np.savez(path, **own, **{name: images[1]})
    with pytest.warns(UserWarning, match=f"^dataset: '{name}' in .* are not read"):
        data.load(f"npz:{path}")


def test_images_in_two_parts_are_told_whatever_they_were_called(tmp_path):
    """Also where the test repeats some of its own, and annotators differed."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (800, 6, 6)).astype(np.uint8)
    labels = rng.integers(0, 4, 800)
    fresh = rng.integers(0, 256, (100, 6, 6)).astype(np.uint8)
    called = labels[:80].copy()
    called[:4] = (called[:4] + 1) % 4
    own = rng.integers(0, 4, 100)
    file = tmp_path / "x.npz"
    np.savez(
        file,
        train_images=images,
        train_labels=labels,
        test_images=np.concatenate([images[:80], fresh, fresh[:40]]),
        test_labels=np.concatenate([called, own, own[:40]]),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.load(f"npz:{file}", 1)
    counts = re.compile(r"dataset: (\d+) of the 220 samples for test")
    found = [counts.match(str(warning.message)) for warning in caught]
    # Those for train, and those that the seed draws from them for val.
    assert sum(int(count[1]) for count in found if count) == 80


def test_samples_in_two_parts_are_told(tmp_path):
    write_npz(tmp_path / "x.npz", parts=("train", "val", "test"))
    with np.load(tmp_path / "x.npz") as file:
        arrays = dict(file)
    data.load(f"npz:{tmp_path / 'x.npz'}")
    arrays["test_images"][:30] = arrays["train_images"][70:100]
    np.savez(tmp_path / "leak.npz", **arrays)
    with pytest.warns(UserWarning, match="dataset: 30 of the 120 samples for test"):
        data.load(f"npz:{tmp_path / 'leak.npz'}")


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("change", ["flat", "standardised", "images"])
def test_a_part_in_another_unit_is_told(tmp_path, part, change):
    """As pixels to 255 beside pixels to 1, or features that were standardised."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    train, other = rng.integers(0, 256, (2, 120, 64), dtype=np.uint8)
    if change == "images":
        train, other = train.reshape(120, 8, 8), other.reshape(120, 8, 8)
        scaled = (other > 127).astype(np.uint8)
    elif change == "flat":
        scaled = other / 255
    else:
        scaled = (other - other.mean(0)) / other.std(0)
    rest = {"train_images": train, "train_labels": labels, f"{part}_labels": labels}
    path = tmp_path / "units.npz"
    np.savez(path, **rest, **{f"{part}_images": scaled})
    with pytest.warns(UserWarning, match=f"^dataset: numbers for {part} of .* times"):
        data.load(f"npz:{path}", 1)
    np.savez(path, **rest, **{f"{part}_images": other // 3})  # a darker day
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load(f"npz:{path}", 1)


def flowers(n, seed):
    """Four measures in cm, of three kinds, as Fisher's irises have them."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(n) % 3
    middles = np.array([[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3, 5.6, 2]])
    return middles[kinds] + rng.normal(0, [0.4, 0.3, 0.4, 0.1], (n, 4)), kinds


UNITS = {
    "raw": lambda x: x,
    "standardised": lambda x: (x - x.mean(0)) / x.std(0),
    "to 1": lambda x: (x - x.min(0)) / np.ptp(x, axis=0),
    "centred": lambda x: x - x.mean(0),
    "inch": lambda x: x / 2.54,
    "logarithms": np.log1p,
    "rows": lambda x: (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True),
}


def units_told(path, train, part, labels):
    arrays = {"train_images": train, "train_labels": labels[: len(train)]}
    np.savez(path, **arrays, test_images=part, test_labels=labels[: len(part)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.load(f"npz:{path}")
    return [str(w.message) for w in caught if "unit" in str(w.message)]


@pytest.mark.parametrize(
    ("of_train", "of_part"),
    [
        (of_train, of_part)
        for of_train in ("raw", "standardised", "to 1")
        for of_part in UNITS
        if of_part != of_train
        # Those differ by no more than two parts may.
        and (of_train, of_part) != ("standardised", "centred")
    ],
)
def test_a_part_that_was_scaled_or_moved_alone_is_told(tmp_path, of_train, of_part):
    train, labels = flowers(150, 0)
    part, _ = flowers(45, 1)
    scaled = UNITS[of_train](train), UNITS[of_part](part)
    (said,) = units_told(tmp_path / "units.npz", *scaled, labels)
    assert said.startswith("dataset: numbers for test of ")


def test_a_part_of_other_zeros_is_told(tmp_path):
    """Rare counts that were standardised in one part alone."""
    rng = np.random.default_rng(0)
    train, part = rng.poisson(0.2, (2, 120, 6)).astype(float)
    part[0], labels = 3.0, np.arange(120) % 2
    (said,) = units_told(
        tmp_path / "zeros.npz", train, part / part.std(0) - 0.3, labels
    )
    assert "6 of 6 features lie elsewhere" in said


def test_a_part_from_elsewhere_is_in_the_same_unit(tmp_path):
    """Drawn at random; moved by a deviation; of twice the gain; with heavy tails."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    kinds = {
        "normal": lambda n: rng.normal(size=(n, 5)),
        "heavy tails": lambda n: rng.standard_cauchy((n, 5)),
        "counts": lambda n: rng.poisson(0.1, (n, 5)).astype(float),
        "one-hot": lambda n: np.eye(5)[rng.integers(0, 5, n)],
    }
    for draw in kinds.values():
        for n in (20, 60):
            for move in (0, 1, -1):
                train, part = draw(200), draw(n)
                if move and (train == 0).mean() < 0.1:  # zeros of counts stay
                    quartiles = np.quantile(train, (0.25, 0.75), axis=0)
                    part = part + move * np.diff(quartiles, axis=0) / 1.349
                elif move > 0:
                    part = 2 * part
                assert units_told(tmp_path / "x.npz", train, part, labels) == []


def test_one_large_number_among_zeros_is_no_other_unit(tmp_path):
    """As of a rare word, in a part of a few samples."""
    train, part = np.zeros((100, 4)), np.zeros((12, 4))
    train[::10] = 1
    part[3] = 20
    labels = np.arange(100) % 2
    assert units_told(tmp_path / "rare.npz", train, part, labels) == []
    part[3:9] = 20
    (said,) = units_told(tmp_path / "scaled.npz", train, part, labels)
    assert "20 times as large" in said


def test_an_array_that_is_there_twice_is_refused(tmp_path):
    write_npz(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        member = archive.read("train_labels.npy")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("train_labels.npy", member)
    with pytest.raises(ValueError, match=r"^dataset: .* holds an array twice"):
        data.load(f"npz:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize("kind", ["npz", "folder", "function"])
def test_what_is_written_into_loaded_data_stays_there(kind, tmp_path, modules):
    """The readers keep what they read, for the next run of the process."""
    if kind == "npz":
        dataset = write_npz(tmp_path / "mine.npz")
    elif kind == "folder":
        dataset = write_folder(tmp_path / "mine", n=60)
    else:
        npz = write_npz(tmp_path / "of_function.npz")
        (modules / "my_own_copy.py").write_text(
            f"import gcelib\ndef load(seed): return gcelib.data.load({npz!r}, seed)\n"
        )
        dataset = "my_own_copy:load"
    before = data.load(dataset)
    kept = [tensor.clone() for part in (before.train, before.test) for tensor in part]
    for part in (before.train, before.test):
        for tensor in part:
            tensor.zero_()
    after = data.load(dataset)
    again = [tensor for part in (after.train, after.test) for tensor in part]
    assert all(torch.equal(*pair) for pair in zip(kept, again, strict=True))
