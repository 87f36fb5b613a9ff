import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vivit_mae import preprocess


def test_to_unit_is_exact_at_both_ends():
  levels = jnp.arange(256, dtype=jnp.uint8).reshape(1, 1, 16, 16, 1)
  unit = preprocess.to_unit(levels)
  assert unit.dtype == jnp.float32
  np.testing.assert_allclose(np.ravel(unit), np.arange(256) / 255, rtol=2e-7)
  assert (float(unit.min()), float(unit.max())) == (0.0, 1.0)


@pytest.mark.parametrize(
  ('mean', 'std'),
  [
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.5,), (0.25,)),
    ((0.5,), (0.1, 0.2, 0.4)),
    ((0, 0, 0), (1, 1, 1)),
  ],
)
def test_normalise_is_per_channel(mean, std):
  video = np.random.default_rng(0).random((2, 2, 4, 6, 3), np.float32)
  result = preprocess.normalise(jnp.asarray(video), mean, std)
  assert result.dtype == jnp.float32
  expected = (video.astype(np.float64) - mean) / std
  np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('mean', 'std'), [((0, 0), (1,)), ((0,), (1, 1))])
def test_normalise_counts_the_channels(mean, std):
  video = jnp.zeros((1, 2, 4, 4, 3))
  wrong = 'mean' if len(mean) == 2 else 'std'
  message = rf'preprocess\.{wrong} holds 2 values .* 3 channels: give 1 or 3'
  with pytest.raises(ValueError, match=message):
    preprocess.normalise(video, mean, std)


def _keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def test_soft_targets_are_those_of_timm():
  targets = preprocess.soft_targets(jnp.array([2, 0, -1]), 4, 0.1)
  on, off = 0.9 + 0.1 / 4, 0.1 / 4
  np.testing.assert_allclose(
    targets,
    [[off, off, on, off], [on, off, off, off], [off] * 4],
    rtol=1e-6,
  )
  several = preprocess.soft_targets(jnp.array([[1.0, 0.0, 1.0, 0.0]]), 4)
  np.testing.assert_array_equal(several, [[1, 0, 1, 0]])


@pytest.mark.parametrize(
  ('labels', 'smoothing', 'message'),
  [
    (jnp.zeros(2, jnp.int32), 1.0, r'smoothing is 1\.0; it is a share'),
    (jnp.zeros((2, 3)), 0.0, 'labels have 3 columns; there are 4 classes'),
  ],
)
def test_soft_targets_refuse(labels, smoothing, message):
  with pytest.raises(ValueError, match=message):
    preprocess.soft_targets(labels, 4, smoothing)


_BLANK = 100.0  # noise never reaches it


def _erased(count=1500, shape=(3, 40, 56), **options):
  """Which pixels were erased, [clip, frame, row, column], and the clips."""
  video = jnp.full((count, *shape, 1), _BLANK)
  erase = jax.jit(functools.partial(preprocess.erase, **options))
  result = np.asarray(erase(video, _keys(count)))
  return (result != _BLANK)[..., 0], result


def test_erased_boxes_have_the_published_statistics():
  gone, result = _erased()
  chosen = gone.any((1, 2, 3))
  assert abs(chosen.mean() - 0.25) < 0.04
  gone = gone[chosen]
  assert (gone == gone[:, :1]).all()  # one box for all frames
  rows, columns = gone[:, 0].any(2).sum(1), gone[:, 0].any(1).sum(1)
  areas = gone[:, 0].sum((1, 2))
  np.testing.assert_array_equal(areas, rows * columns)  # a whole rectangle
  share = areas / (40 * 56)
  assert 0.012 < share.min() < 0.05
  assert 0.28 < share.max() < 0.36
  assert abs(share.mean() - (0.02 + 1 / 3) / 2) < 0.02
  shape = np.log(rows / columns)
  assert np.abs(shape).max() < np.log(3.3) + 0.3
  assert abs(shape.mean()) < 0.15
  noise = result[chosen][gone]
  assert abs(noise.mean()) < 0.01
  assert abs(noise.std() - 1) < 0.01


def test_noise_is_new_in_each_frame_and_pixel():
  video = jnp.full((1, 3, 16, 16, 3), _BLANK)
  (clip,) = preprocess.erase(video, _keys(1), probability=1.0)
  values = np.asarray(clip)[np.asarray(clip) != _BLANK]
  assert len(values) > 9
  assert len(np.unique(values)) == len(values)


def test_boxes_of_single_frames():
  gone, _ = _erased(400, cube=False)
  assert abs(gone.any((2, 3)).mean() - 0.25) < 0.05
  both = gone[gone[:, 0].any((1, 2)) & gone[:, 1].any((1, 2))]
  assert (both[:, 0] != both[:, 1]).any()


def test_boxes_lie_anywhere():
  gone, _ = _erased(probability=1.0, area=(0.1, 0.1), aspect=(1.0, 1.0))
  for axis in (1, 2):
    share = gone[:, 0].any(axis).mean(0)
    assert share.min() > 0.005
    np.testing.assert_allclose(share, share[::-1], atol=0.06)


def test_erasing_zeros_or_nothing():
  _, result = _erased(50, mode='constant', probability=1.0)
  assert set(np.unique(result)) == {0, _BLANK}
  gone, _ = _erased(50, probability=0.0)
  assert not gone.any()


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'mode': 'noise'}, "'noise'; known are 'pixel', 'constant'"),
    ({'area': (0.5, 0.1)}, 'erasing area is'),
    ({'aspect': (0.0, 1.0)}, 'erasing aspect is'),
    ({'probability': 2.0}, r'erasing probability is 2\.0'),
  ],
)
def test_erasing_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    preprocess.erase(jnp.zeros((1, 1, 4, 4, 1)), _keys(1), **options)


def _mixed(count, batch=4, shape=(2, 12, 20), **options):
  """Each pixel's share of its own clip [draw, b, t, h, w], and the targets'.

  The clips are 1 in one channel each, and so are the targets.
  """
  video = jnp.broadcast_to(
    jnp.eye(batch)[:, None, None, None], (batch, *shape, batch)
  )

  @jax.jit
  @jax.vmap
  def draw(keys):
    return preprocess.mix(video, {'label': jnp.eye(batch)}, keys, **options)

  mixed, targets = draw(_keys(count * batch).reshape(count, batch))
  mixed, targets = np.asarray(mixed), np.asarray(targets['label'])
  # Nothing but the clip and its partner shines through.
  np.testing.assert_allclose(mixed.sum(-1), 1, rtol=1e-5)
  own = range(batch)
  shares = np.stack([mixed[:, i, ..., i] for i in own], 1)
  others = np.stack([mixed[:, i, ..., batch - 1 - i] for i in own], 1)
  np.testing.assert_allclose(others, 1 - shares, atol=1e-6)
  weights = targets[:, own, own]
  np.testing.assert_allclose(targets[:, own, own[::-1]], 1 - weights, atol=1e-6)
  # What the targets say is what is to be seen.
  np.testing.assert_allclose(shares.mean((2, 3, 4)), weights, atol=1e-5)
  return shares, weights


def test_mixup_blends_all_pixels_alike():
  shares, weights = _mixed(400, cutmix=0.0)
  np.testing.assert_allclose(
    shares, np.broadcast_to(shares[:, :1, :1, :1, :1], shares.shape), rtol=1e-6
  )
  weights = weights[:, 0]
  # Beta(.8, .8): mean 1/2, variance 1 / (4 * 2.6).
  assert abs(np.mean(weights) - 0.5) < 0.05
  assert abs(np.var(weights) - 1 / 10.4) < 0.02


def test_cutmix_shows_one_box_in_all_frames():
  shares, weights = _mixed(400, shape=(2, 24, 40), mixup=0.0)
  assert set(np.unique(shares)) == {0, 1}
  assert (shares == shares[:, :1, :1]).all()  # of all clips, too
  box = shares[:, 0, 0] == 0
  assert (box.sum((1, 2)) == box.any(2).sum(1) * box.any(1).sum(1)).all()
  assert box.any((1, 2)).mean() > 0.9
  kept = weights[:, 0]
  # More is kept than the mean of Beta(1, 1): boxes are cut at the frame's
  # edges, which leaves .68, and their sides are rounded down.
  assert 0.65 < np.mean(kept) < 0.76
  assert np.min(kept) < 0.2
  assert box.any(0).all()


def _by_box(shares):
  """Which draws took a box."""
  return np.isin(shares, (0, 1)).all((1, 2, 3, 4))


@pytest.mark.parametrize('switch', [0.5, 0.2])
def test_mixing_switches_between_the_two(switch):
  shares, _ = _mixed(400, switch=switch)
  assert abs(_by_box(shares).mean() - switch) < 0.08


def test_mixing_some_batches_or_none():
  _, weights = _mixed(400, cutmix=0.0, probability=0.4)
  assert abs(np.mean(weights < 1) - 0.4) < 0.08
  shares, _ = _mixed(1, mixup=0.0, cutmix=0.0)
  assert (shares == 1).all()


def test_mixing_of_rows_draws_for_each():
  _, weights = _mixed(50, cutmix=0.0, mode='row')
  assert len(np.unique(weights)) > 190
  shares, _ = _mixed(20, mixup=0.0, mode='row')
  assert (shares[:, :, 0] == shares[:, :, 1]).all()
  assert (shares[:, 0] != shares[:, 1]).any()


def test_mixing_blends_all_heads_alike():
  targets = {'verb': jnp.eye(3), 'noun': jnp.eye(3, 7)}
  _, mixed = preprocess.mix(jnp.zeros((3, 1, 8, 8, 3)), targets, _keys(3))
  assert mixed['noun'].shape == (3, 7)
  np.testing.assert_allclose(
    mixed['verb'][0, 0], mixed['noun'][0, 0], rtol=1e-6
  )
  # In an odd batch the middle clip is its own partner.
  np.testing.assert_allclose(mixed['verb'][1], [0, 1, 0], atol=1e-6)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'mode': 'pairs'}, "'pairs'; known are 'batch', 'row'"),
    ({'mixup': -1.0}, r'mixup is -1\.0; it is at least 0'),
    ({'switch': 1.5}, r'mixing switch is 1\.5'),
    ({'probability': -0.5}, r'mixing probability is -0\.5'),
  ],
)
def test_mixing_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    preprocess.mix(jnp.zeros((2, 1, 4, 4, 1)), {}, _keys(2), **options)


@pytest.mark.slow
def test_any_number_of_devices_gives_the_same():
  rng = np.random.default_rng(0)
  video = rng.standard_normal((8, 2, 16, 16, 3)).astype(np.float32)
  targets = np.eye(8, 5, dtype=np.float32)

  @functools.partial(jax.jit, static_argnames='mode')
  def augment(video, targets, keys, mode):
    erase_keys, mix_keys = (
      jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(2)
    )
    video = preprocess.erase(video, erase_keys, probability=0.7)
    return preprocess.mix(video, {'label': targets}, mix_keys, mode=mode)

  for mode in preprocess.MIX_MODES:
    results = []
    for count in (1, 8):
      mesh = Mesh(np.array(jax.devices()[:count]), ('data',))
      placed = jax.device_put(
        (video, targets, _keys(8)), NamedSharding(mesh, PartitionSpec('data'))
      )
      results.append(jax.device_get(augment(*placed, mode=mode)))
    for other in results[1:]:
      jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6),
        *(other, results[0]),
      )
    assert (results[0][0] != video).any((1, 2, 3, 4)).mean() > 0.5
