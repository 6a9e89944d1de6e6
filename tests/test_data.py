"""Data: splits, long tails, batches and OOD sets; every data set in its true on-disk
format; downloads that fail.
"""

import gzip
import hashlib
import http.server
import importlib.util
import io
import pickle
import re
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import assume, given, settings, strategies as st
from PIL import Image
from torchvision.transforms import functional as tvf

from gcelib import TrainConfig, data, runs, sweeps
from gcelib.study.data import download, ood, sources, splits as drawing
from gcelib.study.data.batches import are_normalized

ROOT = Path(__file__).resolve().parents[1]
# Debian's package dataset-fashion-mnist.
ORIGINALS = Path("/usr/share/datasets/fashion-mnist")
LOCAL = ["fashion_mini", "digits", "digit_pairs"]  # data sets that need no download
FEW = settings(derandomize=True, deadline=None, max_examples=25)
rng = np.random.default_rng(0)


def rows(part):
    """The samples of (images, labels) as a list of bytes, labels included."""
    return [
        x.tobytes() + bytes([y])
        for x, y in zip(part[0].numpy(), part[1].tolist(), strict=True)
    ]


# --- splits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sizes", "shape", "n_classes"),
    [
        ("fashion_mini", (5000, 1000, 4000), (1, 28, 28), 10),
        ("digits", (1000, 300, 497), (1, 8, 8), 10),
        ("digit_pairs", (10000, 2000, 4000), (1, 8, 16), 100),
    ],
)
def test_what_load_returns(name, sizes, shape, n_classes):
    """Images (channels first) and tables alike: samples for train, val and test."""
    splits = data.load(name)
    assert (splits.name, splits.input_shape) == (name, shape)
    assert splits.n_classes == len(splits.class_names) == n_classes
    one_a_channel = shape[:1]  # or one a column
    assert splits.mean.shape == splits.std.shape == one_a_channel
    assert splits.mean.dtype == splits.std.dtype == torch.float32
    dtype = torch.float32 if data.DATASETS[name].is_table else torch.uint8
    parts = (splits.train, splits.val, splits.test)
    for (inputs, labels), size in zip(parts, sizes, strict=True):
        assert inputs.shape == (size, *shape)
        assert (inputs.dtype, labels.dtype) == (dtype, torch.int64)
        assert set(labels.tolist()) <= set(range(n_classes))
        assert inputs.is_contiguous()


@pytest.mark.parametrize("name", ["fashion_mini", "digits"])
def test_the_seed_draws_validation_and_nothing_else(name):
    one = data.load(name, 1)
    again = data.load(name, 1)
    two = data.load(name, 2)
    assert rows(one.train) == rows(again.train)
    assert rows(one.val) == rows(again.val)
    assert rows(one.val) != rows(two.val)
    assert rows(one.test) == rows(two.test)
    assert sorted(rows(one.train) + rows(one.val)) == sorted(
        rows(two.train) + rows(two.val)
    )
    everything = rows(one.train) + rows(one.val) + rows(one.test)
    # All images differ, so no image is in two splits.
    assert len(set(everything)) == len(everything)


@FEW
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(10, 300))
def test_validation_is_the_published_shuffle(seed, n):
    # The published code's steps: shuffle the list, take the first tenth.
    indices = list(range(n))
    np.random.RandomState(seed).shuffle(indices)
    mask = drawing.draw(range(n), n / 10, seed)
    assert set(np.flatnonzero(mask)) == set(indices[: round(n / 10)])


@FEW
@given(
    seed=st.integers(0, 99),
    subjects=st.lists(st.integers(0, 30), min_size=5, max_size=100),
    part=st.floats(0.1, 0.9),
)
def test_groups_are_never_divided(seed, subjects, part):
    subjects = np.array(subjects)
    mask = drawing.draw(subjects, part * len(subjects), seed)
    assert not set(subjects[mask]) & set(subjects[~mask])
    assert (
        round(part * len(subjects))
        <= mask.sum()
        < part * len(subjects) + 0.5 + np.bincount(subjects).max()
    )


def test_fashion_mini_is_balanced():
    splits = data.load("fashion_mini")
    assert (torch.cat([splits.train[1], splits.val[1]]).bincount() == 600).all()
    assert (splits.test[1].bincount() == 400).all()


@pytest.mark.skipif(
    not ORIGINALS.is_dir(),
    reason="needs the original files, Debian's dataset-fashion-mnist",
)
def test_fashion_mini_comes_from_the_original_files(tmp_path):
    path = ROOT / "data" / "make_fashion_mini.py"
    spec = importlib.util.spec_from_file_location("make_fashion_mini", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(ORIGINALS, tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz") as made, np.load(sources.FASHION_MINI) as kept:
        assert made.files == kept.files
        for name in made.files:
            np.testing.assert_array_equal(made[name], kept[name])
    pixels = download.read_idx(ORIGINALS / "train-images-idx3-ubyte.gz") / 255
    np.testing.assert_allclose(
        [pixels.mean(), pixels.std()], np.ravel(data.FASHION), atol=5e-5
    )


@pytest.mark.skipif(
    not ORIGINALS.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
def test_debians_files_will_do_where_there_is_no_network(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in ORIGINALS.glob("*.gz"):
        (raw / path.name).symlink_to(path)
    splits = data.load("fashion_mnist", root=tmp_path)
    assert [len(part[1]) for part in (splits.train, splits.val, splits.test)] == [
        54_000,
        6_000,
        10_000,
    ]
    assert (
        torch.bincount(torch.cat([splits.train[1], splits.val[1]])).tolist()
        == [6_000] * 10
    )
    mini = data.load("fashion_mini")
    known = {x.numpy().tobytes() for x in splits.test[0]}
    assert all(x.numpy().tobytes() in known for x in mini.test[0][:100])


def test_a_damaged_embedded_file_is_refused(tmp_path, monkeypatch):
    content = sources.FASHION_MINI.read_bytes()
    monkeypatch.setattr(sources, "FASHION_MINI", tmp_path / "fashion_mini.npz")
    for damaged in (None, b"", content[:-1000], content[:1000] + b"?" + content[1001:]):
        if damaged is not None:
            (tmp_path / "fashion_mini.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match="missing or damaged"):
            data.load("fashion_mini")
    (tmp_path / "fashion_mini.npz").write_bytes(content)
    data.load("fashion_mini")


def test_digits_constants_come_from_all_but_the_test_digits():
    splits = data.load("digits")
    pixels = torch.cat([splits.train[0], splits.val[0]]).double() / 255
    np.testing.assert_allclose(
        [pixels.mean(), pixels.std()], np.ravel(data.DIGITS), atol=2e-4
    )


def test_pairs_are_two_real_digits_that_never_cross_the_splits():
    digits = data.load("digits")
    label_of = {}
    for part in (digits.train, digits.val, digits.test):
        label_of |= {
            x.tobytes(): y
            for x, y in zip(part[0].numpy(), part[1].tolist(), strict=True)
        }
    assert len(label_of) == 1797
    test_digits = {x.tobytes() for x in digits.test[0].numpy()}
    for seed in (1, 2):
        pairs, used = data.load("digit_pairs", seed), []
        for (images, labels), per_class in zip(
            (pairs.train, pairs.val, pairs.test), (100, 20, 40), strict=True
        ):
            assert (labels.bincount() == per_class).all()
            assert len({x.tobytes() for x in images.numpy()}) == len(images)
            left, right = (
                [x.tobytes() for x in images[..., half].numpy()]
                for half in (slice(8), slice(8, None))
            )
            assert [
                10 * label_of[a] + label_of[b] for a, b in zip(left, right, strict=True)
            ] == labels.tolist()
            used.append({*left, *right})
        assert used[2] <= test_digits
        assert not used[0] & used[1]
        assert not (used[0] | used[1]) & test_digits
    assert rows(pairs.test) == rows(data.load("digit_pairs", 1).test)
    assert rows(pairs.train) != rows(data.load("digit_pairs", 1).train)


# --- long tails -----------------------------------------------------------------------


def test_long_tail_counts_are_those_of_the_paper():
    assert data.long_tail_counts(5000, 10, 10) == [
        5000,
        3871,
        2997,
        2321,
        1797,
        1391,
        1077,
        834,
        646,
        500,
    ]
    assert data.long_tail_counts(5000, 10, 100) == [
        5000,
        2997,
        1797,
        1077,
        646,
        387,
        232,
        139,
        83,
        50,
    ]


@FEW
@given(n_max=st.integers(1, 5000), n_classes=st.integers(2, 200), rho=st.floats(1, 500))
def test_long_tail_counts_are_the_nearest_and_never_rise(n_max, n_classes, rho):
    counts = data.long_tail_counts(n_max, n_classes, rho)
    exact = n_max * rho ** (-np.arange(n_classes) / (n_classes - 1))
    assert counts[0] == n_max
    assert (np.diff(counts) <= 0).all()
    assert (np.abs(counts - np.maximum(exact, 1)) <= 0.5 + 1e-9).all()


@pytest.mark.parametrize("rho", ["10", "100", "2.5"])
def test_the_tail_is_cut_first_and_a_tenth_is_validation(rho):
    name = f"fashion_mini_lt{rho}"
    one = data.load(name, 1)
    two = data.load(name, 2)
    whole = data.load("fashion_mini", 1)
    kept = torch.cat([one.train[1], one.val[1]])
    assert kept.bincount().tolist() == data.long_tail_counts(600, 10, float(rho))
    assert len(one.val[1]) == round(len(kept) / 10)
    # The cut is fixed.
    assert sorted(rows(one.train) + rows(one.val)) == sorted(
        rows(two.train) + rows(two.val)
    )
    assert rows(one.val) != rows(two.val)
    assert set(rows(one.train) + rows(one.val)) <= set(
        rows(whole.train) + rows(whole.val)
    )
    assert rows(one.test) == rows(whole.test)


def test_pairs_are_cut_on_both_sides():
    splits = data.load("digit_pairs_lt10")
    assert splits.train[1].bincount().tolist() == data.long_tail_counts(100, 100, 10)
    assert splits.val[1].bincount().tolist() == data.long_tail_counts(20, 100, 10)
    assert (splits.test[1].bincount() == 40).all()


# --- names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cifar11", "cifar10"),
        ("fashion", "fashion_mini"),
        ("cifar_lt100", "cifar10"),
        ("tiny-imagenet", "tiny_imagenet"),
    ],
)
def test_misspelt_names_get_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=rf"name: unknown .* did you mean '{nearest}'"):
        data.load(name)
    with pytest.raises(
        ValueError, match=rf"dataset: unknown .* did you mean '{nearest}'"
    ):
        data.parent(name)


@FEW
@given(
    name=st.one_of(
        st.text(max_size=20),
        st.sampled_from(list(data.DATASETS)).flatmap(
            lambda n: st.text(min_size=1, max_size=6).map(lambda t: f"{n}_lt{t}")
        ),
    )
)
def test_other_names_are_refused(name):
    base, _, rho = name.partition("_lt")
    assume(name not in data.DATASETS)
    assume(not (base in data.DATASETS and rho.replace(".", "", 1).isdecimal()))
    with pytest.raises(ValueError, match=r"did you mean|Known"):
        data.parent(name)


@pytest.mark.parametrize(
    "name",
    [
        "digits_lt0",
        "digits_lt",
        "digits_lt-5",
        "digits_lt010",
        "digits_lt1e2",
        "digits_lt10_lt10",
    ],
)
def test_impossible_tails_are_refused(name):
    with pytest.raises(ValueError, match="name: unknown"):
        data.load(name)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.load(7), TypeError, "name: must be a string"),
        (lambda: data.load("digits", seed=-1), ValueError, "seed"),
        (lambda: data.load("digits", seed="1"), TypeError, "seed"),
        (lambda: data.load("digits", seed=1.5), TypeError, "seed"),
        (lambda: data.check_ood("svnh"), ValueError, "did you mean 'svhn'"),
        (lambda: data.check_ood("cifar10_c:fogg"), ValueError, "did you mean 'fog'"),
        (lambda: data.check_ood("cifar10_c:fog:6"), ValueError, "ood: unknown"),
        (lambda: data.check_ood("av1451"), ValueError, "ood: unknown"),
        (lambda: data.check_ood(None), TypeError, "ood: must be a string"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_every_default_ood_name_is_known_and_every_data_set_has_one_row():
    for source in data.DATASETS.values():
        for name in source.ood:
            data.check_ood(name)
        assert source.licence
        assert not (source.is_table and source.ood)
    assert data.parent("cifar10_lt100") == "cifar10"
    assert data.check_ood("cifar10_c") == data.Corruption("gaussian_noise", 5)
    assert data.check_ood("cifar10_c:fog:3") == data.Corruption("fog", 3)


# --- batches --------------------------------------------------------------------------


def toy(n=50, shape=(3, 8, 6), n_classes=10):
    images = (
        torch.from_numpy(rng.integers(0, 256, (n, *shape), np.uint8))
        if len(shape) == 3
        else torch.randn(n, *shape)
    )
    part = (images, torch.arange(n) % n_classes)
    mean, std = torch.rand(shape[0]), torch.rand(shape[0]) + 0.1
    names = tuple(map(str, range(n_classes)))
    return data.Splits(
        "toy", part, part, part, n_classes, mean, std, names, shape, True
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_crop_and_flip(images, draws, padding):
    out = np.zeros_like(images)
    h, w = images.shape[2:]
    for i, (dy, dx, flip) in enumerate(draws):
        for y in range(h):
            for x in range(w):
                source_y = y + dy - padding
                source_x = (w - 1 - x if flip else x) + dx - padding
                if 0 <= source_y < h and 0 <= source_x < w:
                    out[i, :, y, x] = images[i, :, source_y, source_x]
    return out


@FEW
@given(st.data())
def test_crops_and_flips_are_each_samples_own(draw):
    n, c, h, w, padding = (draw.draw(st.integers(1, high)) for high in (5, 3, 9, 9, 5))
    random = np.random.default_rng(draw.draw(st.integers(0, 99)))
    images = random.integers(0, 256, (n, c, h, w), np.uint8)
    draws = np.stack(
        [random.integers(0, high, n) for high in (2 * padding + 1, 2 * padding + 1, 2)],
        1,
    )
    got = data.crop_and_flip(torch.from_numpy(images), torch.from_numpy(draws), padding)
    np.testing.assert_array_equal(
        got.numpy(), slow_crop_and_flip(images, draws, padding)
    )


def test_crops_and_flips_agree_with_torchvision():
    images = toy().train[0]
    draws = torch.stack(
        [torch.arange(50) % 9, torch.arange(50) * 2 % 9, torch.arange(50) % 2], 1
    )
    for image, (dy, dx, flip), got in zip(
        images, draws.tolist(), data.crop_and_flip(images, draws), strict=True
    ):
        expected = tvf.crop(tvf.pad(image, [4, 4, 4, 4]), dy, dx, 8, 6)
        torch.testing.assert_close(
            got, tvf.hflip(expected) if flip else expected, rtol=0, atol=0
        )


def table_of(rng, d, offset, scale):
    """A table whose features have means and spreads of several sizes."""
    mean = rng.normal(0, offset, d)
    std = np.exp(rng.normal(0, scale, d))
    x = torch.from_numpy(mean + std * rng.standard_normal((500, d))).float()
    y = torch.arange(500) % 3
    part = (x, y)
    names = ("a", "b", "c")
    splits = data.Splits("t", part, part, part, 3, x.mean(0), x.std(0), names, (d,), 0)
    return x, splits


@pytest.mark.parametrize("d", [1, 4, 60])
def test_samples_of_a_table_that_are_normalised_already_are_told_apart(d):
    rng = np.random.default_rng(d)
    for _ in range(20):
        x, splits = table_of(rng, d, 30, 1)
        again = data.normalize(x, splits)
        assert are_normalized(again, splits)
        assert not are_normalized(x, splits)
        assert not are_normalized(x[:40] + splits.std, splits)  # a shift
        assert not are_normalized(again[:20], splits)  # too few
        _, plain = table_of(rng, d, 0, 0)  # whose own are near 0 and 1
        assert not are_normalized(again, plain)


def test_normalize_agrees_with_torchvision_and_refuses_another_shape():
    splits = toy()
    expected = tvf.normalize(
        splits.train[0].float() / 255, splits.mean.tolist(), splits.std.tolist()
    )
    torch.testing.assert_close(data.normalize(splits.train[0], splits), expected)
    for wrong in (
        splits.train[0][:, :1],
        splits.train[0][0],
        splits.train[0].flatten(1),
    ):
        with pytest.raises(ValueError, match="images: shape"):
            data.normalize(wrong, splits)
    for wrong in (splits.train[0] / 255, splits.train[0].short()):
        with pytest.raises(TypeError, match=r"^images: must be uint8"):
            data.normalize(wrong, splits)


@pytest.mark.parametrize("shape", [(3, 8, 6), (7,)])
def test_an_epoch_is_every_sample_once_and_the_same_for_the_same_seed(shape):
    splits = toy(53, shape)
    splits.train[1].copy_(torch.arange(53))
    plain = data.normalize(splits.train[0], splits)
    x, labels = (
        torch.cat(t)
        for t in zip(*data.batches(splits.train, 10, splits=splits), strict=True)
    )
    assert labels.tolist() == list(range(53))
    torch.testing.assert_close(x, plain)
    runs = []
    for seed in (0, 0, 1):
        epoch = list(
            data.batches(splits.train, 10, splits=splits, generator=generator(seed))
        )
        assert [len(y) for _, y in epoch] == [10] * 5 + [3]
        runs.append([torch.cat(t) for t in zip(*epoch, strict=True)])
    (x, labels), (x_again, labels_again), (_, other) = runs
    assert sorted(labels.tolist()) == list(range(53))
    assert labels.tolist() != other.tolist() != list(range(53))
    torch.testing.assert_close(x, plain[labels])
    assert torch.equal(x, x_again)
    assert torch.equal(labels, labels_again)


def test_augmentation_is_drawn_for_each_sample_and_each_epoch():
    n = 2000
    images = torch.zeros(n, 1, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 5] = (
        # one bright pixel beside the centre: where it lands tells offset and mirroring
        255
    )
    part, g = (images, torch.arange(n)), generator()
    splits = data.Splits(
        "toy",
        part,
        part,
        part,
        n,
        torch.tensor([0.5]),
        torch.tensor([0.5]),
        (),
        (1, 9, 9),
        True,
    )
    landed, epochs = torch.zeros(9, 9), []
    for _ in range(2):
        x, labels = next(
            data.batches(part, n, splits=splits, generator=g, augment=True)
        )
        # Zeros come in before normalisation.
        assert set(x.unique().tolist()) == {-1.0, 1.0}
        landed += (x > 0).sum((0, 1))
        epochs.append(x[labels.argsort()])
    assert not torch.equal(*epochs)
    # rows 0..8 are equally likely; columns 1..9 unmirrored and -1..7 mirrored, of which
    # 0..8 are inside the image
    expected = torch.ones(9, 1) * torch.tensor([0.5, *[1.0] * 7, 0.5]) * 2 * n / 81
    assert ((landed - expected).abs() < 5 * expected.sqrt()).all()
    again = next(
        data.batches(part, n, splits=splits, generator=generator(), augment=True)
    )
    assert torch.equal(again[0][again[1].argsort()], epochs[0])


def test_features_pass_unaugmented():
    splits = toy(20, (7,))
    x, _ = next(
        data.batches(
            splits.train, 20, splits=splits, generator=generator(), augment=True
        )
    )
    plain, _ = next(
        data.batches(splits.train, 20, splits=splits, generator=generator())
    )
    assert torch.equal(x, plain)


@FEW
@given(
    n=st.integers(1, 40),
    size=st.integers(1, 12),
    shuffled=st.booleans(),
    single=st.booleans(),
    last=st.booleans(),
)
def test_which_trailing_batch_is_dropped(n, size, shuffled, single, last):
    splits = toy(n, (2,))
    epoch = data.batches(
        splits.train,
        size,
        splits=splits,
        generator=generator() if shuffled else None,
        drop_single=single,
        drop_last=last,
    )
    sizes, rest = [len(y) for _, y in epoch], n % size
    gone = rest and (last or (rest == 1 and single and shuffled))
    assert sizes == [size] * (n // size) + [rest] * bool(rest and not gone)


def test_bad_batches_are_refused_before_the_first_one():
    splits = toy()
    for size, error in (
        (0, ValueError),
        (-1, ValueError),
        (2.5, TypeError),
        ("8", TypeError),
    ):
        with pytest.raises(error, match="batch_size"):
            data.batches(splits.train, size, splits=splits)
    with pytest.raises(ValueError, match="augment: needs random numbers"):
        data.batches(splits.train, 8, splits=splits, augment=True)
    for option in ("augment", "drop_single", "drop_last"):
        with pytest.raises(TypeError, match=option):
            data.batches(
                splits.train,
                8,
                splits=splits,
                generator=generator(),
                **{option: "false"},
            )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_epoch_on_the_device_never_waits_and_equals_the_cpu():
    splits = toy(53)
    part = tuple(t.cuda() for t in splits.train)
    epoch = data.batches(part, 10, splits=splits, generator=generator(), augment=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_device = list(epoch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    on_cpu = data.batches(
        splits.train, 10, splits=splits, generator=generator(), augment=True
    )
    for (x, labels), (x_cpu, labels_cpu) in zip(on_device, on_cpu, strict=True):
        assert torch.equal(labels.cpu(), labels_cpu)
        torch.testing.assert_close(x.cpu(), x_cpu)


# --- a server on the loopback, with the faults of real ones ---------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, start, status = self.server, 0, 200
        content = server.files.get(self.path.lstrip("/"))
        asked = int(self.headers.get("Range", "bytes=0-")[6:-1])
        server.asked.append(asked)
        if content is None:
            self.send_error(404)
            return
        if server.ranges:
            if asked >= len(content):
                self.send_error(416)
                return
            start, status = asked, 206
        self.send_response(status)
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {}
        server.asked = []
        server.cut = None
        server.ranges = True
        server.lengths = True
        server.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(content):
    return hashlib.md5(content).hexdigest()


CONTENT = rng.bytes(5000)


def fetch(server, folder, content=CONTENT):
    return download.fetch(f"{server.url}file.bin", [md5(content)], folder)


def test_a_download_is_checked_and_done_once(server, tmp_path):
    server.files["file.bin"] = CONTENT
    path = fetch(server, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert fetch(server, tmp_path / "new" / "folder") == path
    assert server.asked == [0]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.files["file.bin"], server.cut = CONTENT, 2000
    for arrived in (2000, 4000):
        with pytest.raises(OSError, match=r"file.bin: .*try again, which resumes"):
            fetch(server, tmp_path)
        assert (tmp_path / "file.bin.part").stat().st_size == arrived
        assert not (tmp_path / "file.bin").exists()
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [0, 2000, 4000]
    assert not (tmp_path / "file.bin.part").exists()


def test_a_broken_download_of_unknown_length_goes_on(server, tmp_path):
    server.files["file.bin"] = CONTENT
    server.cut = 2000
    server.lengths = False
    for arrived in (2000, 4000):
        with pytest.raises(OSError, match=r"file.bin: .*try again, which resumes"):
            fetch(server, tmp_path)
        assert (tmp_path / "file.bin.part").stat().st_size == arrived
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_another_file_of_unknown_length_is_dropped_by_the_second_try(server, tmp_path):
    server.files["file.bin"] = CONTENT + b"more"
    server.lengths = False
    for _ in range(2):
        with pytest.raises(OSError, match=r"file\.bin"):
            fetch(server, tmp_path)
    server.files["file.bin"] = CONTENT
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges_or_lengths_will_do(server, tmp_path):
    server.files["file.bin"] = CONTENT
    server.ranges = False
    server.lengths = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 100)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "wrong", [CONTENT[:-1] + b"!", CONTENT + b"more", CONTENT[:3000]]
)
def test_another_file_is_refused_and_the_next_try_works(server, tmp_path, wrong):
    old = tmp_path / "file.bin"
    old.write_bytes(b"an older version")
    server.files["file.bin"] = wrong
    with pytest.raises(OSError, match="wrong checksum"):
        fetch(server, tmp_path)
    assert old.read_bytes() == b"an older version"
    assert not (tmp_path / "file.bin.part").exists()
    server.files["file.bin"] = CONTENT
    assert fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "stale", [b"x" * 100, b"x" * 5000, b"x" * 9999, CONTENT + b"x"]
)
def test_a_wrong_rest_of_an_earlier_try_is_dropped(server, tmp_path, stale):
    server.files["file.bin"] = CONTENT
    (tmp_path / "file.bin.part").write_bytes(stale)
    with pytest.raises(OSError, match="wrong checksum"):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_rest_that_was_only_not_renamed_is_used(server, tmp_path):
    server.files["file.bin"] = CONTENT
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_damaged_file_is_noticed_on_every_use(server, tmp_path):
    server.files["file.bin"] = CONTENT
    fetch(server, tmp_path).write_bytes(CONTENT[:-1] + b"!")
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [0, 0]


def test_no_server_and_no_file_keep_what_has_arrived(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:10])
    with pytest.raises(OSError, match=r"404.*save it as .*file.bin"):
        fetch(server, tmp_path)
    with pytest.raises(OSError, match="the download failed"):
        download.fetch("http://127.0.0.1:1/file.bin", [md5(CONTENT)], tmp_path)
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:10]


def test_an_endless_download_ends(server, tmp_path, monkeypatch):
    endless = rng.bytes(3 * 2**20)  # its checksum is right: only the limit can stop it
    server.files["file.bin"], server.lengths = endless, False
    monkeypatch.setattr(download, "MAX_BYTES", 2**20)
    with pytest.raises(OSError, match=r"file\.bin: "):
        fetch(server, tmp_path, endless)
    assert not (tmp_path / "file.bin").exists()
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 2**20


def test_many_at_once_download_once(server, tmp_path):
    server.files["file.bin"] = CONTENT
    threads = [
        threading.Thread(target=fetch, args=(server, tmp_path)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [0]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


# --- archives that would do harm ------------------------------------------------------


def tar_of(members, mode="w"):
    """A tar of (name or TarInfo, content) pairs, as bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def link(kind):
    info = tarfile.TarInfo("d/link")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def zip_link():
    info = zipfile.ZipInfo("d/link")
    info.external_attr = 0o120777 << 16
    return info


ESCAPES = ["../out", "d/../../out", "/abs", "..\\out", "C:\\out", "d/..", "\\abs"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(
            (f"a{i}.tar", tar_of([("d/good", b"1"), (name, b"2")]))
            for i, name in enumerate(ESCAPES)
        ),
        *(
            (f"a{i}.zip", zip_of([("d/good", b"1"), (name, b"2")]))
            for i, name in enumerate(ESCAPES)
        ),
        ("symlink.tar", tar_of([(link(tarfile.SYMTYPE), b"")])),
        ("hardlink.tar.gz", tar_of([(link(tarfile.LNKTYPE), b"")], "w:gz")),
        ("device.tar", tar_of([(link(tarfile.CHRTYPE), b"")])),
        ("link.zip", zip_of([(zip_link(), "/etc/passwd")])),
        (
            "bomb.tar.gz",
            tar_of([("d/zeros", bytes(10**6)), ("d/more", bytes(10**6))], "w:gz"),
        ),
        ("bomb.zip", zip_of([("d/zeros", bytes(10**6)), ("d/more", bytes(10**6))])),
    ],
)
def test_archives_that_escape_link_or_expand_are_refused(
    tmp_path, monkeypatch, file, content
):
    monkeypatch.setattr(download, "MAX_BYTES", 1_500_000)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / file).write_bytes(content)
    with pytest.raises(
        ValueError, match="is a link, leaves its folder or is too large"
    ):
        download.read_archive(tmp_path / "inner" / file, ".*")
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(["inner", file])


@pytest.mark.parametrize("file", ["good.tar", "good.tar.gz", "good.zip"])
def test_honest_archives_are_read(tmp_path, file):
    members = [("d/a.txt", b"1"), ("d/b.bin", b"2")]
    (tmp_path / file).write_bytes(
        zip_of(members)
        if file.endswith("zip")
        else tar_of(members, "w:gz" if file.endswith("gz") else "w")
    )
    assert download.read_archive(tmp_path / file, r".+\.txt") == {"d/a.txt": b"1"}


# --- every data set in its own format -------------------------------------------------


def small_images(n, shape=(3, 32, 32)):
    return rng.integers(0, 256, (n, *shape), np.uint8)


@pytest.fixture
def cifar(server, monkeypatch):
    """Tiny CIFAR archives in the true format on the server; returns what is in them."""
    truth = {}
    for source, n_classes in (
        (torchvision.datasets.CIFAR10, 10),
        (torchvision.datasets.CIFAR100, 100),
    ):
        members = []

        def add(name, content, members=members, source=source):
            members.append(
                (f"{source.base_folder}/{name}", pickle.dumps(content, protocol=2))
            )
            return [name, md5(members[-1][1])]

        parts = []
        key = "labels" if n_classes == 10 else "fine_labels"
        lists = {"train_list": [], "test_list": []}
        for i, (listed, old) in enumerate(
            [
                *(("train_list", f) for f, _ in source.train_list),
                *(("test_list", f) for f, _ in source.test_list),
            ]
        ):
            images = small_images(20)
            labels = [int(k) for k in (np.arange(20) + i) % n_classes]
            lists[listed].append(
                add(
                    old,
                    {
                        "data": images.reshape(20, -1),
                        key: labels,
                        "batch_label": str(i),
                    },
                )
            )
            parts.append((images, labels))
        names = [f"class {k}" for k in range(n_classes)]
        meta = dict(
            source.meta,
            md5=add(source.meta["filename"], {source.meta["key"]: names})[1],
        )
        members.append((f"{source.base_folder}/readme.html", b"<html>"))
        archive = tar_of(members, "w:gz")
        server.files[source.filename] = archive
        for name, value in {
            **lists,
            "meta": meta,
            "tgz_md5": md5(archive),
            "url": server.url + source.filename,
        }.items():
            monkeypatch.setattr(source, name, value)
        truth[n_classes] = parts
    return truth


@pytest.mark.parametrize("n_classes", [10, 100])
def test_cifar(cifar, server, tmp_path, n_classes):
    name, parts = f"cifar{n_classes}", cifar[n_classes]
    splits = data.load(name, root=tmp_path)
    pool = sorted(
        x.tobytes() + bytes([y])
        for images, labels in parts[:-1]
        for x, y in zip(images, labels, strict=True)
    )
    assert sorted(rows(splits.train) + rows(splits.val)) == pool
    assert len(splits.val[1]) == len(pool) // 10
    np.testing.assert_array_equal(splits.test[0].numpy(), parts[-1][0])
    assert splits.test[1].tolist() == parts[-1][1]
    assert splits.class_names == tuple(f"class {k}" for k in range(n_classes))
    assert (splits.input_shape, splits.augment) == ((3, 32, 32), True)
    # one set of constants for all splits, the published training images' own
    torch.testing.assert_close(splits.mean, torch.tensor([0.4914, 0.4822, 0.4465]))
    torch.testing.assert_close(splits.std, torch.tensor([0.2023, 0.1994, 0.2010]))
    data.load(name, 2, root=tmp_path)
    assert server.asked == [0]  # the second time nothing is downloaded


def test_cifar_pickles_with_another_checksum_are_never_loaded(
    cifar, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        torchvision.datasets.CIFAR10, "test_list", [["test_batch", md5(b"")]]
    )
    monkeypatch.setattr(
        pickle, "load", lambda *_, **__: pytest.fail("a pickle was loaded")
    )
    with pytest.raises(RuntimeError, match="corrupted"):
        data.load("cifar10", root=tmp_path)


def test_the_root_may_come_from_the_environment(cifar, tmp_path, monkeypatch):
    monkeypatch.setenv("GCELIB_DATA_DIR", str(tmp_path))
    data.load("cifar10")
    assert (tmp_path / "cifar-10-python.tar.gz").exists()


def test_fashion_mnist(server, tmp_path, monkeypatch):
    source = torchvision.datasets.FashionMNIST
    resources = []
    truth = []
    for name, n in (("train", 30), ("t10k", 10)):
        images = small_images(n, (28, 28))
        labels = (np.arange(n) % 10).astype(np.uint8)
        truth.append((images, labels))
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = (
                bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            )
            file = f"{name}-{kind}-ubyte.gz"
            server.files[file] = gzip.compress(header + array.tobytes())
            resources.append((file, md5(server.files[file])))
    monkeypatch.setattr(source, "mirrors", [server.url])
    monkeypatch.setattr(source, "resources", resources)
    splits = data.load("fashion_mnist", root=tmp_path)
    assert (len(splits.train[1]), len(splits.val[1]), splits.input_shape) == (
        27,
        3,
        (1, 28, 28),
    )
    np.testing.assert_array_equal(splits.test[0].numpy()[:, 0], truth[1][0])
    pool = sorted(x.tobytes() + bytes([y]) for x, y in zip(*truth[0], strict=True))
    assert sorted(rows(splits.train) + rows(splits.val)) == pool
    raw = tmp_path / "FashionMNIST" / "raw" / resources[2][0]
    raw.write_bytes(raw.read_bytes()[:-5])  # truncated: noticed, and downloaded anew
    np.testing.assert_array_equal(
        data.load("fashion_mnist", root=tmp_path).test[0].numpy()[:, 0], truth[1][0]
    )


@pytest.fixture
def tiny_imagenet(server, monkeypatch):
    """A Tiny-ImageNet of 3 classes with 4 and 2 JPEGs each, one of them grey, in the
    true tree.
    """
    top = "tiny-imagenet-200"
    wnids = ["n03", "n01", "n02"]
    members = []
    truth = {}

    def jpeg(grey=False):
        out = io.BytesIO()
        Image.fromarray(small_images(1, (64, 64) if grey else (64, 64, 3))[0]).save(
            out, "JPEG"
        )
        return out.getvalue()

    def decoded(content):
        image = np.asarray(Image.open(io.BytesIO(content)))
        return (
            np.repeat(image[None], 3, 0)
            if image.ndim == 2
            else image.transpose(2, 0, 1)
        )

    members.append((f"{top}/wnids.txt", "\n".join(wnids) + "\n"))
    members.append(
        (
            f"{top}/words.txt",
            "n00\tunused\nn01\tgoldfish, Carassius auratus\nn02\ttoad\nn03\tbee\n",
        )
    )
    train = [
        (w, f"{w}_{i}.JPEG", jpeg(grey=w == "n02" and i == 0))
        for w in wnids
        for i in range(4)
    ]
    members += [(f"{top}/train/{w}/images/{f}", content) for w, f, content in train]
    members += [
        (f"{top}/train/{w}/{w}_boxes.txt", f"{w}_0.JPEG\t0\t0\t9\t9\n") for w in wnids
    ]
    val = [(wnids[i % 3], f"val_{i}.JPEG", jpeg()) for i in range(6)]
    members += [(f"{top}/val/images/{f}", content) for _, f, content in val]
    members.append(
        (
            f"{top}/val/val_annotations.txt",
            "".join(f"{f}\t{w}\t0\t0\t9\t9\n" for w, f, _ in val),
        )
    )
    members.append((f"{top}/test/images/test_0.JPEG", jpeg()))
    content = zip_of(members)
    server.files["tiny-imagenet-200.zip"] = content
    monkeypatch.setattr(
        sources, "TINY_IMAGENET", (f"{server.url}tiny-imagenet-200.zip", md5(content))
    )
    truth["train"] = sorted(
        decoded(c).tobytes() + bytes([sorted(wnids).index(w)]) for w, _, c in train
    )
    truth["val"] = [
        decoded(c).tobytes() + bytes([sorted(wnids).index(w)]) for w, _, c in val
    ]
    return truth


def test_tiny_imagenet(tiny_imagenet, server, tmp_path):
    splits = data.load("tiny_imagenet", root=tmp_path)
    assert sorted(rows(splits.train) + rows(splits.val)) == tiny_imagenet["train"]
    assert len(splits.val[1]) == 1
    # The official validation images are the test split.
    assert rows(splits.test) == tiny_imagenet["val"]
    assert splits.class_names == ("goldfish", "toad", "bee")  # sorted by wnid
    torch.testing.assert_close(splits.mean, torch.tensor([0.485, 0.456, 0.406]))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "tiny-imagenet-200.zip",
        "tiny-imagenet-200.zip.lock",
        "tiny_imagenet.npz",
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[: len(c) // 2],
        lambda c: b"",
        lambda c: c[:5000] + b"!!!!" + c[5004:],
    ],
)
def test_the_tiny_imagenet_cache_is_used_checked_and_made_anew(
    tiny_imagenet, server, tmp_path, damage
):
    first = data.load("tiny_imagenet", root=tmp_path)
    (tmp_path / "tiny-imagenet-200.zip").unlink()
    assert rows(data.load("tiny_imagenet", root=tmp_path).train) == rows(first.train)
    assert server.asked == [0]  # from the cache alone
    cache = tmp_path / "tiny_imagenet.npz"
    cache.write_bytes(damage(cache.read_bytes()))
    assert rows(data.load("tiny_imagenet", root=tmp_path).train) == rows(first.train)
    assert rows(data.load("tiny_imagenet", root=tmp_path).test) == rows(first.test)


# --- av1451 ---------------------------------------------------------------------------


def adni_table(n_subjects=60, seed=0):
    """Column names and rows of strings in the format that data/README.md asks for; some
    subjects have two scans.
    """
    random = np.random.default_rng(seed)
    columns = [f"CTX_{side}_REGION{k}_SUVR" for side in ("LH", "RH") for k in range(34)]
    header = [
        "RID",
        "VISCODE",
        "CTX_LH_UNKNOWN_SUVR",
        *columns,
        "DX",
        "CTX_LH_REGION0_VOLUME",
    ]
    table = []
    for subject in range(n_subjects):
        for scan in range(1 + (subject % 4 == 0)):
            values = [f"{v:.5f}" for v in random.normal(1.2, 0.3, 68)]
            dx = ["CN", "MCI", "AD", "Dementia"][random.integers(4)]
            table.append([str(4000 + subject), f"m{scan}", "", *values, dx, "2000"])
    return header, table


def write_csv(root, header, table):
    path = root / "av1451" / "av1451.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(",".join(row) for row in [header, *table]) + "\n")


def test_av1451_splits_by_subject_and_standardises_by_train(tmp_path):
    header, table = adni_table()
    write_csv(tmp_path, header, table)
    subject_of = {np.array(r[3:71], np.float32).tobytes(): r[0] for r in table}
    label_of = {
        np.array(r[3:71], np.float32).tobytes(): min(
            ["CN", "MCI", "AD", "Dementia"].index(r[71]), 2
        )
        for r in table
    }
    tests = []
    for seed in (1, 2):
        splits = data.load("av1451", seed, root=tmp_path)
        keys = [
            [x.tobytes() for x in part[0].numpy()]
            for part in (splits.train, splits.val, splits.test)
        ]
        subjects = [{subject_of[k] for k in part} for part in keys]
        assert sum(map(len, keys)) == len(table) == 75
        assert sum(map(len, subjects)) == len(set.union(*subjects)) == 60
        assert [len(k) for k in keys[1:]] in (
            [8, 8],
            [8, 9],
            [9, 8],
            [9, 9],
        )  # a tenth of 75, whole subjects
        for part, y in zip(
            keys, (splits.train[1], splits.val[1], splits.test[1]), strict=True
        ):
            assert [label_of[k] for k in part] == y.tolist()
        tests.append(subjects[2])
        x = data.normalize(splits.train[0], splits)
        assert (splits.input_shape, splits.n_classes, splits.augment) == (
            (68,),
            3,
            False,
        )
        torch.testing.assert_close(x.mean(0), torch.zeros(68), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            x.std(0, correction=0), torch.ones(68), atol=1e-5, rtol=0
        )
    assert tests[0] != tests[1]
    tail = data.load("av1451_lt3", root=tmp_path).train[1].bincount()
    assert tail.tolist() == data.long_tail_counts(int(tail[0]), 3, 3)


def test_another_file_of_av1451_is_another_result(tmp_path, monkeypatch):
    monkeypatch.setenv("GCELIB_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()

    def asked():
        return TrainConfig("av1451", device="cpu", runs_dir=tmp_path).settings()

    assert "data_fingerprint" not in asked()
    header, table = adni_table()
    seen = []
    for value in ("1.25", "1.5"):
        table[3][5] = value
        write_csv(tmp_path / "data", header, table)
        content = (tmp_path / "data" / "av1451" / "av1451.csv").read_bytes()
        assert asked()["data_fingerprint"] == hashlib.sha256(content).hexdigest()
        seen.append(asked())
    grid = {"dataset": "av1451"}
    (run_dir,) = sweeps.expand(grid, tmp_path)
    with runs.open_run(run_dir, seen[1], {}) as run:
        run.save_checkpoint({})
    assert list(sweeps.expand(grid, tmp_path)) == [run_dir]
    (tmp_path / "data" / "av1451" / "av1451.csv").unlink()  # looked at elsewhere
    assert list(sweeps.expand(grid, tmp_path)) == [run_dir]
    write_csv(tmp_path / "data", header, table[1:])
    with pytest.raises(ValueError, match="differs in data_fingerprint"):
        sweeps.expand(grid, tmp_path)


def test_av1451_without_the_licensed_file_names_the_steps(tmp_path):
    steps = r"No such file .*av1451.csv.*ADNI licenses it: data/README.md has the steps"
    with pytest.raises(FileNotFoundError, match=steps):
        data.load("av1451", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@FEW
@given(
    row=st.integers(0, 74),
    column=st.sampled_from([0, 3, 40, 70, 71]),
    hole=st.sampled_from(["", "NA", "x", "inf", "1;2"]),
)
def test_holes_are_refused_by_line_and_column(tmp_path_factory, row, column, hole):
    header, table = adni_table()
    table[row][column] = hole
    root = tmp_path_factory.mktemp("adni")
    write_csv(root, header, table)
    with pytest.raises(
        ValueError, match=rf"^av1451.csv: line {row + 2}, column {header[column]} has "
    ):
        data.load("av1451", root=root)


@pytest.mark.parametrize("drop", ["RID", "DX", "CTX_RH_REGION5_SUVR"])
def test_missing_columns_are_refused(tmp_path, drop):
    header, table = adni_table()
    k = header.index(drop)
    write_csv(
        tmp_path,
        header[:k] + header[k + 1 :],
        [row[:k] + row[k + 1 :] for row in table],
    )
    with pytest.raises(ValueError, match=r"av1451.csv: has 6[78] columns"):
        data.load("av1451", root=tmp_path)


def test_a_handful_of_subjects_and_other_files_are_refused(tmp_path):
    write_csv(tmp_path, *adni_table(5))
    with pytest.raises(ValueError, match="10 subjects"):
        data.load("av1451", root=tmp_path)
    for content in (b"", b"\xff\xfe\x00binary", b"a,b\n1,2\n", b"\n\n"):
        (tmp_path / "av1451" / "av1451.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"av1451\.csv: "):
            data.load("av1451", root=tmp_path)


# --- out of distribution --------------------------------------------------------------


def test_local_ood_sets_take_the_shape_of_the_data():
    for name in LOCAL:
        like = data.load(name)
        for other in data.DATASETS[name].ood:
            images = data.load_ood(other, like)
            assert images.dtype == torch.uint8
            assert images.shape[1:] == like.input_shape
            assert data.normalize(images, like).isfinite().all()
            assert torch.equal(images, data.load_ood(other, like))
    noise = data.load_ood("noise", like)
    assert len(noise) == len(like.test[1])
    assert abs(noise.float().mean() - 127.5) < 0.5
    digits = data.load("digits").test[0]
    like = data.load("fashion_mini")
    resized = data.load_ood("digits", like)
    assert len(resized) == len(digits)
    expected = tvf.resize(digits, [28, 28], antialias=True)
    assert (resized.int() - expected.int()).abs().max() <= 1
    rgb = data.load_ood("digits", toy(shape=(3, 8, 8)))
    torch.testing.assert_close(rgb, digits.expand(-1, 3, -1, -1), rtol=0, atol=0)


def test_features_have_no_ood_images():
    with pytest.raises(ValueError, match="like: 'toy' has no images"):
        data.load_ood("noise", toy(shape=(7,)))


def test_svhn(server, tmp_path, monkeypatch):
    from scipy.io import savemat

    images, out = small_images(12), io.BytesIO()
    savemat(
        out, {"X": images.transpose(2, 3, 1, 0), "y": (np.arange(12) % 10 + 1)[:, None]}
    )
    server.files["test_32x32.mat"] = out.getvalue()
    row = [f"{server.url}test_32x32.mat", "test_32x32.mat", md5(out.getvalue())]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", {"test": row})
    like = toy(shape=(3, 32, 32))
    np.testing.assert_array_equal(
        data.load_ood("svhn", like, root=tmp_path).numpy(), images
    )
    np.testing.assert_array_equal(
        torchvision.datasets.SVHN(tmp_path, "test").data, images
    )
    grey = data.load_ood("svhn", toy(shape=(1, 28, 28)), root=tmp_path)
    assert grey.shape == (12, 1, 28, 28)
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    server.files.clear()
    with pytest.raises(OSError, match=r"test_32x32\.mat"):
        data.load_ood("svhn", like, root=tmp_path)


def npy(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def test_cifar10_c(server, tmp_path, monkeypatch):
    arrays = {c: small_images(20, (32, 32, 3)) for c in data.CORRUPTIONS}
    members = [(f"CIFAR-10-C/{c}.npy", npy(a)) for c, a in arrays.items()]
    content = tar_of([*members, ("CIFAR-10-C/labels.npy", npy(np.arange(20) % 10))])
    server.files["CIFAR-10-C.tar"] = content
    monkeypatch.setattr(ood, "CIFAR10_C", (f"{server.url}CIFAR-10-C.tar", md5(content)))
    like = toy(shape=(3, 32, 32))
    for name, corruption, severity in (
        ("cifar10_c", "gaussian_noise", 5),
        ("cifar10_c:fog", "fog", 5),
        ("cifar10_c:jpeg_compression:2", "jpeg_compression", 2),
    ):
        expected = arrays[corruption][4 * severity - 4 : 4 * severity].transpose(
            0, 3, 1, 2
        )
        np.testing.assert_array_equal(
            data.load_ood(name, like, root=tmp_path).numpy(), expected
        )
    assert server.asked == [0]


def test_cifar10_c_never_unpickles(server, tmp_path, monkeypatch):
    objects = npy(np.array([{"a": 1}] * 5, object), allow_pickle=True)
    content = tar_of([("CIFAR-10-C/fog.npy", objects)])
    server.files["CIFAR-10-C.tar"] = content
    monkeypatch.setattr(ood, "CIFAR10_C", (f"{server.url}CIFAR-10-C.tar", md5(content)))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        data.load_ood("cifar10_c:fog", toy(shape=(3, 32, 32)), root=tmp_path)


# --- the documentation ----------------------------------------------------------------


def test_the_readme_names_every_data_set_and_checksum():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    heads = " ".join(re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE))
    for name in [*data.DATASETS, "svhn", "cifar10_c"]:
        assert f"\n| `{name}`" in text, f"{name}: a row of the table, please"
        assert f"`{name}`" in heads, f"{name}: a paragraph that begins with its name"
    published = torchvision.datasets
    checksums = [
        sources.FASHION_MINI_MD5,
        sources.TINY_IMAGENET[1],
        ood.CIFAR10_C[1],
        published.CIFAR10.tgz_md5,
    ]
    checksums += [published.CIFAR100.tgz_md5, published.SVHN.split_list["test"][2]]
    checksums += [checksum for _, checksum in published.FashionMNIST.resources]
    for checksum in checksums:
        assert checksum in text
