"""Published networks: small files of the same forms, made here."""

import hashlib
import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gcelib import PUBLISHED, published_logits
from gcelib.study import published

ROOT = Path(__file__).resolve().parents[1]


def sample(n=50, k=10, seed=0):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(k, 0.2), n).astype(np.float32)
    probs[0] = np.eye(k)[3]  # exactly certain
    return probs, rng.integers(0, k, n)


def as_csv(rows):
    lines = [",".join(repr(float(v)) for v in np.atleast_1d(row)) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def as_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def put(file, content, folder):
    """``content`` in the place of a published file, and the row that asks for it."""
    (folder / file.file_name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return replace(file, n_bytes=len(content), sha256=digest)


@pytest.mark.parametrize(
    "name",
    [
        "lenet5_cifar10",
        "resnet18_cifar10",
        "cross_validated_mnist",
        "vgg16_keras_cifar10",
    ],
)
def test_every_form_is_read(name, tmp_path, monkeypatch):
    probs, labels = sample()
    network = PUBLISHED[name]
    content = {
        ".npz": as_npz(predictions=probs, ground_truth=labels[:, None]),
        ".csv": as_csv(probs),
        ".npy": as_npy(probs),
        ".dat": pickle.dumps((probs, labels[:, None]), protocol=2),
    }[Path(network.outputs.path).suffix]
    row = replace(network, outputs=put(network.outputs, content, tmp_path))
    if network.labels:
        own = as_csv(labels + 1) if name.startswith("resnet") else as_npy(labels)
        row = replace(row, labels=put(network.labels, own, tmp_path))
    monkeypatch.setitem(PUBLISHED, name, row)
    logits, found = published_logits(name, tmp_path)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(found, labels)
    expected = np.log((probs / probs.sum(1, keepdims=True, dtype=float)).clip(1e-45))
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_a_pickle_may_hold_arrays_only(tmp_path, monkeypatch):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    network = PUBLISHED["vgg16_keras_cifar10"]
    row = replace(
        network, outputs=put(network.outputs, pickle.dumps(Harmful()), tmp_path)
    )
    monkeypatch.setitem(PUBLISHED, "vgg16_keras_cifar10", row)
    with pytest.raises(ValueError, match="pickle: asks for"):
        published_logits("vgg16_keras_cifar10", tmp_path)
    assert not (tmp_path / "harm").exists()


def test_only_the_published_bytes_are_taken(tmp_path):
    file = PUBLISHED["lenet5_cifar10"].outputs
    (tmp_path / file.file_name).write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not the published file"):
        published_logits("lenet5_cifar10", tmp_path)


def test_a_download_that_fails_says_where_to_put_the_file(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(published.urllib.request, "urlopen", no_network)
    with pytest.raises(
        OSError, match=r"the download failed \(no route\); try again, or"
    ):
        published_logits("lenet5_cifar10", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_download_is_kept_once_it_is_whole(tmp_path, monkeypatch):
    probs, labels = sample()
    content = as_npz(predictions=probs, ground_truth=labels)
    network = PUBLISHED["lenet5_cifar10"]
    digest = hashlib.sha256(content).hexdigest()
    file = replace(network.outputs, n_bytes=len(content), sha256=digest)
    monkeypatch.setitem(PUBLISHED, "lenet5_cifar10", replace(network, outputs=file))
    served = [content[:-1], content]
    monkeypatch.setattr(
        published.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(served.pop(0))
    )
    with pytest.raises(ValueError, match="what came is not the published file"):
        published_logits("lenet5_cifar10", tmp_path)
    assert not list(tmp_path.iterdir())
    published_logits("lenet5_cifar10", tmp_path)
    # From the folder: nothing is left to serve.
    published_logits("lenet5_cifar10", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [file.file_name]


def test_the_committed_list_of_sources_is_the_registry():
    assert (ROOT / "data" / "published.csv").read_text() == published.sources_table()
    assert len(PUBLISHED) == 22


def test_an_unknown_network_gets_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'resnet18_cifar10'"):
        published_logits("resnet18_cifar")


def test_the_committed_measurements_are_whole_splits_of_known_networks():
    import pandas as pd

    table = pd.read_csv(ROOT / "data" / "results" / "real_networks.csv")
    assert set(table.network) <= set(PUBLISHED)
    keys = ["network", "n_val", "split", "calibrator"]
    assert not table.duplicated(keys).any()
    per_group = table.groupby(["n_val", "split", "calibrator"]).network.nunique()
    assert (per_group == table.network.nunique()).all()
    mean = table[table.n_val == 5000].groupby("calibrator").ece.mean()
    assert (
        mean["ats_converged"]
        < mean["spline"]
        < mean["ats"]
        < mean["ts_ece"]
        < mean["raw"]
    )
