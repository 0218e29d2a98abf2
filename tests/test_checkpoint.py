"""What is saved comes back; what is damaged says so and changes nothing."""

import os
import struct
import zipfile

import numpy as np
import pytest

import minglow as mg
from minglow import archive, checkpoint
from minglow.checkpoint import CheckpointError
from minglow.testing import moved


def glow(seed=0, **options):
    options = {"levels": 2, "steps": 2, "hidden": 4, "permutation": mg.Shuffle, **options}
    return moved(mg.glow((4, 4, 1), rng=seed, **options), seed, 0.05)


def x():
    return np.random.default_rng(9).uniform(-0.5, 0.5, (5, 4, 4, 1))


@pytest.mark.parametrize("permutation", [mg.Shuffle, mg.InvConv1x1, mg.InvConv1x1LU, mg.Reverse])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_flow_comes_back_with_its_shuffles_and_signs(tmp_path, permutation, dtype):
    saved, other = (glow(seed, permutation=permutation, dtype=dtype) for seed in (0, 1))
    checkpoint.save(tmp_path / "model.npz", saved, {"model": "glow"})
    assert np.any(other.log_prob(x()) != saved.log_prob(x()))
    views = [value for _, module in other.walk() for value in module.params.values()]
    checkpoint.load(tmp_path / "model.npz", other)
    np.testing.assert_array_equal(other.log_prob(x()), saved.log_prob(x()))
    np.testing.assert_array_equal(other.sample(3, rng=0), saved.sample(3, rng=0))
    assert all(np.shares_memory(view, other.flat.value) for view in views)
    assert checkpoint.read(tmp_path / "model.npz").recipe == {"model": "glow"}


def test_saving_replaces_whole_files_and_leaves_no_other(tmp_path, monkeypatch):
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


def test_the_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a)))
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("replace"), replace(*a)))
    checkpoint.save(tmp_path / "model.npz", glow(), {})
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder's list of names


def test_parameters_in_another_order_are_another_flows(tmp_path):
    """Names, shapes and hashes agree, but every number would land in another's place."""
    path, flow = tmp_path / "model.npz", glow()
    checkpoint.save(path, flow, {})
    saved = checkpoint.read(path)
    swapped = saved._replace(parameters=dict(reversed(saved.parameters.items())))
    with pytest.raises(CheckpointError, match="another flow's parameters"):
        checkpoint.restore(swapped, flow)


def test_another_flow_is_refused_and_left_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "model.npz", glow(), {})
    for options, message in (
        ({"hidden": 5}, "another flow's parameters: .*weight"),
        ({"steps": 1}, "another flow's parameters"),
        ({"dtype": np.float64}, r"expected parameters as float64 \(\d+,\), got float32"),
    ):
        flow = glow(3, **options)
        before = flow.flat.value.copy()
        with pytest.raises(CheckpointError, match=f"model.npz: .*{message}"):
            checkpoint.load(tmp_path / "model.npz", flow)
        np.testing.assert_array_equal(flow.flat.value, before)


def test_every_flipped_byte_is_found(tmp_path):
    """Each is an error or changes nothing: no damage is loaded silently."""
    path, flow = tmp_path / "model.npz", glow(0, steps=1, levels=1)
    checkpoint.save(path, flow, {})
    whole = path.read_bytes()
    silent = []
    for place in np.random.default_rng(0).choice(len(whole), 300, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        other = glow(1, steps=1, levels=1)
        try:
            checkpoint.load(path, other)
        except CheckpointError as error:
            assert "\n" not in str(error) and "model.npz" in str(error)
            continue
        if not np.array_equal(other.flat.value, flow.flat.value):
            silent.append(place)
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
    changed = members["manifest.npy"].replace(b'"format": 2', b'"format": 9')
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, changed if name == "manifest.npy" else content)
    with pytest.raises(CheckpointError, match="expected checkpoint format 2, got 9"):
        checkpoint.read(path)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content[:-1] + b"?" if name == "parameters.npy" else content)
    with pytest.raises(CheckpointError, match="parameters differs from its manifest"):
        checkpoint.read(path)


def test_a_zip_that_points_before_its_own_start_is_damaged(tmp_path):
    """Python's zipfile then seeks to a negative place, which the system answers with an OSError."""
    path = tmp_path / "model.npz"
    checkpoint.save(path, glow(), {})
    content = bytearray(path.read_bytes())
    field = content.rfind(b"PK\5\6") + 16  # where its list of members begins
    struct.pack_into("<I", content, field, struct.unpack_from("<I", content, field)[0] + 10**6)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(path)


@pytest.mark.parametrize(("permutation", "name", "value", "expected"), [
    (mg.InvConv1x1, "parameters", np.nan, "finite, got NaN or inf"),
    (mg.Shuffle, "order", 0, "each channel once"),
    (mg.InvConv1x1LU, "sign", 0.5, "1 and -1"),
])
def test_numbers_that_make_no_bijection_are_refused(tmp_path, permutation, name, value, expected):
    """The file is whole and its hashes are right: it was saved so."""
    path = tmp_path / "model.npz"
    flow, other = glow(permutation=permutation), glow(permutation=permutation)
    before = other.flat.value.copy()
    arrays = [flow.flat.value, *(module.constants[name] for _, module in flow.walk()
                                 if name in module.constants)]
    arrays[0 if name == "parameters" else 1][...] = value
    checkpoint.save(path, flow, {})
    with pytest.raises(CheckpointError, match=expected):
        checkpoint.restore(checkpoint.read(path), other)
    assert np.array_equal(other.flat.value, before)


@pytest.mark.parametrize("part", ["recipe", "parameters", "facts"])
@pytest.mark.parametrize("value", ["affine", ["ab"], 3, None])
def test_a_manifest_of_other_kinds_is_refused(tmp_path, part, value):
    """dict("affine") is a ValueError of its own, dict(["ab"]) is {"a": "b"}."""
    path = tmp_path / "model.npz"
    manifest = {"format": 2, "recipe": {}, "parameters": {}, "facts": {}} | {part: value}
    archive.write(path, {"parameters": np.zeros(2)}, manifest)
    with pytest.raises(CheckpointError, match="recipe, parameters and facts by name"):
        checkpoint.read(path)
