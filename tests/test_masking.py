import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import masking

GRIDS = [(8, 14, 14), (8, 16, 16), (4, 6, 10), (2, 2, 2), (5, 4, 8)]
RATIOS = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95]


def _keys(count, seed=0):
  return jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(seed), jnp.arange(count)
  )


_sample = jax.jit(masking.sample, static_argnums=(1, 2, 3, 4))


def _draw(kind, ratio, grid, count=6, seed=0, rounding='masked_down'):
  return _sample(_keys(count, seed), kind, ratio, grid, rounding)


def _possible(kind, ratio, grid, rounding='masked_down'):
  sites = {'tube': grid[1] * grid[2], 'frame': grid[0], 'running_cell': 4}
  sites = sites.get(kind, grid[0] * grid[1] * grid[2])
  if rounding == 'masked_down':
    return 0 < int(ratio * sites) < sites
  return 0 < int(sites * (1 - ratio)) < sites


def _as_bool(indices, grid):
  out = np.zeros((len(indices), grid[0] * grid[1] * grid[2]), bool)
  np.put_along_axis(out, np.asarray(indices), True, axis=1)
  return out.reshape(-1, *grid)


@pytest.mark.parametrize('rounding', masking.ROUNDINGS)
@pytest.mark.parametrize('kind', masking.KINDS)
def test_counts_are_static_or_refused(kind, rounding):
  for ratio, grid in itertools.product(RATIOS, GRIDS):
    if _possible(kind, ratio, grid, rounding):
      visible = masking.num_visible(kind, ratio, grid, rounding)
      sites = {'tube': grid[1] * grid[2], 'frame': grid[0], 'running_cell': 4}
      each = math.prod(grid) // sites.get(kind, math.prod(grid))
      masked = int(ratio * (math.prod(grid) // each)) * each
      assert isinstance(visible, int)
      if rounding == 'masked_down':
        assert visible == math.prod(grid) - masked
      else:
        assert math.prod(grid) - masked - each <= visible
        assert visible <= math.prod(grid) - masked
    else:
      with pytest.raises(ValueError, match='mask ratio'):
        masking.num_visible(kind, ratio, grid, rounding)


@pytest.mark.parametrize(
  ('grid', 'ratio', 'rounding'),
  [((8, 14, 14), 0.9, 'visible_down'), ((5, 4, 6), 0.5, 'masked_down')],
)
@pytest.mark.parametrize('kind', masking.KINDS)
def test_partition_is_complete_and_ascending(kind, grid, ratio, rounding):
  if not _possible(kind, ratio, grid, rounding):
    ratio = 0.5
  mask = _draw(kind, ratio, grid, rounding=rounding)
  visible = masking.num_visible(kind, ratio, grid, rounding)
  assert mask.visible.shape == (6, visible)
  assert mask.masked.shape == (6, math.prod(grid) - visible)
  assert mask.visible.dtype == mask.masked.dtype == jnp.int32
  assert mask.decoded is None
  for side in (np.asarray(mask.visible), np.asarray(mask.masked)):
    assert (side[:, 1:] > side[:, :-1]).all()
  both = np.concatenate([mask.visible, mask.masked], axis=1)
  assert (np.sort(both, axis=1) == np.arange(math.prod(grid))).all()


@pytest.mark.parametrize(
  ('kind', 'grid', 'rounding', 'expected'),
  [
    ('tube', (8, 14, 14), 'masked_down', 160),
    ('tube', (8, 16, 16), 'masked_down', 208),
    ('random', (8, 14, 14), 'masked_down', 157),
    ('random', (8, 14, 14), 'visible_down', 156),
    ('frame', (8, 14, 14), 'masked_down', 196),
    ('block', (8, 14, 14), 'masked_down', 157),
  ],
)
def test_published_counts_at_ratio_nine_tenths(kind, grid, rounding, expected):
  # reference: videomae.md, 2.0 and 2.2
  assert masking.num_visible(kind, 0.9, grid, rounding) == expected


def test_tube_is_the_same_in_every_frame():
  grid = (8, 14, 14)
  visible = _as_bool(_draw('tube', 0.9, grid).visible, grid)
  assert (visible == visible[:, :1]).all()
  assert len({row.tobytes() for row in visible}) == len(visible)


def test_frame_keeps_whole_frames():
  visible = _as_bool(_draw('frame', 0.75, (8, 4, 4)).visible, (8, 4, 4))
  kept = visible.reshape(-1, 8, 16)
  assert (kept.all(-1) | ~kept.any(-1)).all()
  assert (kept.all(-1).sum(-1) == 2).all()


@pytest.mark.parametrize('kind', ['tube', 'random', 'frame'])
def test_uniform_over_positions(kind):
  grid, count = (4, 4, 4), 4000
  visible = _as_bool(_draw(kind, 0.75, grid, count).visible, grid)
  share = visible.mean(0)
  # Five standard deviations of a binomial of p = 1/4.
  np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / count))


def test_random_masks_have_no_correlation_between_tokens():
  grid, count = (2, 4, 4), 4000
  visible = _as_bool(_draw('random', 0.5, grid, count).visible, grid)
  flat = visible.reshape(count, -1)
  correlation = np.corrcoef(flat.T)
  off = correlation[~np.eye(32, dtype=bool)]
  np.testing.assert_allclose(off, -1 / 31, atol=6 / np.sqrt(count))


@pytest.mark.parametrize('ratio', [0.25, 0.5, 0.75])
def test_blocks_hang_together(ratio):
  grid = (8, 14, 14)
  count = 16

  def agreement(kind):
    masked = _as_bool(_draw(kind, ratio, grid, count).masked, grid)
    return np.mean(
      [
        (np.diff(masked.astype(int), axis=axis) == 0).mean()
        for axis in (1, 2, 3)
      ]
    )

  assert agreement('block') > 0.85
  assert agreement('random') < 0.7


def test_block_masks_differ_and_reach_everywhere():
  grid = (4, 8, 8)
  masked = _as_bool(_draw('block', 0.5, grid, 400).masked, grid)
  assert len({row.tobytes() for row in masked}) == 400
  share = masked.mean(0)
  assert share.min() > 0.1
  assert share.max() < 0.9


def test_running_cell_maps():
  # reference: videomae.md 2.2; 1 = masked
  expected = np.array(
    [[[1, 0], [0, 1]], [[0, 0], [1, 1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]]]
  )
  grid = (8, 14, 14)
  mask = _draw('running_cell', 0.5, grid, 64)
  assert mask.visible.shape == (64, 784)
  masked = _as_bool(mask.masked, grid).astype(int)
  cells = np.tile(expected, (2, 1, 1))
  maps = [
    np.tile(np.roll(cells, -start, axis=0), (1, 7, 7)) for start in range(4)
  ]
  found = [
    [i for i, each in enumerate(maps) if (row == each).all()] for row in masked
  ]
  assert all(len(each) == 1 for each in found)
  assert {each[0] for each in found} == {0, 1, 2, 3}
  # Each place is decoded in half of the frames.
  assert (masked.sum(1) == 4).all()


def test_running_cell_with_a_tube_gives_the_published_loss_count():
  # reference: videomae.md 2.2: 704 of 784 decoded tokens are masked
  grid = (8, 14, 14)
  mask = masking.with_decoder(
    _draw('tube', 0.9, grid), _draw('running_cell', 0.5, grid, seed=1)
  )
  assert mask.decoded is not None
  assert mask.decoded.shape == (6, 784)
  hidden = _as_bool(mask.masked, grid) & _as_bool(mask.decoded, grid)
  assert (hidden.sum((1, 2, 3)) == 704).all()


@pytest.mark.parametrize('kind', masking.KINDS)
def test_a_row_key_gives_one_mask_whatever_its_batch(kind):
  grid, keys = (4, 4, 4), _keys(6)
  whole = masking.sample(keys, kind, 0.75, grid)
  mixed = _sample(keys[jnp.array([4, 3, 0])], kind, 0.75, grid)
  mapped = jax.jit(
    jax.vmap(lambda key: masking.sample(key[None], kind, 0.75, grid))
  )(keys)
  np.testing.assert_array_equal(whole.visible, mapped.visible[:, 0])
  np.testing.assert_array_equal(whole.masked, mapped.masked[:, 0])
  np.testing.assert_array_equal(whole.visible[3], mixed.visible[1])
  np.testing.assert_array_equal(whole.masked[4], mixed.masked[0])


def test_keeps_rectangle():
  assert [kind for kind in masking.KINDS if masking.keeps_rectangle(kind)] == [
    'tube'
  ]


def test_errors_say_what_would_do():
  with pytest.raises(ValueError, match=r"'tubes' is unknown.*'tube'"):
    masking.num_visible('tubes', 0.9, (8, 14, 14))
  with pytest.raises(ValueError, match=r"'up' is unknown.*'visible_down'"):
    masking.num_visible('tube', 0.9, (8, 14, 14), 'up')
  with pytest.raises(ValueError, match='between 1 and 7'):
    masking.sample(_keys(1), 'frame', 0.05, (8, 14, 14))
  with pytest.raises(ValueError, match='between 1 and 195'):
    masking.num_visible('tube', 1.0, (8, 14, 14))
  with pytest.raises(ValueError, match='must be even, not 7 and 14'):
    masking.num_visible('running_cell', 0.5, (8, 7, 14))
