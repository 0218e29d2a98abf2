"""What is saved can be loaded; a damaged file raises one line and changes nothing."""

import os
import struct
import zipfile

import numpy as np
import pytest

import minglow as mg
from minglow.storage import archive, checkpoint
from minglow.storage.checkpoint import CheckpointError, named_arrays
from minglow.testing import perturbed


def glow(seed=0, **options):
    options = {"levels": 2, "flow_steps": 2, "hidden": 4, "permutation": mg.Shuffle, **options}
    return perturbed(mg.glow((4, 4, 1), rng=seed, **options), seed, 0.05)


def x():
    return np.random.default_rng(9).uniform(-0.5, 0.5, (5, 4, 4, 1))


@pytest.mark.parametrize("permutation", [mg.Shuffle, mg.InvConv1x1, mg.InvConv1x1LU, mg.Reverse])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_flow_is_loaded_with_its_permutations_and_signs(tmp_path, permutation, dtype):
    saved, other = (glow(seed, permutation=permutation, dtype=dtype) for seed in (0, 1))
    checkpoint.save(tmp_path / "model.npz", saved, {"a": 1})
    assert np.any(other.log_prob(x()) != saved.log_prob(x()))
    views = [value for _, module in other.walk() for value in module.params.values()]
    mg.load(tmp_path / "model.npz", into=other)
    np.testing.assert_array_equal(other.log_prob(x()), saved.log_prob(x()))
    np.testing.assert_array_equal(other.sample(3, rng=0), saved.sample(3, rng=0))
    assert all(np.shares_memory(view, other.flat.value) for view in views)
    assert checkpoint.read(tmp_path / "model.npz").config == {"a": 1}


def test_saving_replaces_complete_files_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    checkpoint.save(path, glow(0), {})
    first = path.read_bytes()

    def disk_full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", disk_full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, glow(1), {})
    assert path.read_bytes() == first and list(tmp_path.iterdir()) == [path]


def test_the_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a)))
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("replace"), replace(*a)))
    checkpoint.save(tmp_path / "model.npz", glow(), {})
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder's list of names


def test_arrays_are_found_by_name_in_any_order(tmp_path):
    path, flow, other = tmp_path / "model.npz", glow(), glow(1)
    checkpoint.save(path, flow, {})
    saved = checkpoint.read(path)
    checkpoint.restore(saved._replace(module=dict(reversed(saved.module.items()))), other)
    np.testing.assert_array_equal(other.flat.value, flow.flat.value)


@pytest.mark.parametrize(("options", "message"), [
    ({"hidden": 5},
     r"expected bijection\..*weight as float32 \(5, 3, 3, 2\), got float32 \(4, 3, 3, 2\)"),
    ({"flow_steps": 1}, r"expected bijection\..* with the settings .*'Flatten'.*, got .*'ActNorm'"),
    ({"flow_steps": 3}, r"expected bijection\..* with the settings .*'Flatten'.*, got none"),
    ({"dtype": np.float64}, r"expected bijection\..*shift as float64 \(4,\), got float32"),
])
def test_another_flow_is_refused_and_not_changed(tmp_path, options, message):
    checkpoint.save(tmp_path / "model.npz", glow(), {})
    flow = glow(3, **options)
    before = {name: array.copy() for name, array in named_arrays(flow).items()}
    with pytest.raises(CheckpointError, match=f"model.npz: {message}"):
        mg.load(tmp_path / "model.npz", into=flow)
    for name, array in named_arrays(flow).items():
        np.testing.assert_array_equal(array, before[name])


def test_every_flipped_byte_is_found(tmp_path):
    """Each is an error or changes nothing: no damage is loaded silently."""
    path, flow = tmp_path / "model.npz", glow(0, flow_steps=1, levels=1)
    checkpoint.save(path, flow, {})
    intact = path.read_bytes()
    silent = []
    for position in np.random.default_rng(0).choice(len(intact), 300, replace=False):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        other = glow(1, flow_steps=1, levels=1)
        try:
            mg.load(path, into=other)
        except CheckpointError as error:
            assert "\n" not in str(error) and "model.npz" in str(error)
            continue
        if not np.array_equal(other.flat.value, flow.flat.value):
            silent.append(position)
    assert silent == []


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "model.npz"
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoint.read(path)
    for content in (b"", b"text", np.random.default_rng(0).bytes(500)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a minglow checkpoint"):
            checkpoint.read(path)
    np.savez(path, parameters=np.zeros(3))
    with pytest.raises(CheckpointError, match="not a minglow checkpoint"):
        checkpoint.read(path)
    checkpoint.save(path, glow(), {})
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    changed = members["manifest.npy"].replace(b'"format": 3', b'"format": 9')
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, changed if name == "manifest.npy" else content)
    with pytest.raises(CheckpointError, match="expected checkpoint format 3, got 9: another version"):
        checkpoint.read(path)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content[:-1] + b"?" if name.endswith("weight.npy") else content)
    with pytest.raises(CheckpointError, match="weight differs from its manifest"):
        checkpoint.read(path)


def test_a_zip_that_points_before_its_own_start_is_damaged(tmp_path):
    """Python's zipfile then seeks to a negative position, and the system raises an OSError."""
    path = tmp_path / "model.npz"
    checkpoint.save(path, glow(), {})
    content = bytearray(path.read_bytes())
    field = content.rfind(b"PK\5\6") + 16  # where its list of members begins
    struct.pack_into("<I", content, field, struct.unpack_from("<I", content, field)[0] + 10**6)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(path)


@pytest.mark.parametrize(("permutation", "name", "value", "expected"), [
    (mg.InvConv1x1, "weight", np.nan, r"bijection\.steps\.2\.weight to be finite, got NaN or inf"),
    (mg.Shuffle, "order", 0, r"bijection\.steps\.2: expected an order that holds each channel once"),
    (mg.InvConv1x1LU, "sign", 0.5, r"bijection\.steps\.2: expected signs 1 and -1"),
    (mg.InvConv1x1LU, "sign", np.inf, r"bijection\.steps\.2\.sign to be finite"),
])
def test_values_that_make_no_bijection_are_refused(tmp_path, permutation, name, value, expected):
    """The file is complete and its hashes are right: it was saved with these values."""
    path = tmp_path / "model.npz"
    flow, other = glow(permutation=permutation), glow(permutation=permutation)
    before = other.flat.value.copy()
    named_arrays(flow)[f"bijection.steps.2.{name}"][...] = value
    checkpoint.save(path, flow, {})
    with pytest.raises(CheckpointError, match=expected):
        checkpoint.restore(checkpoint.read(path), other)
    assert np.array_equal(other.flat.value, before)


@pytest.mark.parametrize("part", ["config", "settings", "facts"])
@pytest.mark.parametrize("value", ["affine", ["ab"], 3, None])
def test_a_manifest_of_other_types_is_refused(tmp_path, part, value):
    """dict("affine") raises a ValueError of Python's, dict(["ab"]) is {"a": "b"}."""
    path = tmp_path / "model.npz"
    manifest = {"format": 3, "config": {}, "settings": {}, "facts": {}}
    archive.write(path, {"a": np.zeros(2)}, manifest | {part: value})
    with pytest.raises(CheckpointError, match="config, settings and facts by name"):
        checkpoint.read(path)
    del manifest[part]
    archive.write(path, {"a": np.zeros(2)}, manifest)
    with pytest.raises(CheckpointError, match=f"its manifest lacks '{part}'"):
        checkpoint.read(path)


def test_an_archive_whose_members_are_compressed_is_refused(tmp_path):
    """Small and otherwise valid: only the way in which its members are stored is another."""
    flow = mg.glow((4, 4, 1), levels=1, flow_steps=1, hidden=2, rng=0)
    checkpoint.save(tmp_path / "a.npz", flow)
    with zipfile.ZipFile(tmp_path / "a.npz") as stored, \
            zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as compressed:
        for name in stored.namelist():
            compressed.writestr(name, stored.read(name))
    with pytest.raises(checkpoint.CheckpointError, match="expected uncompressed members"):
        checkpoint.read(tmp_path / "b.npz")
